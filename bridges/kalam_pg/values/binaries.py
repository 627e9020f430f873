"""A column in PostgreSQL's binary format: fixed sizes as records of numpy, numbers in groups of four digits.

The layouts are those of PostgreSQL's ``*send`` functions. Law: the type is the one that was announced; a column that
Arrow has in another one is cast to it.
"""

from __future__ import annotations

import struct
import uuid
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kalam_pg import types as pg
from kalam_pg.values.buffers import BINARY, Bytes, fixed, pieces, ragged
from kalam_pg.values.texts import interval_parts, is_list, microseconds, split_digits, texts

EPOCH_DAYS: Final = 10_957
"""2000-01-01, from which PostgreSQL counts, since 1970."""
EPOCH_US: Final = EPOCH_DAYS * 86_400_000_000
_NUMBERS: Final = {
    pg.INT2.oid: (pa.int16(), ">i2"),
    pg.INT4.oid: (pa.int32(), ">i4"),
    pg.INT8.oid: (pa.int64(), ">i8"),
    pg.FLOAT4.oid: (pa.float32(), ">f4"),
    pg.FLOAT8.oid: (pa.float64(), ">f8"),
    **{
        known.oid: (pa.int64(), ">u4")
        for known in (pg.OID, pg.XID, pg.REGPROC, pg.REGCLASS, pg.REGTYPE, pg.REGNAMESPACE, pg.REGROLE)
    },
}
_UUID_DIGITS: Final = np.array([place for place in range(36) if place not in (8, 13, 18, 23)])
_NIBBLES: Final = np.array(
    [int(chr(code), 16) if chr(code) in "0123456789abcdefABCDEF" else 0 for code in range(256)], np.uint8
)
GROUP: Final = 4
"""Decimal digits in a digit of a numeric."""


