"""The rows of a view that is in memory: changed in the loop's thread, one outcome at once, and told as they change.

Law: rows, the last number, and what is told of them change together; a reader that has the rows of a moment has its
number. What the view is filled with takes no number and is told to nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from itertools import repeat

import pyarrow as pa
from msgspec.structs import replace

from kalam.rows.columns import SEQ_FIELD, changed_rows
from kalam.schema import Table
from kalam.storage.log.copies import EMPTY_VIEW, Chunk, Copy, Key, View
from kalam.storage.log.former_times import to_us
from kalam.storage.log.view_positions import ViewState
from kalam.storage.log.writes import Announcement, Change
from kalam.storage.segments.cold_keys import KeyedRow
from kalam.storage.segments.key_rows import KeyedRows
from kalam.tables.kinds import Source
from kalam.tables.stored import StoredTables
from kalam.threads import Purpose, in_thread
from kalam.views.known_rows import Former, Whole
from kalam.views.ledger import MemoryLedger
from kalam.views.matching import Matching
from kalam.views.method import Outcome, Stopped
from kalam.views.writer import Fitting, Progress

Told = Callable[[Announcement], None]
RowsMax = Callable[[], int]
"""How many rows it may have now."""


class MemoryRows(Fitting):
    """The rows of one waking of a view, by their keys; a Written.

    ``feed_id`` is its number as a table: that of the messages that tell of its changes. ``begun`` once it was filled.
    """

    def __init__(
        self, view: Table, feed_id: int, stored: StoredTables, ledger: MemoryLedger, rows_max: RowsMax, told: Told
    ) -> None:
        super().__init__(view, stored)
        self.feed_id, self.ledger = feed_id, ledger
        self._rows_max, self._told = rows_max, told
        self._rows: dict[Key, KeyedRow] = {}
        self._arrow: pa.Table | None = None
        self.last_seq, self.begun, self._changed = 0, False, 0

    @property
    def view(self) -> Table:
        """The view whose rows they are."""
        return self._view

    @view.setter
    def view(self, view: Table) -> None:
        self._view = view  # whose options are others now, and whose columns are the same

    def __len__(self) -> int:
        return len(self._rows)

    async def rows(self) -> Source:
        """The rows as a query reads them, with ``_seq`` behind the others."""
        return (await self.numbered())[0]

    async def numbered(self) -> tuple[pa.Table, int]:
        """The rows, and the number of the last change in them."""
        if self._arrow is not None:
            return self._arrow, self.last_seq
        changed, seq = self._changed, self.last_seq
        made = await in_thread(Purpose.QUERIES, _as_arrow, self.view, list(self._rows.values()))
        if changed == self._changed:
            self._arrow = made
        return made, seq

    async def is_empty(self) -> bool:
        """Whether it was not filled yet."""
        return not self._rows and not self.last_seq

    async def others(self, keys: Collection[Key]) -> list[Key]:
        """The keys of all rows but these."""
        return [key for key in self._rows if key not in keys]

    async def _write(self, outcome: Outcome, progress: Progress) -> ViewState:
        state = replace(progress.state, failed=progress.state.failed + len(outcome.left_out))
        matched = await Matching(self.view, outcome, self, self._stored.changes).match(self.view, EMPTY_VIEW)
        if matched.inserts and len(self._rows) + len(matched.inserts) > (rows_max := self._rows_max()):
            raise Stopped(f"the view would have more than {max(rows_max, 0):,} rows; raise view_groups_max")
        self.ledger.state = state
        self._apply(matched.changes or ())
        if outcome.committed is not None:
            outcome.committed()
        return state

    def whole(self, view: View, keys: Sequence[Key]) -> Whole | None:
        """None: rows are kept one by one."""
        return None

    def known(self, view: View, keys: Sequence[Key]) -> list[Former]:
        """The rows that have these keys; all is known."""
        return list(map(self._rows.get, keys))

    async def there(self, view: View, keys: Sequence[Key]) -> KeyedRows:
        """The rows that have these keys now."""
        return KeyedRows([self._rows[key] for key in keys if key in self._rows], self.last_seq)

    def _apply(self, changes: Sequence[Change]) -> None:
        if not changes:
            return
        now = datetime.now(UTC)
        told: list[Announcement] = []
        copy = Copy(0, self.view.table_id, "")
        for change in changes:
            first, count = self.last_seq + 1 if self.begun else 0, len(change.keys)
            if change.op == "delete":
                for key in change.keys:
                    del self._rows[key]
            else:
                seqs = range(first, first + count) if self.begun else repeat(0, count)
                self._rows.update(zip(change.keys, map(KeyedRow, change.rows, seqs, repeat(now)), strict=True))
            if self.begun:
                self.last_seq += count
                chunk = _chunk(change, first, to_us(now), self.view.schema_version)
                told.append(Announcement(self.view, copy, chunk, rows=change.rows, old_rows=change.old_rows))
        self._arrow, self._changed = None, self._changed + 1
        for announcement in told:
            self._told(announcement)


def _chunk(change: Change, first_seq: int, updated_us: int, schema_version: int) -> Chunk:
    return Chunk(
        first_seq=first_seq,
        row_count=len(change.keys),
        op=change.op,
        updated_us=updated_us,
        schema_version=schema_version,
        superseding=True,
        payload=change.packed,
        old=change.old,
        old_updated=change.old_updated,
    )


def _as_arrow(view: Table, rows: Sequence[KeyedRow]) -> pa.Table:
    data = changed_rows(view, [each.row for each in rows], [each.updated for each in rows])
    return data.append_column(SEQ_FIELD, pa.array([each.seq for each in rows], SEQ_FIELD.type))
