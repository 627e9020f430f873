"""TRUNCATE of a stored table: every row of all its copies goes at once, as one change of each copy.

The law: a reader sees all rows or none. A copy that was ever written gets one more change, ``truncate``, which has a
number and no rows; what is not published yet stays in the log for the feed, out of the readers' sight. Whoever follows
the rows of a table by its chunks begins anew at this one. Segments are replaced by nothing: a reader that has begun
ends on its files, and a lake lets go of them when it has a snapshot without them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from kalam.rows.stored import pack_rows
from kalam.schema import Table
from kalam.storage.log.copies import Chunk, Copy, Segment
from kalam.storage.log.copy_store import CopyStore, read_segments, write_chunk
from kalam.storage.log.database import now_us
from kalam.storage.log.writes import Announcement
from kalam.storage.segments.garbage import list_garbage
from kalam.storage.segments.replaced import mark_replaced
from kalam.storage.work.compaction import Compactor
from kalam.storage.work.disposal import let_go

_LAST = "(SELECT max(first_seq + row_count - 1) FROM log WHERE log.copy_id = copies.copy_id)"


class Truncation:
    """The transaction, for the writer; whoever submits it holds the locks of flushes and compactions."""

    cost = 1

    def __init__(self, compactor: Compactor, table: Table) -> None:
        self._compactor, self._table = compactor, table
        self._store: CopyStore = compactor.store
        self._chunks: list[tuple[Copy, Chunk]] = []
        self._gone: list[tuple[str, Sequence[Segment]]] = []

    def apply(self, conn: sqlite3.Connection) -> int:
        """Empty every copy; how many there are. What is written behind it in the same transaction sees them empty."""
        self._chunks, self._gone = [], []  # the writer applies a task again when its group could not be committed
        rows = conn.execute(
            f"SELECT copy_id, user_id, max(flushed_seq, ifnull({_LAST}, 0)) FROM copies WHERE table_id = ?",  # noqa: S608 - it stands above
            (self._table.table_id,),
        ).fetchall()
        now = now_us()
        for copy_id, user, last_seq in rows:
            self._let_go_of_segments(conn, copy_id, user, now)
            if last_seq:
                self._empty(conn, copy_id, user, last_seq + 1, now)
        return len(rows)

    def _let_go_of_segments(self, conn: sqlite3.Connection, copy_id: int, user: str, now: int) -> None:
        table, store = self._table, self._store
        segments = store.same(read_segments(conn, copy_id, table.key_columns))
        kept = self._compactor.keeps(table)
        folder = self._compactor.folders.folder(table, user)
        list_garbage(conn, [str(folder / each.path) for each in segments if not kept or each.deleted], now)
        mark_replaced(conn, table.table_id, user, [each for each in segments if kept and not each.deleted], now)
        conn.execute(
            "DELETE FROM key_filters WHERE segment_id IN (SELECT segment_id FROM segments WHERE copy_id = ?)",
            (copy_id,),
        )
        for child in ("segments", "overrides"):
            conn.execute(f"DELETE FROM {child} WHERE copy_id = ?", (copy_id,))  # noqa: S608 - as above
        if segments:
            self._gone.append((user, segments))

    def _empty(self, conn: sqlite3.Connection, copy_id: int, user: str, seq: int, now: int) -> None:
        copy = self._store.loaded.get((self._table.table_id, user)) or Copy(copy_id, self._table.table_id, user)
        let_go(copy.empty(seq).single)
        conn.execute(
            "DELETE FROM log WHERE copy_id = ? AND first_seq + row_count - 1 <= "
            "(SELECT max(published_seq, ?) FROM copies WHERE copies.copy_id = log.copy_id)",
            (copy_id, copy.published_seq),
        )
        conn.execute("UPDATE log SET flushed = 1 WHERE copy_id = ? AND flushed = 0", (copy_id,))
        conn.execute("UPDATE copies SET flushed_seq = ? WHERE copy_id = ?", (seq, copy_id))
        chunk = Chunk(
            first_seq=seq,
            row_count=1,
            op="truncate",
            updated_us=now,
            schema_version=self._table.schema_version,
            superseding=False,
            payload=pack_rows([]),
        )
        write_chunk(conn, copy_id, chunk)
        conn.execute("UPDATE log SET flushed = 1 WHERE copy_id = ? AND first_seq = ?", (copy_id, seq))
        self._chunks.append((copy, chunk))

    def committed(self) -> None:
        """Let readers see empty copies; the files go with their last reader."""
        for copy, _ in self._chunks:
            copy.publish_view()
        self._store.forget_backlogs(self._table.table_id)
        kept, replaced = self._compactor.keeps(self._table), self._compactor.replaced
        for user, segments in self._gone:
            folder = self._compactor.folders.folder(self._table, user)
            replaced.replace(folder, [each for each in segments if not kept or each.deleted])
            replaced.hold(folder, [each for each in segments if kept and not each.deleted])
        self._gone = []  # or they would be read for ever
        self._store.catalogue.note_changed(self._table.table_id)

    def rolled_back(self) -> None:
        """Forget the copies: the database knows what they held before."""
        for copy, _ in self._chunks:
            self._store.forget(copy.table_id, copy.user)

    def announcements(self) -> list[Any]:
        """The change of each copy."""
        return [Announcement(self._table, copy, chunk, rows=()) for copy, chunk in self._chunks]
