"""SQL's values for columns: what a literal, a parameter or a DataFusion scalar may stand for.

SQL is wider than the door in one respect only: a text stands for a value of the column's type (``'2026-01-01'`` for a
TIMESTAMP, ``'1.5'`` for a DECIMAL). ``sql_value`` turns such values into what ``RowDecoder.convert`` accepts, and
leaves everything else to its check.
"""

from __future__ import annotations

from decimal import InvalidOperation
from typing import Any

import msgspec

from kalam.errors import InvalidValue
from kalam.rows.column_types import TYPES
from kalam.rows.values import shorten
from kalam.schema import Column, TypeName


def sql_value(column: Column, value: Any) -> Any:
    """``value`` in the form that the decoder takes for ``column``; raises InvalidValue where it cannot be one."""
    if value is None:
        return None
    try:
        return TYPES[column.type.name].assigned(value)
    except (ValueError, TypeError, OverflowError, InvalidOperation, msgspec.DecodeError, RecursionError) as exc:
        raise InvalidValue(f"column {column.name} expects {column.type}, found {shorten(value)}") from exc


def carried_value(column: Column, carried: Any) -> Any:
    """The same for a default or fill, which is kept as JSON carries it: of a JSON column that is the value itself."""
    return carried if column.type.name is TypeName.JSON else sql_value(column, carried)
