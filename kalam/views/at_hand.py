"""Rows that were committed a moment ago, as their statements had them: views need not decode them out of the log.

Law: what is here is what its chunk decodes to, so it does not matter whether it is. Rows are several times as large as
their chunk, so only those of some chunks are kept, the newest of all tables together, and each until it is taken.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import msgspec

from kalam.rows.column_rows import ColumnRows
from kalam.rows.types import Row
from kalam.storage.log.copies import Chunk
from kalam.storage.log.writes import Announcement

BYTES_MAX: Final = 4 << 20
"""Bytes of the chunks whose rows are kept."""
CHUNK_BYTES: Final = 500
"""What a chunk takes beside its rows: most of it where each row is committed by itself."""


class KeptRows(msgspec.Struct, frozen=True):
    """The rows of a chunk, and those before an update."""

    chunk: Chunk
    rows: Sequence[Row]
    old_rows: Sequence[Row] | None

    @property
    def byte_count(self) -> int:
        """What counts of them."""
        return self.chunk.byte_count + CHUNK_BYTES


class AtHand:
    """What was announced last, for the thread of the event loop."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, int], KeptRows] = OrderedDict()
        self.byte_count = 0

    def keep(self, announcement: Announcement) -> None:
        """Keep the rows of a chunk, which are those of its schema version; columns are not decoded anyway."""
        chunk, rows = announcement.chunk, announcement.rows
        if not rows or isinstance(rows, ColumnRows) or (chunk.old is not None and announcement.old_rows is None):
            return
        self.take(announcement.copy.copy_id, chunk)
        kept = self._kept[announcement.copy.copy_id, chunk.first_seq] = KeptRows(chunk, rows, announcement.old_rows)
        self.byte_count += kept.byte_count
        while self.byte_count > BYTES_MAX:
            _, oldest = self._kept.popitem(last=False)
            self.byte_count -= oldest.byte_count

    def take(self, copy_id: int, chunk: Chunk) -> KeptRows | None:
        """What was kept of a chunk, which is not kept any more; None where that is nothing."""
        found = self._kept.pop((copy_id, chunk.first_seq), None)
        if found is None:
            return None
        self.byte_count -= found.byte_count
        return found if found.chunk is chunk else None
