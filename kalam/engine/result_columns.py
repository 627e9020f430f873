"""The columns of a result as columns of a table."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from kalam.errors import ColumnNotFound, InvalidName, InvalidValue, KalamError, Unsupported
from kalam.names import check_name, listed
from kalam.query.results import sql_type
from kalam.rows.column_types import TYPES
from kalam.schema import DELETED, ROW_ID, STREAM_KEY, UPDATED, VIRTUAL_COLUMNS, Column, DataType, TypeName
from kalam.sql.tables.column_types import parse_type

OWN_COLUMNS = frozenset({ROW_ID, UPDATED, DELETED, STREAM_KEY, *VIRTUAL_COLUMNS})
"""What ``SELECT *`` shows besides, and no table is made with."""


def kept_places(names: Sequence[str]) -> list[int]:
    """The places of a result's columns that a table made of it has."""
    return [place for place, name in enumerate(names) if name not in OWN_COLUMNS]


def result_columns(
    schema: pa.Schema, names: Sequence[str], called: Sequence[str] = (), key: Sequence[str] = ()
) -> list[Column]:
    """The columns of a table that a result fills, or a view shows; raises what is wrong with names, types and key.

    ``names`` are those of the result, ``called`` what the columns are to be called instead.
    """
    kept = kept_places(names)
    called = called or [names[place] for place in kept]
    if len(called) != len(kept):
        raise InvalidValue(f"the query gives {len(kept)} columns, and {len(called)} names stand behind the table's")
    if not called:
        raise InvalidValue("the query gives no columns")
    for name in called:
        _check_name(name)
        if list(called).count(name) > 1:
            raise InvalidName(f"two columns of the query are called {name!r}", hint="name them: SELECT … AS other")
    types = [_type(schema.field(place), name) for place, name in zip(kept, called, strict=True)]
    by_name = dict(zip(called, types, strict=True))
    for name in key:
        if name not in by_name:
            raise ColumnNotFound(f"the PRIMARY KEY names no column of the query: {name!r}; it has {listed(called)}")
        if not TYPES[by_name[name].name].is_key:
            raise Unsupported(f"a primary key cannot be of type {by_name[name]}: column {name}")
    return [
        Column(column_id=number, name=name, type=kind, nullable=name not in key)
        for number, (name, kind) in enumerate(by_name.items(), 1)
    ]


def _check_name(name: str) -> None:
    try:
        check_name(name, "column")
    except InvalidName as exc:
        raise InvalidName(
            f"a column cannot be called {name[:80]!r}", hint="name it: SELECT … AS name, or CREATE TABLE t (a, b) AS …"
        ) from exc
    if name.startswith("_"):
        raise InvalidName(f"column name {name[:80]!r} is reserved: names that begin with '_' are Kalam's own")


def _type(field: pa.Field, name: str) -> DataType:
    """The type that holds a column of a result; of one that is NULL throughout a text, as PostgreSQL has it."""
    if pa.types.is_null(field.type):
        return DataType(name=TypeName.TEXT)
    written = sql_type(field)
    try:
        return parse_type(written)
    except KalamError as exc:
        raise Unsupported(
            f"column {name} of the query has the type {written}, which no column of a table has",
            hint="CAST it to a type that tables have",
        ) from exc
