"""Whoever writes into a table waits a little while somebody who follows it has too much of it in hand.

Law: a write waits at most HELD_BACK_S, whatever else waits, and none overtakes another that came before it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from kalam.schema import Table

HELD_BACK_S: Final = 1.0
LOOK_S: Final = 0.01


class Room:
    """Whether there is room for more of a table."""

    def __init__(self) -> None:
        self._is_full: Callable[[Table], bool] = lambda table: False
        self._queues: dict[int, _Queue] = {}

    def hold_back(self, is_full: Callable[[Table], bool]) -> None:
        """Have writes wait while this says so."""
        self._is_full = is_full

    def waiting(self, table: Table) -> int:
        """How many writes wait now."""
        queue = self._queues.get(table.table_id)
        return 0 if queue is None else queue.length

    async def wait(self, table: Table) -> None:
        """Wait until there is room, or for as long as a write may be made to wait."""
        queue = self._queues.get(table.table_id)
        if queue is None and not self._is_full(table):
            return
        until_s = time.monotonic() + HELD_BACK_S
        queue = self._queues.setdefault(table.table_id, _Queue())
        queue.length += 1
        try:
            async with queue.turn:
                while time.monotonic() < until_s and self._is_full(table):  # noqa: ASYNC110 - nothing tells of room
                    await asyncio.sleep(LOOK_S)
        finally:
            queue.length -= 1
            if not queue.length:
                self._queues.pop(table.table_id, None)


class _Queue:
    """Writes that wait, one behind another."""

    def __init__(self) -> None:
        self.turn, self.length = asyncio.Lock(), 0
