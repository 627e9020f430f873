"""A column as PostgreSQL writes its values in text: one kernel after another over the whole column.

Law: what is written here reads back as the same value. Arrow's own text differs in four things, which are mended: a
small DECIMAL has no exponent, NaN and infinity are words, BLOBs are hex, and a time with a zone ends in ``+00``.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kalam.rows.lone_values import json_default
from kalam_pg.values.buffers import BINARY, Bytes, cut, joined, pieces

_HEX: Final = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), np.uint16)
_FIRST_US: Final = -62_135_596_800_000_000
"""The first microsecond of the year 1, since 1970."""
_DAY_US: Final = 86_400_000_000
_ERA_DAYS, _ERA_YEARS = 146_097, 400
_ZONE: Final = "+00"
_TIME_BYTES, _DATE_BYTES = len("2026-01-02 03:04:05.678901"), len("2026-01-02")
_TRUTHS: Final = np.array([b"f", b"t"], "S1")
_ENCODER: Final = msgspec.json.Encoder(enc_hook=json_default)


def texts(column: pa.Array) -> pa.Array:
    """The column's values as text, in UTF-8; NULL stays NULL."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return texts(column.cast(kind.value_type))
    return _text_of(column, kind).cast(BINARY)


def _text_of(column: pa.Array, kind: pa.DataType) -> pa.Array:  # noqa: C901 - one case a type
    types = pa.types
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return column if not types.is_string_view(kind) else column.cast(pa.large_string())
    if types.is_boolean(kind):
        return pc.if_else(column, "t", "f")
    if types.is_floating(kind):
        return _floats(column)
    if types.is_decimal(kind):
        return decimal_text(column)
    if types.is_timestamp(kind):
        return timestamp_text(column)
    if types.is_date(kind):
        return _dates(column.cast(pa.date32()))
    if types.is_time(kind):
        return column.cast(pa.time64("us")).cast(pa.string())
    if types.is_interval(kind) or types.is_duration(kind):
        return pa.array([None if each is None else interval_text(each) for each in column.to_pylist()], pa.string())
    if types.is_null(kind):
        return column.cast(pa.string())
    if is_binary(kind):
        return _hex(column)
    if is_list(kind):
        return _arrays(column)
    if types.is_nested(kind):
        values = (None if each is None else _ENCODER.encode(each).decode() for each in column.to_pylist())
        return pa.array(list(values), pa.string())
    return column.cast(pa.string())


