"""Statements about namespaces and tables themselves: CREATE, DROP, SHOW, DESCRIBE."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Sequence
from functools import partial

import pyarrow as pa
from msgspec.structs import replace

from kalam.access.conditions import check_unused, renamed
from kalam.access.model import Policy
from kalam.engine.gate import Gate
from kalam.engine.session import Session
from kalam.errors import AlreadyExists, NamespaceNotFound, TableInUse, TableNotFound, Unsupported
from kalam.foreign import ForeignOptions
from kalam.live import Registry
from kalam.names import RESERVED_NAMESPACES, TableName, check_name, check_new_namespace, numbered
from kalam.query.queries import Queries, resolve
from kalam.query.results import Result
from kalam.query.selects import Told, check_unselected, selects_of
from kalam.schema import FIRST_OWNER, Column, SelectOptions, Table, TableDefinition, TableOptions, ViewOptions
from kalam.sql import table_options
from kalam.sql.text.alterations import (
    Action,
    ChangeColumns,
    DropColumn,
    DropNotNull,
    RenameColumn,
    RenameTable,
    SetType,
)
from kalam.sql.text.statements import (
    AlterTable,
    CreateNamespace,
    CreateTable,
    DropNamespace,
    DropTable,
    TruncateTable,
)
from kalam.storage.log.copy_store import CopyStore
from kalam.storage.log.disk_faults import disk_may_fail
from kalam.storage.log.troubles import Troubles
from kalam.storage.work.jobs import Jobs
from kalam.storage.work.table_drop import TableDrop
from kalam.tables.kinds import Tables, Upkeep
from kalam.tables.ports import NoticePort
from kalam.views.plan import check_unread, depth_of
from kalam.views.views import Views

TEXT = pa.string()


class Definitions:
    """Carries out the statements that define things."""

    def __init__(
        self,
        store: CopyStore,
        upkeep: Tables[Upkeep],
        queries: Queries,
        live: Registry,
        jobs: Jobs,
        notices: NoticePort,
        troubles: Troubles,
        gate: Gate,
        views: Views,
    ) -> None:
        self._gate, self._book = gate, gate.rights.book
        self._store, self._database, self._catalogue = store, store.database, store.catalogue
        self._upkeep, self._queries, self._live = upkeep, queries, live
        self._jobs, self._notices, self._troubles, self._views = jobs, notices, troubles, views
        self._changing = asyncio.Lock()

    async def create_namespace(self, statement: CreateNamespace) -> Result:
        """CREATE NAMESPACE."""
        check_new_namespace(statement.name)
        async with self._changing:
            if statement.if_not_exists and statement.name in self._catalogue.namespaces:
                return Result(message=f"skipped: namespace {statement.name} exists already")
            await self._catalogue.create_namespace(statement.name)
        return Result(message=f"namespace {statement.name} created")

    async def drop_namespace(self, statement: DropNamespace, session: Session) -> Result:
        """DROP NAMESPACE, with its tables where CASCADE says so."""
        name = statement.name
        if name not in self._catalogue.namespaces:
            if statement.if_exists:
                return Result(message=f"skipped: there is no namespace {name}")
            raise NamespaceNotFound(f"there is no namespace {name!r}")
        tables = self._catalogue.tables_in(name)
        if tables and not statement.cascade:
            listed = ", ".join(str(table.name) for table in tables[:50])
            raise TableInUse(f"namespace {name} is not empty; its tables are {listed}", hint="add CASCADE to drop them")
        for table in tables:
            self._check_unwatched(table, session)
            self._check_unread(table, session, {each.table_id for each in tables})
        while tables := self._catalogue.tables_in(name):  # while one is dropped others may come and go
            with contextlib.suppress(TableNotFound):
                free = [table for table in tables if not selects_of(table, self._catalogue)] or tables
                await self._drop(max(free, key=lambda table: depth_of(table, self._catalogue)), session)
        async with self._changing:
            await self._catalogue.drop_namespace(name)
            self._book.forget_namespace(name)
        return Result(message=f"namespace {name} dropped")

    async def create_table(self, statement: CreateTable, session: Session) -> Result:
        """CREATE TABLE."""
        definition = self.definition(statement, session)
        async with self._changing:
            existing = self._catalogue.tables.get(definition.name)
            if existing is not None:
                return existing_table(existing, statement)
            await self._upkeep.of(definition).create(definition)
        return self.created(definition)

    def existing(self, statement: CreateTable, session: Session) -> Table | None:
        """The table that has the name already."""
        return self._catalogue.tables.get(resolve(statement.ref, session.namespace))

    def definition(self, statement: CreateTable, session: Session) -> TableDefinition:
        """What the statement asks for; raises what is wrong with its name and options."""
        name = resolve(statement.ref, session.namespace)
        check_name(name.table, "table")
        if name.namespace in RESERVED_NAMESPACES:
            raise Unsupported(f"namespace {name.namespace} is the server's own; no table can be created there")
        options = table_options(statement.kind, statement.options, statement.columns)
        if statement.over is not None:
            options = replace(options, over=statement.over)
        return TableDefinition(
            name=name,
            kind=statement.kind,
            columns=statement.columns,
            key=statement.key,
            options=options,
            owned_by=self.owner(session),
        )

    def created(self, definition: TableDefinition, rows: int | None = None) -> Result:
        """Tell of a table that was made, with so many rows where a query filled it."""
        name = definition.name
        kind = definition.kind
        self._notices.notice("table.created", {"namespace": name.namespace, "table": name.table, "kind": kind})
        filled = "" if rows is None else f" with {numbered(rows, 'row')}"
        return Result(row_count=rows or 0, message=f"{_named(definition)} created{filled}")

    def owner(self, session: Session) -> str:
        """Who owns what somebody makes: without authentication nobody has proven to be who they say."""
        return session.user if self._gate.rights.on else FIRST_OWNER

    async def drop_table(self, statement: DropTable, session: Session) -> Result:
        """DROP TABLE: rows, segments, stream, definition."""
        name = resolve(statement.ref, session.namespace)
        if statement.if_exists and not self._gate.sees(session.identity, self._catalogue.tables.get(name)):
            return Result(message=f"skipped: there is no table {name}")
        table = self._catalogue.table(name)
        if statement.kind is not None and statement.kind.written != table.kind.written:
            raise Unsupported(f"table {name} is a {table.kind} table, not a {statement.kind} table")
        if table.is_view:
            raise Unsupported(f"{name} is a materialized view", hint=f"DROP MATERIALIZED VIEW {name}")
        if isinstance(table.options, SelectOptions):
            raise Unsupported(f"{name} is a view", hint=f"DROP VIEW {name}")
        await self.drop(table, session, cascade=statement.cascade)
        return Result(message=f"{_named(table)} dropped")

    async def drop(self, table: Table, session: Session, *, cascade: bool) -> None:
        """Drop a table or view; with ``cascade`` its live queries end first."""
        if cascade:
            check_unread(table, self._catalogue, self._told(session))
            self._live.close_table(table, "the table was dropped")
            for view in selects_of(table, self._catalogue):
                with contextlib.suppress(TableNotFound):
                    await self.drop(self._catalogue.newest(view), session, cascade=True)
        await self._drop(table, session)

    async def make(self, definition: TableDefinition, sources: Sequence[Table]) -> tuple[Table, bool] | None:
        """A new view, or the table that has its name, and whether it is new; None where a source is not as it was."""
        async with self._book.changing, self._changing:
            existing = self._catalogue.tables.get(definition.name)
            if existing is not None:
                return existing, False
            if any(self._catalogue.by_id.get(source.table_id) is not source for source in sources):
                return None
            table = await self._upkeep.of(definition).create(definition)
        name = definition.name
        self._notices.notice("table.created", {"namespace": name.namespace, "table": name.table, "kind": table.kind})
        return table, True

    async def create_select(self, definition: TableDefinition) -> Result:
        """Add a view that is a stored SELECT; what it reads is there."""
        async with self._book.changing, self._changing:
            self._check_reads(definition.options)
            await self._upkeep.of(definition).create(definition)
        return self.created(definition)

    async def replace_select(self, view: Table, columns: tuple[Column, ...], options: SelectOptions) -> Result:
        """Give a view another SELECT."""
        async with self._book.changing, self._changing:
            self._check_reads(options)
            view = await self._catalogue.alter_table(self._catalogue.newest(view), columns, (), options)
        return Result(message=f"{_named(view)} replaced, schema version {view.schema_version}")

    def _check_reads(self, options: TableOptions) -> None:
        """Raise TableNotFound where a table that a view is to read was dropped meanwhile."""
        for use in options.uses if isinstance(options, SelectOptions) else ():
            if use.table_id and use.table_id not in self._catalogue.by_id:
                raise TableNotFound(f"table {use.namespace}.{use.table} was dropped meanwhile")

    def sees(self, session: Session, table: Table | None) -> bool:
        """Whether a table exists for somebody."""
        return self._gate.sees(session.identity, table)

    async def alter_view(self, view: Table, columns: tuple[Column, ...], options: ViewOptions) -> Table:
        """Give a view other columns and options."""
        async with self._upkeep.of(view).altering(view), self._book.changing, self._changing:
            view = self._catalogue.newest(view)
            view = await self._catalogue.alter_table(view, columns, view.key, options)
            self._live.altered(view)
        return view

    async def alter_table(self, statement: AlterTable, session: Session) -> Result:
        """ALTER TABLE."""
        table = self._catalogue.table(resolve(statement.ref, session.namespace))
        if isinstance(statement.action, RenameTable):
            return await self._rename(table, TableName(table.name.namespace, statement.action.new_name), session)
        upkeep = self._upkeep.of(table)
        async with upkeep.altering(table), self._book.changing, self._changing:
            table = self._catalogue.newest(table)
            self._check_readers(table, statement.action, session)
            policies = self._policies_after(table, statement.action)
            also = self._book.policy_sql(policies)
            table, done = await upkeep.alter(table, statement.action, session.user, self._column_users, also)
            if policies:
                self._book.policies_changed(policies)
            self._live.altered(table)
        return Result(message=f"{table.name}: {done}, schema version {table.schema_version}")

    async def _rename(self, table: Table, name: TableName, session: Session) -> Result:
        upkeep = self._upkeep.of(table)
        async with upkeep.dropping(table, "the table was renamed"), self._book.changing, self._changing:
            former = self._catalogue.newest(table)
            check_unread(former, self._catalogue, self._told(session))
            if name in self._catalogue.tables:
                raise AlreadyExists(f"table {name} exists already")
            renamed = await upkeep.rename(former, name)
            self._queries.forget(former)
            self._book.touch()
            self._live.close_table(renamed, f"the table is called {name} now")
        told: dict[str, object] = {
            "namespace": name.namespace,
            "table": former.name.table,
            "to": name.table,
            "kind": renamed.kind,
        }
        self._notices.notice("table.renamed", told)
        return Result(message=f"{_named(former)} renamed to {name}")

    async def truncate_table(self, statement: TruncateTable, session: Session) -> Result:
        """TRUNCATE: every row of the table, of each user's copy where they have their own."""
        table = self._catalogue.table(resolve(statement.ref, session.namespace))
        upkeep = self._upkeep.of(table)
        async with upkeep.dropping(table, "the table was truncated"):
            table = self._catalogue.newest(table)
            await upkeep.truncate(table)
        self._queries.forget(table)  # which holds files for the next query
        name = table.name
        self._notices.notice("table.truncated", {"namespace": name.namespace, "table": name.table, "kind": table.kind})
        return Result(message=f"{_named(table)} truncated")

    def _check_readers(self, table: Table, action: Action, session: Session) -> None:
        """Raise TableInUse where a view reads a column that an ALTER would change for it."""
        if isinstance(action, ChangeColumns):
            for each in action.actions:
                self._check_readers(table, each, session)
        if isinstance(action, (DropColumn, RenameColumn, DropNotNull, SetType)):
            check_unread(table, self._catalogue, self._told(session), column=action.name)
        if isinstance(action, (DropColumn, RenameColumn, SetType)):
            check_unselected(table, self._catalogue, self._told(session), column=action.name)

    def _policies_after(self, table: Table, action: Action) -> list[Policy]:
        """The policies that read otherwise after an ALTER; raises TableInUse for a column that one of them names."""
        policies = self._book.policies.get(table.table_id, ())
        match action:
            case DropColumn(name):
                check_unused(table, name, policies)
            case ChangeColumns(actions):
                for each in actions:
                    self._policies_after(table, each)
            case RenameColumn(name, new_name):
                return renamed(policies, name, new_name)
        return []

    def _column_users(self, table: Table, name: str) -> list[str]:
        """The ids of the open live queries that show a column or judge by it."""
        found = ((query.id, query.read_of(table)) for query in self._live.open_on(table))
        return [query_id for query_id, read in found if read is not None and name in read.columns]

    def _check_unread(self, table: Table, session: Session, dropped: Collection[int] = ()) -> None:
        check_unread(table, self._catalogue, self._told(session), dropped)
        check_unselected(table, self._catalogue, self._told(session), dropped)

    def _told(self, session: Session) -> Told:
        return partial(self._gate.told, session.identity)

    async def _drop(self, table: Table, session: Session) -> None:
        self._check_unwatched(table, session)
        self._check_unread(table, session)
        upkeep = self._upkeep.of(table)
        held = (self._views.ending(table), upkeep.dropping(table, "the table was dropped"))
        async with held[0], held[1], self._book.changing, self._changing:
            table = self._catalogue.newest(table)
            self._check_unwatched(table, session)
            self._check_unread(table, session)
            garbage = await upkeep.garbage(table)
            await self._database.submit(TableDrop(self._store, table, garbage))
            self._catalogue.forget(table)
            self._book.forget_table(table.table_id)
            self._queries.forget(table)
            self._views.forget(table)
            self._troubles.forget(table.table_id)
            self._live.close_table(table, "the table was dropped")
            await upkeep.clear(table, garbage)
        name = table.name
        self._notices.notice("table.dropped", {"namespace": name.namespace, "table": name.table, "kind": table.kind})
        segments = sum("*" not in path for path in garbage)
        with disk_may_fail("the record of a DROP"):  # which is done, whether or not a job can tell of it
            await self._jobs.record("table_deletion", name, {"kind": table.kind}, {"segments": segments})

    def _check_unwatched(self, table: Table, session: Session) -> None:
        watching = self._live.open_on(table)
        if watching:
            listed = ", ".join(f"{query.id} (user {query.user})" for query in watching[:20])
            more = f" and {len(watching) - 20} more" if len(watching) > 20 else ""
            raise TableInUse(
                f"table {table.name} has live queries open: {listed}{more}",
                hint="close them, KILL LIVE QUERY 'id', or DROP TABLE … CASCADE",
            )


def existing_table(existing: Table, statement: CreateTable) -> Result:
    """The answer to a CREATE of what is there already; raises AlreadyExists."""
    if not statement.if_not_exists or existing.kind is not statement.kind:
        raise AlreadyExists(
            f"table {existing.name} exists already, as a {existing.kind.written} table{_over(existing)}"
        )
    return Result(message=f"skipped: table {existing.name} exists already")


def _named(table: TableDefinition) -> str:
    """A table's kind and name, in words; one that is dropped leaves the stream of others as it is."""
    if isinstance(table.options, SelectOptions):
        return f"view {table.name}"
    return f"{table.kind.written} table {table.name}{_over(table)}"


def _over(table: TableDefinition) -> str:
    return f" over the {table.options.over.called}" if isinstance(table.options, ForeignOptions) else ""
