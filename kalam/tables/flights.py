"""Publishes that are on their way: begun, and neither acknowledged nor failed.

Whoever sees that a stream holds more than was announced cannot tell by its numbers whether others published that or
whether our own acks have not come yet. Once everything that is on its way has landed the rest is others'.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Flights:
    """The publishes on their way, by table."""

    def __init__(self) -> None:
        self._count = 0
        self._flying: dict[int, dict[int, None]] = {}  # the numbers of each table's flights, the oldest first
        self._landed: dict[int, asyncio.Event] = {}  # of the tables that somebody waits for

    @contextmanager
    def one(self, table_id: int) -> Iterator[None]:
        """A publish is on its way while the block runs, which also announces what came of it."""
        self._count += 1
        number, flying = self._count, self._flying.setdefault(table_id, {})
        flying[number] = None
        try:
            yield
        finally:
            del flying[number]
            if not flying:
                self._flying.pop(table_id, None)
            if (landed := self._landed.pop(table_id, None)) is not None:
                landed.set()

    async def wait_landed(self, table_id: int) -> None:
        """Wait until everything of the table that is on its way now has landed."""
        newest = self._count
        while (flying := self._flying.get(table_id)) and next(iter(flying)) <= newest:
            await self._landed.setdefault(table_id, asyncio.Event()).wait()
