"""Rows of an older schema version read as rows of another.

The law: columns are matched by id. A column that the older version does not have reads as the value that the ALTER
which added it left in ``Column.fill`` (evaluated once), else NULL; a column that is there no more is left out. So a
name that was dropped and added again is empty, and a renamed one keeps its values. A column whose type was widened
has the same values in the form of the wider type; only DECIMAL has a form that others do not share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa

from kalam.rows.column_rows import is_columns, read_columns
from kalam.rows.columns import column_values
from kalam.rows.normalise import column_fix
from kalam.rows.sql_values import carried_value
from kalam.rows.stored import StoredRows
from kalam.rows.types import Row
from kalam.rows.values import Fix, Values
from kalam.schema import Column, DataType, TypeName

History = Mapping[int, tuple[Column, ...]]
"""The columns of a table by schema version."""


def fill_value(column: Column) -> Any:
    """What rows have in this column that were written before it was added, in a row's form."""
    if column.fill is None:
        return None
    value = carried_value(column, column.fill)
    fix = column_fix(column)
    return value if fix is None else fix([value])[0]


class Source(msgspec.Struct, frozen=True):
    """Where a column's values come from: a place and name among the older columns, or one value for all.

    ``type`` is the older column's, None where there is none; ``widen`` gives its values the newer form.
    """

    place: int | None
    name: str | None
    fill: Any
    type: DataType | None = None
    widen: Fix | None = None


def widening(older: DataType, newer: DataType) -> Fix | None:
    """What gives values of a type the form that they have in a wider one; None where that is the same."""
    if newer.name is not TypeName.DECIMAL or (older.name, older.scale) == (newer.name, newer.scale):
        return None
    fix = column_fix(Column(column_id=1, name="", type=newer))
    assert fix is not None

    def widen(values: Values) -> Values:
        return fix([None if value is None else Decimal(value) for value in values])

    return widen


def sources(columns: Sequence[Column], older: Sequence[Column]) -> tuple[Source, ...]:
    """For each of ``columns`` where its values are in rows that were written under ``older``."""
    places = {column.column_id: place for place, column in enumerate(older)}
    found: list[Source] = []
    for column in columns:
        place = places.get(column.column_id)
        if place is None:
            found.append(Source(None, None, fill_value(column)))
            continue
        former = older[place]
        found.append(Source(place, former.name, None, former.type, widening(former.type, column.type)))
    return tuple(found)


class Layout(msgspec.Struct, frozen=True):
    """How segments of some versions hold the columns of a newer one.

    ``names`` and ``types`` are the columns' in the files, None for one that is not there, which reads as its fill.
    """

    names: tuple[str | None, ...]
    fills: tuple[Any, ...]
    types: tuple[DataType | None, ...]


def layout(columns: Sequence[Column], older: Sequence[Column]) -> Layout:
    """How a segment that was written under ``older`` holds ``columns``."""
    found = sources(columns, older)
    names, fills, types = zip(*((source.name, source.fill, source.type) for source in found), strict=True)
    return Layout(names, fills, types)


class StoredVersions:
    """Reads blobs of any version of a table as rows of ``columns``; ``history`` may grow meanwhile."""

    def __init__(self, columns: Sequence[Column], history: History) -> None:
        self._columns = columns
        self._history = history
        self._readers: dict[int, tuple[StoredRows, tuple[Source, ...] | None]] = {}

    def unpack(self, blob: bytes, schema_version: int) -> list[Row]:
        """The rows of a blob that was written under ``schema_version``."""
        reader, moved = self._reader(schema_version)
        if moved is not None and is_columns(blob):
            return _read_adopted(blob, moved)
        rows = reader.unpack(blob)
        return rows if moved is None else adopted(rows, moved)

    def columns(self, blob: bytes, schema_version: int) -> pa.Table | None:
        """The same as Arrow columns, where they lie so; None where only their rows can be had."""
        if not is_columns(blob) or self._reader(schema_version)[1] is not None:
            return None
        return read_columns(blob)

    def _reader(self, schema_version: int) -> tuple[StoredRows, tuple[Source, ...] | None]:
        known = self._readers.get(schema_version)
        if known is None:
            older = self._history[schema_version]
            found = sources(self._columns, older)
            as_they_are = all(source.place == at and source.widen is None for at, source in enumerate(found))
            same = len(older) == len(found) and as_they_are
            known = self._readers[schema_version] = (StoredRows(older), None if same else found)
        return known


def adopted(rows: Sequence[Row], moved: Sequence[Source]) -> list[Row]:
    """Rows with their values in the places of newer columns."""
    if not rows:
        return []
    values = list(zip(*rows, strict=True))
    return list(zip(*(_adopted(source, values, len(rows)) for source in moved), strict=True))


def _read_adopted(blob: bytes, moved: Sequence[Source]) -> list[Row]:
    """The rows of a blob of columns, of which only those are read that are wanted."""
    table = read_columns(blob)
    if not table.num_rows:
        return []
    values = (
        [source.fill] * table.num_rows if source.place is None else column_values(table.column(source.place))
        for source in moved
    )
    pairs = zip(moved, values, strict=True)
    widened = (own if source.widen is None else source.widen(own) for source, own in pairs)
    return list(zip(*widened, strict=True))


def _adopted(source: Source, values: Sequence[Values], count: int) -> Values:
    if source.place is None:
        return [source.fill] * count
    own = values[source.place]
    return own if source.widen is None else source.widen(own)
