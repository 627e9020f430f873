"""One row of a segment as bytes from which Python's values come at once: a record of fixed size, then its texts.

Arrow makes a Python value out of a column at some microseconds each; ``struct`` makes all numbers of a record in one.
A record is ``hash, NULLs, where the texts begin, a field for each column``; the field of a text or of bytes is its
length, of a DATE days and of a TIMESTAMP microseconds since 1970, of a DECIMAL its digits as an integer of 128 bits.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kalam.storage.segments.key_filter import Hashes

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_DAY = date(1970, 1, 1).toordinal()
EXACT = Context(prec=80)
HASH_BYTES = 8

Field = npt.NDArray[Any]


class Kind:
    """How values of one Arrow type lie in a record. ``to_python`` is None where ``struct`` gives the value itself."""

    def __init__(self, code: str, to_python: Callable[[Any], Any] | None = None) -> None:
        self.code, self.to_python = code, to_python


_SIMPLE: dict[pa.DataType, Kind] = {
    pa.bool_(): Kind("?"),
    pa.int16(): Kind("h"),
    pa.int32(): Kind("i"),
    pa.int64(): Kind("q"),
    pa.float32(): Kind("f"),
    pa.float64(): Kind("d"),
    pa.date32(): Kind("i", lambda days: date.fromordinal(days + EPOCH_DAY)),
    pa.timestamp("us", "UTC"): Kind("q", lambda micros: EPOCH + timedelta(microseconds=micros)),
    pa.string(): Kind("I", lambda text: text.decode()),
    pa.binary(): Kind("I", bytes),
}


def _kind(kind: pa.DataType) -> Kind | None:
    if pa.types.is_decimal128(kind):
        return Kind("16s", lambda raw: Decimal(int.from_bytes(raw, "little", signed=True)).scaleb(-kind.scale, EXACT))
    return _SIMPLE.get(kind)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))


class RowLayout:
    """The record of rows with the columns of ``schema``."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self._kinds = [kind for own in schema if (kind := _kind(own.type)) is not None]
        self.null_bytes = -(-len(self._kinds) // 8)
        self.record = struct.Struct(f"<Q{self.null_bytes}sI" + "".join(kind.code for kind in self._kinds))
        converted = [(at, kind.to_python) for at, kind in enumerate(self._kinds) if kind.to_python is not None]
        self._texts = [(at, to_python) for at, to_python in converted if _is_text(schema.field(at).type)]
        self._converted = [(at, to_python) for at, to_python in converted if not _is_text(schema.field(at).type)]

    @staticmethod
    def fits(schema: pa.Schema) -> bool:
        """Whether every column is of a type that a record can have."""
        return all(_kind(field.type) is not None for field in schema)

    def records(self, rows: pa.Table, hashes: Hashes) -> tuple[Field, pa.Array]:
        """The records of rows, and the texts of each joined; where the texts begin is left 0."""
        columns = [column.combine_chunks() for column in rows.columns]
        made = np.zeros(len(hashes), self._dtype())
        made["hash"] = hashes
        made["nulls"] = self._nulls(columns, len(hashes))
        for place, column in enumerate(columns):
            made[f"c{place}"] = _numbers(column)
        texts = [column.cast(pa.binary()) for column in columns if _is_text(column.type)] or [_no_texts(len(hashes))]
        joined = pc.binary_join_element_wise(
            *(text.cast(pa.large_binary()) for text in texts),
            pa.scalar(b"", pa.large_binary()),
            null_handling="replace",
            null_replacement=b"",
        )
        return made, joined

    def _dtype(self) -> np.dtype[Any]:
        """The record as numpy has it, without padding."""
        fields: list[tuple[str, str]] = [("hash", "<u8"), ("nulls", f"V{self.null_bytes}"), ("texts", "<u4")]
        for place, kind in enumerate(self._kinds):
            fields.append((f"c{place}", "V16" if kind.code == "16s" else f"<{kind.code}"))
        return np.dtype(fields)

    def _nulls(self, columns: Sequence[pa.Array], count: int) -> Field:
        """For each row a bit for each column, set where it is NULL."""
        bits = np.zeros((count, 8 * self.null_bytes), np.uint8)
        for place, column in enumerate(columns):
            if column.null_count:
                bits[:, place] = column.is_null().to_numpy(zero_copy_only=False)
        return np.packbits(bits, axis=1, bitorder="little").view(f"V{self.null_bytes}").ravel()

    def row(self, block: bytes | bytearray, place: int) -> list[Any]:
        """The values of the record at ``place`` in a block, in the columns' order."""
        _, nulls, at, *values = self.record.unpack_from(block, place)
        for own, to_python in self._texts:
            end = at + values[own]
            values[own] = to_python(block[at:end])
            at = end
        for own, to_python in self._converted:
            values[own] = to_python(values[own])
        missing = int.from_bytes(nulls, "little")
        while missing:
            values[(missing & -missing).bit_length() - 1] = None
            missing &= missing - 1
        return values


def _no_texts(count: int) -> pa.Array:
    return pa.array([b""] * count, pa.binary())


def _numbers(column: pa.Array) -> Field:
    """What a record has of each value; anything for NULL."""
    kind = column.type
    if _is_text(kind):
        return np.asarray(pc.fill_null(pc.binary_length(column), 0).to_numpy(), np.uint32)
    if pa.types.is_decimal128(kind):
        filled = pc.fill_null(column, Decimal(0))
        return np.frombuffer(filled.buffers()[1], "V16", len(filled), 16 * filled.offset)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        column = column.view(pa.int64() if pa.types.is_timestamp(kind) else pa.int32())
    elif pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    return np.asarray(pc.fill_null(column, 0).to_numpy(zero_copy_only=False))
