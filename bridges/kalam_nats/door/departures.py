"""How it is told that a requester has left before its answer, where the broker can tell.

Whoever waits for an answer is subscribed to its subject; once nobody is, nobody waits. A client that shares one
subscription among all its requests, and gave just this one up, cannot be told from one that waits.
"""

from __future__ import annotations

import asyncio
from typing import Final

from kalam.engine import Departure
from kalam_nats.broker.interest import Interest

LOOK_EVERY_S: Final = 0.5
"""Nobody is asked about a short request."""


def departure_of(reply: str, interest: Interest) -> Departure:
    """Returns once nobody waits on a reply subject any more."""

    async def departed() -> None:
        waited_for: int | None = None
        while waited_for != 0:  # None if it cannot be told
            await asyncio.sleep(LOOK_EVERY_S)
            waited_for = await interest.count(reply)

    return departed
