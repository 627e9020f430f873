"""What a lake is made of: the segments, overrides and schema of a table, read from ``kalam.db`` as of one moment."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

import msgspec

from kalam.errors import TableNotFound
from kalam.rows.versions import History
from kalam.schema import Table, load_columns
from kalam.storage.log.copy_store import read_overrides
from kalam.storage.log.table_rows import read_tables


class LiveSegment(msgspec.Struct, frozen=True, kw_only=True):
    """A segment of rows that live, or did when it was written."""

    segment_id: int
    path: str
    row_count: int
    byte_count: int
    min_seq: int
    schema_version: int


class FlushedCopy(msgspec.Struct, frozen=True, kw_only=True):
    """A copy as of its last flush. ``overrides`` is None where ``seqs`` and ``known`` said that nothing changed."""

    user: str
    flushed_seq: int
    segments: list[LiveSegment]
    overrides: Mapping[Any, int] | None


class Basis(msgspec.Struct, frozen=True, kw_only=True):
    """All that a lake is made of. ``marked`` is the newest of the replaced segments that it does not name any more."""

    table: Table
    history: History
    copies: list[FlushedCopy]
    summary: str
    marked: int


def read_summaries(conn: sqlite3.Connection, table_id: int | None = None) -> dict[int, str]:
    """A text for each table that has rows in files, which changes whenever a flush or a compaction changed these."""
    one = "" if table_id is None else f"WHERE table_id = {table_id:d}"
    found: dict[int, str] = {}
    for own, flushed in conn.execute(
        f"SELECT table_id, sum(flushed_seq) FROM copies {one} GROUP BY table_id HAVING sum(flushed_seq) > 0"  # noqa: S608
    ).fetchall():
        found[own] = f"{flushed}"
    for own, count, newest in conn.execute(
        f"SELECT table_id, count(*), max(segment_id) FROM segments JOIN copies USING (copy_id) {one} GROUP BY table_id"  # noqa: S608
    ).fetchall():
        found[own] = f"{found.get(own, 0)}:{count}:{newest}"
    return found


def read_basis(conn: sqlite3.Connection, table_id: int, known: Mapping[str, tuple[int, frozenset[str]]]) -> Basis:
    """Read what the lake of a table is made of.

    ``known`` has of each user the seq and the segments of which the lake was made last. Raises TableNotFound.
    """
    conn.execute("BEGIN")
    try:
        table = next((table for table in read_tables(conn) if table.table_id == table_id), None)
        if table is None:
            raise TableNotFound(f"there is no table with the id {table_id}")
        rows = conn.execute("SELECT schema_version, columns FROM table_schemas WHERE table_id = ?", (table_id,))
        history = {version: load_columns(columns) for version, columns in rows.fetchall()}
        segments = _read_segments(conn, table_id)
        copies = conn.execute("SELECT copy_id, user_id, flushed_seq FROM copies WHERE table_id = ?", (table_id,))
        found: list[FlushedCopy] = []
        for copy_id, user, flushed_seq in copies.fetchall():
            own = segments.get(copy_id, [])
            state = (flushed_seq, frozenset(segment.path for segment in own))
            overrides = None if known.get(user) == state else read_overrides(conn, copy_id, table.key_columns)
            found.append(FlushedCopy(user=user, flushed_seq=flushed_seq, segments=own, overrides=overrides))
        return Basis(
            table=table,
            history=history,
            copies=found,
            summary=read_summaries(conn, table_id).get(table_id, ""),
            marked=read_marked(conn, table_id),
        )
    finally:
        conn.execute("ROLLBACK")


def read_marked(conn: sqlite3.Connection, table_id: int) -> int:
    """The number of the newest of a table's segments that are marked replaced; 0 where there is none."""
    (marked,) = conn.execute(
        "SELECT ifnull(max(replaced_id), 0) FROM replaced_segments WHERE table_id = ?", (table_id,)
    ).fetchone()
    return int(marked)


def _read_segments(conn: sqlite3.Connection, table_id: int) -> dict[int, list[LiveSegment]]:
    rows = conn.execute(
        """SELECT copy_id, segment_id, path, row_count, byte_count, min_seq, schema_version
        FROM segments JOIN copies USING (copy_id) WHERE table_id = ? AND NOT deleted ORDER BY segment_id""",
        (table_id,),
    )
    found: dict[int, list[LiveSegment]] = {}
    for copy_id, segment_id, path, row_count, byte_count, min_seq, schema_version in rows:
        found.setdefault(copy_id, []).append(
            LiveSegment(
                segment_id=segment_id,
                path=path,
                row_count=row_count,
                byte_count=byte_count,
                min_seq=min_seq,
                schema_version=schema_version,
            )
        )
    return found
