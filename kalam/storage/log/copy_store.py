"""All copies of all tables: loaded when first needed, dropped from memory when a transaction fails.

SQLite is the truth and memory follows it: after a rollback the touched copies are forgotten and read again, which is
simpler than undoing and cannot be wrong.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Iterable, Sequence

import msgspec

from kalam.errors import TableNotFound
from kalam.rows.column_rows import is_columns
from kalam.rows.growing_keys import GrowingKeys
from kalam.rows.keys import as_row, keys_of
from kalam.rows.stored import StoredRows, pack_rows
from kalam.rows.versions import StoredVersions
from kalam.schema import Column, Table
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.copies import Chunk, Copy, Key, Segment
from kalam.storage.log.database import Database
from kalam.storage.log.written_file import WrittenFile

CopyName = tuple[int, str]
"""A table's id and a user id ('' for a SHARED table)."""

CHUNK_COLUMNS = "first_seq, row_count, op, updated_us, schema_version, superseding, payload, old, old_updated"


class Backlog(msgspec.Struct, frozen=True):
    """The hot rows of a copy that is not in memory."""

    row_count: int
    byte_count: int
    oldest_us: int


class CopyStore:
    """The copies by table and user. Methods that take a connection run in the writer's thread."""

    def __init__(self, database: Database, catalogue: Catalogue) -> None:
        self.database = database
        self.catalogue = catalogue
        self.loaded: dict[CopyName, Copy] = {}
        self.backlogs: dict[CopyName, Backlog] = {}
        self._dropped: set[int] = set()
        self._loads = 0
        self._segments: weakref.WeakValueDictionary[int, Segment] = weakref.WeakValueDictionary()

    def reconcile(self) -> None:
        """Count the hot rows of every copy; blocking, for the start."""
        with self.database.reading() as conn:
            rows = conn.execute(
                """SELECT table_id, user_id, sum(row_count), sum(length(payload) + ifnull(length(old), 0)
                + ifnull(length(old_updated), 0)), min(updated_us)
                FROM log JOIN copies USING (copy_id) WHERE flushed = 0 GROUP BY copy_id"""
            )
            self.backlogs = {(table_id, user): Backlog(*counts) for table_id, user, *counts in rows}

    async def open(self, table: Table, user: str) -> Copy | None:
        """The copy in memory, loaded if need be; None for a copy that nobody has written yet."""
        name = (table.table_id, user)
        copy = self.loaded.get(name)
        if copy is None:  # a write may load it first; a second load would show what is not committed yet
            copy = await self.database.write(lambda conn: self.loaded.get(name) or self._load(conn, table, user))
        return copy

    def for_writing(self, conn: sqlite3.Connection, table: Table, user: str) -> Copy:
        """The copy, loaded or created. Raises TableNotFound if the table was dropped meanwhile."""
        copy = self.loaded.get((table.table_id, user))
        if copy is not None:
            return copy
        if table.table_id in self._dropped:
            raise TableNotFound(f"table {table.name} was dropped")
        copy = self._load(conn, table, user)
        if copy is None:
            cursor = conn.execute("INSERT INTO copies (table_id, user_id) VALUES (?, ?)", (table.table_id, user))
            assert cursor.lastrowid is not None
            copy = Copy(cursor.lastrowid, table.table_id, user)
            self.loaded[table.table_id, user] = copy
        return copy

    def forget(self, table_id: int, user: str) -> None:
        """Drop what memory holds of a copy but how much of it is hot; it is read again when next needed."""
        copy = self.loaded.pop((table_id, user), None)
        chunks = [] if copy is None else copy.view.chunks[: copy.view.chunk_count]
        if chunks:
            rows, size = sum(chunk.row_count for chunk in chunks), sum(chunk.byte_count for chunk in chunks)
            self.backlogs[table_id, user] = Backlog(rows, size, chunks[0].updated_us)

    def forget_table(self, table_id: int) -> None:
        """Drop a table's copies from memory and refuse late writes to them."""
        self._dropped.add(table_id)
        for name in [name for name in self.loaded if name[0] == table_id]:
            self.forget(*name)

    def forget_backlogs(self, table_id: int) -> None:
        """A table that was dropped has nothing to be flushed."""
        for name in [name for name in self.backlogs if name[0] == table_id]:
            del self.backlogs[name]

    def revive_table(self, table_id: int) -> None:
        """Undo ``forget_table``."""
        self._dropped.discard(table_id)

    def hot_row_counts(self, table: Table) -> dict[int, int]:
        """How many hot rows live, by copy, for the copies that are in memory; of others only versions are counted."""
        copies = [copy for (table_id, _), copy in list(self.loaded.items()) if table_id == table.table_id]
        return {copy.copy_id: copy.versions.live_count() for copy in copies}

    def users(self, table: Table) -> list[str]:
        """The users that have a copy of the table, '' for a SHARED one; blocking."""
        with self.database.reading() as conn:
            rows = conn.execute("SELECT user_id FROM copies WHERE table_id = ? ORDER BY user_id", (table.table_id,))
            return [user for (user,) in rows]

    def insert_segment(
        self, conn: sqlite3.Connection, copy_id: int, table: Table, file: WrittenFile, now: int
    ) -> Segment:
        """Name a file as a segment of a copy, written under the table's schema version."""
        reader = StoredRows(table.key_columns)
        version = table.schema_version
        counts = (file.row_count, file.byte_count, file.min_seq, file.max_seq)
        cursor = conn.execute(
            "INSERT INTO segments (copy_id, path, deleted, row_count, byte_count, min_seq, max_seq, min_key, max_key, "
            "schema_version, created_us, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (copy_id, file.path, file.deleted, *counts, file.min_key, file.max_key, version, now, file.checksum),
        )
        assert cursor.lastrowid is not None
        conn.execute("INSERT INTO key_filters VALUES (?, ?)", (cursor.lastrowid, file.key_filter))
        segment = Segment(
            segment_id=cursor.lastrowid,
            path=file.path,
            deleted=file.deleted,
            row_count=file.row_count,
            byte_count=file.byte_count,
            min_seq=file.min_seq,
            max_seq=file.max_seq,
            min_key=unpack_key(file.min_key, reader),
            max_key=unpack_key(file.max_key, reader),
            schema_version=version,
            checksum=file.checksum,
        )
        self._segments[segment.segment_id] = segment
        return segment

    def same(self, segments: Iterable[Segment]) -> tuple[Segment, ...]:
        """For segments that were read the objects that stand for them."""
        return tuple(map(self._only, segments))

    def _only(self, segment: Segment) -> Segment:
        """The one object that stands for a segment, which readers from before a rollback may still hold."""
        return self._segments.setdefault(segment.segment_id, segment)

    def _load(self, conn: sqlite3.Connection, table: Table, user: str) -> Copy | None:
        row = conn.execute(
            "SELECT copy_id, flushed_seq, published_seq FROM copies WHERE table_id = ? AND user_id = ?",
            (table.table_id, user),
        ).fetchone()
        if row is None:
            return None
        copy_id, flushed_seq, published_seq = row
        copy = Copy(copy_id, table.table_id, user, flushed_seq, published_seq, flushed_seq)
        self._loads += 1
        copy.epoch = self._loads << 32  # which no copy had that was forgotten, and whose segments may be others
        keys = StoredVersions(table.key_columns, self.catalogue.history(table))
        for chunk in read_chunks(conn, copy_id, "flushed = 0"):
            copy.append(chunk)
            own = keys_of(keys.unpack(chunk.payload, chunk.schema_version))
            if chunk.op == "insert":
                growing = GrowingKeys.of_keys(own) if is_columns(chunk.payload) else None
                copy.versions.add(own if growing is None else growing, chunk.first_seq)
            else:
                sign = -1 if chunk.op == "delete" else 1
                copy.versions.update((key, sign * seq) for seq, key in enumerate(own, chunk.first_seq))
        copy.segments = self.same(read_segments(conn, copy_id, table.key_columns))
        copy.overrides = read_overrides(conn, copy_id, table.key_columns)
        copy.publish_view()
        self.loaded[table.table_id, user] = copy
        self.backlogs.pop((table.table_id, user), None)
        return copy


