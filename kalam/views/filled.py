"""Which views hold what their query says, for whoever reads one."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Final

from kalam.errors import TooBusy
from kalam.schema import Table

WAIT_S: Final = 5.0


class Filled:
    """Known to be filled, by the id of the view."""

    def __init__(self) -> None:
        self._filled: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)

    def set(self, table_id: int, filled: bool) -> None:
        """Take note of a view."""
        event = self._filled[table_id]
        if filled:
            event.set()
        else:
            event.clear()

    def forget(self, table_id: int) -> None:
        """A view was dropped: who waits for it finds it gone."""
        event = self._filled.pop(table_id, None)
        if event is not None:
            event.set()

    def is_filled(self, table: Table) -> bool:
        """Whether a view can be read."""
        return self._filled[table.table_id].is_set()

    async def wait_filled(self, table: Table) -> None:
        """Wait some seconds for it; raises TooBusy."""
        try:
            async with asyncio.timeout(WAIT_S):
                await self._filled[table.table_id].wait()
        except TimeoutError as exc:
            raise TooBusy(
                f"the materialized view {table.name} is being filled", hint="SHOW VIEWS tells how it stands"
            ) from exc
