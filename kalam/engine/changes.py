"""INSERT, UPDATE and DELETE statements."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from msgspec.structs import replace

from kalam.engine.assigned import naming_column
from kalam.engine.composed import Pieces, compose, from_table, quoted_columns
from kalam.engine.insert_source import InsertSource, RowsOf, bounds_named
from kalam.engine.points import key_of
from kalam.engine.queries import Queries, resolve
from kalam.engine.returning import changed_rows, check_returning, returned
from kalam.engine.session import Request
from kalam.engine.upserts import (
    Upsert,
    assign,
    assigned_rows,
    check_conflict,
    constant_values,
    existing_column,
    matched_by_key,
    with_sign_of_zero,
)
from kalam.errors import InvalidValue, KalamError, TooLarge, Unsupported
from kalam.names import TableName
from kalam.query.executor import Relations, Wanted
from kalam.query.results import Result
from kalam.rows.codec import Codecs
from kalam.rows.columns import from_arrow
from kalam.rows.door import RowDecoder
from kalam.rows.types import Row
from kalam.schema import SEQ, STREAM_KEY, UPDATED, Column, Table, TableKind
from kalam.settings import Settings
from kalam.sql.text.statements import (
    Assignment,
    Delete,
    Insert,
    QueryText,
    Update,
)
from kalam.storage.log.catalogue import Catalogue, from_us
from kalam.storage.log.copies import View
from kalam.storage.log.writes import Inserted
from kalam.storage.segments.key_rows import KeyedRows
from kalam.tables.stored import Matched, StoredTables
from kalam.tables.streams import StreamTables
from kalam.tables.window_pieces import EVENT_SEQ
from kalam.threads import beside
from kalam.tracing import current_trace, span


class Changes:
    """Carries out the statements that change rows."""

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        codecs: Codecs,
        stored: StoredTables,
        streams: StreamTables,
        queries: Queries,
    ) -> None:
        self._settings, self._catalogue, self._codecs = settings, catalogue, codecs
        self._stored, self._streams, self._queries = stored, streams, queries
        self._source = InsertSource(settings, codecs, queries)

    def _table(self, statement: Insert | Update | Delete, request: Request) -> Table:
        return self._catalogue.table(resolve(statement.ref, request.session.namespace))

    async def insert(self, statement: Insert, request: Request) -> Result:
        """INSERT … VALUES or SELECT: validated whole, then stored whole."""
        table = self._table(statement, request)
        if statement.on_conflict is not None:
            check_conflict(table, statement.on_conflict)
        user = request.session.user
        rows_of = await self._source.read(table, statement, request)
        if statement.on_conflict is not None:
            return await self._upsert(table, statement, rows_of, request)
        updated_us = discarded = 0
        table, rows = await self._rows(table, statement, rows_of, request)
        if table.kind is TableKind.STREAM:
            events = (await beside(len(rows), self._streams.events, table, rows)).in_trace(current_trace())
            with span("kalam.publish", table=str(table.name), events=len(rows)):
                discarded = (await self._streams.publish(table, events)).discarded
        elif rows:
            updated_us = await self._store(table, user, rows)
        if statement.returning is not None:
            data = await beside(len(rows), changed_rows, table, rows, from_us(updated_us))
            return await returned(self._queries, table, statement.returning, data, request)
        lost = f", {discarded} of them discarded because nobody listens" if discarded else ""
        return Result(row_count=len(rows), message=f"{counted(len(rows))} inserted{lost}")

    async def _rows(
        self, table: Table, statement: Insert, rows_of: RowsOf, request: Request
    ) -> tuple[Table, Sequence[Row]]:
        """The rows of an INSERT and the table that they were made for, which no ALTER has changed by now."""
        while True:
            table = self._catalogue.newest(table)
            rows = await rows_of(table)
            self._check_count(len(rows))
            await self._check_returning(table, statement, rows, request)
            if self._catalogue.newest(table) is table:
                return table, rows

    async def _upsert(self, table: Table, statement: Insert, rows_of: RowsOf, request: Request) -> Result:
        upsert = await self._upsert_of(table, statement, rows_of, request)

        async def match(table: Table, view: View) -> Matched:
            nonlocal upsert
            if upsert.table is not table:
                upsert = await self._upsert_of(table, statement, rows_of, request)
            found = await upsert.match(view)
            await self._check_returning(table, statement, [*found.inserts, *(found.news or [])], request)
            return found

        done = await self._stored.change(table, request.session.user, match)
        matched = done.matched
        inserts, news = (matched.inserts, matched.news or []) if matched else ([], [])
        if statement.returning is not None:
            changed = upsert.in_order([*inserts, *news])
            data = await beside(len(changed), changed_rows, done.table, changed, from_us(done.updated_us))
            return await returned(self._queries, done.table, statement.returning, data, request)
        skipped = upsert.row_count - len(inserts) - len(news)
        message = f"{counted(len(inserts))} inserted, {len(news)} updated, {skipped} skipped"
        return Result(row_count=len(inserts) + len(news), message=message)

    async def _upsert_of(self, table: Table, statement: Insert, rows_of: RowsOf, request: Request) -> Upsert:
        assert statement.on_conflict is not None
        check_conflict(table, statement.on_conflict)
        rows = await rows_of(table)
        self._check_count(len(rows))
        decoder, assignments = self._codecs.of(table).decoder, statement.on_conflict.assignments
        parts = (self._queries, self._stored, decoder, table, assignments, rows, request)
        return await beside(len(rows), Upsert, *parts)

    async def _check_returning(
        self,
        table: Table,
        statement: Insert | Update | Delete,
        rows: Sequence[Row],
        request: Request,
        *,
        deleted: bool = False,
    ) -> None:
        if statement.returning is not None:
            data = await beside(len(rows), changed_rows, table, rows, datetime.now(UTC), deleted=deleted)
            alias = None if isinstance(statement, Insert) else statement.alias
            await check_returning(self._queries, table, statement.returning, data, request, alias)

    async def _store(self, table: Table, user: str, rows: Sequence[Row]) -> int:
        statement = await beside(len(rows), self._stored.statement, table, rows, trace=current_trace())
        with span("kalam.commit", table=str(table.name), rows=len(rows)):
            [outcome] = await self._stored.insert(table, user, [statement])
        if isinstance(outcome, KalamError):
            raise outcome
        assert isinstance(outcome, Inserted)
        return outcome.updated_us

    def _check_count(self, rows: int) -> None:
        if rows > self._settings.statement_rows_max:
            raise TooLarge(
                f"the statement would change {rows} rows; statement_rows_max is {self._settings.statement_rows_max}"
            )

    async def update(self, statement: Update, request: Request) -> Result:
        """UPDATE: the rows that a snapshot picks get new values, all in one transaction."""
        table = self._table(statement, request)
        if table.kind is TableKind.STREAM:
            raise Unsupported(
                f"UPDATE on the STREAM table {table.name}: an event that happened is not changed",
                hint="insert a new event, or use a SHARED table for rows that change",
            )
        for assignment in statement.assignments:  # what is wrong with them is told before the turn
            existing_column(table, assignment.column)

        async def match(table: Table, view: View) -> Matched:
            columns = [existing_column(table, assignment.column) for assignment in statement.assignments]
            found = await self._by_key(table, statement, request)
            if found is not None:
                picked = await self._assigned(table, columns, statement, found, request)
            else:
                data = await self._with_values(table, view, statement, request)
                decoder = self._codecs.of(table).decoder
                picked = await beside(data.num_rows, _picked, table, data, view, decoder, columns)
            await self._check_returning(table, statement, picked.news or [], request)
            return picked

        done = await self._stored.change(table, request.session.user, match)
        news = done.matched.news or [] if done.matched else []
        if statement.returning is not None:
            data = await beside(len(news), changed_rows, done.table, news, from_us(done.updated_us))
            return await returned(self._queries, done.table, statement.returning, data, request, statement.alias)
        return Result(row_count=len(news), message=f"{counted(len(news))} updated")

    async def _by_key(self, table: Table, statement: Update | Delete, request: Request) -> KeyedRows | None:
        """The row of a WHERE that is ``key = value``; None for any other WHERE."""
        if statement.where is None:
            return None
        called = statement.alias or table.name.table
        key = key_of(table, statement.where.equality, called, request.parameters)
        return None if key is None else await self._stored.rows_by_key(table, request.session.user, [key])

    async def _assigned(
        self, table: Table, columns: Sequence[Column], statement: Update, found: KeyedRows, request: Request
    ) -> Matched:
        olds = [found_row.row for found_row in found.rows]
        if not olds:
            return matched_by_key(found, [])
        answer = constant_values(statement.assignments, len(olds), request)
        if answer is None:
            data = changed_rows(table, olds, [found_row.updated for found_row in found.rows])
            answer = await assign(self._queries, table, statement.assignments, data, request, statement.alias)
        return matched_by_key(found, assigned_rows(self._codecs.of(table).decoder, columns, olds, answer))

    async def _with_values(self, table: Table, view: View, statement: Update, request: Request) -> pa.Table:
        """What ``_matching`` finds; where a value cannot be computed, the error names its column."""

        async def run(places: Sequence[int]) -> pa.Table:
            chosen = [with_sign_of_zero(table, statement.assignments[place]) for place in places]
            return await self._matching(table, view, replace(statement, assignments=tuple(chosen)), request)

        try:
            return await run(range(len(statement.assignments)))
        except InvalidValue:
            await run(())  # what is wrong with the WHERE is told as it is
            return await naming_column([assignment.column for assignment in statement.assignments], run)

    async def _matching(
        self,
        table: Table,
        view: View,
        statement: Update | Delete,
        request: Request,
    ) -> pa.Table:
        """The rows of the view that a WHERE picks, with ``_seq``, ``_updated`` and assigned values as ``_set_<n>``."""
        pieces: Pieces = [(f'SELECT {quoted_columns(table)}, "{SEQ}", "{UPDATED}"', None)]
        assignments: Sequence[Assignment] = statement.assignments if isinstance(statement, Update) else ()
        for number, assignment in enumerate(assignments):
            pieces += [(", (", assignment.value), (f') AS "_set_{number}"', None)]
        pieces.append((from_table(table, statement.alias), None))
        if statement.where is not None:
            pieces.append((" WHERE ", statement.where))
        query, parameters = await self._queries.in_own_forms(
            compose(pieces), request.session.namespace, request.parameters, (statement.alias, table)
        )
        user = request.session.user
        names, relations = await self._queries.bind(query, user, request.session.namespace)
        relations[table.name, False] = self._queries.relation(table, user, view, with_seq=True)
        return await self._bounded(query, names, relations, parameters, request)

    async def _bounded(
        self,
        query: QueryText,
        names: Sequence[TableName],
        relations: Relations,
        parameters: Sequence[Any],
        request: Request,
    ) -> pa.Table:
        """The rows that a statement changes, if they are not too many."""
        wanted = Wanted(
            user=request.session.user,
            rows_max=self._settings.statement_rows_max,
            bytes_max=self._settings.statement_change_bytes_max,
        )
        with bounds_named(self._settings):
            return await self._queries.run(query, names, relations, parameters, wanted)

    async def delete(self, statement: Delete, request: Request) -> Result:
        """DELETE: rows are marked deleted, events of a STREAM table are removed."""
        table = self._table(statement, request)
        if table.kind is TableKind.STREAM:
            return await self._delete_events(table, statement, request)

        async def match(table: Table, view: View) -> Matched:
            found = await self._by_key(table, statement, request)
            if found is not None:
                picked = matched_by_key(found, None)
            else:
                data = await self._matching(table, view, statement, request)
                picked = await beside(data.num_rows, _picked, table, data, view)
            await self._check_returning(table, statement, picked.olds, request, deleted=True)
            return picked

        done = await self._stored.change(table, request.session.user, match)
        olds = done.matched.olds if done.matched else []
        if statement.returning is not None:
            data = await beside(len(olds), changed_rows, done.table, olds, from_us(done.updated_us), deleted=True)
            return await returned(self._queries, done.table, statement.returning, data, request, statement.alias)
        return Result(row_count=len(olds), message=f"{counted(len(olds))} deleted")

    async def _delete_events(self, table: Table, statement: Delete, request: Request) -> Result:
        events = await self._streams.rows(table, with_key=True, with_seq=True)
        created = self._streams.created(table)
        source = f'SELECT "{EVENT_SEQ}"{from_table(table, statement.alias)}'
        query, parameters = await self._queries.in_own_forms(
            compose([(source, None), *([(" WHERE ", statement.where)] if statement.where else [])]),
            request.session.namespace,
            request.parameters,
            (statement.alias, table),
        )
        user = request.session.user
        names, relations = await self._queries.bind(query, user, request.session.namespace)
        relations[table.name, False] = self._queries.relation(table, user, events)
        data = await self._bounded(query, names, relations, parameters, request)
        seqs = data.column(0).to_pylist()
        if statement.returning is None:
            await self._streams.delete(table, seqs, created)
        else:
            gone = events.filter(pa.compute.is_in(events.column(EVENT_SEQ), pa.array(seqs, pa.int64())))
            hidden = [EVENT_SEQ] if statement.returning.names_key else [EVENT_SEQ, STREAM_KEY]
            given = (table, statement.returning, gone.drop_columns(hidden), request, statement.alias)
            await check_returning(self._queries, *given)
            await self._streams.delete(table, seqs, created)
            return await returned(self._queries, *given)
        return Result(row_count=len(seqs), message=f"{len(seqs)} {'event' if len(seqs) == 1 else 'events'} deleted")


def _picked(
    table: Table, data: pa.Table, view: View, decoder: RowDecoder | None = None, columns: Sequence[Column] = ()
) -> Matched:
    """What ``_matching`` found; with a decoder the rows with the values that are assigned to ``columns`` as well."""
    olds = from_arrow(data.select(range(len(table.columns))))
    news = None if decoder is None else assigned_rows(decoder, columns, olds, data)
    updated_us = data.column(UPDATED).cast(pa.int64()).to_pylist()
    seqs = data.column(SEQ).to_pylist()
    return Matched(olds=olds, seqs=seqs, updated_us=updated_us, news=news, seen_seq=view.last_seq)


def counted(rows: int) -> str:
    """So many rows, in words."""
    return f"{rows} {'row' if rows == 1 else 'rows'}"
