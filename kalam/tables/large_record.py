"""The transaction of an UPDATE or DELETE of any size."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from kalam.rows.stored import pack_rows
from kalam.schema import Table
from kalam.storage.log.copies import Chunk, Copy, Op, Segment
from kalam.storage.log.copy_store import CopyStore
from kalam.storage.log.staged import Laid, write_laid
from kalam.storage.log.writes import Announcement, Stale
from kalam.storage.log.written_file import WrittenFile
from kalam.storage.work.replacement import Compacting, Replacement


class Prepared(msgspec.Struct, kw_only=True):
    """What a statement has written: the segments that it replaces, the files in their place, and its changes.

    ``first_seq`` is the number of the first change, which the files hold; ``updated_us`` the time of all.
    """

    op: Op
    updated_us: int
    rows: int = 0
    first_seq: int = 0
    old: list[Segment] = msgspec.field(default_factory=list)
    new: list[WrittenFile] = msgspec.field(default_factory=list)
    laid: list[Laid] = msgspec.field(default_factory=list)


class LargeRecord:
    """Takes the changes into the log, out of the readers' sight, and puts the new segments in the place of the old.

    Raises Stale where the table was altered or written to meanwhile, Cancelled where a segment is gone.
    """

    cost = 1

    def __init__(self, compactor: Compacting, table: Table, owner: str, copy_id: int, prepared: Prepared) -> None:
        self._store: CopyStore = compactor.store
        self._table, self._owner, self._copy_id, self._prepared = table, owner, copy_id, prepared
        old, new = prepared.old, prepared.new
        self._replacement = Replacement(compactor, table, owner, copy_id, old, new)
        self._copy: Copy | None = None
        self._chunk: Chunk | None = None

    def apply(self, conn: sqlite3.Connection) -> int:
        """Change database and memory; the number of the last change."""
        prepared, table = self._prepared, self._table
        copy = self._store.for_writing(conn, table, self._owner)
        if not self._store.catalogue.is_newest(table):
            raise Stale("the table has been altered")
        if copy.copy_id != self._copy_id or copy.chunks or copy.last_seq + 1 != prepared.first_seq:
            raise Stale("rows have been written")
        self._replacement.apply(conn)
        self._copy = copy
        version = table.schema_version
        last = write_laid(conn, copy.copy_id, prepared.first_seq, prepared.laid, prepared.updated_us, version)
        conn.execute("UPDATE copies SET flushed_seq = ? WHERE copy_id = ?", (last, copy.copy_id))
        copy.last_seq = copy.flushed_seq = last
        self._chunk = Chunk(
            first_seq=prepared.first_seq,
            row_count=prepared.rows,
            op=prepared.op,
            updated_us=prepared.updated_us,
            schema_version=version,
            superseding=True,
            payload=pack_rows([]),
            large=True,
        )
        return last

    def committed(self) -> None:
        """Let readers see all of it."""
        self._replacement.committed()

    def rolled_back(self) -> None:
        """Forget the copy: the database knows what it held before."""
        self._replacement.rolled_back()

    def announcements(self) -> list[Any]:
        """One, for all changes."""
        if self._copy is None or self._chunk is None:
            return []
        return [Announcement(self._table, self._copy, self._chunk, rows=())]
