"""Arrow binary arrays over numpy's bytes: where each value is a piece of one buffer, no value is touched by itself."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BINARY: Final = pa.large_binary()
NULL_CELL: Final = pa.scalar(b"\xff\xff\xff\xff", BINARY)
"""A value's length of -1: NULL."""
NULL_LENGTH: Final = -1
NOTHING: Final = pa.scalar(b"", BINARY)

Bytes = np.ndarray[Any, Any]


def record_values(records: Bytes) -> pa.Array:
    """The rows of an array of records as values; they share its bytes."""
    count, size = len(records), records.dtype.itemsize
    return pa.Array.from_buffers(BINARY, count, [None, _even_offsets(count, size), pa.py_buffer(records)])


@lru_cache(maxsize=64)
def _even_offsets(count: int, size: int) -> pa.Buffer:
    return pa.py_buffer(
        np.arange(0, (count + 1) * size, size, dtype=np.int64) if size else np.zeros(count + 1, np.int64)
    )


def lengths_of(array: pa.Array) -> Bytes:
    """How many bytes each value of a binary array has."""
    offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
    return np.diff(offsets)


def fixed(matrix: Bytes) -> pa.Array:
    """The rows of a matrix of bytes, or of an array of records, as values."""
    count = len(matrix)
    size = matrix.nbytes // count if count else 0
    offsets = np.arange(0, (count + 1) * size, size, dtype=np.int64) if size else np.zeros(count + 1, np.int64)
    return _array(count, offsets, np.ascontiguousarray(matrix).tobytes())


def ragged(matrix: Bytes, kept: Bytes) -> pa.Array:
    """The rows of a matrix of bytes as values, of each only the bytes that ``kept`` marks."""
    offsets = np.zeros(len(matrix) + 1, np.int64)
    np.cumsum(kept.sum(axis=1), out=offsets[1:])
    return _array(len(matrix), offsets, matrix[kept].tobytes())


def cut(offsets: Bytes, data: bytes) -> pa.Array:
    """A buffer cut at its offsets."""
    return _array(len(offsets) - 1, offsets, data)


def _array(count: int, offsets: Bytes, data: bytes) -> pa.Array:
    buffers = [None, pa.py_buffer(offsets.astype(np.int64, copy=False).tobytes()), pa.py_buffer(data)]
    return pa.Array.from_buffers(BINARY, count, buffers)


def pieces(array: pa.Array) -> tuple[Bytes, Bytes]:
    """Offsets and bytes of a binary array, as numpy has them; the offsets begin at 0."""
    array = array.cast(BINARY) if array.type != BINARY else array
    _, offset_buffer, data_buffer = array.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(data_buffer or b"", np.uint8)[offsets[0] : offsets[-1]]
    return offsets - offsets[0], data


def joined(*parts: Any) -> pa.Array:
    """Arrays and scalars of bytes, joined row by row."""
    return pc.binary_join_element_wise(*parts, NOTHING)


def with_length(values: pa.Array) -> pa.Array:
    """Values with their length of four bytes before them; NULL where there is none."""
    lengths = pc.fill_null(pc.binary_length(values), 0).to_numpy(zero_copy_only=False)
    return joined(fixed(lengths.astype(">i4")), values)


def cells(lengthy: pa.Array, valid: pa.Array | None) -> pa.Array:
    """Values that have their lengths, with NULL's where they are not valid."""
    return lengthy if valid is None else pc.if_else(valid, lengthy, NULL_CELL)


def valid_of(array: pa.Array) -> pa.Array | None:
    """Which values there are; None for all."""
    return array.is_valid() if array.null_count else None
