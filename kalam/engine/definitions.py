"""Statements about namespaces and tables themselves: CREATE, DROP, SHOW, DESCRIBE."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pyarrow as pa
import structlog
from msgspec.structs import replace

from kalam.engine.alterations import altered
from kalam.engine.locations import check_location
from kalam.engine.queries import Queries, resolve
from kalam.engine.session import Session
from kalam.errors import AlreadyExists, KalamError, NamespaceNotFound, TableInUse, TableNotFound, Unsupported
from kalam.live import Registry
from kalam.names import RESERVED_NAMESPACES, SYSTEM_NAMESPACE, check_name, check_new_namespace
from kalam.query.results import Result, list_result
from kalam.rows.shown import timestamp_text
from kalam.rows.types import TIMESTAMP_ARROW
from kalam.schema import Column, Table, TableDefinition, TableKind, load_columns
from kalam.settings import Settings
from kalam.sql import create_table_sql, describe_options, table_options
from kalam.sql.text.statements import (
    AlterTable,
    CreateNamespace,
    CreateTable,
    DescribeTable,
    DropNamespace,
    DropTable,
    SetOptions,
    TableRef,
)
from kalam.storage.log.catalogue import Catalogue, from_us
from kalam.storage.log.database import Database
from kalam.storage.log.disk_faults import disk_may_fail
from kalam.storage.log.drop_notes import forget_drops
from kalam.storage.log.troubles import Troubles
from kalam.storage.segments.garbage import garbage_of, remove_garbage
from kalam.storage.work.compaction import Compactor
from kalam.storage.work.flush import Flusher
from kalam.storage.work.jobs import Jobs
from kalam.storage.work.table_drop import TableDrop
from kalam.tables.outbox import Outbox
from kalam.tables.ports import FeedPort, NoticePort
from kalam.tables.streams import StreamTables
from kalam.threads import Purpose, in_thread

log = structlog.get_logger(__name__)
TEXT = pa.string()


class Parts(msgspec.Struct, frozen=True):
    """What the definitions act on."""

    settings: Settings
    database: Database
    catalogue: Catalogue
    jobs: Jobs
    flusher: Flusher
    compactor: Compactor
    outbox: Outbox
    streams: StreamTables
    feed: FeedPort
    notices: NoticePort
    queries: Queries
    live: Registry
    troubles: Troubles


class Definitions:
    """Carries out the statements that define things."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._catalogue = parts.catalogue
        self._changing = asyncio.Lock()

    async def create_namespace(self, statement: CreateNamespace) -> Result:
        """CREATE NAMESPACE."""
        check_new_namespace(statement.name)
        async with self._changing:
            if statement.if_not_exists and statement.name in self._catalogue.namespaces:
                return Result(message=f"skipped: namespace {statement.name} exists already")
            await self._catalogue.create_namespace(statement.name)
        return Result(message=f"namespace {statement.name} created")

    async def drop_namespace(self, statement: DropNamespace) -> Result:
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
            self._check_unwatched(table)
        while tables := self._catalogue.tables_in(name):  # while one is dropped others may come and go
            with contextlib.suppress(TableNotFound):
                await self._drop(tables[0])
        async with self._changing:
            await self._catalogue.drop_namespace(name)
        return Result(message=f"namespace {name} dropped")

    def show_namespaces(self) -> Result:
        """SHOW NAMESPACES."""
        fields = (("namespace", TEXT), ("created_at", TIMESTAMP_ARROW))
        return list_result(fields, sorted(self._catalogue.namespaces.items()))

    def show_tables(self, namespace: str | None) -> Result:
        """SHOW TABLES, of one namespace or of all."""
        rows: list[tuple[str, str, str, datetime | None]]
        if namespace == SYSTEM_NAMESPACE:
            rows = [(name.namespace, name.table, "SYSTEM", None) for name in sorted(self._parts.queries.system_names())]
        elif namespace is not None and namespace not in self._catalogue.namespaces:
            raise NamespaceNotFound(f"there is no namespace {namespace!r}")
        else:
            rows = [
                (table.name.namespace, table.name.table, table.kind.value, table.created_at)
                for table in sorted(self._catalogue.tables.values(), key=lambda table: table.name)
                if namespace in (None, table.name.namespace)
            ]
        fields = (("namespace", TEXT), ("table_name", TEXT), ("table_type", TEXT), ("created_at", TIMESTAMP_ARROW))
        return list_result(fields, rows)

    async def create_table(self, statement: CreateTable, session: Session) -> Result:
        """CREATE TABLE."""
        name = resolve(statement.ref, session.namespace)
        check_name(name.table, "table")
        if name.namespace in RESERVED_NAMESPACES:
            raise Unsupported(f"namespace {name.namespace} is the server's own; no table can be created there")
        options = table_options(statement.kind, statement.options, statement.columns)
        definition = TableDefinition(
            name=name, kind=statement.kind, columns=statement.columns, key=statement.key, options=options
        )
        async with self._changing:
            existing = self._catalogue.tables.get(name)
            if existing is not None:
                return _existing(existing, statement)
            await in_thread(
                Purpose.FILES,
                check_location,
                definition,
                self._parts.settings,
                self._catalogue,
                self._parts.flusher.folders,
            )
            table = await self._catalogue.create_table(definition)
            if table.kind is TableKind.STREAM:
                await self._create_stream(table)
        self._parts.notices.notice(
            "table.created", {"namespace": name.namespace, "table": name.table, "kind": table.kind}
        )
        return Result(message=f"{table.kind} table {name} created")

    async def _create_stream(self, table: Table) -> None:
        try:
            await self._parts.streams.port.create(table)
        except BaseException:
            await self._catalogue.undo_create(table)
            await self._drop_events(table)
            raise

    async def drop_table(self, statement: DropTable, session: Session) -> Result:
        """DROP TABLE: rows, segments, stream, definition."""
        name = resolve(statement.ref, session.namespace)
        if statement.if_exists and name not in self._catalogue.tables:
            return Result(message=f"skipped: there is no table {name}")
        table = self._catalogue.table(name)
        if statement.kind is not None and statement.kind is not table.kind:
            raise Unsupported(f"table {name} is a {table.kind} table, not a {statement.kind} table")
        await self._drop(table)
        return Result(message=f"{table.kind} table {name} dropped")

    async def alter_table(self, statement: AlterTable, session: Session) -> Result:
        """ALTER TABLE."""
        table = self._catalogue.table(resolve(statement.ref, session.namespace))
        if table.kind is TableKind.STREAM:
            return await self._alter_stream(table, statement)
        return await self._alter_stored(table, statement, session)

    async def _alter_stream(self, table: Table, statement: AlterTable) -> Result:
        """New options for a stream, which the broker changes in place; if the catalogue refuses, it is changed back."""
        if not isinstance(statement.action, SetOptions):
            raise Unsupported(
                f"the columns of the STREAM table {table.name} cannot be altered: its events stay as they are",
                hint="create a new STREAM table",
            )
        raw = statement.action.options
        async with self._changing:
            table = self._catalogue.newest(table)
            options = table_options(table.kind, raw, table.columns, current=table.options)
            await self._parts.streams.alter(replace(table, options=options))
            try:
                altered_table = await self._catalogue.alter_table(table, table.columns, table.key, options)
            except BaseException:
                await self._parts.streams.alter(table)
                raise
        named = ", ".join(name.upper() for name in raw)
        return Result(message=f"{table.name}: {named} set, schema version {altered_table.schema_version}")

    async def _alter_stored(self, table: Table, statement: AlterTable, session: Session) -> Result:
        async with self._parts.flusher.lock(table), self._changing:
            table = self._catalogue.newest(table)
            ids = [column.column_id for columns in self._catalogue.history(table).values() for column in columns]
            new = altered(
                table,
                statement.action,
                session=session,
                now=datetime.now(UTC),
                used_ids=ids,
                column_users=self._column_users,
            )
            table = await self._catalogue.alter_table(table, new.columns, new.key, new.options)
            self._parts.live.altered(table)
        return Result(message=f"{table.name}: {new.message}, schema version {table.schema_version}")

    def _column_users(self, table: Table, name: str) -> list[str]:
        """The ids of the open live queries that show a column or judge by it."""
        return [query.id for query in self._parts.live.open_on(table) if name in query.column_names]

    async def _drop(self, table: Table) -> None:
        parts = self._parts
        self._check_unwatched(table)
        await parts.jobs.cancel(table.name, ("compaction", "check", "deleted_cleanup"), "the table was dropped")
        # In this order: a clean-up, which replaces segments, flushes meanwhile.
        async with parts.compactor.lock(table), parts.flusher.lock(table), self._changing:
            table = self._catalogue.newest(table)
            self._check_unwatched(table)
            garbage = [] if table.kind is TableKind.STREAM else await in_thread(Purpose.CATALOGUE, self._garbage, table)
            await parts.database.submit(TableDrop(parts.flusher.store, table, garbage))
            self._catalogue.forget(table)
            parts.queries.forget(table)
            parts.streams.forget(table)
            parts.troubles.forget(table.table_id)
            parts.live.close_table(table, "the table was dropped")
            await self._drop_events(table)
            with disk_may_fail("the removal of a dropped table's files"):  # which are listed: the next start does it
                await remove_garbage(parts.database, garbage)
        name = table.name
        parts.notices.notice("table.dropped", {"namespace": name.namespace, "table": name.table, "kind": table.kind})
        segments = sum("*" not in path for path in garbage)
        with disk_may_fail("the record of a DROP"):  # which is done, whether or not a job can tell of it
            await parts.jobs.record("table_deletion", name, {"kind": table.kind}, {"segments": segments})

    def _check_unwatched(self, table: Table) -> None:
        watching = self._parts.live.open_on(table)
        if watching:
            listed = ", ".join(f"{query.id} (user {query.user})" for query in watching[:20])
            more = f" and {len(watching) - 20} more" if len(watching) > 20 else ""
            raise TableInUse(
                f"table {table.name} has live queries open: {listed}{more}", hint="close them, or KILL LIVE QUERY 'id'"
            )

    def _garbage(self, table: Table) -> list[str]:
        return garbage_of(self._parts.database, self._parts.flusher.folders, table)

    async def _drop_events(self, table: Table) -> None:
        """Remove what the broker holds; if it cannot be reached now, the next start does it."""
        try:
            if table.kind is TableKind.STREAM:
                await self._parts.streams.port.drop(table)
                await self._parts.database.write(lambda conn: forget_drops(conn, [table.table_id]))
            else:
                await self._parts.outbox.forget_table(table)
        except KalamError as exc:
            log.warning("events of a dropped table stay for now", table=str(table.name), reason=str(exc))

    async def describe(self, statement: DescribeTable, session: Session) -> Result:
        """DESCRIBE TABLE: columns, options, and what is stored."""
        table = self._catalogue.table(resolve(statement.ref, session.namespace))
        if statement.history:
            return await in_thread(Purpose.CATALOGUE, self._history, table)
        rows: list[tuple[str, str, str]] = [("table", "name", str(table.name)), ("table", "kind", table.kind)]
        rows += [("column", column.name, _column_text(column, column.name == table.key)) for column in table.columns]
        rows += [("option", name, value) for name, value in describe_options(table.options)]
        rows.append(("table", "schema_version", str(table.schema_version)))
        rows.append(("table", "table_id", str(table.table_id)))
        rows += [("state", name, str(value)) for name, value in await self.state(table)]
        described = [(section, name, value, f"{name} = {value}") for section, name, value in rows]
        return list_result((("section", TEXT), ("name", TEXT), ("value", TEXT), ("description", TEXT)), described)

    def _history(self, table: Table) -> Result:
        with self._parts.database.reading() as conn:
            rows = conn.execute(
                "SELECT schema_version, columns, created_us FROM table_schemas WHERE table_id = ? ORDER BY 1",
                (table.table_id,),
            ).fetchall()
        shown = [(version, _shown_columns(load_columns(text)), from_us(created)) for version, text, created in rows]
        return list_result((("schema_version", pa.int64()), ("columns", TEXT), ("created_at", TIMESTAMP_ARROW)), shown)

    async def state(self, table: Table) -> Sequence[tuple[str, Any]]:
        """What is stored of a table, by name."""
        troubles = [(f"trouble_{what}", reason) for what, reason in self._parts.troubles.of(table.table_id)]
        if table.kind is TableKind.STREAM:
            return [*await self._stream_state(table), *troubles]
        return [*await in_thread(Purpose.CATALOGUE, self._stored_state, table), *troubles]

    async def _stream_state(self, table: Table) -> list[tuple[str, Any]]:
        state = await self._parts.streams.port.state(table)
        streams = self._parts.streams
        counts = streams.counters.of(table.table_id)
        return [
            ("buffered_rows", state.messages),
            ("buffered_bytes", state.bytes),
            ("oldest_event", _moment(state.first_at)),
            ("newest_event", _moment(state.last_at)),
            ("published", counts.published),
            ("discarded", counts.discarded),
            ("evicted", counts.evicted),
            ("evicted_ttl", counts.evicted_ttl),
            ("evicted_max_buffer", counts.evicted_max_buffer),
            ("rejected", counts.rejected),
            ("deleted", counts.deleted),
            ("lost", state.lost),
            ("undecodable", counts.undecodable),
            ("subject", streams.port.subject(table)),
            ("jetstream_stream", streams.port.stream_name(table)),
            ("cold_rows", "0 (the events of a STREAM table never go to Parquet)"),
        ]

    def _stored_state(self, table: Table) -> list[tuple[str, Any]]:
        known = self._parts.flusher.store.hot_row_counts(table)
        with self._parts.database.reading() as conn:
            logged = conn.execute(
                "SELECT copy_id, sum(row_count), sum(length(payload)) FROM log JOIN copies USING (copy_id) "
                "WHERE table_id = ? AND flushed = 0 GROUP BY copy_id",
                (table.table_id,),
            ).fetchall()
            [cold, segments, cold_bytes] = _one(
                conn,
                "SELECT ifnull(sum(CASE WHEN deleted THEN 0 ELSE row_count END), 0), count(*), "
                "ifnull(sum(byte_count), 0) FROM segments JOIN copies USING (copy_id) WHERE table_id = ?",
                table,
            )
            [copies] = _one(conn, "SELECT count(*) FROM copies WHERE table_id = ?", table)
        return [
            ("hot_rows", sum(known.get(copy_id, versions) for copy_id, versions, _ in logged)),
            ("hot_bytes", sum(size for _, _, size in logged)),
            ("cold_rows", cold),
            ("segments", segments),
            ("segment_bytes", cold_bytes),
            ("damaged_segments", self._parts.flusher.folders.checks.shown(table.table_id)),
            *([("users", copies)] if table.kind is TableKind.USER else []),
            ("location", self._parts.flusher.folders.location(table)),
            ("subject", self._parts.feed.subject(table)),
        ]

    async def show_stats(self, ref: TableRef, session: Session) -> Result:
        """SHOW STATS FOR TABLE."""
        table = self._catalogue.table(resolve(ref, session.namespace))
        rows = [(name, str(value)) for name, value in await self.state(table)]
        return list_result((("name", TEXT), ("value", TEXT)), rows)

    def show_create_table(self, ref: TableRef, session: Session) -> Result:
        """SHOW CREATE TABLE."""
        table = self._catalogue.table(resolve(ref, session.namespace))
        return list_result((("statement", TEXT),), [(create_table_sql(table),)])


def _existing(existing: Table, statement: CreateTable) -> Result:
    if not statement.if_not_exists or existing.kind is not statement.kind:
        raise AlreadyExists(f"table {existing.name} exists already, as a {existing.kind} table")
    return Result(message=f"skipped: table {existing.name} exists already")


def _column_text(column: Column, is_key: bool = False) -> str:
    text = str(column.type)
    if not column.nullable:
        text += " NOT NULL"
    if column.default is not None:
        text += f" DEFAULT {column.default}"
    return text + (" PRIMARY KEY" if is_key else "")


def _shown_columns(columns: Sequence[Column]) -> str:
    return ", ".join(f"{column.name} {_column_text(column)}" for column in columns)


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else timestamp_text(moment)


def _one(conn: sqlite3.Connection, sql: str, table: Table) -> tuple[Any, ...]:
    row: tuple[Any, ...] = conn.execute(sql, (table.table_id,)).fetchone()
    return row
