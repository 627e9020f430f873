"""How a value that is compared with a column is written in SQL, so that DataFusion reads it as an INSERT does."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from kalam.errors import InvalidValue
from kalam.rows.sql_values import boolean_of, uuid_text
from kalam.rows.timestamp_text import read_utc_timestamp
from kalam.schema import INTEGER_TYPES, DataType, TypeName

Shown = str | None
"""What is written in a value's place; None where it stays."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DIGITS_MAX = 38


def own_form(kind: DataType, value: Any) -> Shown:
    """What is written for a value that is compared with a column of this type; None where it stays as it is.

    Raises InvalidValue for a text that can be no BLOB, which DataFusion would take for its bytes.
    """
    show = _SHOWS[kind.name]
    return None if show is None else show(value)


def unquoted(literal: str) -> str:
    """The text that a literal in single quotes is."""
    return literal[1:-1].replace("''", "'")


def _quoted(text: str) -> str:
    """A text as a literal."""
    return "'" + text.replace("'", "''") + "'"


def _uuid(value: Any) -> Shown:
    return _quoted(uuid_text(value)) if isinstance(value, str) and uuid_text(value) != value else None


def _blob(value: Any) -> Shown:
    if not isinstance(value, str):
        return None
    try:
        return f"X'{base64.b64decode(value, validate=True).hex()}'"
    except (binascii.Error, ValueError):
        raise InvalidValue(f"a text that is compared with a BLOB is base64, and {value[:60]!r} is none") from None


def _timestamp(value: Any) -> Shown:
    try:
        if isinstance(value, str):
            moment = read_utc_timestamp(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            moment = _EPOCH + timedelta(milliseconds=value)
        else:
            return None
    except (ValueError, OverflowError):
        return None
    micros = (moment - _EPOCH) // _MICROSECOND
    return f"""arrow_cast({micros}, 'Timestamp(Microsecond, Some("UTC"))')"""


def _boolean(value: Any) -> Shown:
    if not isinstance(value, str):
        return None
    try:
        return "TRUE" if boolean_of(value) else "FALSE"
    except ValueError:
        return None


def _json(value: Any) -> Shown:
    try:
        document = msgspec.json.decode(value) if isinstance(value, str) else value
        text = msgspec.json.encode(document).decode()
    except (msgspec.DecodeError, TypeError, RecursionError):
        return None
    return None if value is None or text == value else _quoted(text)


def _float(value: Any) -> Shown:
    """A number of more than 32 bits as what the column holds of it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return f"arrow_cast('{value!s}', 'Float32')" if isinstance(value, float | Decimal) else None


def _decimal(value: Any) -> Shown:
    """A number with all of its digits."""
    if not isinstance(value, float | Decimal) or not math.isfinite(value):
        return None
    exact = Decimal(repr(value)) if isinstance(value, float) else value
    if abs(exact.adjusted()) > _DIGITS_MAX:
        return None
    text = format(exact, "f")
    digits, scale = len(text.replace(".", "").lstrip("-")), len(text.partition(".")[2])
    return f"CAST('{text}' AS DECIMAL({digits},{scale}))" if digits <= _DIGITS_MAX else None


_SHOWS: dict[TypeName, Callable[[Any], Shown] | None] = {
    TypeName.BOOLEAN: _boolean,
    **dict.fromkeys(INTEGER_TYPES),
    TypeName.FLOAT: _float,
    TypeName.DOUBLE: None,
    TypeName.DECIMAL: _decimal,
    TypeName.TEXT: None,
    TypeName.BLOB: _blob,
    TypeName.TIMESTAMP: _timestamp,
    TypeName.DATE: None,
    TypeName.JSON: _json,
    TypeName.UUID: _uuid,
}
"""How a value that is compared with a column is written; None where DataFusion reads it as an INSERT does."""
FORMED = frozenset(name for name, show in _SHOWS.items() if show is not None)
"""The types whose values have a form of their own in a comparison."""
