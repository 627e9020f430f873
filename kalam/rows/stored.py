"""Rows as they lie in SQLite, many rows to a blob: msgpack arrays of values in column order, or columns.

A blob is one msgpack array of rows, so any msgpack reader opens it. It is written by msgspec, whose bytes are plain
msgpack and which packs and unpacks about nine times as fast as the ``msgpack`` package (measured; a test reads the
blobs with that package). Rows that came as columns, many at once, are a blob of columns (``column_rows.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from kalam.rows.column_rows import ColumnRows, is_columns, read_columns
from kalam.rows.columns import from_arrow
from kalam.rows.types import Row, stored_type
from kalam.schema import Column

_ENCODER = msgspec.msgpack.Encoder()
PIECE_ROWS_MAX = 5_000
COLUMN_PIECE_ROWS_MAX = 20_000
PIECE_BYTES_MAX = 4 << 20
"""A statement of more is stored as several chunks, so that whoever works on one is soon done; with columns sooner."""
_RAW = msgspec.msgpack.Decoder(list[msgspec.Raw])


def pack_rows(rows: Sequence[Row]) -> bytes:
    """The rows as one blob."""
    return rows.pack() if isinstance(rows, ColumnRows) else _ENCODER.encode(rows)


def pack_pieces(rows: Sequence[Row]) -> list[bytes]:
    """The rows as blobs of bounded size; a few rows are one."""
    pieces: list[bytes] = []
    rows_max = COLUMN_PIECE_ROWS_MAX if isinstance(rows, ColumnRows) else PIECE_ROWS_MAX
    todo = [rows[start : start + rows_max] for start in range(0, len(rows), rows_max)][::-1]
    while todo:
        part = todo.pop()
        packed = pack_rows(part)
        if len(packed) <= PIECE_BYTES_MAX or len(part) == 1:
            pieces.append(packed)
        else:
            todo += [part[len(part) // 2 :], part[: len(part) // 2]]
    return pieces


def row_count(blob: bytes) -> int:
    """How many rows a blob has, without decoding it."""
    if is_columns(blob):
        return int(read_columns(blob).num_rows)
    length = _header_length(blob)
    return blob[0] & 0x0F if length == 1 else int.from_bytes(blob[1:length], "big")


def row_sizes(blob: bytes) -> list[int]:
    """The bytes of each row of a blob of msgpack rows, without decoding it."""
    return [len(memoryview(raw)) for raw in _RAW.decode(blob)]


def array_of(rows: Sequence[bytes]) -> bytes:
    """One blob from rows that were cut out of others."""
    return b"\xdd" + len(rows).to_bytes(4, "big") + b"".join(rows)


def join_packed(blobs: Sequence[bytes], count: int) -> bytes:
    """One blob of ``count`` rows from blobs of msgpack rows, without decoding them."""
    if len(blobs) == 1:
        return blobs[0]
    return b"\xdd" + count.to_bytes(4, "big") + b"".join(blob[_header_length(blob) :] for blob in blobs)


def _header_length(blob: bytes) -> int:
    return {0xDC: 3, 0xDD: 5}.get(blob[0], 1)


class StoredRows:
    """Reads blobs of rows that were written under one list of columns."""

    def __init__(self, columns: Iterable[Column]) -> None:
        types = tuple(stored_type(column) for column in columns)
        self._decoder = msgspec.msgpack.Decoder(list[tuple[types]])  # type: ignore[valid-type]

    def unpack(self, blob: bytes) -> list[Row]:
        """The rows of a blob."""
        return from_arrow(read_columns(blob)) if is_columns(blob) else self._decoder.decode(blob)
