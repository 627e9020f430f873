"""Sending at a fixed pace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

TICK_S: Final = 0.001
"""Between two looks at the clock. uvloop counts whole milliseconds: half of one is no pause, and keeps a core busy."""


async def due(count: int, per_s: float) -> AsyncIterator[range]:
    """The numbers below ``count`` as they fall due, ``per_s`` of them a second; all that are at a look together."""
    started = time.perf_counter()
    sent = 0
    while sent < count:
        upto = min(int((time.perf_counter() - started) * per_s) + 1, count)
        yield range(sent, upto)
        sent = upto
        await asyncio.sleep(TICK_S)
