"""Rows of Arrow as msgpack, a column at a time; and from there one row at a time, in C.

Arrow makes a Python value out of a column at some microseconds each, msgspec a whole row in one. So the bytes of a row
are those of a stored row (``kalam.rows.stored``), and are put together without Python's values: numpy and Arrow write
each column's values as msgpack, and Arrow joins them row by row. What is fixed in length is written in msgpack's widest
form. DATE and DECIMAL are texts, TIMESTAMP is the extension type -1 (``kalam.rows.timestamps``).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kalam.rows.timestamps import HEAD, TIMESTAMP_96
from kalam.rows.types import Row

NIL = b"\xc0"
ARRAY_16, STR_8, STR_32, BIN_8, BIN_32 = 0xDC, 0xD9, 0xDB, 0xC4, 0xC6
COLUMNS_MAX = 0xFFFF
SHORT_MAX = 0xFF
NUMBERS = {
    pa.int16(): (0xD1, ">i2"),
    pa.int32(): (0xD2, ">i4"),
    pa.int64(): (0xD3, ">i8"),
    pa.float32(): (0xCA, ">f4"),
    pa.float64(): (0xCB, ">f8"),
}
"""The byte that stands before a number, and the form of the number."""
FALSE, TRUE = 0xC2, 0xC3


class RowLayout:
    """Writes and reads rows with the columns of ``schema``."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.overhead_bytes = 3 + sum(16 if pa.types.is_decimal(own.type) else 8 for own in schema)
        """More than a row of msgpack has beyond its values as Arrow has them, for most rows."""
        self._writers = [_writer(own.type) for own in schema]
        types = tuple(_read_as(own.type) for own in schema)
        self.read: Callable[[bytes | bytearray], Row] = msgspec.msgpack.Decoder(tuple[types]).decode  # type: ignore[valid-type]

    @staticmethod
    def fits(schema: pa.Schema) -> bool:
        """Whether every column is of a type that can be written."""
        return len(schema) <= COLUMNS_MAX and all(_writer(own.type) is not None for own in schema)

    def write(self, rows: pa.Table) -> pa.Array:
        """Each row as msgpack: an array of its values."""
        parts: list[pa.Array | pa.Scalar] = [pa.scalar(bytes([ARRAY_16, *len(rows.schema).to_bytes(2, "big")]))]
        for column, writer in zip(rows.columns, self._writers, strict=True):
            assert writer is not None
            parts += writer(column.combine_chunks())
        none = pa.scalar(b"")
        return pc.binary_join_element_wise(*parts, none, null_handling="replace", null_replacement=NIL)


Writer = Callable[[pa.Array], list[pa.Array]]
"""Writes a column in one part or several; the first one is NULL where the value is, and no other is."""


def _writer(kind: pa.DataType) -> Writer | None:
    if kind in NUMBERS or pa.types.is_boolean(kind) or kind == pa.timestamp("us", "UTC"):
        return _fixed
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return _text
    if pa.types.is_date32(kind) or pa.types.is_decimal128(kind):
        return lambda column: _text(column.cast(pa.string()))
    return None


def _read_as(kind: pa.DataType) -> Any:
    """The msgspec type of a column's values."""
    if pa.types.is_date32(kind):
        return date | None
    return Decimal | None if pa.types.is_decimal128(kind) else Any


def _fixed(column: pa.Array) -> list[pa.Array]:
    values: npt.NDArray[Any]
    if pa.types.is_boolean(column.type):
        values = np.where(pc.fill_null(column, False).to_numpy(zero_copy_only=False), TRUE, FALSE).astype(np.uint8)
    elif pa.types.is_timestamp(column.type):
        values = _timestamps(np.asarray(pc.fill_null(column.view(pa.int64()), 0).to_numpy()))
    else:
        head, form = NUMBERS[column.type]
        values = np.empty(len(column), [("head", "u1"), ("value", form)])
        values["head"], values["value"] = head, pc.fill_null(column, 0).to_numpy()
    return [_pieces(values, column)]


def _timestamps(micros: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    values = np.empty(len(micros), TIMESTAMP_96)
    seconds = micros // 1_000_000
    values["head"], values["seconds"] = HEAD, seconds
    values["nanoseconds"] = (micros - seconds * 1_000_000) * 1_000
    return values


def _text(column: pa.Array) -> list[pa.Array]:
    """A head with the length, and the text or the bytes."""
    filled = pc.fill_null(column, "" if pa.types.is_string(column.type) else b"")
    lengths = pc.binary_length(filled).to_numpy()
    short = lengths.max(initial=0) <= SHORT_MAX
    values = np.empty(len(column), [("head", "u1"), ("length", "u1" if short else ">u4")])
    heads = (STR_8, STR_32) if pa.types.is_string(column.type) else (BIN_8, BIN_32)
    values["head"], values["length"] = heads[0] if short else heads[1], lengths
    return [_pieces(values, column), filled.cast(pa.binary())]


def _pieces(values: npt.NDArray[Any], column: pa.Array) -> pa.Array:
    """Bytes of one length each, NULL where the column is."""
    validity = column.is_valid().buffers()[1] if column.null_count else None
    kind = pa.binary(values.dtype.itemsize)
    return pa.Array.from_buffers(kind, len(values), [validity, pa.py_buffer(values.tobytes())]).cast(pa.binary())
