"""Inserts into a copy that wait for a moment, in their order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")
CopyName = tuple[int, str]


class Holds:
    """The copies whose inserts wait, and what waits."""

    def __init__(self) -> None:
        self._waiting: dict[CopyName, list[Callable[[], None]]] = {}
        self._ends: dict[CopyName, asyncio.Event] = {}

    @asynccontextmanager
    async def holding(self, copy: CopyName) -> AsyncIterator[None]:
        """Have inserts into a copy wait; then each is begun, in order, before any that comes after them."""
        self._waiting[copy], self._ends[copy] = [], asyncio.Event()
        try:
            yield
        finally:
            waiting = self._waiting.pop(copy)
            self._ends.pop(copy).set()
            for begin in waiting:
                begin()

    def behind(self, copy: CopyName, begin: Callable[[], Awaitable[T]]) -> Awaitable[T] | None:
        """What an insert gives that is begun when the copy is free; None if it is."""
        waiting = self._waiting.get(copy)
        if waiting is None:
            return None
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def go() -> None:
            try:
                task = asyncio.ensure_future(begin())
            except Exception as exc:  # noqa: BLE001 - whoever waits is told
                if not future.done():
                    future.set_exception(exc)
            else:
                task.add_done_callback(lambda done: _pass_on(done, future))

        waiting.append(go)
        return future

    async def ended(self, copy: CopyName) -> None:
        """Wait until the copy is free."""
        while (end := self._ends.get(copy)) is not None:
            await end.wait()


def _pass_on(done: asyncio.Future[Any], future: asyncio.Future[Any]) -> None:
    if future.done():
        return
    if done.cancelled():
        future.cancel()
    elif (error := done.exception()) is not None:
        future.set_exception(error)
    else:
        future.set_result(done.result())
