"""SELECT: what a query may name, bound to one snapshot, and run."""

from __future__ import annotations

import os
import shutil
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from kalam.access.rights import Rights
from kalam.errors import NamespaceNotFound, TableNotFound
from kalam.names import SYSTEM_NAMESPACE, TableName
from kalam.query.composed import Pieces, compose, from_table, quoted
from kalam.query.copy_reader import CopyReader, CopyRelation
from kalam.query.descriptions import distinctly_named, empty_source, renamed_schema, untyped_parameters
from kalam.query.dropped import unless_dropped
from kalam.query.executor import BoundQuery, Executor, Relation, Wanted
from kalam.query.expanded import Expanded, expanded, expanded_view, temporary_relations
from kalam.query.handed import TableRelation
from kalam.query.judge import JudgeProcess
from kalam.query.own import AT_HAND_SUFFIX, Own
from kalam.query.parameters import check_parameters, types_of
from kalam.query.policies import Policies
from kalam.query.pool import Pool
from kalam.query.predicate import Predicate
from kalam.query.running import note_telling
from kalam.query.system import Fields, SystemTables
from kalam.query.worker.limits import Limits
from kalam.rows.columns import column_values, from_arrow
from kalam.rows.keys import key_arrays
from kalam.schema import SEQ, UPDATED, SelectOptions, Table
from kalam.settings import Settings
from kalam.sql.queries.compared import columns_of, with_own_forms
from kalam.sql.queries.readers import read_bounds
from kalam.sql.text.recognised import counted_as
from kalam.sql.text.statements import QueryText, TableRef
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.copies import EMPTY_VIEW, Key, View
from kalam.storage.segments.cold_keys import KeyedRow
from kalam.storage.segments.folders import Folders, LinkFolders
from kalam.storage.segments.key_rows import KeyedRows
from kalam.tables.foreign.tables import token_columns
from kalam.tables.kinds import WHOLE_SCAN, Rows, Scan, Source, Tables
from kalam.tables.matched import queried_columns
from kalam.tables.stored import StoredTables
from kalam.threads import Purpose, beside, in_thread, reading

PARTITIONS = max(2, os.cpu_count() or 2)
READERS_MAX = 4_096


def resolve(ref: TableRef, namespace: str | None) -> TableName:
    """The full name of a table as a statement names it; raises NamespaceNotFound where none is given."""
    if ref.namespace is not None:
        return TableName(ref.namespace, ref.table)
    if not namespace:  # an empty one names none
        raise NamespaceNotFound(
            f"table {ref.table!r} needs a namespace", hint=f"write <namespace>.{ref.table}, or name a default namespace"
        )
    return TableName(namespace, ref.table)


