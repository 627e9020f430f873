"""DataRow messages of whole tables: columns become cells, cells are joined to rows, and that buffer is the wire's.

What is announced counts: a column is written as the type and in the format that the client was told of, whatever Arrow
type a batch has it in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from kalam_pg import types as pg
from kalam_pg.values.binaries import binaries
from kalam_pg.values.buffers import BINARY, cells, fixed, joined, pieces, valid_of, with_length
from kalam_pg.values.few_rows import HEAD_BYTES, ROWS_MAX, few_cells
from kalam_pg.values.texts import texts

PIECE_ROWS: Final = 8_192
PIECE_BYTES: Final = 4 << 20
BINARY_FORMAT: Final = 1
_HEAD: Final = np.dtype([("type", "S1"), ("length", ">i4"), ("columns", ">i2")])


class Column(msgspec.Struct, frozen=True):
    """A column as it is announced; ``format`` is 0 for text and 1 for binary."""

    name: str
    type: pg.PgType
    modifier: int = pg.NO_MODIFIER
    format: int = 0
    table_oid: int = 0
    number: int = 0


def columns_of(schema: pa.Schema, formats: Sequence[int] = ()) -> tuple[Column, ...]:
    """The columns of a result, in the formats that were asked for (none: text; one: for all)."""
    every = spread(formats, len(schema))
    typed = [pg.typed_of(field) for field in schema]
    return tuple(
        Column(field.name, found.type, found.modifier, wanted)
        for field, found, wanted in zip(schema, typed, every, strict=True)
    )


def spread(formats: Sequence[int], count: int) -> Sequence[int]:
    """A format for each of so many values."""
    if len(formats) == count:
        return formats
    return [formats[0] if formats else 0] * count


def cells_of(array: pa.Array, column: Column) -> pa.Array:
    """The cells of a column: each value with its length before it, NULL as the length -1."""
    if column.format == BINARY_FORMAT:
        values = binaries(array, column.type)
    elif column.type in (pg.INT2VECTOR, pg.OIDVECTOR):
        written = [None if each is None else " ".join(map(str, each)).encode() for each in array.to_pylist()]
        values = pa.array(written, BINARY)
    else:
        values = texts(array)
    return cells(with_length(values), valid_of(array))


def split(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """A table in pieces of bounded size."""
    rows = PIECE_ROWS
    if table.num_rows:
        rows = max(1, min(rows, table.num_rows * PIECE_BYTES // max(table.nbytes, 1)))
    for batch in table.to_batches(max_chunksize=rows):
        if batch.num_rows:
            yield batch


def data_rows_of(batch: pa.RecordBatch, columns: Sequence[Column]) -> bytes:
    """The DataRow messages of a batch."""
    if batch.num_rows <= ROWS_MAX:
        return _few_rows(batch, columns)
    written = [cells_of(array, column) for array, column in zip(batch.columns, columns, strict=True)]
    lengths = np.full(batch.num_rows, HEAD_BYTES, np.int64)
    for each in written:
        lengths += np.diff(pieces(each)[0])
    heads = np.empty(batch.num_rows, _HEAD)
    heads["type"], heads["length"], heads["columns"] = b"D", lengths, len(columns)
    _, data = pieces(joined(fixed(heads), *written))
    return bytes(data.tobytes())


def _few_rows(batch: pa.RecordBatch, columns: Sequence[Column]) -> bytes:
    by_column = [
        few_cells(array, column.type, column.format) or cells_of(array, column).to_pylist()
        for array, column in zip(batch.columns, columns, strict=True)
    ]
    messages = []
    for place in range(batch.num_rows):
        cells = b"".join([column[place] for column in by_column])
        messages.append(b"D" + (HEAD_BYTES + len(cells)).to_bytes(4) + len(columns).to_bytes(2) + cells)
    return b"".join(messages)


def table_of_rows(rows: Sequence[Sequence[Any]], columns: Sequence[Column]) -> pa.Table:
    """Python rows as a table of these columns' types."""
    values = list(zip(*rows, strict=True)) if rows else [() for _ in columns]
    arrays = [pg.array_of_values(list(each), column.type) for each, column in zip(values, columns, strict=True)]
    schema = pa.schema([pa.field(column.name, array.type) for column, array in zip(columns, arrays, strict=True)])
    return pa.Table.from_arrays(arrays, schema=schema)
