"""Keys: of one column or of several, as Python values and as Arrow columns.

The law: the key of one column is that column's value, and the key of several is the tuple of their values, in the order
of ``PRIMARY KEY (a, b)``. So keys are compared, hashed and sorted as Python does it, rows of Arrow that are sorted by
the key's columns are in the same order, and whoever keeps keys need not know how many columns they have. No part of a
key is NULL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kalam.rows.types import Row, arrow_type
from kalam.rows.values import shorten
from kalam.schema import Column, Key, TableDefinition

Columns = Sequence[pa.Array | pa.ChunkedArray]
"""The columns of a key, all of one length."""


def as_row(key: Key) -> Row:
    """A key as a row of its columns."""
    return key if isinstance(key, tuple) else (key,)


def keys_of(rows: Sequence[Row]) -> Sequence[Key]:
    """The keys that rows of a key's columns are."""
    return [key for (key,) in rows] if rows and len(rows[0]) == 1 else rows


def key_values(keys: Sequence[Key], count: int) -> list[Sequence[Any]]:
    """The values of each of the ``count`` columns of some keys."""
    if count == 1:
        return [keys]
    return list(zip(*keys, strict=True)) if keys else [()] * count


def key_arrays(keys: Sequence[Key], columns: Sequence[Column]) -> list[pa.Array]:
    """Keys as the columns that they have."""
    kinds = [arrow_type(column.type) for column in columns]
    return [pa.array(values, kind) for values, kind in zip(key_values(keys, len(kinds)), kinds, strict=True)]


def keys_in(columns: Columns) -> list[Key]:
    """The keys that the rows of a key's columns have."""
    values = [column.to_pylist() for column in columns]
    return values[0] if len(values) == 1 else list(zip(*values, strict=True))


def key_at(columns: Columns, place: int) -> Key:
    """The key of the row at one place, which may be counted from the end."""
    if len(columns) == 1:
        return columns[0][place].as_py()
    return tuple(column[place].as_py() for column in columns)


def places_among(columns: Columns, keys: Columns) -> pa.Array | pa.ChunkedArray:
    """For each row of a key's columns the place of its key among ``keys``, which differ; NULL where it is not there.

    Parts of keys get numbers, by which two parts are one: that of the keys' columns so far, and the next one's.
    """
    values, wanted = columns[0], keys[0]
    for column, own in zip(columns[1:], keys[1:], strict=True):
        former, distinct = wanted.unique(), own.unique()
        values = _paired(values, column, former, distinct)
        wanted = _paired(wanted, own, former, distinct)
    return pc.index_in(values, value_set=wanted)


def _paired(first: Any, second: Any, firsts: pa.Array, seconds: pa.Array) -> Any:
    place = pc.index_in(first, value_set=firsts).cast(pa.int64())
    return pc.add(pc.multiply(place, len(seconds)), pc.index_in(second, value_set=seconds).cast(pa.int64()))


def key_codes(columns: Columns) -> npt.NDArray[np.int64]:
    """A number for each row, the same for the rows that have the same key; they are small."""
    codes = _codes(columns[0])
    for column in columns[1:]:
        more = _codes(column)
        codes = _codes(pa.array(codes * (more.max(initial=0) + 1) + more))
    return codes


def _codes(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return np.asarray(column.dictionary_encode().indices.to_numpy(), np.int64)


def key_name(table: TableDefinition) -> str:
    """What a table's key is called: ``a``, or ``(a, b)``."""
    return named_key(table.key)


def named_key(names: Sequence[str]) -> str:
    """What a key of these columns is called: ``a``, or ``(a, b)``."""
    return names[0] if len(names) == 1 else f"({', '.join(names)})"


def shown_key(table: TableDefinition, key: Key) -> str:
    """A row's key as an error shows it: ``a = 1``, or ``(a, b) = (1, 'x')``."""
    shown = ", ".join(map(shorten, as_row(key)))
    return f"{key_name(table)} = {shown if len(table.key) == 1 else f'({shown})'}"
