"""Statements on temporary tables: what a session has for itself.

Their rows are Arrow, held by the session; a change makes a new state of the table of it, and who reads goes on with the
state that was there. They have no feed, no versions and no policies, and whoever has the session may do everything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import replace

from kalam.engine.bounded import read_within
from kalam.engine.insert_source import InsertSource
from kalam.engine.large_statements import picking
from kalam.engine.result_columns import kept_places, result_columns
from kalam.engine.returning import check_returning, returned
from kalam.engine.session import Request, Session
from kalam.engine.upserts import existing_column, with_sign_of_zero
from kalam.errors import DuplicateKey, TableNotFound, TooLarge, Unsupported
from kalam.names import TEMPORARY_NAMESPACE
from kalam.query.queries import Queries
from kalam.query.results import Result
from kalam.rows.assigned import assigned_rows
from kalam.rows.codec import Codecs
from kalam.rows.columns import changed_rows, from_arrow, shown_schema, to_arrow
from kalam.schema import SEQ
from kalam.settings import Settings
from kalam.sql.queries.readers import postgresql_names
from kalam.sql.text.statements import (
    CreateTemporary,
    Delete,
    DropTable,
    Insert,
    QueryText,
    TableRef,
    TruncateTable,
    Update,
)
from kalam.sql.text.temporaries import with_temporaries
from kalam.storage.log.temporary import TemporarySpace, TemporarySpaces, TemporaryTable
from kalam.tasks import to_its_end
from kalam.threads import Purpose, beside, in_thread, reading

_Statement = TypeVar("_Statement")
NO_SESSION: Final = "a temporary table lasts as long as a session, and only the PostgreSQL door has sessions"


def meant(spaces: TemporarySpaces, session: Session, ref: TableRef) -> TableRef:
    """What a reference means: written out where that is a temporary table of the session, else as it is.

    Raises TableNotFound for one of another session.
    """
    space = session.temporary
    if ref.namespace is None and space is not None and ref.table in space.tables:
        return TableRef(space.namespace, ref.table)
    namespace = session.namespace if ref.namespace is None else ref.namespace
    if space is not None and namespace in (TEMPORARY_NAMESPACE, space.namespace):
        return TableRef(space.namespace, space.table(ref.table).table.name.table)
    if namespace is not None and spaces.has(namespace):
        raise TableNotFound(f"there is no table {namespace}.{ref.table}")
    return ref


def written_out(statement: _Statement, spaces: TemporarySpaces, session: Session) -> _Statement:
    """A statement in which the names of the session's temporary tables are written out."""
    return with_temporaries(statement, partial(meant, spaces, session))


