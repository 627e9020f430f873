"""The requests that run: listed for ``system.queries``, and cancelled from outside.

Whoever takes a request in hand puts a ``RunningQuery`` into the context; what waits for a worker does so inside
``interruptible``. Only reading can be interrupted: a statement that is about to be committed is not, so that nobody
reads "cancelled" of what took effect.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec

from kalam.access.model import Privilege
from kalam.errors import AlreadyExists, Cancelled, NotFound

SHOWN_CHARACTERS_MAX = 10_000


class RunningQuery(msgspec.Struct, eq=False):
    """A request that may be cancelled.

    ``query_id`` names it; ``rows`` counts what was read for it, ``uses`` are the tables (ids) that it reads or changes,
    each with the user who may and the right to it; of ``lent`` that is the owner of a view. What ``tells`` names what
    its user may see, whatever that is.
    """

    query_id: str
    user: str
    door: str
    sql: str
    started_us: int = msgspec.field(default_factory=lambda: time.time_ns() // 1000)
    rows: int = 0
    state: str = "working"
    memory_bytes: Callable[[], int] = lambda: 0
    uses: set[tuple[str, Privilege, int]] = msgspec.field(default_factory=set)
    lent: set[tuple[str, Privilege, int]] = msgspec.field(default_factory=set)
    tells: bool = False
    _cancelled: bool = False
    _task: asyncio.Task[object] | None = None

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


def running_query() -> RunningQuery | None:
    """The query that is running in this context, if there is one."""
    return _CURRENT.get()


@contextmanager
def interruptible() -> Iterator[None]:
    """Let the query that is running in this context, if there is one, be cancelled in the block."""
    running = _CURRENT.get()
    if running is None:
        yield
        return
    with running.interruptible():
        yield


@contextmanager
def in_state(state: str, memory_bytes: Callable[[], int] = lambda: 0) -> Iterator[None]:
    """Show the query of this context in a state: ``waiting`` for a place, or ``running`` in a process of its own."""
    running = _CURRENT.get()
    if running is None:
        yield
        return
    former = running.state, running.memory_bytes
    running.state, running.memory_bytes = state, memory_bytes
    try:
        yield
    finally:
        running.state, running.memory_bytes = former


def note_use(user: str, privilege: Privilege, table_id: int) -> None:
    """Note that the request of this context reads or changes a table, by the right of a user."""
    running = _CURRENT.get()
    if running is not None:
        running.uses.add((user, privilege, table_id))


def note_lent(owner: str, table_id: int) -> None:
    """Note that the request of this context reads a table through a view, by the right of its owner."""
    running = _CURRENT.get()
    if running is not None:
        running.lent.add((owner, Privilege.SELECT, table_id))


def note_telling() -> None:
    """Note that the request of this context tells what its user may see."""
    running = _CURRENT.get()
    if running is not None:
        running.tells = True


def note_rows(rows: int) -> None:
    """Count rows that were read for the query of this context."""
    running = _CURRENT.get()
    if running is not None:
        running.rows += rows


class RunningQueries:
    """The requests that run. Ids are each user's own: what others call theirs is not told, and is in nobody's way."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], RunningQuery] = {}

    def start(self, query_id: str, user: str, door: str, sql: str) -> RunningQuery:
        """Take a request up and make it this context's; raises AlreadyExists for an id that the user has in use."""
        if (user, query_id) in self._running:
            raise AlreadyExists(f"a query with the id {query_id} is running")
        running = self._running[user, query_id] = RunningQuery(query_id, user, door, sql)
        _CURRENT.set(running)
        return running

    def end(self, running: RunningQuery) -> None:
        """The request is answered."""
        self._running.pop((running.user, running.query_id), None)

    @contextmanager
    def running(self, query_id: str, user: str, door: str, sql: str) -> Iterator[RunningQuery]:
        """Have a request running in the block."""
        running = self.start(query_id, user, door, sql)
        try:
            yield running
        finally:
            self.end(running)
            _CURRENT.set(None)

    def cancel(self, query_id: str, user: str, may_cancel: Callable[[RunningQuery], bool]) -> None:
        """Cancel a request of a user's own, else those of others that may be cancelled; raises NotFound."""
        own = self._running.get((user, query_id))
        others = (each for each in self if each.query_id == query_id and may_cancel(each))
        found = list(others) if own is None else [own]
        if not found:
            raise NotFound(f"no query with the id {query_id[:80]} is running", hint="SHOW QUERIES lists them")
        for running in found:
            running.cancel()

    def __iter__(self) -> Iterator[RunningQuery]:
        """All of them, oldest first."""
        return iter(list(self._running.values()))
