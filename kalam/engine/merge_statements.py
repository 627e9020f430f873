"""MERGE: rows that go with one of its sources are changed or removed, the sources without one are inserted.

Both are read from one view and are one change. A row that goes with two sources is an error, as in PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from msgspec.structs import replace

from kalam.access.model import Command
from kalam.engine.assigned import naming_column
from kalam.engine.bounded import read_within
from kalam.engine.insert_source import target_columns
from kalam.engine.large_statements import picking
from kalam.engine.session import Request
from kalam.engine.upserts import existing_column, with_sign_of_zero
from kalam.errors import DuplicateKey, InvalidValue
from kalam.query.composed import Pieces, as_columns, compose, from_table
from kalam.query.own import Own
from kalam.query.predicate import Predicate
from kalam.query.queries import Queries, resolve
from kalam.query.results import Result
from kalam.rows.assigned import assigned_rows
from kalam.rows.codec import Codecs
from kalam.rows.keys import shown_key
from kalam.rows.types import Row
from kalam.schema import ROW_ID, SEQ, Table
from kalam.settings import Settings
from kalam.sql.text.statements import Delete, Merge, QueryText, Update
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.copies import View
from kalam.tables.kinds import Rows, Tables
from kalam.tables.matched import Matched, queried_columns
from kalam.tables.stored import StoredTables
from kalam.threads import beside


class MergeStatements:
    """Carries MERGE out."""

    def __init__(
        self, settings: Settings, catalogue: Catalogue, codecs: Codecs, tables: Tables[Rows], queries: Queries
    ) -> None:
        self._settings, self._catalogue, self._codecs = settings, catalogue, codecs
        self._tables, self._queries, self._policies = tables, queries, queries.policies

    async def merge(self, statement: Merge, request: Request) -> Result:
        """Carry one out, all of it or nothing."""
        table = self._catalogue.table(resolve(statement.ref, request.session.namespace))
        stored = self._tables.of(table).stored(table, "MERGE")
        for assignment in statement.assignments:  # what is wrong with them is told before the turn
            existing_column(table, assignment.column)
        if statement.values is not None:
            named, given = len(target_columns(table, statement.columns)), len(statement.values)
            if named != given:
                raise InvalidValue(f"the MERGE gives {given} values for {named} columns")

        async def match(table: Table, view: View) -> Matched:
            matched = await self._matched(table, view, statement, request)
            inserts = await self._inserts(stored, table, view, statement, request)
            return replace(matched, inserts=inserts)

        done = await stored.change(table, request.session.user, match)
        rows = 0 if done.matched is None else done.matched.count
        return Result(row_count=rows, message=f"{rows} {'row' if rows == 1 else 'rows'} merged")

    async def _matched(self, table: Table, view: View, statement: Merge, request: Request) -> Matched:
        """The rows that go with a source, and what they become; none where nothing is done with them."""
        columns = [existing_column(table, assignment.column) for assignment in statement.assignments]
        command = Command.DELETE if statement.deletes else Command.UPDATE
        guard = self._policies.seen(request.session.user, table, command, Command.SELECT)
        ref, alias, on, sources = statement.ref, statement.alias, statement.on, statement.sources

        async def run(places: Sequence[int]) -> pa.Table:
            chosen = tuple(with_sign_of_zero(table, statement.assignments[place]) for place in places)
            change: Update | Delete = Delete(ref=ref, alias=alias, where=on, sources=sources)
            if not statement.deletes:
                change = Update(ref=ref, alias=alias, assignments=chosen, where=on, sources=sources)
            query, own = picking(table, view, queried_columns(table), change, guard, once=False)
            return await read_within(self._queries, self._settings, query, own, request)

        nothing = Matched(olds=(), seqs=(), updated_us=(), news=(), seen_seq=view.last_seq)
        changes = statement.deletes or bool(columns)
        if not changes and statement.values is not None:  # whose query reads the sources, and ON as well
            return nothing
        data = await naming_column([assignment.column for assignment in statement.assignments], run)
        if not changes:
            return nothing
        if len(data.column(SEQ).unique()) < data.num_rows:
            raise InvalidValue(f"a row of {table.name} goes with several rows of the sources: MERGE changes a row once")
        if statement.deletes:
            return await beside(data.num_rows, Matched.of_query, table, data, view.last_seq, None)
        decoder = self._codecs.of(table).decoder

        def picked() -> Matched:
            found = Matched.of_query(table, data, view.last_seq, None)
            return replace(found, news=assigned_rows(decoder, columns, found.olds, data))

        matched = await beside(data.num_rows, picked)
        await self._require(table, Command.UPDATE, matched.news or (), request)
        return matched

    async def _inserts(
        self, stored: StoredTables, table: Table, view: View, statement: Merge, request: Request
    ) -> Sequence[Row]:
        """The rows of the sources that go with none; raises DuplicateKey where their key is there all the same."""
        if statement.values is None:
            return ()
        guard = self._policies.seen(request.session.user, table, Command.SELECT)
        own = Own(table.name, table, view, statement.alias, guard)
        data = await read_within(self._queries, self._settings, unmatched(table, statement, own), own, request)
        named = data.rename_columns([column.name for column in target_columns(table, statement.columns)])
        decoder, user = self._codecs.of(table).decoder, request.session.user
        rows = await beside(data.num_rows, lambda: decoder.decode_table(named, user=user, sql=True))
        await self._require(table, Command.INSERT, rows, request)
        if table.key != (ROW_ID,):
            keys = [table.key_of(row) for row in rows]
            found = await self._queries.rows_by_key(stored, table, user, view, keys)
            seen = {table.key_of(keyed.row) for keyed in found.rows}
            for key in keys:
                if key in seen:
                    raise DuplicateKey(f"the key {shown_key(table, key)} is there already: table {table.name}")
                seen.add(key)
        return rows

    async def _require(self, table: Table, command: Command, rows: Sequence[Row], request: Request) -> None:
        """Raise PermissionDenied where a row is not what the policies let the user write."""
        predicate: Predicate | None = self._policies.written(request.session.user, table, command, reads=True)
        await self._policies.require(table, predicate, rows)


def unmatched(table: Table, statement: Merge, own: Own) -> QueryText:
    """The query for what is inserted: the values of each source that goes with no row of the table."""
    pieces: Pieces = [("SELECT ", None), *as_columns(statement.values or (), "v"), (" FROM ", statement.sources)]
    if not statement.values:
        pieces[0:1] = [("SELECT 1", None)]
    read = from_table(own.name, statement.alias)
    pieces += [(f" WHERE NOT EXISTS (SELECT 1{read} WHERE ", statement.on), (")", None)]
    return compose(pieces)