def read_chunks(
    conn: sqlite3.Connection, copy_id: int, condition: str, chunks_max: int = -1, *, staged_rows: bool = True
) -> list[Chunk]:
    """The chunks of a copy in order, or the first of them; ``condition`` is a constant of the caller's.

    Without ``staged_rows`` those that lie beside the log (``staged.py``) come without their rows, as ``large``.
    """
    beside = "LEFT JOIN staged USING (staged_id)" if staged_rows else ""
    places = ("payload", "old", "old_updated")
    own = [f"iif(staged_id IS NULL, log.{name}, {f'staged.{name}' if staged_rows else 'NULL'})" for name in places]
    rows = conn.execute(
        "SELECT first_seq, row_count, op, updated_us, schema_version, superseding, staged_id IS NOT NULL, "  # noqa: S608
        f"{', '.join(own)} FROM log {beside} WHERE copy_id = ? AND {condition} ORDER BY first_seq LIMIT ?",
        (copy_id, chunks_max),
    )
    return [
        Chunk(
            first_seq=first_seq,
            row_count=row_count,
            op=op,
            updated_us=updated_us,
            schema_version=version,
            superseding=bool(superseding),
            payload=payload if payload is not None else pack_rows([]),
            old=old,
            old_updated=old_updated,
            large=bool(staged) and not staged_rows,
        )
        for first_seq, row_count, op, updated_us, version, superseding, staged, payload, old, old_updated in rows
    ]


