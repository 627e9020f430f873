"""Rows of an older schema version read as rows of another.

The law: columns are matched by id. A column that the older version does not have reads as the value that the ALTER
which added it left in ``Column.fill`` (evaluated once), else NULL; a column that is there no more is left out. So a
name that was dropped and added again is empty, and a renamed one keeps its values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from kalam.rows.normalise import column_fix
from kalam.rows.sql_values import carried_value
from kalam.rows.stored import StoredRows
from kalam.rows.types import Row
from kalam.schema import Column

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
    """Where a column's values come from: a place and name among the older columns, or one value for all."""

    place: int | None
    name: str | None
    fill: Any


def sources(columns: Sequence[Column], older: Sequence[Column]) -> tuple[Source, ...]:
    """For each of ``columns`` where its values are in rows that were written under ``older``."""
    places = {column.column_id: place for place, column in enumerate(older)}
    found: list[Source] = []
    for column in columns:
        place = places.get(column.column_id)
        name = None if place is None else older[place].name
        found.append(Source(place, name, fill_value(column) if place is None else None))
    return tuple(found)


class Layout(msgspec.Struct, frozen=True):
    """How segments of some versions hold the columns of a newer one.

    ``names`` are the columns' names in the files, None for one that is not there, which reads as its fill.
    """

    names: tuple[str | None, ...]
    fills: tuple[Any, ...]


def layout(columns: Sequence[Column], older: Sequence[Column]) -> Layout:
    """How a segment that was written under ``older`` holds ``columns``."""
    found = sources(columns, older)
    return Layout(tuple(source.name for source in found), tuple(source.fill for source in found))


class StoredVersions:
    """Reads blobs of any version of a table as rows of ``columns``; ``history`` may grow meanwhile."""

    def __init__(self, columns: Sequence[Column], history: History) -> None:
        self._columns = columns
        self._history = history
        self._readers: dict[int, tuple[StoredRows, tuple[Source, ...] | None]] = {}

    def unpack(self, blob: bytes, schema_version: int) -> list[Row]:
        """The rows of a blob that was written under ``schema_version``."""
        reader, moved = self._reader(schema_version)
        rows = reader.unpack(blob)
        return rows if moved is None else adopted(rows, moved)

    def _reader(self, schema_version: int) -> tuple[StoredRows, tuple[Source, ...] | None]:
        known = self._readers.get(schema_version)
        if known is None:
            older = self._history[schema_version]
            found = sources(self._columns, older)
            same = len(older) == len(found) and all(source.place == place for place, source in enumerate(found))
            known = self._readers[schema_version] = (StoredRows(older), None if same else found)
        return known


def adopted(rows: Sequence[Row], moved: Sequence[Source]) -> list[Row]:
    """Rows with their values in the places of newer columns."""
    if not rows:
        return []
    values = list(zip(*rows, strict=True))
    count = len(rows)
    return list(
        zip(*([source.fill] * count if source.place is None else values[source.place] for source in moved), strict=True)
    )
