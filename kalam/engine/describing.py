"""What statements ask for and give, found out without running them.

A query is planned with NULLs of its parameters' types over tables without rows. A statement that changes rows is
described by the queries that it would run: the values that it assigns, its WHERE, its RETURNING; a parameter that is
assigned just as it is has the type of its column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeGuard

import msgspec
import pyarrow as pa

from kalam.engine.described import Description, fixed_fields
from kalam.engine.insert_source import all_plain, as_columns_take, target_columns
from kalam.engine.kinds import kind_of, writes
from kalam.engine.literal_rows import LiteralRows
from kalam.engine.merge_statements import unmatched
from kalam.engine.returning import shown_names
from kalam.engine.session import Session
from kalam.engine.upserts import EXCLUDED_STRUCT, existing_column, of_structs
from kalam.names import TableName
from kalam.query.composed import Pieces, as_columns, compose, from_table
from kalam.query.own import AT_HAND_SUFFIX, Own
from kalam.query.points import Points
from kalam.query.queries import Queries, resolve
from kalam.rows.columns import arrow_schema, changed_rows, shown_field, shown_type
from kalam.schema import STREAM_KEY, Column, Table, TypeName
from kalam.sql.queries.readers import postgresql_names
from kalam.sql.text.statements import Assignment, Delete, Insert, Merge, Parameter, QueryText, Select, Statement, Update
from kalam.storage.log.catalogue import Catalogue
from kalam.threads import reading

Known = dict[int, pa.Field]
"""The parameters of which something is known, by their numbers."""


class Describing:
    """Describes statements for sessions."""

    def __init__(self, catalogue: Catalogue, queries: Queries, points: Points, literal_rows: LiteralRows) -> None:
        self._catalogue, self._queries, self._points, self._literal_rows = catalogue, queries, points, literal_rows

    async def describe(
        self, statement: Statement, session: Session, types: Sequence[pa.DataType | None]
    ) -> Description:
        """What a statement asks for and gives, of whose parameters these types are declared."""
        known = {number: pa.field("", kind) for number, kind in enumerate(types, 1) if kind is not None}
        found = _Found(self._queries, session, known)
        fields = fixed_fields(statement)
        many = False
        match statement:
            case Select(query) if session.postgresql_names and (row := self._literal_rows.look(query)) is not None:
                fields = row.fields
            case Select(query):
                point = self._points.described(query, session.namespace, known)
                fields = await found.look(query) if point is None else found.take(*point)
                if session.postgresql_names and point is None:
                    fields = _named(fields, await reading(query.text, postgresql_names, query, fields.names))
            case Insert():
                table = self._catalogue.named(resolve(statement.ref, session.namespace))
                fields = await _insert(statement, table, found)
                columns = target_columns(table, statement.columns)
                many = is_many(statement, columns)
            case Update() | Delete():
                table = self._catalogue.named(resolve(statement.ref, session.namespace))
                fields = await _change(statement, table, found)
            case Merge():
                await _merge(statement, self._catalogue.named(resolve(statement.ref, session.namespace)), found)
        kind = kind_of(statement)
        return Description(parameters=found.parameters(), fields=fields, kind=kind, writes=writes(kind), many=many)


class _Found(msgspec.Struct):
    """What is found of one statement."""

    queries: Queries
    session: Session
    known: Known
    count: int = 0

    def parameters(self) -> tuple[pa.Field, ...]:
        """Its parameters; a text where nothing says what one is."""
        text = pa.field("", pa.string())
        return tuple(self.known.get(number, text).with_name(f"${number}") for number in range(1, self.count + 1))

    def note(self, parameter: Parameter, column: Column) -> None:
        """Take a parameter that a column is given as it is."""
        self.count = max(self.count, parameter.index)
        cast = parameter.cast
        if cast is None or cast.name is TypeName.FLOAT:  # which has 64 bits for PostgreSQL's clients
            cast = column.type
        self.known.setdefault(parameter.index, shown_type(column.name, cast))

    def take(self, parameters: Mapping[int, pa.Field], fields: pa.Schema) -> pa.Schema:
        """The columns of a query that was described elsewhere, with its parameters."""
        self.count = max(self.count, *parameters, 0)
        self.known.update(parameters)
        return fields

    async def look(
        self, query: QueryText, outputs: Mapping[int, Column] | None = None, own: Own | None = None
    ) -> pa.Schema:
        """The columns of a query, whose parameters are known from then on."""
        self.count = max(self.count, query.parameters)
        session = self.session
        told = {place: shown_field(column) for place, column in (outputs or {}).items()}
        found, fields = await self.queries.describe(query, session.user, session.namespace, self.known, told, own)
        for field in found:
            self.known.setdefault(int(field.name), field)
        return fields

    async def assigned(
        self, assignments: Sequence[Assignment], table: Table, own: Own | None, sources: QueryText | None = None
    ) -> None:
        """What is assigned to the columns of a table, by texts over its rows, and over ``sources``."""
        computed: list[tuple[Column, QueryText]] = []
        for assignment in assignments:
            column, value = existing_column(table, assignment.column), assignment.value
            if isinstance(value.constant, Parameter):
                self.note(value.constant, column)
            elif value.parameters:
                computed.append((column, value))
        if computed:
            source = "" if own is None else from_table(own.name, own.alias or table.name.table)
            pieces = [("SELECT ", None), *as_columns([value for _, value in computed], "v"), (source, None)]
            if sources is not None:
                pieces.append((", ", sources))
            await self.look(compose(pieces), dict(enumerate(column for column, _ in computed)), own)

    async def returned(self, returning: QueryText | None, table: Table, alias: str | None) -> pa.Schema | None:
        """The columns of a RETURNING."""
        if returning is None:
            return None
        data = changed_rows(table, [], datetime.now(UTC))
        if returning.names_key and not table.is_stored:
            data = data.append_column(STREAM_KEY, pa.array([], pa.string()))
        own = _at_hand(table, alias, data)
        source = from_table(own.name, alias or table.name.table)
        fields = await self.look(compose([("SELECT ", returning), (source, None)]), own=own)
        named = self.session.postgresql_names
        return _named(fields, await shown_names(returning, fields.names)) if named else fields


def is_many(statement: Statement, columns: Sequence[Column] = ()) -> TypeGuard[Insert]:
    """Whether it is an INSERT, into these columns, that may be carried out for many rows of parameters at once."""
    if not isinstance(statement, Insert) or statement.on_conflict is not None:
        return False
    source = statement.source
    return not isinstance(source, QueryText) and all_plain(as_columns_take(source, columns))


async def _insert(statement: Insert, table: Table, found: _Found) -> pa.Schema | None:
    columns = target_columns(table, statement.columns)
    if isinstance(statement.source, QueryText):
        await found.look(statement.source, dict(enumerate(columns)))
    else:
        expressions: list[Assignment] = []
        for row in as_columns_take(statement.source, columns):
            for column, value in zip(columns, row, strict=False):
                if isinstance(value, Parameter):
                    found.note(value, column)
                elif isinstance(value, QueryText) and value.parameters:
                    expressions.append(Assignment(column.name, value))
        await found.assigned(expressions, table, None)
    if statement.on_conflict is not None:
        data = changed_rows(table, [], datetime.now(UTC))
        excluded = arrow_schema(table.columns).empty_table().to_struct_array()
        own = _at_hand(table, None, data.append_column(EXCLUDED_STRUCT, excluded))
        await found.assigned(of_structs(statement.on_conflict.assignments), table, own)
    return await found.returned(statement.returning, table, None)


async def _merge(statement: Merge, table: Table, found: _Found) -> None:
    own = Own(table.name, table, None, statement.alias)
    await found.assigned(statement.assignments, table, own, statement.sources)
    query = unmatched(table, statement, own)
    if query.parameters:
        targets = target_columns(table, statement.columns) if statement.values is not None else ()
        await found.look(query, dict(enumerate(targets)), own)


async def _change(statement: Update | Delete, table: Table, found: _Found) -> pa.Schema | None:
    source = None if table.is_stored else changed_rows(table, [], datetime.now(UTC))
    own = Own(table.name, table, source, statement.alias)
    if isinstance(statement, Update):
        await found.assigned(statement.assignments, table, own, statement.sources)
    read: Pieces = [(f"SELECT 1{from_table(table.name, statement.alias)}", None)]
    if statement.sources is not None:
        read.append((", ", statement.sources))
    if statement.where is not None:
        read.append((" WHERE ", statement.where))
    if any(piece is not None and piece.parameters for _, piece in read):
        await found.look(compose(read), own=own)
    return await found.returned(statement.returning, table, statement.alias)


def _at_hand(table: Table, alias: str | None, data: pa.Table) -> Own:
    return Own(TableName(table.name.namespace, table.name.table + AT_HAND_SUFFIX), table, data, alias)


def _named(fields: pa.Schema, names: Sequence[str]) -> pa.Schema:
    return pa.schema([field.with_name(name) for field, name in zip(fields, names, strict=True)])
