"""A SHARED table, or a view, as a source: its log is followed, and keeps what a view has not had.

What waits is bounded: past the bound writes of the source wait a little, each, and past twice of it the view is filled
anew, for then that costs less.

What is taken at once ends where a multiple of so many changes lies, whichever view takes it: so views at different
positions come to stand at one, and what is behind it is read once for all of them (``readings``).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from operator import attrgetter

from msgspec.structs import replace

from kalam.rows.versions import StoredVersions
from kalam.schema import Table
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.copies import Chunk
from kalam.storage.log.view_positions import Position
from kalam.tables.stored import StoredTables
from kalam.tables.versions import Logged
from kalam.views.at_hand import KeptRows
from kalam.views.followed import Lag, RefillNeeded, Taken
from kalam.views.method import Changes
from kalam.views.readings import Readings, Run

AT_ONCE_CHUNKS = 100
"""So many chunks whose rows are at hand are taken without a visit to a thread, which costs more."""
_LAST_SEQ = attrgetter("last_seq")


class CopySource:
    """Follows a copy; a Followed."""

    looks = False
    is_copy = holds = True

    def __init__(
        self,
        source: Table,
        stored: StoredTables,
        catalogue: Catalogue,
        readings: Readings,
        backlog_bytes_max: int,
        user: str = "",
    ) -> None:
        self._source, self._stored, self._catalogue, self._readings = source, stored, catalogue, readings
        self._owner = source.owner(user)
        self._backlog_bytes_max = backlog_bytes_max
        self._reader: tuple[int, StoredVersions] | None = None
        self._waiting_bytes = 0

    @property
    def table(self) -> Table:
        """The table as it is now."""
        return self._catalogue.by_id.get(self._source.table_id, self._source)

    @property
    def full(self) -> bool:
        """Whether so much waits that whoever writes had better wait."""
        return self._waiting_bytes > self._backlog_bytes_max

    def came(self, byte_count: int) -> None:
        """Count what waits."""
        self._waiting_bytes += byte_count

    def close(self) -> None:
        """The log needs nobody."""
        self._waiting_bytes = 0

    async def snapshot(self) -> None:
        """It is read with others; what has come before is in it."""
        self._waiting_bytes = 0

    async def begin(self, position: Position | None) -> Position:
        """Where it was; a view that has no position yet is filled, which gives it one."""
        return replace(position or Position(source_id=self._source.table_id), holds=True)

    async def take(self, position: Position, rows_max: int) -> Taken | None:
        """The changes behind a position, from memory or from the log."""
        table = self.table
        view = await self._stored.view(table, self._owner)
        if view is None or view.last_seq < position.seq:
            if position.seq:
                raise RefillNeeded(f"{table.name} has fewer changes than the view has had")
            return None
        if view.last_seq == position.seq:
            self._waiting_bytes = 0
            return None
        hot = view.chunks[: view.chunk_count]
        waiting = hot[bisect_right(hot, position.seq, key=_LAST_SEQ) :]
        first = waiting[0].first_seq if waiting else view.last_seq + 1
        if first > position.seq + 1:
            waiting = [*await self._older(table, position.seq + 1, first), *waiting]
        self._check(table, waiting, position)
        chosen = first_chunks(waiting, position.seq, rows_max)
        self._waiting_bytes = sum(chunk.byte_count for chunk in waiting[len(chosen) :])
        after = Position(source_id=position.source_id, seq=chosen[-1].last_seq)
        generation = position.generation
        run = Run(table.table_id, self._owner, table.schema_version, generation, position.seq, after.seq)

        at_hand = [self._readings.at_hand.take(view.copy_id, chunk) for chunk in chosen]

        def read() -> Changes:
            logged = self._logged(table, zip(chosen, at_hand, strict=True), position.seq)
            return Changes(table, logged, generation, retracts=True)

        at_once = len(at_hand) <= AT_ONCE_CHUNKS and None not in at_hand
        changes = await self._readings.changes(run, read, at_once=at_once)
        return Taken(changes, after, more=len(chosen) < len(waiting))

    async def _older(self, table: Table, seq: int, before_seq: int) -> Sequence[Chunk]:
        """The chunks with changes from one on and before another, of which memory has none any more."""
        return await self._stored.logged(table, self._owner, seq, before_seq)

    def _check(self, table: Table, waiting: Sequence[Chunk], position: Position) -> None:
        """Raise RefillNeeded where changes are gone, or more wait than is worth while."""
        if any(chunk.begins_anew for chunk in waiting):
            raise RefillNeeded(f"{table.name} was truncated, or changed by a statement on very many rows")
        if not waiting or waiting[0].first_seq > position.seq + 1:
            raise RefillNeeded(f"the log of {table.name} does not have change {position.seq + 1} any more")
        if sum(chunk.byte_count for chunk in waiting) > 2 * self._backlog_bytes_max:
            raise RefillNeeded(f"more than twice as much of {table.name} waits as view_backlog_bytes_max lets")

    def _logged(self, table: Table, chunks: Iterable[tuple[Chunk, KeptRows | None]], after_seq: int) -> list[Logged]:
        if self._reader is None or self._reader[0] != table.schema_version:
            reader = StoredVersions(table.columns, self._catalogue.history(table))
            self._reader = table.schema_version, reader
        return [
            Logged.read(chunk, self._reader[1], after_seq)
            if at_hand is None or chunk.schema_version != table.schema_version
            else Logged.of(chunk, at_hand.rows, at_hand.old_rows, after_seq)
            for chunk, at_hand in chunks
        ]

    def lag(self, position: Position) -> Lag:
        """The changes that were committed and not taken in."""
        view = self._stored.loaded_view(self.table, self._owner)
        return Lag(0 if view is None else max(0, view.last_seq - position.seq))


def first_chunks(chunks: Sequence[Chunk], after_seq: int, rows_max: int) -> Sequence[Chunk]:
    """The first chunks behind a position, up to that in which the next multiple of so many changes lies; at least one.

    They are about so many rows at the most.
    """
    end = (after_seq // rows_max + 1) * rows_max
    count = next((place for place, chunk in enumerate(chunks, 1) if chunk.last_seq >= end), len(chunks))
    return chunks[:count]
