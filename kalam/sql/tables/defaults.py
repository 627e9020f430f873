"""The default of a column: a literal that fits the type, or one of four functions.

A literal is kept as JSON would carry it: instants as RFC 3339 in UTC with six digits, decimals and UUIDs as text, bytes
as base64, JSON as the value itself.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from kalam.errors import InvalidValue
from kalam.rows.sql_values import boolean_of
from kalam.rows.timestamp_text import read_utc_timestamp
from kalam.schema import INTEGER_BITS, DataType, Default, DefaultKind, TypeName
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.lexer import Kind
from kalam.sql.text.literals import read_literal
from kalam.sql.values import read_function

_ALLOWED = "a default is a literal, NOW(), SNOWFLAKE_ID(), UUID_V7() or CURRENT_USER()"
_FUNCTION_TYPES = {
    DefaultKind.NOW: (TypeName.TIMESTAMP,),
    DefaultKind.SNOWFLAKE_ID: (TypeName.BIGINT,),
    DefaultKind.UUID_V7: (TypeName.UUID, TypeName.TEXT),
    DefaultKind.CURRENT_USER: (TypeName.TEXT,),
}
_FLOAT_MAX = 3.4028234663852886e38
_NOT_NUMBERS = frozenset({"NaN", "Infinity", "-Infinity"})
_DIGITS_MAX = 400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_SEPARATORS = frozenset(",)")


def read_default(cursor: Cursor, data_type: DataType) -> Default | None:
    """Consume what follows DEFAULT; None for NULL. Raises InvalidValue where it does not fit the column's type."""
    token = cursor.token
    function = read_function(cursor)
    default = function.default if function else _literal(cursor, data_type)
    if not (cursor.at_end() or cursor.token.kind is Kind.WORD or cursor.token.text in _SEPARATORS):
        raise cursor.error(InvalidValue, _ALLOWED, at=token)
    if function and data_type.name not in _FUNCTION_TYPES[function.default.kind]:
        types = " or ".join(_FUNCTION_TYPES[function.default.kind])
        raise cursor.error(InvalidValue, f"{function.default} is a default of type {types}, not {data_type}", at=token)
    return default


def _literal(cursor: Cursor, data_type: DataType) -> Default | None:
    token = cursor.token
    if cursor.at_end():
        raise cursor.unexpected("a default")
    value = _typed_text(cursor, data_type)
    if value is None:
        literal = read_literal(cursor)
        if literal is None:
            raise cursor.error(InvalidValue, _ALLOWED, at=token)
        if literal.value is None:
            return None
        value = literal.value
    try:
        carried = _READERS[data_type.name](value, data_type)
    except (ValueError, TypeError, OverflowError) as exc:
        raise cursor.error(InvalidValue, f"the default does not fit the type {data_type}: {exc}", at=token) from None
    return None if carried is None else Default(kind=DefaultKind.LITERAL, literal=carried)


def _typed_text(cursor: Cursor, data_type: DataType) -> str | None:
    """Consume ``DATE '…'``, ``TIMESTAMP '…'`` or ``X'…'`` where that is the column's type; the text, or None."""
    word, start = cursor.token.word, cursor.token
    wanted = {TypeName.DATE: "DATE", TypeName.TIMESTAMP: "TIMESTAMP", TypeName.BLOB: "X"}.get(data_type.name)
    if not word or word != wanted:
        return None
    cursor.advance()
    if cursor.token.kind is not Kind.STRING:
        cursor.seek(start.start)
        return None
    text = cursor.string("a value")
    if word != "X":
        return text
    try:
        return base64.b64encode(binascii.unhexlify(text)).decode()
    except ValueError:
        raise cursor.error(InvalidValue, "X'…' holds pairs of hexadecimal digits", at=start) from None


def _boolean(value: Any, _: DataType) -> bool:
    if isinstance(value, str):
        return boolean_of(value)
    if not isinstance(value, bool):
        raise TypeError("expected TRUE or FALSE")
    return value


def _integer(value: Any, data_type: DataType) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("expected a whole number")
    bound = 1 << (INTEGER_BITS[data_type.name] - 1)
    if not -bound <= value < bound:
        raise ValueError(f"expected {-bound} … {bound - 1}")
    return value


def _float(value: Any, data_type: DataType) -> float | str:
    if isinstance(value, str) and value in _NOT_NUMBERS:
        return value
    if isinstance(value, (bool, str)):
        raise TypeError("expected a number, 'NaN', 'Infinity' or '-Infinity'")
    number = float(value)
    if math.isinf(number) or (data_type.name is TypeName.FLOAT and abs(number) > _FLOAT_MAX):
        raise ValueError("the number is too large")
    return number


def _decimal(value: Any, data_type: DataType) -> str:
    if isinstance(value, bool):
        raise TypeError("expected a number")
    try:
        number = Decimal(str(value))
    except ArithmeticError:
        raise ValueError("expected a number") from None
    if not number.is_finite() or abs(number.adjusted()) > _DIGITS_MAX:
        raise ValueError("expected a finite number")
    whole, _, fraction = format(number.copy_abs(), "f").partition(".")
    whole, fraction = whole.lstrip("0"), fraction.rstrip("0")
    precision, scale = data_type.precision or 0, data_type.scale or 0
    if len(whole) > precision - scale or len(fraction) > scale:
        raise ValueError(f"expected at most {precision - scale} digits before the point and {scale} behind it")
    return ("-" if number < 0 else "") + (whole or "0") + (f".{fraction}" if fraction else "")


def _text(value: Any, data_type: DataType) -> str:
    if not isinstance(value, str):
        raise TypeError("expected a text in single quotes")
    if data_type.length_max and len(value) > data_type.length_max:
        raise ValueError(f"expected at most {data_type.length_max} characters")
    return value


def _blob(value: Any, _: DataType) -> str:
    if not isinstance(value, str):
        raise TypeError("expected X'…' or a base64 text")
    return base64.b64encode(base64.b64decode(value, validate=True)).decode()


def _timestamp(value: Any, _: DataType) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError("expected a text like '2024-01-31T12:00:00Z'")
    try:
        moment = _EPOCH + timedelta(milliseconds=value) if isinstance(value, int) else read_utc_timestamp(value)
    except ValueError:
        raise ValueError("expected a text like '2024-01-31T12:00:00Z'") from None
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _date(value: Any, _: DataType) -> str:
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        raise TypeError("expected a text like '2024-01-31'")
    return date.fromisoformat(value).isoformat()


def _json(value: Any, _: DataType) -> Any:
    if not isinstance(value, str):
        return float(value) if isinstance(value, Decimal) else value
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError as exc:
        raise ValueError(str(exc)) from None


def _uuid(value: Any, _: DataType) -> str:
    if not isinstance(value, str):
        raise TypeError("expected a UUID as text")
    return str(uuid.UUID(value))


_READERS: dict[TypeName, Callable[[Any, DataType], Any]] = {
    TypeName.BOOLEAN: _boolean,
    TypeName.SMALLINT: _integer,
    TypeName.INT: _integer,
    TypeName.BIGINT: _integer,
    TypeName.FLOAT: _float,
    TypeName.DOUBLE: _float,
    TypeName.DECIMAL: _decimal,
    TypeName.TEXT: _text,
    TypeName.BLOB: _blob,
    TypeName.TIMESTAMP: _timestamp,
    TypeName.DATE: _date,
    TypeName.JSON: _json,
    TypeName.UUID: _uuid,
}
