"""Rows on their way in, in bulk: a long body or file becomes insert messages of bounded size.

Bytes come in pieces of any length. A *cutter* of a format finds whole rows in them; a *batcher* puts rows together to
messages. Where one message ends depends on the rows alone and never on the pieces, so the same body sent twice makes
the same messages: that is what makes an insert in bulk repeatable.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kalam.errors import InvalidValue, KalamError, TooLarge

_OFFSET_BYTES = 5  # of a value of any length: where it begins, and whether it is there
_PADDING_BYTES = 3 * 64  # of a column: its buffers begin at multiples of so many


class Batch(msgspec.Struct, frozen=True):
    """One insert message: its payload, its number of rows, and whether it is an Arrow stream."""

    payload: bytes
    rows: int
    arrow: bool = False


OnBad = Callable[[KalamError, bytes], None]
"""Takes the error of a row that is none, which has the ``row``, and its text; without it the first ends the reading."""


class BadRow(InvalidValue):
    """What is no row: ``row`` counts from 1."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(f"row {row:,} {reason}", row=row)


class LongRow(TooLarge):
    """A row has more bytes than any may have: ``row`` counts from 1."""

    def __init__(self, row: int, bytes_max: int, hint: str | None = None) -> None:
        super().__init__(f"row {row:,} is longer than {bytes_max:,} bytes", row=row, hint=hint)


class RowNumbers:
    """The numbers that rows had in what they came in, where not all of it came into a batch."""

    def __init__(self) -> None:
        self._kept_before: list[int] = []

    def leave_out(self, row: int) -> None:
        """Note that a row, which counts from 1, comes into no batch; they are noted in their order."""
        self._kept_before.append(row - 1 - len(self._kept_before))

    def of(self, kept: int) -> int:
        """The number of the row that is the ``kept``-th of those in batches."""
        return kept + bisect_left(self._kept_before, kept)


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
    """Puts Arrow tables of one schema together to Arrow streams, as many rows in each as fit its bounds."""

    def __init__(self, rows_max: int, bytes_max: int) -> None:
        self._rows_max, self._bytes_max = rows_max, bytes_max
        self._room: int | None = None
        self._tables: list[pa.Table] = []
        self._rows = self._bytes = 0

    def add(self, table: pa.Table) -> Iterator[Batch]:
        """The messages that these rows fill."""
        if not table.num_rows:
            return
        if self._room is None:
            self._room = max(self._bytes_max - _frame_bytes(table), self._bytes_max // 2)
        self._tables.append(table)
        self._rows += table.num_rows
        self._bytes += _bytes_at_most(table)
        if self._rows >= self._rows_max or self._bytes > self._room:
            yield from self._full_batches(self._room)

    def _full_batches(self, room: int) -> Iterator[Batch]:
        """Whether a message is full its rows' sizes say, which are looked at only if they may matter."""
        whole, start = pa.concat_tables(self._tables), 0
        before = np.concatenate([[0], np.cumsum(row_bytes(whole))]) if self._bytes > room else None
        while start < whole.num_rows:
            end = start + self._rows_max
            if before is not None:
                fitting = int(np.searchsorted(before, before[start] + room, "right")) - 1
                end = min(end, max(fitting, start + 1))
            if end > whole.num_rows or (end == whole.num_rows and end - start < self._rows_max):
                break  # a row that follows may fit
            yield from self._batches(whole.slice(start, end - start))
            start = end
        rest = whole.slice(start)
        self._tables, self._rows, self._bytes = [rest], rest.num_rows, _bytes_at_most(rest)

    def end(self) -> Iterator[Batch]:
        """The last messages, if rows are left."""
        if self._rows:
            yield from self._batches(pa.concat_tables(self._tables))
        self._tables, self._rows, self._bytes = [], 0, 0

    def _batches(self, table: pa.Table) -> Iterator[Batch]:
        payload = arrow_payload(table.combine_chunks())
        if len(payload) > self._bytes_max and table.num_rows > 1:  # what frames the rows is larger than was thought
            half = table.num_rows // 2
            yield from self._batches(table.slice(0, half))
            yield from self._batches(table.slice(half))
        else:
            yield Batch(payload, table.num_rows, arrow=True)


def row_bytes(table: pa.Table) -> npt.NDArray[np.int64]:
    """How many bytes each row of a table of plain columns takes, whatever pieces it came in."""
    sizes = np.zeros(table.num_rows, np.int64)
    for column in table.columns:
        if _has_lengths(column.type):
            lengths = np.asarray(pc.binary_length(column).to_numpy())  # of floats if some are NULL, which is no number
            sizes += np.nan_to_num(lengths).astype(np.int64) + _OFFSET_BYTES
        elif not pa.types.is_null(column.type):
            sizes += column.type.bit_width // 8 + 1
    return sizes


def _bytes_at_most(table: pa.Table) -> int:
    """No less than the sum of ``row_bytes``, at the cost of a look at each column."""
    return int(table.nbytes + 2 * table.num_rows * len(table.columns))


def _has_lengths(kind: pa.DataType) -> bool:
    types = pa.types
    tests = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    return any(is_one(kind) for is_one in tests)


def _frame_bytes(table: pa.Table) -> int:
    """What a stream of such rows has besides them, about."""
    frame: int = len(arrow_payload(table.slice(0, 0))) + _PADDING_BYTES * len(table.columns)
    return frame


def arrow_payload(table: pa.Table) -> bytes:
    """An Arrow table as an IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