class Queries:
    """Runs queries for sessions."""

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        folders: Folders,
        own: Tables[Rows],
        system: SystemTables,
        rights: Rights,
    ) -> None:
        self._settings, self._catalogue, self._folders = settings, catalogue, folders
        self._own, self._system = own, system
        self._links = LinkFolders(settings.data_dir.resolve() / "snapshots")
        limits = Limits(settings.query_memory_bytes, PARTITIONS)
        self.pool = Pool(limits, places_max=settings.query_concurrency_max, wait_s=settings.query_time_s)
        self._executor = Executor(self.pool, settings.query_time_s)
        self.policies = Policies(rights, JudgeProcess(self.pool.forks))
        self._readers: OrderedDict[tuple[int, int, str], CopyReader] = OrderedDict()

    async def select(
        self,
        query: QueryText,
        user: str,
        namespace: str | None,
        parameters: Sequence[Any] = (),
        *,
        rows_max: int | None = None,
        bytes_max: int | None = None,
    ) -> pa.Table:
        """The rows of a query as this user sees them."""
        wanted = Wanted(user=user, in_order=self._in_order(query, namespace), rows_max=rows_max, bytes_max=bytes_max)
        counted = counted_as(query)
        if counted is not None:
            table = self._catalogue.tables.get(resolve(query.tables[0].ref, namespace))
            countable = table is not None and not isinstance(table.options, SelectOptions)
            if table is not None and countable and self.policies.seen(user, table) is None:
                return pa.table({counted: pa.array([await self._count(query, table, wanted)], pa.int64())})

        async def run(query: QueryText) -> pa.Table:
            return await self.run(await self._bind(query, user, namespace, parameters), wanted)

        found, names = await distinctly_named(query, run)
        return found if names is None else found.rename_columns(names)

    async def run(self, bound: BoundQuery, wanted: Wanted) -> pa.Table:
        """The rows of a query over what was bound to it."""
        with unless_dropped(self._catalogue, bound.names):
            return await self._executor.run(bound, wanted)

    async def run_around(
        self,
        query: QueryText,
        own: Own,
        namespace: str | None,
        parameters: Sequence[Any],
        wanted: Wanted,
    ) -> pa.Table:
        """The rows of a query that is written around a user's text, over a source of a table of its own."""
        return await self.run(await self._bind(query, wanted.user, namespace, parameters, own), wanted)

    async def stream_around(
        self, query: QueryText, own: Own, namespace: str | None, parameters: Sequence[Any], wanted: Wanted
    ) -> AsyncGenerator[pa.Table, None]:
        """The same while they are found; the first table is empty."""
        bound = await self._bind(query, wanted.user, namespace, parameters, own)
        async with aclosing(self.stream_bound(bound, wanted)) as tables:
            async for table in tables:
                yield table

    async def run_over(
        self,
        select_list: Pieces,
        table: Table,
        data: pa.Table,
        alias: str | None,
        user: str,
        namespace: str | None,
        parameters: Sequence[Any],
    ) -> pa.Table:
        """What a select list, in pieces, gives for rows of a table that are at hand, in their order."""
        own = Own(TableName(table.name.namespace, table.name.table + AT_HAND_SUFFIX), table, data, alias)
        query = compose([*select_list, (from_table(own.name, alias or table.name.table), None)])
        return await self.run_around(query, own, namespace, parameters, Wanted(user=user, in_order=True))

    async def _count(self, query: QueryText, table: Table, wanted: Wanted) -> int:
        rows = self._own.of(table)
        await rows.wait_readable(table)
        view = (await rows.sources({table.name: table}, wanted.user, with_key=False))[table.name]
        if view is None:
            return 0
        if isinstance(view, pa.Table):
            return len(view)
        reader = self._reader(table, table.owner(wanted.user))
        known = reader.count_nowait(view)
        if known is None:
            known = await in_thread(Purpose.QUERIES, reader.count, view)
        if known is None:  # what is hidden in segments has to be looked for
            relations = {(table.name, False): self.relation(table, wanted.user, view)}
            found = await self.run(BoundQuery(query, [table.name], relations), wanted)
            known = found.column(0)[0].as_py()
            reader.note_count(view, known)
        return known

    async def stream(
        self, query: QueryText, user: str, namespace: str | None, parameters: Sequence[Any] = ()
    ) -> AsyncGenerator[pa.Table, None]:
        """The rows of a query as this user sees them, while they are found; at least one table, for its schema."""
        wanted = Wanted(user=user, in_order=self._in_order(query, namespace))

        async def begin(query: QueryText) -> tuple[AsyncGenerator[pa.Table, None], pa.Table]:
            tables = self.stream_bound(await self._bind(query, user, namespace, parameters), wanted)
            return tables, await anext(tables)

        (tables, first), names = await distinctly_named(query, begin)
        async with aclosing(tables):
            yield first if names is None else first.rename_columns(names)
            async for table in tables:
                yield table if names is None else table.rename_columns(names)

    async def describe(
        self,
        query: QueryText,
        user: str,
        namespace: str | None,
        known: Mapping[int, pa.Field],
        outputs: Mapping[int, pa.Field] | None = None,
        own: Own | None = None,
    ) -> tuple[list[pa.Field], pa.Schema]:
        """The parameters of a query, of which some are ``known`` by their numbers, and its columns; nothing is run.

        ``outputs`` are what parameters are that stand alone in the select list, by their places there.
        """
        untyped = untyped_parameters(query.parameters, known, outputs or {})

        async def ask(query: QueryText) -> tuple[pa.Schema, pa.Schema]:
            bound = await self._bind(query, user, namespace, (None,) * untyped.count, own, described=True)
            return await self._executor.describe(bound, untyped, user)

        (parameters, columns), names = await distinctly_named(query, ask)
        return list(parameters), columns if names is None else renamed_schema(columns, names)

    async def stream_bound(self, bound: BoundQuery, wanted: Wanted) -> AsyncGenerator[pa.Table, None]:
        """The rows of a query over what was bound to it, while they are found; at least one table."""
        with unless_dropped(self._catalogue, bound.names):
            async with aclosing(self._executor.stream(bound, wanted)) as tables:  # a reader that leaves frees the place
                async for table in tables:
                    yield table

    def _in_order(self, query: QueryText, namespace: str | None) -> bool:
        """Whether the rows have to come in the order of one of the tables."""
        tables = (self._catalogue.tables.get(resolve(use.ref, namespace)) for use in query.tables)
        return query.in_order and any(table is not None and self._own.of(table).ordered for table in tables)

    async def _bind(
        self,
        query: QueryText,
        user: str,
        namespace: str | None,
        parameters: Sequence[Any],
        own: Own | None = None,
        *,
        described: bool = False,
    ) -> BoundQuery:
        """The query with what its names stand for, all of one moment, and what it compares as it is stored.

        ``own`` stands in a FROM that is written around the text. What is only ``described`` reads no rows. Raises
        InvalidValue where there are fewer parameters than the query names.
        """
        scan, types = await self._scan(query, namespace, parameters), types_of(parameters)
        query, parameters = await self._in_own_forms(query, namespace, parameters, own)
        names = [resolve(use.ref, namespace) for use in query.tables]
        found = await reading(query.text, expanded, self._catalogue, self.policies.rights, user, query, names)
        relations = await self._relations(found, user, scan, described=described)
        if own is not None:
            relations[own.name, False] = self.relation(own.table, user, own.source, with_seq=True, guard=own.guard)
        return BoundQuery(found.query, found.names, relations, parameters, types)

    async def _relations(
        self, found: Expanded, user: str, scan: Scan, *, described: bool
    ) -> dict[tuple[TableName, bool], Relation]:
        """What the mentions of tables stand for, all of one moment."""
        relations: dict[tuple[TableName, bool], Relation] = {**temporary_relations(self._catalogue.temporary, found)}
        mentions = [each for each in found.mentions if (each.name, each.sees_deleted) not in relations]
        query, names = found.query, {mention.table for mention in mentions}
        scan = Scan(query.virtual) if query.virtual and not scan.virtual else scan
        tables = {name: self._table(name) for name in names if not self._system.has(name)}
        sources: dict[TableName, Source] = {}
        for name in names - tables.keys():
            note_telling()
            sources[name] = await in_thread(Purpose.CATALOGUE, self._system.table, name.table, user)
        if described:
            sources |= {name: empty_source(table, query) for name, table in tables.items()}
        read_of = {} if described else tables
        for each in read_of.values():
            await self._own.of(each).wait_readable(each)
        for rows, alike in self._own.parts(read_of):
            read = partial(rows.sources, alike, user, with_key=query.names_key, scan=scan)
            long = any(table.is_foreign for table in alike.values())
            sources |= await (self._executor.in_time(read) if long else read())
        for mention in mentions:
            table, deleted = tables.get(mention.table), mention.sees_deleted
            guard = None if table is None or described else self.policies.seen(mention.reader, table)
            relations[mention.name, deleted] = self.relation(
                table, user, sources[mention.table], sees_deleted=deleted, hides=not query.names_key, guard=guard
            )
        return relations

    async def schema_of_select(self, view: Table, user: str) -> pa.Schema:
        """The schema of what the text of a view gives; raises what is wrong with it."""
        found = expanded_view(self._catalogue, self.policies.rights, user, view)
        relations = await self._relations(found, user, WHOLE_SCAN, described=True)
        return (await self.run(BoundQuery(found.query, found.names, relations), Wanted(user=user))).schema

    async def _scan(self, query: QueryText, namespace: str | None, parameters: Sequence[Any]) -> Scan:
        """What the query needs of tables over foreign streams; bounds where it reads one of them and nothing else."""
        alone = query.tables[0].ref if len(query.tables) == 1 else None
        table = None if alone is None else self._catalogue.tables.get(resolve(alone, namespace))
        if table is None or not table.is_foreign:
            return Scan(query.virtual) if query.virtual else WHOLE_SCAN
        return Scan(query.virtual, await reading(query.text, read_bounds, query, token_columns(table), parameters))

    async def _in_own_forms(
        self, query: QueryText, namespace: str | None, parameters: Sequence[Any], own: Own | None
    ) -> tuple[QueryText, Sequence[Any]]:
        """The query with what it compares in the columns' own forms (``sql.queries.compared``) and its parameters."""
        check_parameters(query.parameters, parameters)
        tables = (self._catalogue.find(resolve(use.ref, namespace)) for use in query.tables)
        known = [{} if table is None else columns_of(table) for table in tables]
        around = {} if own is None else {own.alias or own.table.name.table: columns_of(own.table)}
        return await reading(query.text, with_own_forms, query, known, parameters, around)

    def _table(self, name: TableName) -> Table:
        if name.namespace == SYSTEM_NAMESPACE:
            known = ", ".join(str(other) for other in self._system.names())
            raise TableNotFound(f"there is no table {name}", hint=f"the system tables are {known}")
        return self._catalogue.table(name)

    def relation(
        self,
        table: Table | None,
        user: str,
        source: Source,
        *,
        sees_deleted: bool = False,
        with_seq: bool = False,
        hides: bool = False,
        guard: Predicate | None = None,
    ) -> Relation:
        """What a source stands for in a query, of which it reads what the ``guard`` leaves.

        It ``hides`` the key of a view that no column of its SELECT is.
        """
        text = None if guard is None else guard.text
        if isinstance(source, pa.Table):
            return TableRelation(source, text)
        assert table is not None
        reader = self._reader(table, table.owner(user))
        hides = hides and bool(table.hidden_columns)
        return CopyRelation(reader, source or EMPTY_VIEW, sees_deleted, with_seq, text, hides)

    def _reader(self, table: Table, owner: str) -> CopyReader:
        name = (table.table_id, table.schema_version, owner)
        reader = self._readers.get(name)
        if reader is not None:
            self._readers.move_to_end(name)
            return reader
        folder = self._folders.folder(table, owner)
        history, checks = self._catalogue.history(table), self._folders.checks
        reader = self._readers[name] = CopyReader(self._links, checks, table, folder, history)
        if len(self._readers) > READERS_MAX:
            self._readers.popitem(last=False)
        return reader

    async def rows_by_key(
        self, stored: StoredTables, table: Table, user: str, view: View, keys: Sequence[Key]
    ) -> KeyedRows:
        """The rows that have one of these keys: looked up where that can tell, or else those of the view."""
        if not view.last_seq or not keys:
            return KeyedRows([], view.last_seq)
        found = await stored.rows_by_key(table, user, keys)
        if found is not None:
            return found
        return KeyedRows(await self._queried_by_key(table, user, view, keys), view.last_seq)

    async def _queried_by_key(self, table: Table, user: str, view: View, keys: Sequence[Key]) -> list[KeyedRow]:
        wanted = TableName(table.name.namespace, f"{table.name.table}$keys")
        text = f"SELECT {quoted(queried_columns(table))}{from_table(table.name, None)}"
        parts = [f"wanted_{place}" for place in range(len(table.key))]
        same = " AND ".join(f'"{name}" = {part}' for name, part in zip(table.key, parts, strict=True))
        text += f' WHERE EXISTS (SELECT 1 FROM "{wanted.namespace}"."{wanted.table}" WHERE {same})'  # noqa: S608
        data = pa.table(await beside(len(keys), key_arrays, keys, table.key_columns), names=parts)
        relations = {
            (table.name, False): self.relation(table, user, view, with_seq=True),
            (wanted, False): self.relation(table, user, data),
        }
        found = await self.run(BoundQuery(QueryText(text), [], relations), Wanted(user=user))
        return await beside(found.num_rows, _keyed, found)

    def system_names(self) -> list[TableName]:
        """The tables of what the server knows about itself."""
        return self._system.names()

    def system_fields(self) -> Mapping[str, Fields]:
        """The columns of the system tables, by their names."""
        return self._system.fields()

    def release(self, table_id: int, owner: str) -> None:
        """Let go of the files of a copy, of which some were replaced."""
        for name, reader in self._readers.items():
            if name[0] == table_id and name[2] == owner:
                reader.release()

    def forget(self, table: Table) -> None:
        """Let go of what is kept of a table that was dropped."""
        for name in [name for name in self._readers if name[0] == table.table_id]:
            del self._readers[name]

    async def close(self) -> None:
        """End the workers and remove the link folders."""
        await self.pool.stop()
        self._readers.clear()
        shutil.rmtree(Path(self._settings.data_dir) / "snapshots", ignore_errors=True)


def _keyed(found: pa.Table) -> list[KeyedRow]:
    """Rows of ``queried_columns`` with their places."""
    rows = from_arrow(found.drop_columns([UPDATED, SEQ]))
    updated, seqs = column_values(found.column(UPDATED)), found.column(SEQ).to_pylist()
    return [KeyedRow(*parts) for parts in zip(rows, seqs, updated, strict=True)]
