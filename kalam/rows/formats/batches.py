"""Rows on their way in, in bulk: a long body or file becomes insert messages of bounded size.

Bytes come in pieces of any length. A *cutter* of a format finds whole rows in them; a *batcher* puts rows together to
messages. Where one message ends depends on the rows alone and never on the pieces, so the same body sent twice makes
the same messages: that is what makes an insert in bulk repeatable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec
import pyarrow as pa

from kalam.errors import InvalidValue, TooLarge


class Batch(msgspec.Struct, frozen=True):
    """One insert message: its payload, its number of rows, and whether it is an Arrow stream."""

    payload: bytes
    rows: int
    arrow: bool = False


class BadRow(InvalidValue):
    """What is no row: ``row`` counts from 1."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(f"row {row:,} {reason}", row=row)


class LongRow(TooLarge):
    """A row has more bytes than any may have: ``row`` counts from 1."""

    def __init__(self, row: int, bytes_max: int, hint: str | None = None) -> None:
        super().__init__(f"row {row:,} is longer than {bytes_max:,} bytes", row=row, hint=hint)


class Cutter(Protocol):
    """Finds rows in the pieces of a body; raises BadRow for what cannot be one, and LongRow."""

    def feed(self, piece: bytes) -> Sequence[bytes]:
        """The rows that are whole with this piece."""

    def end(self) -> Sequence[bytes]:
        """The rows that were whole but for the end; raises BadRow where the last one is cut off."""


class RawBatcher:
    """Puts rows that are bytes already (JSON objects or msgpack maps) together to arrays."""

    def __init__(self, rows_max: int, bytes_max: int, *, msgpack: bool = False) -> None:
        self._rows_max, self._bytes_max, self._msgpack = rows_max, bytes_max, msgpack
        self._rows: list[bytes] = []
        self._size = 0

    def add(self, rows: Sequence[bytes]) -> Iterator[Batch]:
        """The messages that these rows fill."""
        for row in rows:
            if self._rows and (len(self._rows) == self._rows_max or self._size + len(row) >= self._bytes_max):
                yield self._batch()
            self._rows.append(row)
            self._size += len(row) + 1

    def end(self) -> Iterator[Batch]:
        """The last message, if rows are left."""
        if self._rows:
            yield self._batch()

    def _batch(self) -> Batch:
        rows, self._rows, self._size = self._rows, [], 0
        if self._msgpack:
            return Batch(b"\xdd" + len(rows).to_bytes(4, "big") + b"".join(rows), len(rows))
        return Batch(b"[" + b",".join(rows) + b"]", len(rows))


class TableBatcher:
    """Puts Arrow tables of one schema together to Arrow streams."""

    def __init__(self, rows_max: int, bytes_max: int) -> None:
        self._rows_max, self._bytes_max = rows_max, bytes_max
        self._tables: list[pa.Table] = []
        self._rows = 0

    def add(self, table: pa.Table) -> Iterator[Batch]:
        """The messages that these rows fill."""
        if not table.num_rows:
            return
        self._tables.append(table)
        self._rows += table.num_rows
        if self._rows < self._rows_max:
            return
        whole = pa.concat_tables(self._tables)
        full = self._rows - self._rows % self._rows_max
        for start in range(0, full, self._rows_max):
            yield from self._batches(whole.slice(start, self._rows_max))
        self._tables, self._rows = [whole.slice(full)], self._rows - full

    def end(self) -> Iterator[Batch]:
        """The last messages, if rows are left."""
        if self._rows:
            yield from self._batches(pa.concat_tables(self._tables))
        self._tables, self._rows = [], 0

    def _batches(self, table: pa.Table) -> Iterator[Batch]:
        payload = arrow_payload(table.combine_chunks())  # whose length, unlike nbytes, depends on the rows alone
        if len(payload) > self._bytes_max and table.num_rows > 1:
            half = table.num_rows // 2
            yield from self._batches(table.slice(0, half))
            yield from self._batches(table.slice(half))
        else:
            yield Batch(payload, table.num_rows, arrow=True)


def arrow_payload(table: pa.Table) -> bytes:
    """An Arrow table as an IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