class TemporaryStatements:
    """Carries them out."""

    def __init__(self, settings: Settings, codecs: Codecs, queries: Queries) -> None:
        self._settings, self._codecs, self._queries = settings, codecs, queries
        self._source = InsertSource(settings, codecs, queries)

    # Tables.

    async def create(self, statement: CreateTemporary, request: Request) -> Result:
        """CREATE TEMPORARY TABLE, also of a query, whose rows are held as they are found."""
        space, name = _space(request), statement.ref.table
        if statement.if_not_exists and name in space.tables:
            return Result(message=f"skipped: temporary table {name} exists already")
        space.check_free(name)
        if statement.query is None:
            space.put(self._created(space, statement, statement.columns, request))
            return Result(message=f"temporary table {name} created")
        found = self._queries.stream(
            statement.query, request.session.user, request.session.namespace, request.parameters
        )
        async with aclosing(found) as pieces:
            first = await anext(pieces)
            names = await reading(statement.query.text, postgresql_names, statement.query, first.column_names)
            kept = kept_places(names)
            columns = result_columns(first.schema, names, statement.names, statement.key)
            state = self._created(space, statement, columns, request)
            called = [column.name for column in columns]
            state, rows = await self._filled(space, state, _chosen(first, pieces, kept, called), request)
        space.put(state)
        return Result(row_count=rows, message=f"temporary table {name} created with {_rows(rows)}")

    def _created(
        self, space: TemporarySpace, statement: CreateTemporary, columns: Sequence[Any], request: Request
    ) -> TemporaryTable:
        owner = request.session.identity.rights_of
        return space.create(statement.ref.table, columns, statement.key, statement.on_commit, owner)

    def drop(self, statement: DropTable, request: Request) -> Result:
        """DROP TABLE."""
        name = statement.ref.table
        if statement.kind is not None:
            raise Unsupported(f"{name} is a temporary table and no {statement.kind.written} table")
        _space(request).drop(name)
        return Result(message=f"temporary table {name} dropped")

    def truncate(self, statement: TruncateTable, request: Request) -> Result:
        """TRUNCATE."""
        space = _space(request)
        space.put(TemporaryTable(space.table(statement.ref.table).table))
        return Result(message=f"temporary table {statement.ref.table} truncated")

    # Rows.

    async def insert(self, statement: Insert, request: Request) -> Result:
        """INSERT; of a query of any size, if nothing is returned."""
        space = _space(request)
        state = space.table(statement.ref.table)
        if statement.on_conflict is not None:
            raise Unsupported(f"ON CONFLICT is not done with a temporary table: {statement.ref.table}")
        source = statement.source
        if isinstance(source, QueryText) and statement.returning is None:
            self._source.check(state.table, statement)
            found = self._queries.stream(source, request.session.user, request.session.namespace, request.parameters)
            async with aclosing(found) as pieces:
                first = await anext(pieces)
                called = self._source.named(state.table, statement, first)
                places = range(first.num_columns)
                state, rows = await self._filled(space, state, _chosen(first, pieces, places, called), request)
            space.put(state)
            return Result(row_count=rows, message=f"{_rows(rows)} inserted")
        rows_of = await self._source.read(state.table, statement, request)
        made = await rows_of(state.table)
        self._check_count(len(made))
        data = await beside(len(made), changed_rows, state.table, made, datetime.now(UTC))
        await check_returning(self._queries, state.table, statement.returning, data, request)
        await self._put(space, state, [data])
        if statement.returning is not None:
            return await returned(self._queries, state.table, statement.returning, data, request)
        return Result(row_count=len(made), message=f"{_rows(len(made))} inserted")

    async def update(self, statement: Update, request: Request) -> Result:
        """UPDATE: the rows that are picked come back behind the others."""
        space = _space(request)
        state = space.table(statement.ref.table)
        table, decoder = state.table, self._codecs.of(state.table).decoder
        columns = [existing_column(table, assignment.column) for assignment in statement.assignments]
        chosen = tuple(with_sign_of_zero(table, assignment) for assignment in statement.assignments)
        found = await self._picked(state, replace(statement, assignments=chosen), request)

        def change() -> tuple[pa.Table, pa.Table]:
            olds = from_arrow(found.select(range(len(table.columns))))
            news = assigned_rows(decoder, columns, olds, found)
            data = pa.Table.from_batches([to_arrow(news, shown_schema(table.columns))])
            return _without(state.rows, found), data

        kept, data = await in_thread(Purpose.ROWS, change)
        await check_returning(self._queries, table, statement.returning, data, request, statement.alias)
        await self._put(space, state, [kept, data], instead=True)
        if statement.returning is not None:
            return await returned(self._queries, table, statement.returning, data, request, statement.alias)
        return Result(row_count=data.num_rows, message=f"{_rows(data.num_rows)} updated")

    async def delete(self, statement: Delete, request: Request) -> Result:
        """DELETE."""
        space = _space(request)
        state = space.table(statement.ref.table)
        found = await self._picked(state, statement, request)
        data = found.select(range(len(state.table.columns)))
        await check_returning(self._queries, state.table, statement.returning, data, request, statement.alias)
        kept = await in_thread(Purpose.ROWS, _without, state.rows, found)
        await self._put(space, state, [kept], instead=True)
        if statement.returning is not None:
            return await returned(self._queries, state.table, statement.returning, data, request, statement.alias)
        return Result(row_count=data.num_rows, message=f"{_rows(data.num_rows)} deleted")

    async def _picked(self, state: TemporaryTable, statement: Update | Delete, request: Request) -> pa.Table:
        """The rows that a statement means, with their places and the values that they are to have."""
        rows = state.rows
        numbered = rows.append_column(SEQ, pa.array(np.arange(rows.num_rows)))
        names = [*(column.name for column in state.table.columns), SEQ]
        query, own = picking(state.table, numbered, names, statement, None)
        return await read_within(self._queries, self._settings, query, own, request)

    async def _filled(
        self, space: TemporarySpace, state: TemporaryTable, pieces: AsyncIterator[pa.Table], request: Request
    ) -> tuple[TemporaryTable, int]:
        """A table with what a query gives behind its own rows, and how many rows that are."""
        decoder, schema = self._codecs.of(state.table).decoder, state.schema
        with space.spill(state) as spill:
            async for piece in pieces:
                if not piece.num_rows:
                    continue

                def take(piece: pa.Table = piece) -> None:
                    spill.add(decoder.decode_columns(piece, user=request.session.user, sql=True).table.cast(schema))

                await to_its_end(in_thread(Purpose.ROWS, take))
            filled = await to_its_end(in_thread(Purpose.FILES, partial(space.filled, state, spill)))
            await in_thread(Purpose.ROWS, _check_key, filled)
            return filled, spill.rows

    async def _put(
        self, space: TemporarySpace, state: TemporaryTable, tables: Sequence[pa.Table], *, instead: bool = False
    ) -> None:
        def work() -> TemporaryTable:
            emptied = TemporaryTable(state.table) if instead else state
            with space.spill(state) as spill:
                for table in tables:
                    spill.add(table)
                held = space.filled(emptied, spill)
            _check_key(held)
            return held

        space.put(await in_thread(Purpose.FILES, work))

    def _check_count(self, rows: int) -> None:
        if rows > self._settings.statement_rows_max:
            raise TooLarge(
                f"the statement would change {rows} rows; statement_rows_max is {self._settings.statement_rows_max}"
            )


