"""Rows that stay columns: what came as Arrow, in the table's own types, on its way to the log and to a segment.

The law: whoever works on rows may take these for any other sequence of rows. Only those who work on very many of them
ask for the columns: to make a row of them and columns of the rows again takes some two microseconds a row each way.

A blob of theirs is an Arrow IPC stream of one record batch. It begins with the byte 0xFF, and a blob of msgpack rows,
which is an array, never does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Final, overload

import pyarrow as pa
import pyarrow.compute as pc

from kalam.rows.columns import column_values, from_arrow
from kalam.rows.growing_keys import GrowingKeys
from kalam.rows.types import Row

COLUMNS_MIN: Final = 1_000
"""Fewer rows are sooner done one by one."""
_STREAM_MARK: Final = b"\xff"
_WHOLE_READS: Final = pa.ipc.IpcReadOptions(use_threads=False)


class ColumnRows(Sequence[Row]):
    """Rows of ``table``, an Arrow table of exactly the types of the columns that they are of."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    @cached_property
    def _rows(self) -> list[Row]:
        return from_arrow(self.table)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Row]: ...
    def __getitem__(self, place: int | slice) -> Row | Sequence[Row]:
        if isinstance(place, int):
            return self._rows[place]
        first, end, step = place.indices(len(self))
        if step != 1:
            return self._rows[place]
        return ColumnRows(self.table.slice(first, max(0, end - first)))

    def keys(self, places: Sequence[int]) -> Sequence[Any]:
        """The keys, of the columns at these places, as ``kalam.rows.keys`` has them; as numbers where they grow."""
        growing = GrowingKeys.of(self.table.column(places[0])) if len(places) == 1 else None
        if growing is not None:
            return growing
        values = [column_values(self.table.column(place)) for place in places]
        return values[0] if len(values) == 1 else list(zip(*values, strict=True))

    def pack(self) -> bytes:
        """The rows as one blob."""
        batch = self.table.combine_chunks().to_batches()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.table.schema) as stream:
            for part in batch:
                stream.write_batch(part)
        return bytes(sink.getvalue())

    def row_bytes_max(self) -> int:
        """More bytes than any of the rows has as msgpack."""
        size: int = 8 + 16 * self.table.num_columns
        for column in self.table.columns:
            if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
                size += pc.max(pc.binary_length(column)).as_py() or 0
            elif pa.types.is_decimal(column.type):
                size += 48
        return size


def joined(parts: Sequence[ColumnRows]) -> ColumnRows:
    """Rows of one table one after another."""
    return parts[0] if len(parts) == 1 else ColumnRows(pa.concat_tables([part.table for part in parts]))


def is_columns(blob: bytes) -> bool:
    """Whether a blob holds columns."""
    return blob[:1] == _STREAM_MARK


def read_columns(blob: bytes) -> pa.Table:
    """The columns of a blob."""
    return pa.ipc.open_stream(blob, options=_WHOLE_READS).read_all()
