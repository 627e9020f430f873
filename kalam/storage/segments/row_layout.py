"""Rows of Arrow as planes of msgpack, from which one row at a time is read, in C.

Arrow makes a Python value out of a column at some microseconds each, msgspec a whole row in one. So what is kept of a
row are the bytes of a stored row (``kalam.rows.stored``), made by numpy a column at a time; what is fixed in length is
written in msgpack's widest form. DATE and DECIMAL are texts, TIMESTAMP is the extension type -1
(``kalam.rows.timestamps``), of a text the head and the length are fixed in length.

They lie in *planes*, for they are to be compressed: the first bytes of all rows, then the second ones, and so on. A
column's high bytes, which are much alike, are together so, which halves what compression leaves; and one row still is
one slice, with the number of rows as its step. Behind the planes come the texts of each column, one after the other,
and before them a number for each such column that says where its texts begin.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kalam.rows.timestamps import HEAD, TIMESTAMP_96
from kalam.rows.types import Row
from kalam.storage.log.copies import Key

NIL = 0xC0
ARRAY_16, STR_8, STR_32, BIN_8, BIN_32 = 0xDC, 0xD9, 0xDB, 0xC4, 0xC6
COLUMNS_MAX = 0xFFFF
SHORT_MAX = 0xFF
PLACE = struct.Struct("<I")
PLACE_BYTES = PLACE.size
NUMBERS = {
    pa.int16(): (0xD1, ">i2"),
    pa.int32(): (0xD2, ">i4"),
    pa.int64(): (0xD3, ">i8"),
    pa.float32(): (0xCA, ">f4"),
    pa.float64(): (0xCB, ">f8"),
}
"""The byte that stands before a number, and the form of the number."""
FALSE, TRUE = 0xC2, 0xC3
NOTHING = bytes([NIL])

Planes = npt.NDArray[np.uint8]
"""One row for each byte of a row of the table that is of fixed length, one column for each row."""


class Slot(msgspec.Struct, frozen=True):
    """Where a column lies: its planes, and which of the texts is its own, None where it is fixed in length."""

    start: int
    end: int
    has_nulls: bool
    text: int | None


class Texts(msgspec.Struct, frozen=True):
    """The texts of a column, which lie in ``data``; ``ends`` is where the first one begins and where each ends."""

    ends: npt.NDArray[np.int32]
    data: memoryview


class Read(NamedTuple):
    """What is taken of a row's bytes in one go; behind it comes a text, if ``text`` says which.

    The text is as long as the planes from ``lengths`` on say.
    """

    start: int
    end: int
    may_be_null: bool
    text: int | None
    lengths: int


Reader = Callable[[bytes, int, int], Row]
KeyOfRow = Callable[[bytes, int, int], Key]
"""Read the row, or its key, at a place of a block that has so many rows."""


class LaidOut:
    """The rows of a table, in planes; ``layout`` reads blocks of them."""

    def __init__(self, rows: pa.Table) -> None:
        whole = [column.combine_chunks() for column in rows.columns]
        columns = [_written(column) for column in whole]
        slots: list[Slot] = []
        self.row_count = rows.num_rows
        self._texts = [texts for _, texts in columns if texts is not None]
        self._planes: Planes = np.empty((sum(values.itemsize for values, _ in columns), rows.num_rows), np.uint8)
        start = text_count = 0
        for (values, texts), column in zip(columns, whole, strict=True):
            end = start + values.itemsize
            planes = self._planes[start:end]
            planes[:] = values.view(np.uint8).reshape(len(values), -1).T
            if column.null_count:
                planes[0, column.is_null().to_numpy(zero_copy_only=False)] = NIL
            slots.append(Slot(start, end, column.null_count > 0, None if texts is None else text_count))
            start, text_count = end, text_count + (texts is not None)
        self.layout = RowLayout(rows.schema, slots)

    @property
    def byte_count(self) -> int:
        """How long a block of all rows would be."""
        heads = PLACE_BYTES * len(self._texts)
        return heads + self._planes.nbytes + sum(int(texts.ends[-1] - texts.ends[0]) for texts in self._texts)

    def block(self, first: int, end: int) -> bytes:
        """The rows from ``first`` to ``end``."""
        planes = self._planes[:, first:end].tobytes()
        places: list[bytes] = []
        texts: list[memoryview] = []
        begin = PLACE_BYTES * len(self._texts) + len(planes)
        for own in self._texts:
            start, stop = int(own.ends[first]), int(own.ends[end])
            places.append(PLACE.pack(begin))
            texts.append(own.data[start:stop])
            begin += stop - start
        return b"".join((*places, planes, *texts))


class RowLayout:
    """Reads rows with the columns of ``schema`` from blocks that were laid out alike."""

    def __init__(self, schema: pa.Schema, slots: Sequence[Slot]) -> None:
        self.schema = schema
        self._slots = dict(zip(schema.names, slots, strict=True))
        self._types = {own.name: read_as(own.type) for own in schema}
        self._begins = struct.Struct(f"<{sum(slot.text is not None for slot in slots)}I")
        self._plane_count = slots[-1].end

    @staticmethod
    def fits(schema: pa.Schema) -> bool:
        """Whether every column is of a type that can be written."""
        return len(schema) <= COLUMNS_MAX and all(_fits(own.type) for own in schema)

    def reader(self, names: Sequence[str]) -> Reader:
        """What reads these columns of a row; ``names`` are some of the schema's."""
        head = array_head(len(names))
        types = tuple(self._types[name] for name in names)
        decode: Callable[[bytes], Row] = msgspec.msgpack.Decoder(tuple[types]).decode  # type: ignore[valid-type]
        reads, plane_count = _reads([self._slots[name] for name in names]), self._plane_count
        begins_of, planes = self._begins.unpack_from, self._begins.size

        def read(block: bytes, count: int, at: int) -> Row:
            row, begins = block[planes + at : planes + plane_count * count : count], begins_of(block)
            parts = [head]
            for start, end, may_be_null, text, lengths in reads:
                if may_be_null and row[start] == NIL:
                    parts.append(NOTHING)
                    continue
                parts.append(row[start:end])
                if text is not None:
                    begin = begins[text]
                    for plane in range(lengths, end):  # behind the texts of the rows before, which are as long as told
                        first = planes + plane * count
                        begin += sum(block[first : first + at]) << 8 * (end - plane - 1)
                    parts.append(block[begin : begin + int.from_bytes(row[lengths:end], "big")])
            return decode(b"".join(parts))

        return read

    def key_reader(self, names: Sequence[str]) -> KeyOfRow:
        """What reads the key of a row, which these columns are; of one that is fixed in length in one go."""
        read, slot = self.reader(names), self._slots[names[0]]
        if len(names) > 1:
            return read
        if slot.text is not None or slot.has_nulls:
            return lambda block, count, at: read(block, count, at)[0]
        decode: Callable[[bytes], Key] = msgspec.msgpack.Decoder(self._types[names[0]]).decode
        planes, first, end = self._begins.size, slot.start, slot.end

        def key(block: bytes, count: int, at: int) -> Key:
            return decode(block[planes + first * count + at : planes + end * count : count])

        return key


