"""Rows of Arrow as msgpack, each in one piece: for blocks that are not compressed, where planes gain nothing.

The bytes of a row are those that ``row_layout`` brings together for one when it is read. Here Arrow joins them for all
rows at once, so that a row is one slice, which msgspec reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kalam.rows.keys import keys_in
from kalam.rows.types import Row
from kalam.storage.log.copies import Key
from kalam.storage.segments.row_layout import NOTHING, Values, array_head, fixed_and_text, read_as

PAIR = b"\x92"
"""What stands before two values in an array of msgpack."""
ReadRecord = Callable[[msgspec.Raw], Row]


class Records:
    """The rows of a table as msgpack, beside their keys, which are the columns ``names``."""

    def __init__(self, rows: pa.Table, names: Sequence[str]) -> None:
        parts: list[pa.Array | pa.Scalar] = [pa.scalar(array_head(rows.num_columns))]
        for column in rows.columns:
            whole = column.combine_chunks()
            values, text = fixed_and_text(whole)
            parts += [_pieces(values, whole), *([] if text is None else [text.cast(pa.binary())])]
        joined = pc.binary_join_element_wise(*parts, b"", null_handling="replace", null_replacement=NOTHING)
        _, ends, data = joined.buffers()
        self._ends: list[int] = np.frombuffer(ends, np.int32, len(joined) + 1, 4 * joined.offset).tolist()
        self._data, self._keys = memoryview(data), keys_in([rows.column(name) for name in names])
        self.layout = RecordLayout(rows.schema, names)
        self._encode = msgspec.msgpack.Encoder().encode

    @property
    def byte_count(self) -> int:
        """How long all rows are."""
        return self._ends[-1] - self._ends[0]

    def block(self, first: int, end: int) -> bytes:
        """The rows from ``first`` to ``end``: their keys, and themselves, in an array of msgpack each."""
        records = self._data[self._ends[first] : self._ends[end]]
        return b"".join((PAIR, self._encode(self._keys[first:end]), array_head(end - first), records))


class RecordLayout:
    """Reads blocks of rows with the columns of ``schema``, whose keys are the columns ``names``."""

    def __init__(self, schema: pa.Schema, names: Sequence[str]) -> None:
        self.schema = schema
        types = tuple(read_as(schema.field(name).type) for name in names)
        key = types[0] if len(types) == 1 else tuple[types]  # type: ignore[valid-type]
        block = tuple[list[key], list[msgspec.Raw]]  # type: ignore[valid-type]
        self.read_block: Callable[[bytes | bytearray], tuple[list[Key], list[msgspec.Raw]]]
        self.read_block = msgspec.msgpack.Decoder(block).decode

    def reader(self, names: Sequence[str]) -> ReadRecord:
        """What reads these columns of a row; ``names`` are some of the schema's."""
        types = tuple(read_as(own.type) for own in self.schema)
        decode: ReadRecord = msgspec.msgpack.Decoder(tuple[types]).decode  # type: ignore[valid-type]
        if list(names) == self.schema.names:
            return decode
        places = [self.schema.names.index(name) for name in names]
        if len(places) == 1:
            return lambda record: (decode(record)[places[0]],)
        pick: Callable[[Row], Row] = itemgetter(*places)
        return lambda record: pick(decode(record))


def _pieces(values: Values, column: pa.Array) -> pa.Array:
    """Bytes of one length each, NULL where the column is."""
    validity = column.is_valid().buffers()[1] if column.null_count else None
    kind = pa.binary(values.dtype.itemsize)
    return pa.Array.from_buffers(kind, len(values), [validity, pa.py_buffer(values.tobytes())]).cast(pa.binary())
