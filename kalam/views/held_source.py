"""A copy as a source of a view in memory: what comes is held here, and the copy's log keeps nothing for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from kalam.schema import Table
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.copies import Chunk
from kalam.storage.log.view_positions import Position
from kalam.storage.log.writes import Announcement
from kalam.tables.stored import StoredTables
from kalam.views.copy_source import CopySource
from kalam.views.followed import RefillNeeded, Taken
from kalam.views.readings import Readings


class HeldSource(CopySource):
    """Follows one copy, that of a user where each has one; a Followed.

    Chunks that were flushed before they were taken are those that were announced. Past the bound they are let go of,
    and the view is filled anew.
    """

    def __init__(
        self,
        source: Table,
        stored: StoredTables,
        catalogue: Catalogue,
        readings: Readings,
        backlog_bytes_max: int,
        user: str = "",
    ) -> None:
        super().__init__(source, stored, catalogue, readings, backlog_bytes_max, user)
        self._held: deque[Chunk] = deque()
        self._held_bytes = 0

    def hold(self, announcement: Announcement) -> None:
        """Keep a chunk that was committed until it has been taken."""
        if announcement.copy.user != self._owner:
            return
        self._held.append(announcement.chunk)
        self._held_bytes += announcement.chunk.byte_count
        if self._held_bytes > 2 * self._backlog_bytes_max:
            self._held.clear()
            self._held_bytes = 0

    async def take(self, position: Position, rows_max: int) -> Taken | None:
        """The changes behind a position; those before it are needed no more."""
        while self._held and self._held[0].last_seq <= position.seq:
            self._held_bytes -= self._held.popleft().byte_count
        return await super().take(position, rows_max)

    async def _older(self, table: Table, seq: int, before_seq: int) -> Sequence[Chunk]:
        held = [chunk for chunk in self._held if chunk.last_seq >= seq and chunk.first_seq < before_seq]
        if not held or held[0].first_seq > seq or held[-1].last_seq + 1 < before_seq:
            held = list(await super()._older(table, seq, before_seq))  # not announced yet, or not kept any more
        if not held or held[0].first_seq > seq:
            raise RefillNeeded(f"more changes of {table.name} came than view_backlog_bytes_max lets wait")
        return held
