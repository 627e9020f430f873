"""Rows as Arrow columns, for SELECT and for a flush."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from kalam.rows.types import Row, arrow_type
from kalam.schema import Column

SLICE_ROWS = 5_000
"""Rows that are converted in one go: meanwhile no other thread of the process gets its turn."""


def arrow_schema(columns: Iterable[Column]) -> pa.Schema:
    """The Arrow schema of these columns, all nullable, as a segment may have been written before a column was added."""
    return pa.schema([pa.field(column.name, arrow_type(column.type)) for column in columns])


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
        rows += zip(*(column.to_pylist() for column in part.columns), strict=True)
    return rows