def _space(request: Request) -> TemporarySpace:
    if request.session.temporary is None:
        raise Unsupported(NO_SESSION, hint="CREATE TABLE, and DROP TABLE when it is not needed any more")
    return request.session.temporary


async def _chosen(
    first: pa.Table, rest: AsyncIterator[pa.Table], places: Sequence[int], names: Sequence[str]
) -> AsyncIterator[pa.Table]:
    """These columns of all pieces, under these names."""
    yield first.select(list(places)).rename_columns(list(names))
    async for piece in rest:
        yield piece.select(list(places)).rename_columns(list(names))


def _without(rows: pa.Table, found: pa.Table) -> pa.Table:
    """The rows but for those whose places were found."""
    kept = np.ones(rows.num_rows, dtype=bool)
    kept[found.column(SEQ).to_numpy()] = False
    return rows.filter(pa.array(kept))


def _check_key(state: TemporaryTable) -> None:
    """Raise DuplicateKey where two rows have the same key."""
    key = list(state.table.key)
    if not key or not state.pieces:
        return
    counted = state.rows.select(key).group_by(key).aggregate([([], "count_all")])
    twice = counted.filter(pc.greater(counted.column("count_all"), 1))
    if twice.num_rows:
        values = ", ".join(str(twice.column(name)[0].as_py()) for name in key)
        raise DuplicateKey(f"the key ({values}) is there already: temporary table {state.table.name.table}")


def _rows(rows: int) -> str:
    return f"{rows} row" if rows == 1 else f"{rows} rows"
