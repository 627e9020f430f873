"""Rows of columns, packed: what is of fixed size lies side by side in records, what is not is joined between them.

A record of numpy holds the head of a message, the lengths of values and all values whose size is known, as far as
nothing of another size stands between. So a row of eight columns, three of them texts, is a join of six pieces, and
each byte is copied once.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kalam_pg.values.buffers import BINARY, NULL_LENGTH, Bytes, joined, lengths_of, record_values

HEAD_BYTES: Final = 6
"""What a row's length counts besides its cells."""
LENGTH_BYTES: Final = 4
_LENGTH: Final = ">i4"
_EMPTY: Final = pa.scalar(b"", BINARY)


class Packing:
    """The messages of so many rows, cell after cell; ``kind`` is the byte of their type."""

    def __init__(self, count: int, kind: bytes, columns: int) -> None:
        self._sizes = np.full(count, HEAD_BYTES, np.int64)
        self._head: list[Any] = [np.array(kind, "S1"), self._sizes, np.array(columns, ">i2")]
        self._fields = self._head
        self._parts: list[list[Any] | pa.Array] = [self._head]

    def fixed(self, *fields: Bytes) -> None:
        """A cell in which these arrays lie side by side, or scalars for all rows."""
        size = sum(field.dtype.itemsize for field in fields)
        self._fields += (np.array(size, _LENGTH), *fields)
        self._sizes += LENGTH_BYTES + size

    def varied(self, values: pa.Array, valid: pa.Array | None) -> None:
        """A cell of bytes, of any size each; NULL where they are not valid (None: all are)."""
        if valid is None:
            sizes = lengths_of(values)
            self._fields.append(sizes.astype(_LENGTH))
        else:
            values = pc.if_else(valid, values, _EMPTY)
            sizes = lengths_of(values)
            told = np.where(valid.to_numpy(zero_copy_only=False), sizes, NULL_LENGTH)
            self._fields.append(told.astype(_LENGTH))
        self._sizes += sizes
        self._sizes += LENGTH_BYTES
        self._fields = []
        self._parts += (values, self._fields)

    def data(self) -> memoryview:
        """The bytes of all messages, in order."""
        count = len(self._sizes)
        self._head[1] = self._sizes.astype(_LENGTH)  # which are known by now
        parts = [part if isinstance(part, pa.Array) else _records(part, count) for part in self._parts if len(part)]
        whole = parts[0] if len(parts) == 1 else joined(*parts)
        return memoryview(whole.buffers()[2]).cast("B")[: int(self._sizes.sum()) + count]


def _records(fields: list[Any], count: int) -> pa.Array:
    """Arrays side by side, as values of one size."""
    layout = np.dtype([(str(place), field.dtype) for place, field in enumerate(fields)])
    records = np.empty(count, layout)
    for place, field in enumerate(fields):
        records[str(place)] = field
    return record_values(records)