def is_binary(kind: pa.DataType) -> bool:
    """Whether these are bytes."""
    types = pa.types
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return True
    return bool(types.is_fixed_size_binary(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether these are lists, in whatever layout."""
    types = pa.types
    return bool(
        types.is_list(kind) or types.is_large_list(kind) or types.is_list_view(kind) or types.is_fixed_size_list(kind)
    )


def _floats(column: pa.Array) -> pa.Array:
    written = (column.cast(pa.float32()) if pa.types.is_float16(column.type) else column).cast(pa.string())
    if pc.all(pc.is_finite(column)).as_py() is not False:
        return written
    written = pc.if_else(pc.is_nan(column), "NaN", written)
    positive = pc.greater(column, pa.scalar(0.0, column.type))
    return pc.if_else(pc.is_inf(column), pc.if_else(positive, "Infinity", "-Infinity"), written)


def unscaled_text(column: pa.Array) -> pa.Array:
    """The digits of decimals without their point, with a sign where they are negative."""
    kind = column.type
    column = pa.concat_arrays([column]) if column.offset else column
    plain = type_of_scale(kind, 0)
    return pa.Array.from_buffers(plain, len(column), column.buffers(), offset=column.offset).cast(pa.string())


def type_of_scale(kind: pa.DataType, scale: int) -> pa.DataType:
    """The decimal type of the same width with another scale."""
    if pa.types.is_decimal256(kind):
        return pa.decimal256(kind.precision, scale)
    return pa.decimal128(kind.precision, scale) if pa.types.is_decimal128(kind) else kind


def split_digits(column: pa.Array) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Whether each decimal is negative, the digits before its point, and those behind it."""
    kind = column.type
    if not (pa.types.is_decimal128(kind) or pa.types.is_decimal256(kind)):
        column = column.cast(pa.decimal128(kind.precision, kind.scale))
        kind = column.type
    written = unscaled_text(column)
    negative = pc.starts_with(written, "-")
    digits = pc.utf8_lpad(pc.utf8_ltrim(written, "-"), kind.scale + 1, "0")
    if kind.scale <= 0:
        return negative, digits, pc.if_else(pc.is_valid(digits), "", None)
    return negative, pc.utf8_slice_codeunits(digits, 0, -kind.scale), pc.utf8_slice_codeunits(digits, -kind.scale)


def decimal_text(column: pa.Array) -> pa.Array:
    """Decimals with all of the digits of their scale, and never with an exponent."""
    if column.type.scale < 0:
        column = column.cast(pa.decimal256(76, 0))
    negative, whole, fraction = split_digits(column)
    sign = pc.if_else(negative, "-", "")
    if column.type.scale <= 0:
        return pc.binary_join_element_wise(sign, whole, "")
    return pc.binary_join_element_wise(sign, whole, ".", fraction, "")


def microseconds(column: pa.Array) -> Any:
    """Timestamps as microseconds since 1970, in numpy; what is not valid is 0."""
    kind = column.type
    in_us = column.cast(pa.timestamp("us", kind.tz), safe=False) if kind.unit != "us" else column
    return pc.fill_null(in_us.view(pa.int64()), 0).to_numpy(zero_copy_only=False)


def even_texts(column: pa.Array) -> tuple[Bytes, ...] | None:
    """What the column's values are made of side by side, where all have as many bytes; none may be NULL.

    None where that is not so.
    """
    types = pa.types
    if types.is_boolean(column.type):
        return (_TRUTHS[column.to_numpy(zero_copy_only=False).astype(np.uint8)],)
    if types.is_timestamp(column.type):
        found = _even(_plain_times(column), _TIME_BYTES)
        zone = () if column.type.tz is None else (np.array(_ZONE, "S3"),)
        return None if found is None else (found, *zone)
    if types.is_date32(column.type) and _first(column.view(pa.int32())) >= _FIRST_US // _DAY_US:
        found = _even(column.cast(pa.string()), _DATE_BYTES)
        return None if found is None else (found,)
    return None


def _even(written: pa.Array | None, size: int) -> Bytes | None:
    """Texts of this size as numpy has them."""
    if written is None:
        return None
    _, data = pieces(written)
    return data.view(f"S{size}") if len(data) == size * len(written) else None


def _plain_times(column: pa.Array) -> pa.Array | None:
    """Times without their zone, by Arrow; None where one lies before the year 1."""
    plain = column.cast(pa.timestamp("us", column.type.tz), safe=False).view(pa.int64())
    return None if _first(plain) < _FIRST_US else plain.view(pa.timestamp("us")).cast(pa.string())


def _first(numbers: pa.Array) -> int:
    least = pc.min(numbers).as_py()
    return 0 if least is None else int(least)


def timestamp_text(column: pa.Array) -> pa.Array:
    """Times, with ``+00`` behind those that have a zone."""
    zone = "" if column.type.tz is None else _ZONE
    written = _plain_times(column)
    if written is None:
        moments = column.cast(pa.timestamp("us", column.type.tz), safe=False).view(pa.int64()).to_pylist()
        return pa.array([None if us is None else old_time_text(us, zone) for us in moments], pa.string())
    return pc.binary_join_element_wise(written, zone, "") if zone else written


def _dates(column: pa.Array) -> pa.Array:
    if _first(column.view(pa.int32())) >= _FIRST_US // _DAY_US:
        return column.cast(pa.string())
    days = column.view(pa.int32()).to_pylist()
    return pa.array([None if day is None else old_date_text(day) for day in days], pa.string())


def old_date_text(day: int) -> str:
    """A day since 1970 of any year; PostgreSQL counts those before the year 1 backwards, as BC."""
    eras, within = divmod(day + 719_162, _ERA_DAYS)
    found = date(1, 1, 1) + timedelta(days=within)
    year = found.year + eras * _ERA_YEARS
    shown = f"{year if year > 0 else 1 - year:04}-{found:%m-%d}"
    return shown if year > 0 else f"{shown} BC"


def old_time_text(us: int, zone: str) -> str:
    """The same of a time."""
    day, within = divmod(us, _DAY_US)
    shown, _, era = old_date_text(day).partition(" ")
    clock = (datetime(1, 1, 1, tzinfo=UTC) + timedelta(microseconds=within)).strftime("%H:%M:%S.%f")
    return f"{shown} {clock}{zone}" + (f" {era}" if era else "")


def interval_text(value: Any) -> str:
    """An interval as PostgreSQL's own style has it: ``1 year 2 mons 3 days 04:05:06.5``."""
    months, days, us = interval_parts(value)
    sign = -1 if months < 0 else 1
    years, months = (sign * part for part in divmod(abs(months), 12))
    named = [
        f"{count} {name if count == 1 else name + 's'}"
        for count, name in ((years, "year"), (months, "mon"), (days, "day"))
        if count
    ]
    if us or not named:
        seconds, fraction = divmod(abs(us), 1_000_000)
        clock = f"{'-' if us < 0 else ''}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        named.append(clock + (f".{fraction:06}".rstrip("0") if fraction else ""))
    return " ".join(named)


def interval_parts(value: Any) -> tuple[int, int, int]:
    """Months, days and microseconds of an interval."""
    if isinstance(value, timedelta):
        return 0, value.days, value.seconds * 1_000_000 + value.microseconds
    return value.months, value.days, value.nanoseconds // 1_000


def _hex(column: pa.Array) -> pa.Array:
    offsets, data = pieces(column)
    written = cut(offsets * 2, _HEX[data].tobytes())
    shown = joined(pa.scalar(b"\\x", BINARY), written)
    return pc.if_else(column.is_valid(), shown, pa.scalar(None, BINARY)) if column.null_count else shown


def _arrays(column: pa.Array) -> pa.Array:
    kind = column.type
    column = column.cast(pa.list_(kind.value_type))
    members = texts(column.values).to_pylist()
    nested = is_list(kind.value_type)
    shown: list[bytes | None] = []
    offsets = column.offsets.to_pylist()
    for (start, end), valid in zip(pairwise(offsets), column.is_valid().to_pylist(), strict=True):
        parts = (member if nested and member is not None else array_member(member) for member in members[start:end])
        shown.append(b"{" + b",".join(parts) + b"}" if valid else None)
    return pa.array(shown, BINARY)


def array_member(text: bytes | None) -> bytes:
    """A value as it stands in an array's text: in quotes where it could be taken for something else."""
    if text is None:
        return b"NULL"
    if text and text.upper() != b"NULL" and not any(byte in b'{},"\\ \t\n\r\v\f' for byte in text):
        return text
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