def binaries(column: pa.Array, kind: pg.PgType) -> pa.Array:
    """The column's values in binary; NULL is anything, as long as the column says where it is."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    even = numbers(column, kind)
    if even is not None:
        return fixed(even)
    if kind.is_array or is_list(column.type):
        return _arrays(column, kind)
    match kind.oid:
        case pg.NUMERIC.oid:
            return numeric(column)
        case pg.UUID.oid:
            return uuids(texts(column))
        case pg.INTERVAL.oid:
            return pa.array([interval(each) for each in column.to_pylist()], BINARY)
        case pg.JSONB.oid:
            return pc.binary_join_element_wise(pa.scalar(b"\x01", BINARY), texts(column), pa.scalar(b"", BINARY))
        case pg.BYTEA.oid if not pa.types.is_string(column.type):
            return column.cast(BINARY)
    return texts(column)


def numbers(column: pa.Array, kind: pg.PgType) -> Bytes | None:
    """The values of a type of which all have the same size, in the order of the network; None for other types.

    NULL is anything.
    """
    if is_list(column.type):
        return None
    found: Bytes | None = None
    match kind.oid:
        case oid if oid in _NUMBERS:
            found = _number(column, *_NUMBERS[oid])
        case pg.BOOL.oid:
            found = pc.fill_null(column, False).to_numpy(zero_copy_only=False).astype(np.uint8)
        case pg.TIMESTAMP.oid | pg.TIMESTAMPTZ.oid:
            found = (microseconds(_as_timestamp(column)) - EPOCH_US).astype(">i8")
        case pg.DATE.oid:
            days = pc.fill_null(column.cast(pa.date32()).view(pa.int32()), 0).to_numpy(zero_copy_only=False)
            found = (days - EPOCH_DAYS).astype(">i4")
        case pg.TIME.oid:
            times = pc.fill_null(column.cast(pa.time64("us")).view(pa.int64()), 0).to_numpy(zero_copy_only=False)
            found = times.astype(">i8")
    return found


def _number(column: pa.Array, arrow: pa.DataType, layout: str) -> Bytes | None:
    if pa.types.is_string(column.type) and arrow == pa.int64() and layout == ">u4":  # the name that an OID stands for
        return None
    if pa.types.is_decimal(column.type) and pa.types.is_floating(arrow):
        column = column.cast(pa.string())  # of which Arrow makes the nearest number
    if column.type != arrow:
        column = column.cast(arrow)
    found: Bytes = pc.fill_null(column, pa.scalar(0, arrow)).to_numpy(zero_copy_only=False).astype(layout)
    return found


def _as_timestamp(column: pa.Array) -> pa.Array:
    return column if pa.types.is_timestamp(column.type) else column.cast(pa.timestamp("us", "UTC"))


def numeric(column: pa.Array) -> pa.Array:
    """Decimals as PostgreSQL sends them: a head of four numbers, and the digits to base 10,000 without outer zeros."""
    if not pa.types.is_decimal(column.type):
        column = column.cast(pa.decimal128(20, 0) if pa.types.is_integer(column.type) else pa.decimal128(38, 10))
    scale = max(column.type.scale, 0)
    if column.type.scale < 0:
        column = column.cast(pa.decimal256(76, 0))
    column = pc.fill_null(column, pa.scalar(Decimal(0), column.type))
    negative, whole, fraction = split_digits(column)
    longest = pc.max(pc.binary_length(whole)).as_py() or 1
    before, behind = -(-longest // GROUP), -(-scale // GROUP)
    padded = (pc.utf8_lpad(whole, before * GROUP, "0"), pc.utf8_rpad(fraction, behind * GROUP, "0"))
    written = pc.binary_join_element_wise(*padded, "")
    _, data = pieces(written.cast(BINARY))
    digits = (data - ord("0")).reshape(len(column), before + behind, GROUP).astype(np.int16)
    groups = digits @ np.array([1000, 100, 10, 1], np.int16)
    return _numeric_cells(groups, before, scale, negative.to_numpy(zero_copy_only=False).astype(bool))


def _numeric_cells(groups: Bytes, before: int, scale: int, negative: Bytes) -> pa.Array:
    count, width = groups.shape
    used = groups != 0
    any_used = used.any(axis=1)
    first = np.where(any_used, used.argmax(axis=1), 0)
    last = np.where(any_used, width - used[:, ::-1].argmax(axis=1), 0)
    head = np.zeros((count, 4), ">i2")
    head[:, 0] = last - first
    head[:, 1] = np.where(any_used, before - 1 - first, 0)
    head[:, 2] = np.where(negative & any_used, 0x4000, 0)
    head[:, 3] = scale
    places = np.arange(width)
    kept = (places >= first[:, None]) & (places < last[:, None])
    matrix = np.concatenate(
        [head.view(np.uint8), groups.astype(">i2").view(np.uint8).reshape(count, 2 * width)], axis=1
    )
    mask = np.concatenate([np.ones((count, 8), bool), np.repeat(kept, 2, axis=1)], axis=1)
    return ragged(matrix, mask)


def uuids(written: pa.Array) -> pa.Array:
    """UUIDs, written as text, as their 16 bytes."""
    filled = pc.fill_null(written, b"0" * 8 + b"-0000-0000-0000-" + b"0" * 12)
    offsets, data = pieces(filled)
    if not (np.diff(offsets) == 36).all():
        return pa.array([uuid.UUID(each.decode()).bytes for each in filled.to_pylist()], BINARY)
    nibbles = _NIBBLES[data.reshape(-1, 36)[:, _UUID_DIGITS]]
    return fixed((nibbles[:, 0::2] << 4) | nibbles[:, 1::2])


def interval(value: Any) -> bytes:
    """An interval as microseconds, days and months."""
    months, days, us = (0, 0, 0) if value is None else interval_parts(value)
    return struct.pack(">qii", us, days, months)


def _arrays(column: pa.Array, kind: pg.PgType) -> pa.Array:
    """Arrays of one dimension."""
    element = pg.BY_OID[kind.element or pg.TEXT.oid]
    column = column.cast(pa.list_(column.type.value_type))
    values = column.values
    members = binaries(values, element).to_pylist()
    there = values.is_valid().to_pylist()
    offsets = column.offsets.to_pylist()
    shown = []
    for start, end in pairwise(offsets):
        nulls = not all(there[start:end])
        if start == end:
            shown.append(struct.pack(">iiI", 0, 0, element.oid))
            continue
        head = struct.pack(">iiIii", 1, nulls, element.oid, end - start, 1)
        cells = (
            struct.pack(">i", len(members[place])) + members[place] if there[place] else b"\xff\xff\xff\xff"
            for place in range(start, end)
        )
        shown.append(head + b"".join(cells))
    return pa.array(shown, BINARY)
