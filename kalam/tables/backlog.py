"""What the log holds of changes that are not published yet, read piece by piece; all of it blocking."""

from __future__ import annotations

import sqlite3
from itertools import accumulate, takewhile
from typing import Final, NamedTuple

from kalam.storage.log.copies import Chunk
from kalam.storage.log.copy_store import read_chunks
from kalam.storage.log.database import Database

CHUNKS_MAX: Final = 64
"""Chunks that are read together, however small."""
_BYTES: Final = "length(log.payload) + ifnull(length(log.old), 0) + ifnull(length(log.old_updated), 0)"
_STAGED_BYTES: Final = "ifnull(length(staged.payload), 0) + ifnull(length(staged.old), 0)"


class Backlog(NamedTuple):
    """What waits of one copy behind change ``told_seq``: up to which change, and of which age (us since 1970)."""

    copy_id: int
    table_id: int
    user: str
    told_seq: int
    last_seq: int
    byte_count: int
    oldest_us: int


def backlogs(database: Database) -> list[Backlog]:
    """The copies of which changes wait."""
    with database.reading() as conn:
        rows = conn.execute(
            f"""SELECT copy_id, table_id, user_id, published_seq, max(first_seq + row_count - 1),
            sum({_BYTES}), min(updated_us) FROM copies JOIN log USING (copy_id)
            WHERE first_seq + row_count - 1 > published_seq GROUP BY copy_id"""  # noqa: S608 - a constant
        )
        return list(map(Backlog._make, rows))


def read_on(database: Database, copy_id: int, after_seq: int, bytes_max: int) -> list[Chunk]:
    """The next chunks that wait behind a change: at least one if any does, and about so many bytes."""
    with database.reading() as conn:
        behind = _behind(conn, copy_id, after_seq)
        sizes = conn.execute(
            f"""SELECT {_BYTES} + {_STAGED_BYTES} FROM log LEFT JOIN staged USING (staged_id)
            WHERE copy_id = ? AND {behind} ORDER BY first_seq LIMIT ?""",  # noqa: S608 - constants
            (copy_id, CHUNKS_MAX),
        )
        sums = accumulate(size for (size,) in sizes)
        chunks_max = 1 + sum(1 for _ in takewhile(lambda size: size < bytes_max, sums))
        return read_chunks(conn, copy_id, behind, chunks_max)


def _behind(conn: sqlite3.Connection, copy_id: int, after_seq: int) -> str:
    """The condition for the chunks of a copy that go beyond a change and what is known to be published.

    It says at which chunk they begin, for chunks do not overlap: to look at all before it would take longer from part
    to part.
    """
    published = conn.execute("SELECT published_seq FROM copies WHERE copy_id = ?", (copy_id,)).fetchone()
    if published is None:  # the copy was dropped
        return "FALSE"
    seq = max(int(after_seq), *published)
    [first_seq] = conn.execute(
        "SELECT ifnull(max(first_seq), 0) FROM log WHERE copy_id = ? AND first_seq <= ?", (copy_id, seq + 1)
    ).fetchone()
    return f"first_seq >= {first_seq} AND first_seq + row_count - 1 > {seq}"
