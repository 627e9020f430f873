"""A client that leaves before its answer cancels its query."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from starlette.types import Receive

from kalam.query.running import RunningQuery

LOOK_AFTER_S: Final = 0.1
"""Most answers are there before anybody has to look."""


@contextmanager
def ended_with_client(query: RunningQuery, receive: Receive) -> Iterator[None]:
    """Cancel the query if its client leaves during the block. The whole body must have been received."""
    watching: asyncio.Task[None] | None = None

    def watch() -> None:
        nonlocal watching
        watching = asyncio.create_task(_watch(query, receive), name=f"client of {query.query_id}")

    timer = asyncio.get_running_loop().call_later(LOOK_AFTER_S, watch)
    try:
        yield
    finally:
        timer.cancel()
        if watching is not None:
            watching.cancel()


async def _watch(query: RunningQuery, receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    query.cancel()
