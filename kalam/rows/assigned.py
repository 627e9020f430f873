"""The rows that an UPDATE makes of those that were there."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from kalam.rows.door import RowDecoder
from kalam.rows.types import Row
from kalam.schema import Column


def assigned_rows(decoder: RowDecoder, columns: Sequence[Column], olds: Sequence[Row], data: pa.Table) -> list[Row]:
    """The old rows with each of ``columns`` replaced by the values of ``_set_0``, ``_set_1``, … in ``data``."""
    table = decoder.table
    values: list[Sequence[object]] = list(zip(*olds, strict=True)) if olds else [() for _ in table.columns]
    for number, column in enumerate(columns):
        values[table.columns.index(column)] = decoder.decode_column(data.column(f"_set_{number}"), column)
    return list(zip(*values, strict=True))
