"""Cancelling a query from outside.

Whoever takes a request in hand puts a ``RunningQuery`` into the context; what waits for DataFusion does so inside
``interruptible``. Only reading can be interrupted: a statement that is about to be committed is not, so that nobody
reads "cancelled" of what took effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from kalam.errors import AlreadyExists, Cancelled, NotFound


class RunningQuery:
    """A request that may be cancelled. ``query_id`` names it."""

    def __init__(self, query_id: str) -> None:
        self.query_id = query_id
        self._cancelled = False
        self._task: asyncio.Task[object] | None = None

    def cancel(self) -> None:
        """Stop what is being read, or what would be read next."""
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let ``cancel`` end the block, which then raises Cancelled."""
        if self._cancelled:
            raise self._error()
        task = asyncio.current_task()
        self._task = task
        try:
            yield
        except asyncio.CancelledError:
            if not self._cancelled or task is None or task.uncancel() > 0:
                raise
            raise self._error() from None
        finally:
            self._task = None

    def _error(self) -> Cancelled:
        return Cancelled(f"query {self.query_id} was cancelled")


_CURRENT: ContextVar[RunningQuery | None] = ContextVar("running_query", default=None)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let the query that is running in this context, if there is one, be cancelled in the block."""
    running = _CURRENT.get()
    if running is None:
        yield
        return
    with running.interruptible():
        yield


class RunningQueries:
    """The requests that run, by id."""

    def __init__(self) -> None:
        self._running: dict[str, RunningQuery] = {}

    def start(self, query_id: str) -> RunningQuery:
        """Take a request up and make it this context's; raises AlreadyExists for an id that is in use."""
        if query_id in self._running:
            raise AlreadyExists(f"a query with the id {query_id} is running")
        running = self._running[query_id] = RunningQuery(query_id)
        _CURRENT.set(running)
        return running

    def end(self, running: RunningQuery) -> None:
        """The request is answered."""
        self._running.pop(running.query_id, None)

    def cancel(self, query_id: str) -> None:
        """Cancel a request; raises NotFound."""
        running = self._running.get(query_id)
        if running is None:
            raise NotFound(f"no query with the id {query_id} is running")
        running.cancel()
