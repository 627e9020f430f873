"""A few rows as cells, value by value: for them Arrow's kernels take longer than the values themselves.

Law: what is written is what the kernels of ``texts`` and ``binaries`` write, to the byte. A column of which that cannot
be said, or with a value that Python has not, is left to them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache, partial
from typing import Any, Final

import pyarrow as pa

from kalam_pg import types as pg
from kalam_pg.values.packing import HEAD_BYTES

ROWS_MAX: Final = 8
"""Up to here this is quicker."""
_NULL: Final = b"\xff\xff\xff\xff"
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)
_PLAIN_US: Final = pa.timestamp("us")
_UTC_US: Final = pa.timestamp("us", "UTC")
_PLAIN_MIN, _PLAIN_END = 1e-4, 1e10
Write = Callable[[Any], bytes]


def few_cells(array: pa.Array, kind: pg.PgType, form: int) -> list[bytes] | None:
    """The cells of a column of few rows; None where the kernels have to write them."""
    write = writer_of(array.type, kind, form)
    if write is None:
        return None
    try:
        return lone_cells(array.to_pylist(), write)
    except (ValueError, OverflowError):  # a year that Python has not
        return None


def lone_cells(values: Sequence[Any], write: Write) -> list[bytes]:
    """Values with their lengths."""
    cells = []
    for value in values:
        if value is None:
            cells.append(_NULL)
        else:
            written = write(value)
            cells.append(len(written).to_bytes(4) + written)
    return cells


def lone_row(values: Sequence[Any], writes: Sequence[Write]) -> bytes:
    """A row's DataRow message; raises what the writers do where Arrow's kernels have to write it."""
    parts = []
    for value, write in zip(values, writes, strict=True):
        if value is None:
            parts.append(_NULL)
        else:
            written = write(value)
            parts += (len(written).to_bytes(4), written)
    cells = b"".join(parts)
    return b"D" + (HEAD_BYTES + len(cells)).to_bytes(4) + len(values).to_bytes(2) + cells


@lru_cache(maxsize=1_024)
def writer_of(arrow: pa.DataType, kind: pg.PgType, form: int) -> Write | None:
    """What writes a value of an Arrow type as one of PostgreSQL's, without its length; None where kernels have to."""
    return _binary(arrow, kind) if form else _text(arrow, kind)


def _text(arrow: pa.DataType, kind: pg.PgType) -> Write | None:
    if kind in (pg.INT2VECTOR, pg.OIDVECTOR):
        return None
    if pa.types.is_integer(arrow):
        return _integer
    if pa.types.is_decimal(arrow) and arrow.scale >= 0:
        return partial(_decimal, arrow.scale)
    return _TEXT.get(arrow)


def _binary(arrow: pa.DataType, kind: pg.PgType) -> Write | None:
    return _BINARY.get((kind.oid, arrow))


def _integer(value: int) -> bytes:
    return b"%d" % value


def _decimal(scale: int, value: Decimal) -> bytes:
    if value.as_tuple().exponent != -scale:
        raise ValueError
    return format(value, "f").encode()


def _double(value: float) -> bytes:
    if value and not _PLAIN_MIN <= abs(value) < _PLAIN_END:  # elsewhere Arrow and Python differ about exponents
        raise ValueError
    return repr(value).removesuffix(".0").encode()


def _truth(value: bool) -> bytes:
    return b"t" if value else b"f"


def _moment(value: datetime) -> bytes:
    return value.replace(tzinfo=None).isoformat(" ", "microseconds").encode()


def _zoned(value: datetime) -> bytes:
    return value.isoformat(" ", "microseconds")[:-3].encode()  # which is +00:00 in Arrow's UTC


def _day(value: date) -> bytes:
    return value.isoformat().encode()


def _hex(value: bytes) -> bytes:
    return b"\\x" + value.hex().encode()


def _packed(layout: str) -> Write:
    return struct.Struct(layout).pack


def _moment_binary(value: datetime) -> bytes:
    return struct.pack(">q", (value.replace(tzinfo=UTC) - _EPOCH) // _US)


def _day_binary(value: date) -> bytes:
    return struct.pack(">i", value.toordinal() - _EPOCH.toordinal())


def _uuid(value: str) -> bytes:
    if len(value) != 36:
        raise ValueError
    return bytes.fromhex(value.replace("-", ""))


_TEXT: Final[dict[pa.DataType, Write]] = {
    pa.bool_(): _truth,
    pa.float64(): _double,
    pa.string(): str.encode,
    pa.large_string(): str.encode,
    pa.date32(): _day,
    _PLAIN_US: _moment,
    _UTC_US: _zoned,
    pa.binary(): _hex,
}
_BINARY: Final[dict[tuple[int, pa.DataType], Write]] = {
    (pg.BOOL.oid, pa.bool_()): _packed(">?"),
    (pg.INT2.oid, pa.int16()): _packed(">h"),
    (pg.INT4.oid, pa.int32()): _packed(">i"),
    (pg.INT8.oid, pa.int64()): _packed(">q"),
    (pg.FLOAT4.oid, pa.float32()): _packed(">f"),
    (pg.FLOAT8.oid, pa.float64()): _packed(">d"),
    (pg.BYTEA.oid, pa.binary()): bytes,
    (pg.DATE.oid, pa.date32()): _day_binary,
    (pg.TIMESTAMP.oid, _PLAIN_US): _moment_binary,
    (pg.TIMESTAMPTZ.oid, _UTC_US): _moment_binary,
    (pg.UUID.oid, pa.string()): _uuid,
    **{(kind.oid, pa.string()): str.encode for kind in (pg.TEXT, pg.VARCHAR, pg.JSON)},
}
