"""Rows as Arrow columns, for SELECT and for a flush."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from kalam.rows.timestamps import timestamps
from kalam.rows.types import TIMESTAMP_ARROW, Row, arrow_type
from kalam.schema import DELETED, SEQ, UPDATED, Column, DataType, Table

TYPE_METADATA = b"kalam.type"
"""Metadata of an Arrow field whose column's type says more than Arrow does: JSON and UUID are texts there."""

UPDATED_FIELD = pa.field(UPDATED, TIMESTAMP_ARROW)
STORED_FIELDS = (UPDATED_FIELD, pa.field(DELETED, pa.bool_()))
"""What a SELECT sees of a row of a stored table behind its columns."""

SEQ_FIELD = pa.field(SEQ, pa.int64())
"""The place of a version in its copy's log, behind ``STORED_FIELDS`` where it is asked for."""

SLICE_ROWS = 5_000
"""Rows that are converted in one go: meanwhile no other thread of the process gets its turn."""


def arrow_schema(columns: Iterable[Column]) -> pa.Schema:
    """The Arrow schema of these columns, all nullable, as a segment may have been written before a column was added."""
    return pa.schema([pa.field(column.name, arrow_type(column.type)) for column in columns])


def shown_field(column: Column) -> pa.Field:
    """A column as results carry it: with its SQL type beside Arrow's."""
    return shown_type(column.name, column.type)


def shown_type(name: str, kind: DataType) -> pa.Field:
    """A value of this type, under a name, likewise."""
    return pa.field(name, arrow_type(kind), metadata={TYPE_METADATA: str(kind)})


def shown_schema(columns: Iterable[Column]) -> pa.Schema:
    """``arrow_schema`` with each column's SQL type."""
    return pa.schema([shown_field(column) for column in columns])


def to_arrow(rows: Sequence[Row], schema: pa.Schema) -> pa.RecordBatch:
    """The rows as one record batch of ``schema``; the values are in the columns' order."""
    if not rows:
        return pa.RecordBatch.from_pylist([], schema=schema)
    columns = zip(*rows, strict=True)
    return pa.record_batch(
        [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema=schema
    )


def from_arrow(table: pa.Table) -> list[Row]:
    """The rows of an Arrow table whose columns have the types of ``arrow_type``."""
    if not table.num_columns:
        return []
    rows: list[Row] = []
    for start in range(0, table.num_rows, SLICE_ROWS):
        part = table.slice(start, SLICE_ROWS)
        rows += zip(*map(column_values, part.columns), strict=True)
    return rows


def column_values(column: pa.ChunkedArray) -> list[Any]:
    """The values as Python has them; those of time stamps and numbers Arrow would make one by one."""
    if column.type == TIMESTAMP_ARROW:
        return timestamps(column)
    as_numpy = (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)) and not column.null_count
    values: list[Any] = column.to_numpy().tolist() if as_numpy else column.to_pylist()
    return values


def changed_rows(
    table: Table, rows: Sequence[Row], updated: datetime | Sequence[datetime], *, deleted: bool = False
) -> pa.Table:
    """Rows that a statement changed, as a SELECT of that table shows them."""
    data = pa.Table.from_batches([to_arrow(rows, shown_schema(table.columns))])
    if UPDATED in table.system_columns:
        times = [updated] * len(rows) if isinstance(updated, datetime) else updated
        for field, values in zip(STORED_FIELDS, (times, [deleted] * len(rows)), strict=True):
            data = data.append_column(field, pa.array(values, field.type))
    return data
