"""Messages of rows that are read in a thread, and those into the same table that came behind them.

The law: rows are handed to the store in the order in which they came. A long message is read in a thread, so that the
event loop serves others meanwhile; what comes into its table until then waits, and is read in its turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary


class Turns:
    """The tables into which a message is being read in a thread, or waits for its turn."""

    def __init__(self) -> None:
        self._turns: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()  # held by whose turns they are

    def waited_for(self, table_id: int) -> bool:
        """Whether a message into this table has to wait for its turn."""
        return table_id in self._turns

    async def behind(self, table_id: int) -> None:
        """Wait until what came before is handed over."""
        async with self.turn(table_id):
            return

    @asynccontextmanager
    async def turn(self, table_id: int) -> AsyncIterator[None]:
        """Wait for the turn, and have what comes behind wait; the block's end does not pause."""
        turn = self._turns.get(table_id)
        if turn is None:
            turn = self._turns[table_id] = asyncio.Lock()
        async with turn:
            yield
