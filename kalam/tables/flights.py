"""Publishes that are on their way: begun, and neither acknowledged nor failed.

Whoever sees that a stream holds more than was announced cannot tell by its numbers whether others published that or
whether our own acks have not come yet. Once everything that is on its way has landed the rest is others'.
"""

from __future__ import annotations

import asyncio


class Flights:
    """The publishes on their way, by table."""

    def __init__(self) -> None:
        self._count = 0
        self._flying: dict[int, dict[int, None]] = {}  # the numbers of each table's flights, the oldest first
        self._landed: dict[int, asyncio.Event] = {}  # of the tables that somebody waits for

    def begin(self, table_id: int) -> int:
        """A publish is on its way from now on, until ``end`` is told this number."""
        self._count += 1
        self._flying.setdefault(table_id, {})[self._count] = None
        return self._count

    def end(self, table_id: int, number: int) -> None:
        """What came of it has been announced, or it has failed."""
        flying = self._flying[table_id]
        del flying[number]
        if not flying:
            del self._flying[table_id]
        if (landed := self._landed.pop(table_id, None)) is not None:
            landed.set()

    async def wait_landed(self, table_id: int) -> None:
        """Wait until everything of the table that is on its way now has landed."""
        newest = self._count
        while (flying := self._flying.get(table_id)) and next(iter(flying)) <= newest:
            await self._landed.setdefault(table_id, asyncio.Event()).wait()
