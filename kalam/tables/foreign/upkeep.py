"""The upkeep of tables over foreign streams: the catalogue's, and nothing in the broker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from kalam.errors import KalamError, Unsupported
from kalam.foreign import ForeignOptions, Over
from kalam.names import TableName
from kalam.rows.foreign.faults import Reason
from kalam.rows.lone_values import timestamp_text
from kalam.schema import Table, TableDefinition
from kalam.sql.tables.foreign import check_foreign
from kalam.sql.text.alterations import Action, RenameColumn
from kalam.storage.log.catalogue import Catalogue, Sql
from kalam.storage.log.database import Database
from kalam.storage.log.drop_notes import forget_drops
from kalam.tables.alterations import ColumnUsers, altered
from kalam.tables.fileless import FilelessUpkeep
from kalam.tables.foreign.rows import read_only
from kalam.tables.foreign.tables import ForeignTables


class ForeignUpkeep(FilelessUpkeep):
    """Keeps tables over foreign streams; an Upkeep."""

    def __init__(self, database: Database, catalogue: Catalogue, tables: ForeignTables) -> None:
        self._database, self._catalogue, self._tables = database, catalogue, tables

    async def create(self, definition: TableDefinition) -> Table:
        """A table in the catalogue, if its stream is there and may be read."""
        options = definition.options
        assert isinstance(options, ForeignOptions)
        check_foreign(definition.columns, options)
        await self._tables.port.state(options.over)
        return await self._catalogue.create_table(definition)

    @asynccontextmanager
    async def filling(self, definition: TableDefinition) -> AsyncIterator[Table]:
        """No statement asks for one."""
        raise Unsupported(f"nothing is written to the stream of table {definition.name}")
        yield  # which makes it a generator

    async def alter(
        self, table: Table, action: Action, user: str, column_users: ColumnUsers, also: Sequence[Sql] = ()
    ) -> tuple[Table, str]:
        """Other columns or options for the same messages, the older ones too."""
        if isinstance(action, RenameColumn):
            raise Unsupported(
                f"column {action.name} of table {table.name} is the member of its name",
                hint="ADD COLUMN another FROM PATH 'name', then DROP COLUMN",
            )
        used = [column.column_id for columns in self._catalogue.history(table).values() for column in columns]
        change = altered(table, action, user=user, now=datetime.now(UTC), used_ids=used, column_users=column_users)
        assert isinstance(change.options, ForeignOptions)
        check_foreign(change.columns, change.options)
        new = await self._catalogue.alter_table(table, change.columns, (), change.options, also)
        self._tables.forget(table)
        return new, change.message

    async def rename(self, table: Table, name: TableName) -> Table:
        """Nothing outside of the catalogue has its name."""
        self._tables.forget(table)
        return await self._catalogue.rename_table(table, name, ())

    async def truncate(self, table: Table) -> None:
        """Its messages are others'."""
        raise read_only(table, "TRUNCATE")

    async def clear(self, table: Table, garbage: Sequence[str]) -> None:
        """Nothing in the broker is touched."""
        self._tables.forget(table)
        await self._database.write(lambda conn: forget_drops(conn, [table.table_id]))

    async def state(self, table: Table) -> list[tuple[str, Any]]:
        """What the stream holds; of one that cannot be read, why."""
        over = table.foreign_options.over
        try:
            state = await self._tables.port.state(over)
        except KalamError as exc:
            return [*_named(over), ("unreadable", f"{exc.code}: {exc.detail}")]
        counts = self._tables.undecodable(table)
        reasons = [(f"undecodable_{reason}", "" if counts is None else counts[reason]) for reason in Reason]
        return [
            *_named(over),
            *self._keys(table),
            ("messages", state.messages),
            ("bytes", state.bytes),
            ("first_seq", state.first_seq),
            ("last_seq", state.last_seq),
            ("oldest_event", "" if state.first_at is None else timestamp_text(state.first_at)),
            ("newest_event", "" if state.last_at is None else timestamp_text(state.last_at)),
            ("retention", state.retention),
            ("undecodable", "" if counts is None else sum(counts.values())),
            *reasons,
        ]

    def _keys(self, table: Table) -> list[tuple[str, Any]]:
        """How many keys of a bucket have a value, of what was read last."""
        if not table.is_bucket:
            return []
        count = self._tables.key_count(table)
        return [("keys", "" if count is None else count)]


def _named(over: Over) -> list[tuple[str, Any]]:
    return [("stream", over.stream), *([] if over.bucket is None else [("bucket", over.bucket)])]
