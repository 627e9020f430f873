"""CREATE TABLE … AS: a table with the columns of a query's result, filled with its rows as they are found.

The rows are never in memory together: each piece is stored before the next one is read. If the table's rows are stored
nobody sees it before the last one is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from functools import partial

import pyarrow as pa
from msgspec.structs import replace

from kalam.engine.definitions import Definitions, existing_table
from kalam.engine.session import Request
from kalam.errors import ColumnNotFound, InvalidName, InvalidValue, KalamError, Unsupported
from kalam.names import check_name, listed
from kalam.query.queries import Queries
from kalam.query.results import Result, sql_type
from kalam.rows.codec import Codecs
from kalam.rows.column_types import TYPES
from kalam.rows.types import Row
from kalam.schema import DELETED, ROW_ID, STREAM_KEY, UPDATED, VIRTUAL_COLUMNS, Column, DataType, Table, TypeName
from kalam.sql.queries.readers import postgresql_names
from kalam.sql.tables.column_types import parse_type
from kalam.sql.tables.definitions import with_row_id
from kalam.sql.text.statements import CreateTable
from kalam.tables.kinds import Rows, Tables, Upkeep
from kalam.threads import beside, reading

SLICE_ROWS = 20_000
OWN_COLUMNS = frozenset({ROW_ID, UPDATED, DELETED, STREAM_KEY, *VIRTUAL_COLUMNS})
"""What ``SELECT *`` shows besides, and no table is made with."""


class FilledTables:
    """Carries out CREATE TABLE … AS."""

    def __init__(
        self, definitions: Definitions, queries: Queries, codecs: Codecs, tables: Tables[Rows], upkeep: Tables[Upkeep]
    ) -> None:
        self._definitions, self._queries, self._codecs = definitions, queries, codecs
        self._tables, self._upkeep = tables, upkeep

    async def create(self, statement: CreateTable, request: Request) -> Result:
        """Make the table and fill it; who asks may read what the query reads."""
        query, session = statement.query, request.session
        assert query is not None
        existing = self._definitions.existing(statement, session)
        if existing is not None:
            return existing_table(existing, statement)
        found = self._queries.stream(query, session.user, session.namespace, request.parameters)
        async with aclosing(found) as pieces:
            first = await anext(pieces)
            names = await reading(query.text, postgresql_names, query, first.column_names)
            kept = [place for place, name in enumerate(names) if name not in OWN_COLUMNS]
            columns = _columns(first.schema, names, kept, statement)
            definition = self._definitions.definition(_with_columns(statement, columns), session)
            upkeep = self._upkeep.of(definition)
            async with upkeep.filling(definition) as table:
                fill = partial(self._fill, table, kept, [column.name for column in columns], request)
                rows = await fill(first)
                async for piece in pieces:
                    rows += await fill(piece)
                    await upkeep.settle(table)
        return self._definitions.created(definition, rows)

    async def _fill(
        self, table: Table, kept: Sequence[int], names: Sequence[str], request: Request, piece: pa.Table
    ) -> int:
        rows = self._tables.of(table)
        for start in range(0, piece.num_rows, SLICE_ROWS):
            part = piece.slice(start, SLICE_ROWS).select(list(kept)).rename_columns(list(names))
            decoded: list[Row] = await beside(part.num_rows, self._decoded, table, part, request.session.user)
            await rows.take_rows(table, request.session.user, decoded)
        return int(piece.num_rows)

    def _decoded(self, table: Table, part: pa.Table, user: str) -> list[Row]:
        return self._codecs.of(table).decoder.decode_table(part, user=user, sql=True)


def _with_columns(statement: CreateTable, columns: Sequence[Column]) -> CreateTable:
    return replace(statement, **with_row_id(statement.kind, tuple(columns), statement.key))


def _columns(schema: pa.Schema, names: Sequence[str], kept: Sequence[int], statement: CreateTable) -> list[Column]:
    """The columns of the table; raises what is wrong with their names, types and key."""
    called = statement.names or [names[place] for place in kept]
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
    for name in statement.key:
        if name not in by_name:
            raise ColumnNotFound(f"the PRIMARY KEY names no column of the query: {name!r}; it has {listed(called)}")
        if not TYPES[by_name[name].name].is_key:
            raise Unsupported(f"a primary key cannot be of type {by_name[name]}: column {name}")
    return [
        Column(column_id=number, name=name, type=kind, nullable=name not in statement.key)
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
