"""A column of Arrow as the values of a table's column: what each type takes of which Arrow type.

At a door (Arrow, Parquet, and CSV as texts) a value is taken where nothing of it is lost, as JSON takes it. What SQL
assigns (UPDATE … SET, INSERT … SELECT) is read as in a VALUES list, by ``sql_value``: a column of the type's own kind
as a whole, and of any other each distinct value once.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pyarrow as pa

from kalam.errors import InvalidValue
from kalam.rows.column_types import TYPES, ColumnType, Decoding
from kalam.rows.column_types.arrow_kinds import is_text
from kalam.rows.column_types.instants import from_arrow
from kalam.rows.column_types.integers import integer_of, within
from kalam.rows.judged import UNREADABLE
from kalam.rows.sql_values import sql_value
from kalam.rows.types import door_type
from kalam.rows.values import shorten
from kalam.schema import Column, DataType

_types = pa.types
UNFIT = (pa.ArrowException, ArithmeticError, msgspec.MsgspecError, *UNREADABLE)
"""What reading a value raises that does not fit its column."""


def arrow_values(values: pa.ChunkedArray, column: Column, *, sql: bool = False, lossless: bool = False) -> list[Any]:
    """Python values in the form that a typed decoder gives; raises what UNFIT names.

    With ``lossless`` a text such as ``5.0`` is an integer.
    """
    kind = TYPES[column.type.name]
    if kind.arrow_as_is and values.type == kind.arrow(column.type) and not column.type.length_max:
        return list(values.to_pylist())
    if _types.is_null(values.type):
        return [None] * len(values)
    if _types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if _types.is_string_view(values.type) or _types.is_binary_view(values.type):
        values = values.cast(pa.string() if _types.is_string_view(values.type) else pa.binary())
    if sql and not kind.own_arrow(values.type):
        return _assigned(values, column)
    if lossless and kind.bits is not None and is_text(values.type):
        return _of_texts(values, kind, column.type)
    return kind.from_arrow(values, column.type)


def _assigned(values: pa.ChunkedArray, column: Column) -> list[Any]:
    """Each distinct value as a VALUES list takes it, for most often all are one."""
    kind = door_type(column, Decoding(native=True))

    def taken(value: Any) -> Any:
        try:
            return msgspec.convert(sql_value(column, value), kind)
        except msgspec.ValidationError as exc:
            raise InvalidValue(f"column {column.name} expects {column.type}, found {shorten(value)}") from exc

    if _types.is_nested(values.type):  # which Arrow does not tell apart by value
        return [None if value is None else taken(value) for value in values.to_pylist()]
    encoded = values.combine_chunks().dictionary_encode()
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    distinct = [taken(value) for value in _python(encoded.dictionary)]
    return [None if place is None else distinct[place] for place in encoded.indices.to_pylist()]


def _python(values: pa.Array) -> list[Any]:
    if _types.is_timestamp(values.type):
        return from_arrow(pa.chunked_array([values]))
    return list(values.to_pylist())


def _of_texts(values: pa.ChunkedArray, kind: ColumnType, data_type: DataType) -> list[Any]:
    """The integers of a column of texts, in other forms too."""
    try:
        return kind.from_arrow(values, data_type)
    except pa.ArrowInvalid:
        assert kind.bits is not None
        return [None if text is None else within(kind.bits, integer_of(text)) for text in values.to_pylist()]
