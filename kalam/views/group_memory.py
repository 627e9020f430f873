"""What an aggregating view remembers: the state of its groups, in chunks behind each other, the last of a group counts.

A chunk is one row of SQLite, whatever the number of its groups: rows are what costs. Where the chunks have become much
longer than the groups, one chunk of all groups takes their place.
"""

from __future__ import annotations

import sqlite3
from typing import Final

import pyarrow as pa

from kalam.storage.log.database import Database
from kalam.views.method import Remembering

_SLACK_GROUPS: Final = 10_000
_NAME_BYTES: Final = 8
_PACKED: Final = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
"""Most bytes of what is kept are zeros; to write what is left costs less than to write all of it."""


class GroupMemory:
    """The chunks of one view. What is written counts from ``committed`` on."""

    def __init__(self, database: Database, table_id: int) -> None:
        self._database, self._table_id = database, table_id
        self._next, self._groups = 0, 0

    def read(self) -> list[pa.RecordBatch]:
        """Every chunk, in order."""
        with self._database.reading() as conn:
            rows = conn.execute(
                "SELECT name, value FROM view_memory WHERE table_id = ? ORDER BY name", (self._table_id,)
            ).fetchall()
        chunks = [batch for _, value in rows for batch in pa.ipc.open_stream(value)]
        self._next = 1 + int.from_bytes(rows[-1][0], "big") if rows else 0
        self._groups = sum(chunk.num_rows for chunk in chunks)
        return chunks

    def is_long(self, groups: int) -> bool:
        """Whether all of so many groups are to be written anew."""
        return self._groups > 2 * groups + _SLACK_GROUPS

    def written(self, chunk: pa.RecordBatch, *, whole: bool) -> Remembering:
        """What writes a chunk: behind the others, or, where it is the ``whole``, in their place."""
        name, value = self._next.to_bytes(_NAME_BYTES, "big"), _stream(chunk)

        def remember(conn: sqlite3.Connection) -> None:
            if whole:
                conn.execute("DELETE FROM view_memory WHERE table_id = ?", (self._table_id,))
            conn.execute("INSERT INTO view_memory VALUES (?, ?, ?)", (self._table_id, name, value))

        return remember

    def committed(self, chunk: pa.RecordBatch, *, whole: bool) -> None:
        """Take note of a chunk that is on the disk."""
        self._next += 1
        self._groups = chunk.num_rows + (0 if whole else self._groups)


def _stream(chunk: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, chunk.schema, options=_PACKED) as writer:
        writer.write_batch(chunk)
    return bytes(sink.getvalue().to_pybytes())
