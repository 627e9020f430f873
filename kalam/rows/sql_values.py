"""SQL's values for columns: what a literal, a parameter or a DataFusion scalar may stand for.

SQL is wider than the door in one respect only: a text stands for a value of the column's type (``'2026-01-01'`` for a
TIMESTAMP, ``'1.5'`` for a DECIMAL). ``sql_value`` turns such values into what ``RowDecoder.convert`` accepts, and
leaves everything else to its check.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

import msgspec

from kalam.errors import InvalidValue
from kalam.rows.normalise import shorten
from kalam.rows.shown import json_default
from kalam.rows.timestamp_text import read_utc_timestamp
from kalam.schema import INTEGER_TYPES, Column, TypeName

_JSON = msgspec.json.Encoder()


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


def carried_value(column: Column, carried: Any) -> Any:
    """The same for a default or fill, which is kept as JSON carries it: of a JSON column that is the value itself."""
    return carried if column.type.name is TypeName.JSON else sql_value(column, carried)


_TRUTHS = dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True)
_TRUTHS |= dict.fromkeys(("false", "f", "no", "n", "off", "0"), False)


def uuid_text(text: str) -> str:
    """The one form of a UUID that a text names in any of its forms; a text that names none is given back."""
    try:
        return str(UUID(text))
    except ValueError:
        return text


def boolean_of(text: str) -> bool:
    """The truth value that a text is, in PostgreSQL's spellings; raises ValueError."""
    truth = _TRUTHS.get(text.strip().lower())
    if truth is None:
        raise ValueError(f"{text[:40]!r} is no truth value")
    return truth


def float_of(text: str) -> float:
    """The number that a text is; raises ValueError also for one that only an infinity would stand for."""
    number = float(text)
    if math.isinf(number) and "inf" not in text.lower():
        raise ValueError(f"{text[:40]} is out of range")
    return number


def _boolean(value: Any) -> Any:
    return boolean_of(value) if isinstance(value, str) else value


def _integer(value: Any) -> Any:
    if isinstance(value, str):
        return int(value) if value.strip().lstrip("+-").isascii() else value
    if isinstance(value, float | Decimal) and value == int(value):
        return int(value)
    return value


def _float(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    return float_of(str(value)) if isinstance(value, str | int | Decimal) else value


def _decimal(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    return Decimal(repr(value) if isinstance(value, float) else value)


def _timestamp(value: Any) -> Any:
    if isinstance(value, str):
        return read_utc_timestamp(value)
    if type(value) is date:
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


def _text(value: Any) -> Any:
    """A text as it is; a number, truth value or time in the text that an answer shows, as PostgreSQL assigns it."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() | Decimal() | datetime() | date():
            shown = json_default(value)
            return shown if isinstance(shown, str) else _JSON.encode(shown).decode().strip('"')
    return value


def _same(value: Any) -> Any:
    return value


_CASTS: dict[TypeName, Callable[[Any], Any]] = {
    TypeName.BOOLEAN: _boolean,
    **dict.fromkeys(INTEGER_TYPES, _integer),
    TypeName.FLOAT: _float,
    TypeName.DOUBLE: _float,
    TypeName.DECIMAL: _decimal,
    TypeName.TEXT: _text,
    TypeName.BLOB: _same,
    TypeName.TIMESTAMP: _timestamp,
    TypeName.DATE: _date,
    TypeName.JSON: _json,
    TypeName.UUID: _uuid,
}