def array_head(count: int) -> bytes:
    """What stands before the values of a row of so many columns."""
    return bytes([ARRAY_16, *count.to_bytes(2, "big")])


def _reads(slots: Sequence[Slot]) -> list[Read]:
    """The slices that bring columns in this order: columns that lie side by side come in one."""
    found: list[Read] = []
    for slot in slots:
        own = Read(slot.start, slot.end, slot.has_nulls, slot.text, slot.start + 1)
        last = found[-1] if found else own
        if last.end == own.start and last.text is None and not last.may_be_null and not own.may_be_null:
            found[-1] = own._replace(start=last.start)
        else:
            found.append(own)
    return found


Values = npt.NDArray[Any]
"""The part of a column that is fixed in length, one item for each row."""


def _fits(kind: pa.DataType) -> bool:
    fixed = kind in NUMBERS or pa.types.is_boolean(kind) or kind == pa.timestamp("us", "UTC")
    return fixed or pa.types.is_string(kind) or pa.types.is_binary(kind) or _is_told(kind)


def _is_told(kind: pa.DataType) -> bool:
    """Whether values are kept as texts."""
    return bool(pa.types.is_date32(kind) or pa.types.is_decimal128(kind))


def read_as(kind: pa.DataType) -> Any:
    """The msgspec type of a column's values."""
    if pa.types.is_date32(kind):
        return date | None
    return Decimal | None if pa.types.is_decimal128(kind) else Any


def fixed_and_text(column: pa.Array) -> tuple[Values, pa.Array | None]:
    """The part of each value in msgpack that is fixed in length, and the text behind it, empty for NULL."""
    if _is_told(column.type):
        column = column.cast(pa.string())
    if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
        return _text(column)
    return _fixed(column), None


def _written(column: pa.Array) -> tuple[Values, Texts | None]:
    values, text = fixed_and_text(column)
    if text is None:
        return values, None
    _, ends, data = text.buffers()
    return values, Texts(np.frombuffer(ends, np.int32, len(text) + 1, 4 * text.offset), memoryview(data or b""))


def _fixed(column: pa.Array) -> Values:
    if pa.types.is_boolean(column.type):
        return np.where(pc.fill_null(column, False).to_numpy(zero_copy_only=False), TRUE, FALSE).astype(np.uint8)
    if pa.types.is_timestamp(column.type):
        return _timestamps(np.asarray(pc.fill_null(column.view(pa.int64()), 0).to_numpy()))
    head, form = NUMBERS[column.type]
    values = np.empty(len(column), [("head", "u1"), ("value", form)])
    values["head"], values["value"] = head, pc.fill_null(column, 0).to_numpy()
    return values


def _timestamps(micros: npt.NDArray[np.int64]) -> Values:
    values = np.empty(len(micros), TIMESTAMP_96)
    seconds = micros // 1_000_000
    values["head"], values["seconds"] = HEAD, seconds
    values["nanoseconds"] = (micros - seconds * 1_000_000) * 1_000
    return values


def _text(column: pa.Array) -> tuple[Values, pa.Array]:
    """Heads with the lengths, and the texts or the bytes."""
    is_text = pa.types.is_string(column.type)
    filled = pc.fill_null(column, "" if is_text else b"")
    lengths = pc.binary_length(filled).to_numpy()
    short = lengths.max(initial=0) <= SHORT_MAX
    values = np.empty(len(column), [("head", "u1"), ("length", "u1" if short else ">u4")])
    heads = (STR_8, STR_32) if is_text else (BIN_8, BIN_32)
    values["head"], values["length"] = heads[0] if short else heads[1], lengths
    return values, filled
