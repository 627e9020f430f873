"""Tasks of the event loop: those that run beside a block, and those that somebody started and waits for at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def heeding(waiting: Awaitable[T]) -> T:
    """Await what may forget that it was cancelled; raises CancelledError then.

    ``asyncio.wait_for`` of Python 3.11, by which nats-py waits for messages and answers, gives the result that comes
    together with the cancellation (https://github.com/python/cpython/issues/86296): whoever cancelled waits for ever.
    """
    task = asyncio.current_task()
    cancelled = task.cancelling() if task else 0
    result = await waiting
    if task is not None and task.cancelling() > cancelled:
        raise asyncio.CancelledError
    return result


async def to_its_end(work: Awaitable[T]) -> T:
    """Await work that cannot be cancelled, as a thread's; whoever is cancelled meanwhile is so when it has ended.

    So what the work uses may be let go of behind it.
    """
    working = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        while not working.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([working])
        if not working.cancelled():
            working.exception()  # which nobody asks for any more
        raise


class Tasks:
    """Tasks that were started and not waited for; the loop itself would let go of them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, coroutine: Coroutine[Any, Any, None], name: str | None = None) -> asyncio.Task[None]:
        """Begin one more."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def wait(self, timeout_s: float | None = None) -> None:
        """Let all of them end, those too that are started meanwhile; for at most ``timeout_s`` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._tasks:
                    await asyncio.wait(self._tasks)

    async def cancel(self) -> None:
        """End what still runs, and wait for it."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def running(loop: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Run ``loop`` as a task of that name while the block runs: neither outlives the other.

    The block's end cancels the loop; the loop's failure cancels the block. Raises what failed first, as itself: a bare
    TaskGroup around ``yield`` would wrap each error of the block in an ExceptionGroup, once for every resource that is
    open, so that no caller could catch the error it expects.
    """
    failure: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(loop, name=name)
            try:
                yield
            finally:
                task.cancel()
    except BaseExceptionGroup as failures:
        failure = failures.exceptions[0]
    if failure is not None:  # raised here, so that its own cause and context stay as they were
        raise failure
