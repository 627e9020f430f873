"""A column of Arrow as the values of a table's column: what each type takes of which Arrow type.

At a door (Arrow, Parquet, and CSV as texts) a value is taken where nothing of it is lost, as JSON takes it. What SQL
assigns (UPDATE … SET, INSERT … SELECT) is read as in a VALUES list, by ``sql_value``: a column of the type's own kind
as a whole, and of any other each distinct value once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kalam.errors import InvalidValue
from kalam.rows.judged import UNREADABLE
from kalam.rows.lossless import integers
from kalam.rows.normalise import EPOCH, shorten
from kalam.rows.sql_values import boolean_of, float_of, sql_value
from kalam.rows.timestamp_text import read_utc_timestamp, rounded_micros
from kalam.rows.timestamps import timestamps
from kalam.rows.types import TIMESTAMP_ARROW, arrow_type, door_type
from kalam.schema import INTEGER_TYPES, Column, DataType, TypeName

Read = Callable[[pa.ChunkedArray, DataType], list[Any]]
_types = pa.types
UNFIT = (pa.ArrowException, ArithmeticError, msgspec.MsgspecError, *UNREADABLE)
"""What reading a value raises that does not fit its column."""


def arrow_values(values: pa.ChunkedArray, column: Column, *, sql: bool = False, lossless: bool = False) -> list[Any]:
    """Python values in the form that a typed decoder gives; raises what UNFIT names.

    With ``lossless`` a text such as ``5.0`` is an integer.
    """
    kind = column.type
    if values.type == arrow_type(kind) and kind.name in _AS_IT_IS and not kind.length_max:
        return list(values.to_pylist())
    if _types.is_null(values.type):
        return [None] * len(values)
    if _types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if _types.is_string_view(values.type) or _types.is_binary_view(values.type):
        values = values.cast(pa.string() if _types.is_string_view(values.type) else pa.binary())
    if sql and not _OWN_KINDS[kind.name](values.type):
        return _assigned(values, column)
    if lossless and kind.name in INTEGER_TYPES and _is_text(values.type):
        return _lossless_integers(values, column)
    return _READS[kind.name](values, kind)


def _assigned(values: pa.ChunkedArray, column: Column) -> list[Any]:
    """Each distinct value as a VALUES list takes it, for most often all are one."""
    kind = door_type(column, native=True)

    def taken(value: Any) -> Any:
        try:
            return msgspec.convert(sql_value(column, value), kind)
        except msgspec.ValidationError as exc:
            raise InvalidValue(f"column {column.name} expects {column.type}, found {shorten(value)}") from exc

    encoded = values.combine_chunks().dictionary_encode()
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    distinct = [taken(value) for value in _python(encoded.dictionary)]
    return [None if place is None else distinct[place] for place in encoded.indices.to_pylist()]


def _python(values: pa.Array) -> list[Any]:
    if _types.is_timestamp(values.type):
        return _timestamps(pa.chunked_array([values]), DataType(name=TypeName.TIMESTAMP))
    return list(values.to_pylist())


def _is_text(kind: pa.DataType) -> bool:
    return bool(_types.is_string(kind) or _types.is_large_string(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(_types.is_binary(kind) or _types.is_large_binary(kind) or _types.is_fixed_size_binary(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(_types.is_integer(kind) or _types.is_floating(kind) or _types.is_decimal(kind))


def _refuse_unless(fits: bool, what: str) -> None:
    if not fits:
        raise ValueError(f"it has no {what}")


def _booleans(values: pa.ChunkedArray, _: DataType) -> list[Any]:
    if _is_text(values.type):
        return [None if text is None else boolean_of(text) for text in values.to_pylist()]
    _refuse_unless(_types.is_boolean(values.type), "truth values")
    return list(values.to_pylist())


def _integers(values: pa.ChunkedArray, kind: DataType) -> list[Any]:
    _refuse_unless(_is_number(values.type) or _is_text(values.type), "numbers")
    if _is_text(values.type):
        values = pc.utf8_trim_whitespace(values)
    return list(values.cast(arrow_type(kind)).to_pylist())


def _lossless_integers(values: pa.ChunkedArray, column: Column) -> list[Any]:
    try:
        return _integers(values, column.type)
    except pa.ArrowInvalid:
        read = integers(column)
        return [None if text is None else read(text) for text in values.to_pylist()]


def _doubles(values: pa.ChunkedArray, _: DataType) -> list[Any]:
    _refuse_unless(_is_number(values.type) or _is_text(values.type), "numbers")
    if _is_text(values.type):
        try:
            numbers = values.cast(pa.float64())
        except pa.ArrowInvalid:  # Arrow reads fewer forms, and those much faster
            numbers = None
        if numbers is None or pc.any(pc.is_inf(numbers)).as_py():  # some of which may only be too large
            return [None if text is None else float_of(text) for text in values.to_pylist()]
        return list(numbers.to_pylist())
    return list(values.cast(pa.float64(), safe=not _types.is_decimal(values.type)).to_pylist())


def _floats(values: pa.ChunkedArray, kind: DataType) -> list[Any]:
    if _types.is_float32(values.type):
        return list(values.to_pylist())
    wide = pa.chunked_array([pa.array(_doubles(values, kind), pa.float64())])
    narrow = wide.cast(pa.float32())
    if pc.any(pc.and_not(pc.is_inf(narrow), pc.is_inf(wide))).as_py():
        raise ValueError("a value does not fit 32 bits")
    return list(narrow.to_pylist())


def _decimals(values: pa.ChunkedArray, _: DataType) -> list[Any]:
    _refuse_unless(_is_number(values.type) or _is_text(values.type), "numbers")
    return [None if text is None else Decimal(text) for text in values.cast(pa.string()).to_pylist()]


def _texts(values: pa.ChunkedArray, kind: DataType) -> list[Any]:
    texts = list(values.cast(pa.string()).to_pylist())
    if kind.length_max and any(len(text) > kind.length_max for text in texts if text):
        raise ValueError(f"a text is longer than {kind.length_max} characters")
    return texts


def _blobs(values: pa.ChunkedArray, _: DataType) -> list[Any]:
    """Bytes; a text is base64, as everywhere where bytes come as text."""
    _refuse_unless(_is_bytes(values.type) or _is_text(values.type), "bytes")
    return list(values.to_pylist())


def _timestamps(values: pa.ChunkedArray, _: DataType) -> list[Any]:
    """Timestamps of any unit, dates, milliseconds since 1970, or texts, which mean UTC where they name no offset."""
    kind = values.type
    if kind == TIMESTAMP_ARROW:
        return timestamps(values)
    if _is_text(kind):
        for form in (TIMESTAMP_ARROW, pa.timestamp("us")):  # Arrow reads fewer forms, and those much faster
            with suppress(pa.ArrowException, ValueError):
                return timestamps(values.cast(form).cast(TIMESTAMP_ARROW))
        return [None if text is None else _timestamp(text) for text in values.to_pylist()]
    if _types.is_integer(kind):
        values = values.cast(pa.int64()).cast(pa.timestamp("ms"))
    elif _types.is_timestamp(kind) and kind.unit == "ns":
        micros = rounded_micros(np.asarray(pc.fill_null(values.cast(pa.int64()), 0).to_numpy(), np.int64))
        missing = np.asarray(values.is_null().to_numpy())
        values = pa.chunked_array([pa.array(micros, pa.int64(), mask=missing)])
    elif not (_types.is_timestamp(kind) or _types.is_date(kind)):
        raise ValueError("it has no timestamps")
    if _types.is_timestamp(values.type):
        values = values.cast(pa.timestamp(values.type.unit))
    return timestamps(values.cast(pa.timestamp("us")).cast(TIMESTAMP_ARROW))


def _timestamp(text: str) -> datetime:
    """A text as RFC 3339 has it, or milliseconds since 1970 in digits."""
    if text.strip().lstrip("-").isdecimal():
        return EPOCH + timedelta(milliseconds=int(text))
    return read_utc_timestamp(text)


def _dates(values: pa.ChunkedArray, kind: DataType) -> list[Any]:
    fits = _types.is_date(values.type) or _types.is_timestamp(values.type) or _is_text(values.type)
    _refuse_unless(fits, "dates")
    return list(values.cast(arrow_type(kind)).to_pylist())


def _json(values: pa.ChunkedArray, _: DataType) -> list[Any]:
    texts = values.cast(pa.string()).to_pylist()
    return [None if text is None else msgspec.json.decode(text) for text in texts]


def _uuids(values: pa.ChunkedArray, _: DataType) -> list[Any]:
    if _is_bytes(values.type):
        return [None if value is None else UUID(bytes=value) for value in values.to_pylist()]
    _refuse_unless(_is_text(values.type), "UUIDs")
    return [None if text is None else UUID(text) for text in values.to_pylist()]


_READS: dict[TypeName, Read] = {
    TypeName.BOOLEAN: _booleans,
    **dict.fromkeys(INTEGER_TYPES, _integers),
    TypeName.FLOAT: _floats,
    TypeName.DOUBLE: _doubles,
    TypeName.DECIMAL: _decimals,
    TypeName.TEXT: _texts,
    TypeName.BLOB: _blobs,
    TypeName.TIMESTAMP: _timestamps,
    TypeName.DATE: _dates,
    TypeName.JSON: _json,
    TypeName.UUID: _uuids,
}
_AS_IT_IS = frozenset({TypeName.BOOLEAN, *INTEGER_TYPES, TypeName.FLOAT, TypeName.DOUBLE, TypeName.TEXT, TypeName.BLOB})
"""The types whose values Arrow gives in the form that a decoder does."""
_OWN_KINDS: dict[TypeName, Callable[[pa.DataType], bool]] = {
    TypeName.BOOLEAN: _types.is_boolean,
    **dict.fromkeys(INTEGER_TYPES, _is_number),
    TypeName.FLOAT: _is_number,
    TypeName.DOUBLE: _is_number,
    TypeName.DECIMAL: lambda kind: _types.is_integer(kind) or _types.is_decimal(kind),
    TypeName.TEXT: _is_text,
    TypeName.BLOB: _is_bytes,
    TypeName.TIMESTAMP: _types.is_timestamp,
    TypeName.DATE: _types.is_date,
    TypeName.JSON: _is_text,
    TypeName.UUID: _is_text,
}
"""The Arrow types that are of the type's own kind, and mean the same whether SQL assigns them or they came in."""
