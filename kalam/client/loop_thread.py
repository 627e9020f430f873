"""A thread with an event loop, for callers who have none.

The law: a call waits in the caller's thread, which ^C therefore reaches at once; what it waited for is then cancelled.
What is raised in the loop is raised in the caller as the same object.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, Generic, Self, TypeVar

from kalam.errors import BrokerUnavailable, Unsupported

LOOK_S = 0.25
"""How often who waits looks up: a signal that comes just before a thread waits for a lock does not wake it."""
Result = TypeVar("Result")


class LoopThread:
    """Runs coroutines for other threads, from the beginning of a ``with`` block to its end."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._begun = threading.Event()
        self._taking = threading.Lock()  # what is taken is begun before the end
        self._thread = threading.Thread(target=self._serve, name="kalam client", daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        self._begun.wait()
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel what still runs, and wait until the thread has ended."""
        with self._taking:
            loop, self._loop = self._loop, None
            if loop is not None and self._end is not None:
                loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of a coroutine; raises what it raised, and BrokerUnavailable once the block has ended."""
        if threading.current_thread() is self._thread:
            work.close()
            raise Unsupported("what reads the rows of an insert cannot use the same connection: read them before")
        call: _Call[Result] = _Call(work)
        loop = self._loop
        try:
            with self._taking:
                if loop is None or self._loop is None:
                    work.close()
                    raise BrokerUnavailable("the connection was closed")
                loop.call_soon_threadsafe(call.begin)
            while not call.answered.done():
                concurrent.futures.wait([call.answered], LOOK_S)
            return call.answered.result()
        except concurrent.futures.CancelledError as exc:
            raise BrokerUnavailable("the connection was closed") from exc
        except KeyboardInterrupt:
            if loop is not None:
                loop.call_soon_threadsafe(call.cancel)
                concurrent.futures.wait([call.answered])
            raise

    def _serve(self) -> None:
        asyncio.run(self._until_the_end())

    async def _until_the_end(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self._begun.set()
        await self._end.wait()


class _Call(Generic[Result]):
    """A coroutine in the loop, and who waits for it in another thread."""

    def __init__(self, work: Coroutine[Any, Any, Result]) -> None:
        self._work = work
        self._task: asyncio.Task[Result] | None = None
        self.answered: concurrent.futures.Future[Result] = concurrent.futures.Future()

    def begin(self) -> None:
        self._task = asyncio.create_task(self._work, name="a call from another thread")
        self._task.add_done_callback(self._answer)

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        else:
            self._work.close()
            self.answered.set_exception(concurrent.futures.CancelledError())

    def _answer(self, task: asyncio.Task[Result]) -> None:
        if task.cancelled():
            self.answered.set_exception(concurrent.futures.CancelledError())
        elif (error := task.exception()) is not None:
            self.answered.set_exception(error)
        else:
            self.answered.set_result(task.result())