def write_chunk(conn: sqlite3.Connection, copy_id: int, chunk: Chunk) -> None:
    """Add a chunk to the log."""
    conn.execute(
        f"INSERT INTO log (copy_id, {CHUNK_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants
        (
            copy_id,
            chunk.first_seq,
            chunk.row_count,
            chunk.op,
            chunk.updated_us,
            chunk.schema_version,
            chunk.superseding,
            chunk.payload,
            chunk.old,
            chunk.old_updated,
        ),
    )


def pack_key(key: Key) -> bytes:
    """A key as the database keeps it."""
    return pack_rows([as_row(key)])


def unpack_key(blob: bytes, reader: StoredRows) -> Key:
    """The key that ``pack_key`` packed; ``reader`` reads rows of the key's columns alone."""
    return keys_of(reader.unpack(blob))[0]


def read_segments(conn: sqlite3.Connection, copy_id: int, key: Sequence[Column]) -> tuple[Segment, ...]:
    """The segments of a copy, oldest first."""
    reader = StoredRows(key)
    rows = conn.execute(
        """SELECT segment_id, path, deleted, row_count, byte_count, min_seq, max_seq, min_key, max_key, schema_version,
        checksum FROM segments WHERE copy_id = ? ORDER BY segment_id""",
        (copy_id,),
    )
    return tuple(
        Segment(
            segment_id=segment_id,
            path=path,
            deleted=bool(deleted),
            row_count=row_count,
            byte_count=byte_count,
            min_seq=min_seq,
            max_seq=max_seq,
            min_key=unpack_key(min_key, reader),
            max_key=unpack_key(max_key, reader),
            schema_version=version,
            checksum=checksum,
        )
        for segment_id, path, deleted, row_count, byte_count, min_seq, max_seq, min_key, max_key, *rest in rows
        for version, checksum in [rest]
    )


def read_overrides(conn: sqlite3.Connection, copy_id: int, key: Sequence[Column]) -> dict[Key, int]:
    """The overrides of a copy: key → seq of the flushed version that hides older ones."""
    reader = StoredRows(key)
    rows = conn.execute("SELECT key, seq FROM overrides WHERE copy_id = ?", (copy_id,))
    return {unpack_key(blob, reader): seq for blob, seq in rows}
