"""DataRow messages of whole tables: columns become cells, cells are joined to rows, and that buffer is the wire's.

What is announced counts: a column is written as the type and in the format that the client was told of, whatever Arrow
type a batch has it in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa

from kalam_pg import types as pg
from kalam_pg.values.binaries import binaries, numbers
from kalam_pg.values.buffers import BINARY, Bytes, cells, valid_of, with_length
from kalam_pg.values.few_rows import ROWS_MAX, few_cells
from kalam_pg.values.packing import HEAD_BYTES, Packing
from kalam_pg.values.texts import even_texts, texts

PIECE_ROWS: Final = 8_192
PIECE_BYTES: Final = 4 << 20
BINARY_FORMAT: Final = 1


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
    return cells(with_length(_values(array, column)), valid_of(array))


def _values(array: pa.Array, column: Column) -> pa.Array:
    """The values of a column; NULL is anything."""
    if column.format == BINARY_FORMAT:
        return binaries(array, column.type)
    if column.type in (pg.INT2VECTOR, pg.OIDVECTOR):
        written = [None if each is None else " ".join(map(str, each)).encode() for each in array.to_pylist()]
        return pa.array(written, BINARY)
    return texts(array)


def _even(array: pa.Array, column: Column) -> tuple[Bytes, ...] | None:
    """What the values of a column are made of side by side, if all have the same size; None for others."""
    if array.null_count or pa.types.is_dictionary(array.type):
        return None
    if column.format == BINARY_FORMAT:
        found = numbers(array, column.type)
        return None if found is None else (found,)
    return even_texts(array)


def split(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """A table in pieces of bounded size."""
    rows = PIECE_ROWS
    if table.num_rows:
        rows = max(1, min(rows, table.num_rows * PIECE_BYTES // max(table.nbytes, 1)))
    for batch in table.to_batches(max_chunksize=rows):
        if batch.num_rows:
            yield batch


def data_rows_of(batch: pa.RecordBatch, columns: Sequence[Column]) -> bytes | memoryview:
    """The DataRow messages of a batch."""
    return _few_rows(batch, columns) if batch.num_rows <= ROWS_MAX else packed_rows(batch, columns, b"D")


def packed_rows(batch: pa.RecordBatch, columns: Sequence[Column], kind: bytes) -> memoryview:
    """The rows of a batch, each a message whose type has this byte."""
    packing = Packing(batch.num_rows, kind, len(columns))
    for array, column in zip(batch.columns, columns, strict=True):
        even = _even(array, column)
        if even is not None:
            packing.fixed(*even)
        else:
            packing.varied(_values(array, column), valid_of(array))
    return packing.data()


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
