"""How often queries of views are run again: all of them together take a tenth of a core at most.

One runs at a time, and behind a run of one second there are nine without any.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

SHARE: Final = 0.1


class RerunBudget:
    """Whose turn it is."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._next_s = -math.inf

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until a query may be run; it runs within the context."""
        async with self._turn:
            await asyncio.sleep(max(0.0, self._next_s - time.monotonic()))
            started_s = time.monotonic()
            try:
                yield
            finally:
                ended_s = time.monotonic()
                self._next_s = next_turn(started_s, ended_s)


def next_turn(started_s: float, ended_s: float) -> float:
    """When a query may be run again behind one that took so long."""
    return ended_s + (ended_s - started_s) * (1 - SHARE) / SHARE
