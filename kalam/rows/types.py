"""What a column's value is, in each of the forms that a row takes.

A *row* is a tuple of Python values, one for each column of the table in its order: bool, int, float, str, bytes, an
aware UTC ``datetime``, ``date``, ``Decimal`` of the column's scale, a JSON column's compact JSON text, a UUID's
canonical text; None for NULL. Everything that comes in is brought to this form once, and everything that goes out
starts from it.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, assert_never
from uuid import UUID

import pyarrow as pa
from msgspec import Meta

from kalam.schema import INTEGER_BITS, Column, DataType, TypeName

Row = tuple[Any, ...]

NONFINITE_TEXTS = ("NaN", "Infinity", "-Infinity")
TIMESTAMP_ARROW = pa.timestamp("us", "UTC")


def arrow_type(data_type: DataType) -> pa.DataType:
    """The Arrow type that holds a column of this type exactly."""
    match data_type.name:
        case TypeName.BOOLEAN:
            return pa.bool_()
        case TypeName.SMALLINT:
            return pa.int16()
        case TypeName.INT:
            return pa.int32()
        case TypeName.BIGINT:
            return pa.int64()
        case TypeName.FLOAT:
            return pa.float32()
        case TypeName.DOUBLE:
            return pa.float64()
        case TypeName.DECIMAL:
            return pa.decimal128(data_type.precision or 38, data_type.scale or 0)
        case TypeName.TEXT | TypeName.JSON | TypeName.UUID:
            return pa.string()
        case TypeName.BLOB:
            return pa.binary()
        case TypeName.TIMESTAMP:
            return TIMESTAMP_ARROW
        case TypeName.DATE:
            return pa.date32()
        case other:
            assert_never(other)


def integer_bounds(name: TypeName) -> tuple[int, int]:
    """The least and the greatest value of an integer type."""
    bits = INTEGER_BITS[name]
    return -(1 << bits - 1), (1 << bits - 1) - 1


def door_type(column: Column, *, native: bool, bigint_texts: bool = False) -> Any:
    """The msgspec type that decodes a value of this column from a message.

    ``native`` is set for Python objects (from SQL) and for msgpack with a BLOB, where bytes and text both may come.
    ``bigint_texts`` lets any text stand for a BIGINT, for ``normalise.fix_bigints`` to read.
    """
    base: Any
    match column.type.name:
        case TypeName.BOOLEAN:
            base = bool
        case TypeName.SMALLINT | TypeName.INT | TypeName.BIGINT:
            base = _integer_type(column.type.name, texts=bigint_texts)
        case TypeName.FLOAT | TypeName.DOUBLE:
            base = float | Literal["NaN", "Infinity", "-Infinity"]
        case TypeName.DECIMAL:
            base = Decimal
        case TypeName.TEXT:
            base = Annotated[str, Meta(max_length=column.type.length_max)] if column.type.length_max else str
        case TypeName.JSON:
            return Any
        case TypeName.UUID:
            base = UUID
        case TypeName.BLOB:
            if native:
                return Any
            base = bytes
        case TypeName.TIMESTAMP:
            base = datetime | int
        case TypeName.DATE:
            base = date
        case other:
            assert_never(other)
    return base | None if column.nullable else base


def _integer_type(name: TypeName, *, texts: bool) -> Any:
    least, greatest = integer_bounds(name)
    number = Annotated[int, Meta(ge=least, le=greatest)]
    return number | str if texts and name is TypeName.BIGINT else number


def stored_type(column: Column) -> Any:
    """The msgspec type that reads a value of this column back from a stored row."""
    match column.type.name:
        case TypeName.DECIMAL:
            return Decimal | None
        case TypeName.DATE:
            return date | None
        case _:  # msgpack itself tells the others apart
            return Any
