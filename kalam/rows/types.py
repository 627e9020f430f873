"""A row, and what holds its values.

A *row* is a tuple of Python values, one for each column of the table in its order: bool, int, float, str, bytes, an
aware UTC ``datetime``, ``date``, ``Decimal`` of the column's scale, a JSON column's compact JSON text, a UUID's
canonical text; None for NULL. ``kalam.rows.column_types`` has a record of each type.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from kalam.rows.column_types import TYPES, Decoding
from kalam.rows.column_types.instants import TIMESTAMP_ARROW
from kalam.schema import Column, DataType

__all__ = ["TIMESTAMP_ARROW", "Row", "arrow_type", "door_type", "stored_type"]

Row = tuple[Any, ...]


def arrow_type(data_type: DataType) -> pa.DataType:
    """The Arrow type that holds a column of this type exactly."""
    return TYPES[data_type.name].arrow(data_type)


def door_type(column: Column, how: Decoding) -> Any:
    """The msgspec type that decodes a value of this column from a message."""
    kind = TYPES[column.type.name].decoded(column.type, how)
    return kind | None if column.nullable and kind is not Any else kind


def stored_type(column: Column) -> Any:
    """The msgspec type that reads a value of this column back from a stored row."""
    return TYPES[column.type.name].stored
