"""The binary form of COPY, read: a signature, and for each row the number of its values and each with its length."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from kalam.schema import Column
from kalam_pg import types as pg
from kalam_pg.copy.columns_in import as_column
from kalam_pg.errors import BAD_COPY, SqlError
from kalam_pg.values.binaries import EPOCH_DAYS, EPOCH_US
from kalam_pg.values.parameters import from_binary

SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0"
HEAD_BYTES: Final = 19
_COUNT, _SIZE = struct.Struct(">h"), struct.Struct(">i")
_LAYOUTS: Final = {
    pg.INT2.oid: (">i2", np.int16, pa.int16(), 0),
    pg.INT4.oid: (">i4", np.int32, pa.int32(), 0),
    pg.INT8.oid: (">i8", np.int64, pa.int64(), 0),
    pg.FLOAT4.oid: (">f4", np.float32, pa.float32(), 0),
    pg.FLOAT8.oid: (">f8", np.float64, pa.float64(), 0),
    pg.DATE.oid: (">i4", np.int32, pa.date32(), EPOCH_DAYS),
    pg.TIMESTAMPTZ.oid: (">i8", np.int64, pa.timestamp("us", "UTC"), EPOCH_US),
}
_INFINITE: Final = {4: (-(2**31), 2**31 - 1), 8: (-(2**63), 2**63 - 1)}


class BinaryIn:
    """Reads the binary form."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._kinds = [pg.typed_of_column(column.type).type for column in columns]
        self._rest = b""
        self._begun = self._over = False
        self._rows = 0

    def take(self, data: bytes, ended: bool) -> pa.Table:
        """The rows that are whole."""
        data = self._rest + data
        place = self._begin(data)
        cells: list[list[bytes | None]] = [[] for _ in self._columns]
        count = len(self._columns)
        while self._begun and not self._over:
            end = self._row(data, place, cells, count)
            if end < 0:
                break
            place = end
        self._rest = data[place:]
        if ended and (self._rest or not (self._begun and self._over)) and not (self._begun and not self._rest):
            raise SqlError(
                BAD_COPY, "unexpected EOF in COPY data" if self._begun else "COPY file signature not recognized"
            )
        arrays = [self._column(*each) for each in zip(cells, self._kinds, self._columns, strict=True)]
        return pa.table(arrays, names=[column.name for column in self._columns])

    def _begin(self, data: bytes) -> int:
        if self._begun:
            return 0
        if not SIGNATURE.startswith(data[: len(SIGNATURE)]):
            raise SqlError(BAD_COPY, "COPY file signature not recognized")
        if len(data) < HEAD_BYTES:
            return 0
        flags, extension = struct.unpack_from(">Ii", data, len(SIGNATURE))
        if flags >> 16 or extension:
            raise SqlError(BAD_COPY, "COPY file header has flags or an extension that are not known")
        self._begun = True
        return HEAD_BYTES

    def _row(self, data: bytes, place: int, cells: list[list[bytes | None]], count: int) -> int:
        """Read the row that stands there; where the next does, -1 if it has not come whole."""
        size = len(data)
        if place + 2 > size:
            return -1
        (found,) = _COUNT.unpack_from(data, place)
        place += 2
        if found == -1:
            self._over = True
            return place
        if found != count:
            raise SqlError(BAD_COPY, f"row field count is {found}, expected {count}")
        row: list[bytes | None] = []
        for _ in range(count):
            if place + 4 > size:
                return -1
            (length,) = _SIZE.unpack_from(data, place)
            place += 4
            if length < -1:
                raise SqlError(BAD_COPY, "invalid field size")
            if length == -1:
                row.append(None)
                continue
            if place + length > size:
                return -1
            row.append(data[place : place + length])
            place += length
        for column, cell in zip(cells, row, strict=True):
            column.append(cell)
        self._rows += 1
        return place

    def _column(self, cells: list[bytes | None], kind: pg.PgType, column: Column) -> pa.ChunkedArray:
        layout = _LAYOUTS.get(kind.oid)
        if layout is None:
            return as_column([None if cell is None else from_binary(cell, kind) for cell in cells], column)
        written, native, arrow, epoch = layout
        size = np.dtype(written).itemsize
        if any(cell is not None and len(cell) != size for cell in cells):
            raise SqlError("22P03", f"incorrect binary data format in column {column.name}")
        blank = bytes(size)
        values = np.frombuffer(b"".join(blank if cell is None else cell for cell in cells), written).astype(native)
        missing = np.array([cell is None for cell in cells], bool)
        if epoch and np.isin(values, _INFINITE[size]).any():
            raise SqlError("22008", f"column {column.name} has no infinity")
        if epoch:
            values = values + native(epoch)
        integers = pa.array(values, mask=missing)
        return pa.chunked_array([integers.view(arrow) if epoch else integers.cast(arrow)])
