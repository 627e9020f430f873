"""INSERT, UPDATE and DELETE statements."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import compress

import pyarrow as pa
from msgspec.structs import replace

from kalam.access.model import Command
from kalam.engine.assigned import naming_column
from kalam.engine.bounded import read_within
from kalam.engine.insert_source import InsertSource, RowsOf
from kalam.engine.large_statements import LargeStatements, PastBounds, picking
from kalam.engine.returning import check_returning, returned
from kalam.engine.session import Request, reads_rows
from kalam.engine.upserts import (
    Upsert,
    assign,
    check_conflict,
    constant_values,
    existing_column,
    with_sign_of_zero,
)
from kalam.errors import InvalidValue, TooLarge
from kalam.query.points import key_of
from kalam.query.predicate import Predicate
from kalam.query.queries import Queries, resolve
from kalam.query.results import Result
from kalam.rows.assigned import assigned_rows
from kalam.rows.codec import Codecs
from kalam.rows.columns import changed_rows
from kalam.rows.door import RowDecoder
from kalam.rows.types import Row
from kalam.schema import Column, Table
from kalam.settings import Settings
from kalam.sql.text.statements import (
    Delete,
    Insert,
    Update,
)
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.copies import Key, View
from kalam.storage.log.times import from_us
from kalam.storage.segments.key_rows import KeyedRows
from kalam.tables.kinds import Removal, Rows, Shown, Source, Tables
from kalam.tables.large_changes import LargeChanges
from kalam.tables.matched import Matched, queried_columns
from kalam.tables.stored import StoredTables
from kalam.threads import beside


class Changes:
    """Carries out the statements that change rows."""

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        codecs: Codecs,
        tables: Tables[Rows],
        queries: Queries,
        large: LargeChanges,
    ) -> None:
        self._settings, self._catalogue, self._codecs = settings, catalogue, codecs
        self._tables, self._queries, self._policies = tables, queries, queries.policies
        self._source = InsertSource(settings, codecs, queries)
        self._large_statements = LargeStatements(queries, large, self._guard)

    def _table(self, statement: Insert | Update | Delete, request: Request) -> Table:
        return self._catalogue.table(resolve(statement.ref, request.session.namespace))

    async def insert(self, statement: Insert, request: Request) -> Result:
        """INSERT … VALUES or SELECT: validated whole, then stored whole."""
        table = self._table(statement, request)
        self._tables.of(table).check_writable(table)
        self._check_count(len(request.parameter_rows))
        if statement.on_conflict is not None:
            stored = self._tables.of(table).stored(table, "ON CONFLICT")
            check_conflict(table, statement.on_conflict)
            rows_of = await self._source.read(table, statement, request)
            return await self._upsert(stored, table, statement, rows_of, request)
        rows_of = await self._source.read(table, statement, request)
        table, rows = await self._rows(table, statement, rows_of, request)
        taken = await self._tables.of(table).take_rows(table, request.session.user, rows)
        if statement.returning is not None:
            data = await beside(len(rows), changed_rows, table, rows, from_us(taken.updated_us))
            return await returned(self._queries, table, statement.returning, data, request)
        lost = f", {taken.discarded} of them discarded because nobody listens" if taken.discarded else ""
        return Result(row_count=len(rows), message=f"{counted(len(rows))} inserted{lost}")

    async def _rows(
        self, table: Table, statement: Insert, rows_of: RowsOf, request: Request
    ) -> tuple[Table, Sequence[Row]]:
        """The rows of an INSERT and the table that they were made for, which no ALTER has changed by now."""
        while True:
            table = self._catalogue.newest(table)
            rows = await rows_of(table)
            self._check_count(len(rows))
            await self._require(table, Command.INSERT, rows, request, reads=statement.returning is not None)
            await self._check_returning(table, statement, rows, request)
            if self._catalogue.newest(table) is table:
                return table, rows

    async def _upsert(
        self, stored: StoredTables, table: Table, statement: Insert, rows_of: RowsOf, request: Request
    ) -> Result:
        upsert = await self._upsert_of(stored, table, statement, rows_of, request)

        async def match(table: Table, view: View) -> Matched:
            nonlocal upsert
            if upsert.table is not table:
                upsert = await self._upsert_of(stored, table, statement, rows_of, request)
            found = await upsert.match(view)
            await self._require(table, Command.UPDATE, found.news or (), request, reads=True)
            if statement.returning is not None:
                await self._require(table, Command.INSERT, found.inserts, request, reads=True)
            await self._check_returning(table, statement, [*found.inserts, *(found.news or [])], request)
            return found

        done = await stored.change(table, request.session.user, match)
        matched = done.matched
        inserts, news = (matched.inserts, matched.news or []) if matched else ([], [])
        if statement.returning is not None:
            changed = upsert.in_order([*inserts, *news])
            data = await beside(len(changed), changed_rows, done.table, changed, from_us(done.updated_us))
            return await returned(self._queries, done.table, statement.returning, data, request)
        skipped = upsert.row_count - len(inserts) - len(news)
        message = f"{counted(len(inserts))} inserted, {len(news)} updated, {skipped} skipped"
        return Result(row_count=len(inserts) + len(news), message=message)

    async def _upsert_of(
        self, stored: StoredTables, table: Table, statement: Insert, rows_of: RowsOf, request: Request
    ) -> Upsert:
        assert statement.on_conflict is not None
        check_conflict(table, statement.on_conflict)
        rows = await rows_of(table)
        self._check_count(len(rows))
        await self._require(table, Command.INSERT, rows, request, reads=False)
        decoder, assignments = self._codecs.of(table).decoder, statement.on_conflict.assignments
        parts = (self._queries, stored, decoder, table, assignments, rows, request)
        return await beside(len(rows), Upsert, *parts)

    async def _check_returning(
        self,
        table: Table,
        statement: Insert | Update,
        rows: Sequence[Row],
        request: Request,
    ) -> None:
        if statement.returning is not None:
            data = await beside(len(rows), changed_rows, table, rows, datetime.now(UTC))
            alias = None if isinstance(statement, Insert) else statement.alias
            await check_returning(self._queries, table, statement.returning, data, request, alias)

    async def _require(
        self, table: Table, command: Command, rows: Sequence[Row], request: Request, *, reads: bool
    ) -> None:
        """Raise PermissionDenied where a row is not what the policies let the user write."""
        predicate = self._policies.written(request.session.user, table, command, reads=reads)
        await self._policies.require(table, predicate, rows)

    def _guard(self, table: Table, statement: Update | Delete, request: Request) -> Predicate | None:
        """What rows meet that the user may change by a statement; one that reads has to see them too."""
        command = Command.UPDATE if isinstance(statement, Update) else Command.DELETE
        commands = (command, Command.SELECT) if reads_rows(statement) else (command,)
        return self._policies.seen(request.session.user, table, *commands)

    async def _visible(self, table: Table, statement: Update | Delete, found: KeyedRows, request: Request) -> KeyedRows:
        """Those of the rows that the policies let the user change."""
        guard = self._guard(table, statement, request)
        if guard is None or not found.rows:
            return found
        held = await self._policies.held(table, guard, [keyed.row for keyed in found.rows])
        return KeyedRows(list(compress(found.rows, held)), found.seen_seq)

    def _check_count(self, rows: int) -> None:
        if rows > self._settings.statement_rows_max:
            raise TooLarge(
                f"the statement would change {rows} rows; statement_rows_max is {self._settings.statement_rows_max}"
            )

    async def update(self, statement: Update, request: Request) -> Result:
        """UPDATE: the rows that a snapshot picks get new values, all in one transaction."""
        table = self._table(statement, request)
        stored = self._tables.of(table).stored(table, "UPDATE")
        for assignment in statement.assignments:  # what is wrong with them is told before the turn
            existing_column(table, assignment.column)

        async def match(table: Table, view: View) -> Matched:
            columns = [existing_column(table, assignment.column) for assignment in statement.assignments]
            found = await self._by_key(stored, table, statement, request)
            if found is not None:
                found = await self._visible(table, statement, found, request)
                picked = await self._assigned(table, columns, statement, found, request)
            else:
                data = await self._with_values(table, view, statement, request)
                decoder = self._codecs.of(table).decoder
                picked = await beside(data.num_rows, _picked, table, data, view, decoder, columns)
            news, reads = picked.news or [], reads_rows(statement)
            await self._require(table, Command.UPDATE, news, request, reads=reads)
            await self._check_returning(table, statement, news, request)
            return picked

        try:
            done = await stored.change(table, request.session.user, match)
        except PastBounds as exc:
            rows = await self._large_statements.run(table, statement, request, exc)
            return Result(row_count=rows, message=f"{counted(rows)} updated")
        news = done.matched.news or [] if done.matched else []
        if statement.returning is not None:
            data = await beside(len(news), changed_rows, done.table, news, from_us(done.updated_us))
            return await returned(self._queries, done.table, statement.returning, data, request, statement.alias)
        return Result(row_count=len(news), message=f"{counted(len(news))} updated")

    async def _by_key(
        self, stored: StoredTables, table: Table, statement: Update, request: Request
    ) -> KeyedRows | None:
        """The row of a WHERE that is ``key = value``; None for any other WHERE."""
        key = key_named(statement, request, table)
        return None if key is None else await stored.rows_by_key(table, request.session.user, [key])

    async def _assigned(
        self, table: Table, columns: Sequence[Column], statement: Update, found: KeyedRows, request: Request
    ) -> Matched:
        olds = [found_row.row for found_row in found.rows]
        if not olds:
            return Matched.of_keyed(found, [])
        answer = constant_values(statement.assignments, len(olds), request)
        if answer is None:
            data = changed_rows(table, olds, [found_row.updated for found_row in found.rows])
            answer = await assign(self._queries, table, statement.assignments, data, request, statement.alias)
        return Matched.of_keyed(found, assigned_rows(self._codecs.of(table).decoder, columns, olds, answer))

    async def _with_values(self, table: Table, view: View, statement: Update, request: Request) -> pa.Table:
        """What ``_matching`` finds; where a value cannot be computed, the error names its column."""

        async def run(places: Sequence[int]) -> pa.Table:
            chosen = [with_sign_of_zero(table, statement.assignments[place]) for place in places]
            changed = replace(statement, assignments=tuple(chosen))
            return await self._matching(table, view, queried_columns(table), changed, request)

        try:
            return await run(range(len(statement.assignments)))
        except InvalidValue:
            await run(())  # what is wrong with the WHERE is told as it is
            return await naming_column([assignment.column for assignment in statement.assignments], run)

    async def _matching(
        self, table: Table, source: Source, columns: Sequence[str], statement: Update | Delete, request: Request
    ) -> pa.Table:
        """These columns of the rows of a source that a WHERE picks, and assigned values as ``_set_<n>``.

        Raises PastBounds for more than are changed in memory, if the source is of a table whose rows are stored.
        """
        guard = self._guard(table, statement, request)
        query, own = picking(table, source, columns, statement, guard)
        try:
            return await read_within(self._queries, self._settings, query, own, request)
        except TooLarge as exc:
            if isinstance(source, View):
                raise PastBounds(exc.detail) from exc
            raise

    async def delete(self, statement: Delete, request: Request) -> Result:
        """DELETE: rows are marked deleted, events of a STREAM table are removed."""
        table = self._table(statement, request)
        returning = statement.returning

        async def pick(table: Table, source: Source, columns: Sequence[str]) -> pa.Table:
            return await self._matching(table, source, columns, statement, request)

        async def check(table: Table, rows: int, shown: Shown) -> None:
            if returning is not None:
                data = await beside(rows, shown)
                await check_returning(self._queries, table, returning, data, request, statement.alias)

        names_key = returning is not None and returning.names_key

        async def visible(table: Table, found: KeyedRows) -> KeyedRows:
            return await self._visible(table, statement, found, request)

        removal = Removal(partial(key_named, statement, request), pick, visible, check, names_key)
        try:
            done = await self._tables.of(table).remove(table, request.session.user, removal)
        except PastBounds as exc:
            rows = await self._large_statements.run(table, statement, request, exc)
            return Result(row_count=rows, message=f"{counted(rows)} deleted")
        if returning is not None:
            data = await beside(done.rows, done.shown)
            return await returned(self._queries, done.table, returning, data, request, statement.alias)
        return Result(row_count=done.rows, message=f"{counted(done.rows, done.called)} deleted")


def _picked(table: Table, data: pa.Table, view: View, decoder: RowDecoder, columns: Sequence[Column]) -> Matched:
    """What ``_matching`` found, with the values that are assigned to ``columns``."""
    matched = Matched.of_query(table, data, view.last_seq, None)
    return replace(matched, news=assigned_rows(decoder, columns, matched.olds, data))


def key_named(statement: Update | Delete, request: Request, table: Table) -> Key | None:
    """The key of a WHERE that is ``key = value``, of each of its columns; None for any other WHERE."""
    if statement.where is None or statement.sources is not None:
        return None
    return key_of(table, statement.where.equalities, statement.alias or table.name.table, request.parameters)


def counted(rows: int, called: str = "row") -> str:
    """So many rows, in words."""
    return f"{rows} {called if rows == 1 else called + 's'}"
