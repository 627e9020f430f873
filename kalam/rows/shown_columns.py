"""Rows that are columns as the JSON that an event has of them, made a column at a time.

The bytes are those of ``RowShower`` and msgspec: a test compares them for every type. What a row costs there is some
two microseconds with the interpreter's lock held, and here a fraction of one, nearly all of it in Arrow, without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kalam.rows.columns import column_values
from kalam.rows.shown import show_in_json
from kalam.schema import Column, TypeName

_JSON = msgspec.json.Encoder()
_INTEGERS: Final = frozenset({TypeName.SMALLINT, TypeName.INT, TypeName.BIGINT})
_TEXTS: Final = frozenset({TypeName.TEXT, TypeName.UUID})
_COMMAS: Final = frozenset({TypeName.JSON})
"""Types whose JSON may have a comma."""
_NULL: Final = "null"
_TIME_BYTES: Final = len("2026-01-02 03:04:05.000006")


class ColumnShower:
    """Writes rows of these columns as JSON maps, with constant members behind them; ``constants`` are their names.

    Tables may have further columns behind these, which are not shown.
    """

    def __init__(self, columns: Sequence[Column], constants: Sequence[str], *, bigint_as_text: bool) -> None:
        self._columns, self._constants = tuple(columns), tuple(constants)
        self._bigint_as_text = bigint_as_text

    def maps(self, table: pa.Table, constants: Sequence[Any]) -> ShownRows:
        """The rows of a table, which has one at least."""
        parts: list[Any] = []
        before = "{"
        for column, values in zip(self._columns, table.columns, strict=False):
            texts, mark = self._texts(column, values)
            if mark and texts.null_count:
                texts, mark = pc.fill_null(pc.binary_join_element_wise(mark, texts, mark, ""), _NULL), ""
            parts += (before + _JSON.encode(column.name).decode() + ":" + mark, texts)
            before = mark + ","
        for name, value in zip(self._constants, constants, strict=True):
            before += f"{_JSON.encode(name).decode()}:{_JSON.encode(value).decode()},"
        return ShownRows(pc.binary_join_element_wise(*parts, before[:-1] + "},", ""))

    def _texts(self, column: Column, values: pa.ChunkedArray) -> tuple[pa.Array, str]:
        """Each value as JSON has it, and what stands on either side of it; with that NULLs are left."""
        name = column.type.name
        array = values.combine_chunks()
        array = array if isinstance(array, pa.Array) else pa.concat_arrays(array.chunks)
        if name in _INTEGERS and not (self._bigint_as_text and name is TypeName.BIGINT):
            return pc.fill_null(array.cast(pa.string()), _NULL), ""
        if name is TypeName.BOOLEAN:
            return pc.fill_null(array.cast(pa.string()), _NULL), ""
        if name in _TEXTS and _is_plain(array):
            return array, '"'
        return (_times(array) if name is TypeName.TIMESTAMP else self._each(column, values)), ""

    def _each(self, column: Column, values: pa.ChunkedArray) -> pa.Array:
        """The same by Python's values."""
        show = show_in_json(column.type.name, bigint_as_text=self._bigint_as_text)
        shown: Sequence[Any] = column_values(values)
        shown = shown if show is None else show(shown)
        if column.type.name in _COMMAS or column.type.name in _TEXTS:
            return pa.array([_JSON.encode(value).decode() for value in shown], pa.string())
        return _cut(_JSON.encode(shown))


class ShownRows:
    """The JSON of rows one after another."""

    def __init__(self, rows: pa.Array) -> None:
        offsets, data = rows.buffers()[1], rows.buffers()[2]
        self._offsets = np.frombuffer(offsets, np.int32)[rows.offset : rows.offset + len(rows) + 1]
        self._data = memoryview(data)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def array(self, first: int, end: int) -> memoryview:
        """The rows from one place to another, at least one, as the inside of a JSON array."""
        return self._data[int(self._offsets[first]) : int(self._offsets[end]) - 1]


def _cut(values: bytes) -> pa.Array:
    """The texts of the values of a JSON array, one at least, none of which has a comma."""
    data = np.frombuffer(values, np.uint8)[1:-1]
    is_comma = data == ord(",")
    commas = np.flatnonzero(is_comma)
    offsets = np.zeros(len(commas) + 2, np.int32)
    offsets[1:-1] = commas - np.arange(len(commas))
    offsets[-1] = len(data) - len(commas)
    return pa.StringArray.from_buffers(len(commas) + 1, pa.py_buffer(offsets), pa.py_buffer(data[~is_comma]))


def _times(values: pa.Array) -> pa.Array:
    texts = values.cast(pa.timestamp("us")).cast(pa.string())
    if texts.null_count:
        texts = pc.binary_join_element_wise('"', pc.binary_replace_slice(texts, 10, 11, "T"), 'Z"', "")
        return pc.fill_null(texts, _NULL)
    # All have one length, so that they are written side by side.
    shown = np.full((len(texts), 3 + _TIME_BYTES), ord('"'), np.uint8)
    shown[:, 1:-2] = np.frombuffer(texts.buffers()[2], np.uint8, len(texts) * _TIME_BYTES).reshape(-1, _TIME_BYTES)
    shown[:, 11], shown[:, -2] = ord("T"), ord("Z")
    offsets = np.arange(0, shown.size + 1, shown.shape[1], dtype=np.int32)
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(shown))


def _is_plain(texts: pa.Array) -> bool:
    """Whether no text has a character that JSON writes otherwise."""
    offsets, data = texts.buffers()[1], texts.buffers()[2]
    if data is None:
        return True
    ends = np.frombuffer(offsets, np.int32)
    used = np.frombuffer(data, np.uint8)[ends[texts.offset] : ends[texts.offset + len(texts)]]
    return not bool(((used < 0x20) | (used == 0x22) | (used == 0x5C)).any())
