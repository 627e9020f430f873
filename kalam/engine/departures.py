"""Whoever leaves before the answer cancels the query."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from kalam.query.running import RunningQuery

LOOK_AFTER_S: Final = 0.1
"""Most answers are there before anybody has to look."""

Departure = Callable[[], Awaitable[None]]
"""Returns when whoever asked is gone; a door knows how to tell."""


@contextmanager
def ended_by(departure: Departure | None, query: RunningQuery) -> Iterator[None]:
    """Cancel the query if whoever asked leaves during the block."""
    if departure is None:
        yield
        return
    watching: asyncio.Task[None] | None = None

    def watch() -> None:
        nonlocal watching
        watching = asyncio.create_task(_watch(departure, query), name=f"who asked for {query.query_id}")

    timer = asyncio.get_running_loop().call_later(LOOK_AFTER_S, watch)
    try:
        yield
    finally:
        timer.cancel()
        if watching is not None:
            watching.cancel()


async def _watch(departure: Departure, query: RunningQuery) -> None:
    await departure()
    query.cancel()
