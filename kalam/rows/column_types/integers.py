"""SMALLINT, INT, BIGINT: an int."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Annotated, Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Meta

from kalam.rows.column_types.arrow_kinds import is_number, is_text, refuse_unless
from kalam.rows.column_types.record import ColumnType, Decoding, PostgreSQLType
from kalam.rows.values import BadValue, Fix, Values, each, shorten
from kalam.schema import DataType, TypeName

NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_DIGITS_MAX: Final = 400
_BIGINT: Final = re.compile(r"-?[0-9]{1,19}", re.ASCII)


def _bounds(bits: int) -> tuple[int, int]:
    return -(1 << bits - 1), (1 << bits - 1) - 1


def _decoded(bits: int, kind: DataType, how: Decoding) -> Any:
    least, greatest = _bounds(bits)
    number = Annotated[int, Meta(ge=least, le=greatest)]
    return number | str if how.bigint_texts and kind.name is TypeName.BIGINT else number


def _lossless(raw: bool) -> Any:
    return msgspec.Raw if raw else int | float | str


def _lossless_fix(bits: int, kind: DataType) -> Fix:
    def fix(values: Values) -> Values:
        fixed = []
        for index, value in enumerate(values):
            try:
                fixed.append(None if value is None else within(bits, integer_of(value)))
            except (ValueError, OverflowError, InvalidOperation) as exc:
                shown = bytes(value).decode("utf-8", "replace") if isinstance(value, msgspec.Raw) else shorten(value)
                raise BadValue(index, str(kind), shown[:80]) from exc
        return fixed

    return fix


def within(bits: int, number: int | None) -> int | None:
    """A number that an integer of so many bits holds; raises ValueError for another."""
    least, greatest = _bounds(bits)
    if number is not None and not least <= number <= greatest:
        raise ValueError(number)
    return number


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
    if len(text) > _DIGITS_MAX or not NUMBER.fullmatch(text):
        raise ValueError(value)
    number = Decimal(text)
    if number.adjusted() > _DIGITS_MAX or number != number.to_integral_value():
        raise ValueError(value)
    return int(number)


def _text_fix(values: Values) -> Values:
    """The texts of 64-bit integers, as an event may show them, to these."""
    return each(values, _bigint, "BIGINT") if str in set(map(type, values)) else values


def _bigint(value: int | str) -> int:
    if isinstance(value, int):
        return value
    if not _BIGINT.fullmatch(value) or not -(1 << 63) <= (number := int(value)) < 1 << 63:
        raise ValueError(value)
    return number


def _assigned(value: Any) -> Any:
    if isinstance(value, str):
        return int(value) if value.strip().lstrip("+-").isascii() else value
    if isinstance(value, float | Decimal) and value == int(value):
        return int(value)
    return value


def _from_arrow(arrow: pa.DataType, values: pa.ChunkedArray, _: DataType) -> list[Any]:
    refuse_unless(is_number(values.type) or is_text(values.type), "numbers")
    if is_text(values.type):
        values = pc.utf8_trim_whitespace(values)
    return list(values.cast(arrow).to_pylist())


def _whole(arrow: pa.DataType, values: pa.ChunkedArray, _: DataType) -> pa.ChunkedArray | None:
    if not pa.types.is_integer(values.type):
        return None
    try:
        return values.cast(arrow)
    except pa.ArrowInvalid:
        return None


def _default(bits: int, value: Any, _: DataType) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("expected a whole number")
    least, greatest = _bounds(bits)
    if not least <= value <= greatest:
        raise ValueError(f"expected {least} … {greatest}")
    return value


def _as_text(values: Values) -> Values:
    """JavaScript's numbers are exact up to 2^53 only."""
    return [None if value is None else str(value) for value in values]


def _integer(name: TypeName, bits: int, arrow: pa.DataType, oid: int, *words: str) -> ColumnType:
    is_long = name is TypeName.BIGINT
    return ColumnType(
        name=name,
        words=words,
        postgresql=PostgreSQLType(f"int{bits // 8}", oid),
        bits=bits,
        is_key=True,
        decoded=partial(_decoded, bits),
        lossless=_lossless,
        lossless_fix=partial(_lossless_fix, bits),
        text_fix=_text_fix if is_long else None,
        assigned=_assigned,
        from_arrow=partial(_from_arrow, arrow),
        own_arrow=is_number,
        arrow_as_is=True,
        whole=partial(_whole, arrow),
        arrow=lambda kind: arrow,
        default=partial(_default, bits),
        as_text=_as_text if is_long else None,
    )


SMALLINT = _integer(TypeName.SMALLINT, 16, pa.int16(), 21, "SMALLINT", "INT2", "TINYINT")
INT = _integer(TypeName.INT, 32, pa.int32(), 23, "INT", "INTEGER", "INT4")
BIGINT = _integer(TypeName.BIGINT, 64, pa.int64(), 20, "BIGINT", "INT8")
