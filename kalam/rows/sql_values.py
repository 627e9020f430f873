"""SQL's values for columns: what a literal, a parameter or a DataFusion scalar may stand for.

SQL is wider than the door in one respect only: a text stands for a value of the column's type (``'2026-01-01'`` for a
TIMESTAMP, ``'1.5'`` for a DECIMAL). ``sql_value`` turns such values into what ``RowDecoder.convert`` accepts, and
leaves everything else to its check.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

import msgspec

from kalam.errors import InvalidValue
from kalam.rows.normalise import shorten
from kalam.schema import INTEGER_TYPES, Column, TypeName


def sql_value(column: Column, value: Any) -> Any:
    """``value`` in the form that the decoder takes for ``column``; raises InvalidValue where it cannot be one."""
    if value is None:
        return None
    try:
        return _CASTS[column.type.name](value)
    except (
        KeyError,
        ValueError,
        TypeError,
        OverflowError,
        InvalidOperation,
        msgspec.DecodeError,
        RecursionError,
    ) as exc:
        raise InvalidValue(f"column {column.name} expects {column.type}, found {shorten(value)}") from exc


def _boolean(value: Any) -> Any:
    if isinstance(value, str):
        return {"true": True, "t": True, "false": False, "f": False}[value.strip().lower()] if value else value
    return value


def _integer(value: Any) -> Any:
    if isinstance(value, str):
        return int(value) if value.strip().lstrip("+-").isascii() else value
    if isinstance(value, float | Decimal) and value == int(value):
        return int(value)
    return value


def _float(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    return float(value) if isinstance(value, str | int | Decimal) else value


def _decimal(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    return Decimal(repr(value) if isinstance(value, float) else value)


def _timestamp(value: Any) -> Any:
    if isinstance(value, str):
        value = datetime.fromisoformat(value.strip())
    elif type(value) is date:
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


def _date(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.date()
    return date.fromisoformat(value.strip()) if isinstance(value, str) else value


def _uuid(value: Any) -> Any:
    return UUID(value) if isinstance(value, str) else value


def _json(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, str | bytes) else value


def _same(value: Any) -> Any:
    return value


_CASTS: dict[TypeName, Callable[[Any], Any]] = {
    TypeName.BOOLEAN: _boolean,
    **dict.fromkeys(INTEGER_TYPES, _integer),
    TypeName.FLOAT: _float,
    TypeName.DOUBLE: _float,
    TypeName.DECIMAL: _decimal,
    TypeName.TEXT: _same,
    TypeName.BLOB: _same,
    TypeName.TIMESTAMP: _timestamp,
    TypeName.DATE: _date,
    TypeName.JSON: _json,
    TypeName.UUID: _uuid,
}
