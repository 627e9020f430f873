"""Numbers that come in another form than their column's: 5.0 and "5" for an integer, "0.5" for a DOUBLE or FLOAT.

A value is taken where nothing of it is lost. So a number of JSON is read from its own digits and not by way of a float,
which would make 9007199254740992 of 9007199254740993.0 and 5 of 5.0000000000000001.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from kalam.rows.normalise import BadValue, Fix, Values, shorten
from kalam.rows.sql_values import float_of
from kalam.rows.types import NONFINITE_TEXTS, integer_bounds
from kalam.schema import INTEGER_TYPES, Column, TypeName

FLOATS: Final = frozenset({TypeName.FLOAT, TypeName.DOUBLE})
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_DIGITS_MAX: Final = 400


def lossless_type(column: Column, *, raw: bool) -> Any:
    """The type that a decoder reads a number by; None for a column of another kind.

    With ``raw`` the digits of an integer stay as they came, for JSON; such a type admits NULL whatever the column says.
    """
    if column.type.name in INTEGER_TYPES:
        if raw:
            return msgspec.Raw
        return int | float | str | None if column.nullable else int | float | str
    if column.type.name in FLOATS:
        return float | str | None if column.nullable else float | str
    return None


def lossless_fix(column: Column) -> Fix | None:
    """What makes the column's own values of what its decoder gave; None for a column of another kind."""
    if column.type.name in INTEGER_TYPES:
        return lambda values: _each(values, integers(column), str(column.type))
    return (lambda values: _each(values, _float, str(column.type))) if column.type.name in FLOATS else None


def _each(values: Values, read: Any, expected: str) -> Sequence[Any]:
    fixed = []
    for index, value in enumerate(values):
        try:
            fixed.append(None if value is None else read(value))
        except (ValueError, OverflowError, InvalidOperation) as exc:
            shown = bytes(value).decode("utf-8", "replace") if isinstance(value, msgspec.Raw) else shorten(value)
            raise BadValue(index, expected, shown[:80]) from exc
    return fixed


def integers(column: Column) -> Any:
    """What reads a value as an integer of the column; it raises ValueError where it is none."""
    least, greatest = integer_bounds(column.type.name)

    def read(value: Any) -> int | None:
        number = integer_of(value)
        if number is not None and not least <= number <= greatest:
            raise ValueError(value)
        return number

    return read


def integer_of(value: Any) -> int | None:
    """The integer that a number, a text or the JSON of one is; None for JSON's null. Raises ValueError for another."""
    if isinstance(value, msgspec.Raw):
        raw = bytes(value).decode()
        if raw == "null":
            return None
        value = msgspec.json.decode(raw) if raw.startswith('"') else raw
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError(value)
        return int(value)
    text: str = value.strip()
    if len(text) > _DIGITS_MAX or not _NUMBER.fullmatch(text):
        raise ValueError(value)
    number = Decimal(text)
    if number.adjusted() > _DIGITS_MAX or number != number.to_integral_value():
        raise ValueError(value)
    return int(number)


def _float(value: float | str) -> float | str:
    if not isinstance(value, str) or value in NONFINITE_TEXTS:
        return value
    if not _NUMBER.fullmatch(value.strip()):
        raise ValueError(value)
    return float_of(value)
