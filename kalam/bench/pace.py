"""Sending at a fixed pace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator


async def due(count: int, per_s: float, tick_s: float) -> AsyncIterator[range]:
    """The numbers below ``count`` as they fall due, ``per_s`` of them a second; a look every ``tick_s``."""
    started = time.perf_counter()
    sent = 0
    while sent < count:
        upto = min(int((time.perf_counter() - started) * per_s) + 1, count)
        yield range(sent, upto)
        sent = upto
        await asyncio.sleep(tick_s)
