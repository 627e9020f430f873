"""A requester that leaves before its answer cancels its query, where the broker can tell.

Whoever waits for an answer is subscribed to its subject; once nobody is, nobody waits. A client that shares one
subscription among all its requests, and gave just this one up, cannot be told from one that waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from kalam.query.running import RunningQuery
from kalam_nats.broker.interest import Interest

LOOK_EVERY_S: Final = 0.5


@contextmanager
def ended_with_requester(query: RunningQuery, reply: str, interest: Interest) -> Iterator[None]:
    """Cancel the query if nobody waits for its answer any more; nobody is asked about a short one."""
    watching: asyncio.Task[None] | None = None

    def watch() -> None:
        nonlocal watching
        watching = asyncio.create_task(_watch(query, reply, interest), name=f"requester of {query.query_id}")

    timer = asyncio.get_running_loop().call_later(LOOK_EVERY_S, watch) if reply else None
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
        if watching is not None:
            watching.cancel()


async def _watch(query: RunningQuery, reply: str, interest: Interest) -> None:
    while True:
        if await interest.count(reply) == 0:  # None if it cannot be told
            query.cancel()
            return
        await asyncio.sleep(LOOK_EVERY_S)
