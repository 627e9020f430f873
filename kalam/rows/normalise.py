"""From what a decoder gave to a row's one form, a column at a time.

The typed decoder has already refused wrong types, so what is left is little: defaults, clocks and number formats. Most
columns need nothing and are not touched. A function here takes one column's values and returns them in the form that
``kalam.rows.types`` describes; it raises ``BadValue`` with the place of the first value that does not fit.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from kalam.rows.ids import SnowflakeIds, UuidV7s
from kalam.rows.timestamps import from_micros
from kalam.rows.types import NONFINITE_TEXTS
from kalam.schema import Column, DefaultKind, TypeName

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DECIMALS = Context(prec=80, rounding=ROUND_HALF_UP)

Values = Sequence[Any]
Fix = Callable[[Values], Values]


class BadValue(Exception):
    """The value at ``index`` of a column does not fit: ``expected`` and ``found`` say how."""

    def __init__(self, index: int, expected: str, found: str) -> None:
        super().__init__(expected)
        self.index, self.expected, self.found = index, expected, found


class Generators(msgspec.Struct, frozen=True):
    """Where generated values come from."""

    snowflakes: SnowflakeIds
    uuids: UuidV7s


def shorten(value: Any) -> str:
    """A value as an error shows it, cut: a text in quotes, and what has a text of its own without Python's words."""
    text = str(value) if isinstance(value, date | Decimal) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def each(values: Values, fix: Callable[[Any], Any], expected: str) -> list[Any]:
    """Apply ``fix`` to every value but NULL; a ValueError and its like become a BadValue with the place."""
    fixed = []
    for index, value in enumerate(values):
        try:
            fixed.append(None if value is None else fix(value))
        except (ValueError, TypeError, OverflowError, InvalidOperation, RecursionError, struct.error) as exc:
            raise BadValue(index, expected, shorten(value)) from exc
    return fixed


def fix_timestamps(values: Values) -> Values:
    """Integers (milliseconds since 1970) and datetimes of any offset, or of none, to aware UTC datetimes."""
    kinds = set(map(type, values))
    if kinds == {datetime}:
        zones = set(map(_ZONE, values))
        if zones == {UTC}:
            return values
        if zones == {None}:
            return [value.replace(tzinfo=UTC) for value in values]
    if kinds == {int} and min(values) > -FLOAT_EXACT_MS and max(values) < FLOAT_EXACT_MS:
        if len(values) < ARRAY_VALUES_MIN:
            return [_from_seconds(value / 1_000, UTC) for value in values]
        return from_micros(np.array(values, np.int64) * 1_000)
    return each(values, _timestamp, "a TIMESTAMP between the years 1 and 9999")


ARRAY_VALUES_MIN = 32
"""So many values are faster converted as an array than one by one."""
_ZONE = attrgetter("tzinfo")
_from_seconds = datetime.fromtimestamp
FLOAT_EXACT_MS = 2**32 * 1_000
"""Up to here the seconds as a float are less than half a microsecond off, and so round to the right one."""


def _timestamp(value: datetime | int) -> datetime:
    if isinstance(value, int):
        return EPOCH + timedelta(milliseconds=value)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def fix_bigints(values: Values) -> Values:
    """The texts of 64-bit integers, as an event may show them, to these."""
    return each(values, _bigint, "BIGINT") if str in set(map(type, values)) else values


def _bigint(value: int | str) -> int:
    if isinstance(value, int):
        return value
    if not _BIGINT.fullmatch(value) or not -(1 << 63) <= (number := int(value)) < 1 << 63:
        raise ValueError(value)
    return number


_BIGINT = re.compile(r"-?[0-9]{1,19}", re.ASCII)


def fix_doubles(values: Values) -> Values:
    """The texts NaN, Infinity and -Infinity to their floats."""
    return (
        [float(value) if type(value) is str else value for value in values] if str in set(map(type, values)) else values
    )


def fix_floats(values: Values) -> Values:
    """Floats rounded to 32 bits."""
    return each(fix_doubles(values), _float32, "a FLOAT (32 bits)")


def _float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def fix_uuids(values: Values) -> Values:
    """UUID objects to their canonical texts."""
    return [None if value is None else str(value) for value in values]


def fix_json(values: Values) -> Values:
    """Any JSON value to its compact text; a JSON null is NULL."""
    return each(values, _json_text, "a JSON value, in which NaN and the infinities have no place")


def _json_text(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    if "null" in text and _has_nonfinite(value):  # msgspec writes them as null
        raise ValueError(value)
    return text


def _has_nonfinite(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_nonfinite, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_nonfinite, value))
    return isinstance(value, float) and not math.isfinite(value)


def fix_blobs(values: Values) -> Values:
    """Base64 texts, which msgpack and SQL may carry, to bytes."""
    if all(type(value) is bytes or value is None for value in values):
        return values
    return each(values, _blob, "a BLOB, which is bytes or base64 text")


def _blob(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise TypeError(value)
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as exc:
        raise ValueError(value) from exc


def decimal_fix(column: Column) -> Fix:
    """The fix of a DECIMAL column: rounded half up to its scale, refused beyond its precision."""
    precision, scale = column.type.precision or 38, column.type.scale or 0
    quantum = Decimal(1).scaleb(-scale)
    bound = Decimal(10) ** (precision - scale)

    def fix(value: Decimal) -> Decimal:
        if not value.is_finite():
            raise ValueError(value)
        rounded = value.quantize(quantum, context=DECIMALS)
        if rounded.copy_abs() >= bound:  # abs() would round to the 28 digits of the default context
            raise ValueError(value)
        return rounded

    return lambda values: each(values, fix, f"a {column.type}")


def column_fix(column: Column) -> Fix | None:
    """What the values of this column need after decoding; None for nothing, which is the common case."""
    match column.type.name:
        case TypeName.TIMESTAMP:
            return fix_timestamps
        case TypeName.DOUBLE:
            return fix_doubles
        case TypeName.FLOAT:
            return fix_floats
        case TypeName.UUID:
            return fix_uuids
        case TypeName.JSON:
            return fix_json
        case TypeName.DECIMAL:
            return decimal_fix(column)
        case TypeName.BLOB:
            return fix_blobs
        case _:
            return None


def fill_default(column: Column, values: Values, user: str, now: datetime, generators: Generators) -> Values:
    """Replace each UNSET by the column's default, generated ones as one batch."""
    unset = msgspec.UNSET
    missing = sum(value is unset for value in values)
    if not missing or column.default is None:
        return values
    match column.default.kind:
        case DefaultKind.LITERAL:
            fill = iter([column.default.literal] * missing)
        case DefaultKind.NOW:
            fill = iter([now] * missing)
        case DefaultKind.CURRENT_USER:
            fill = iter([user] * missing)
        case DefaultKind.SNOWFLAKE_ID:
            fill = iter(generators.snowflakes.take(missing))
        case DefaultKind.UUID_V7:
            fill = iter(generators.uuids.take(missing))
    if missing == len(values):
        return list(fill)
    return [next(fill) if value is unset else value for value in values]


def nonfinite_text(value: float) -> str:
    """The text that stands for NaN or an infinity in JSON."""
    return NONFINITE_TEXTS[0] if value != value else NONFINITE_TEXTS[1 if value > 0 else 2]
