"""The upkeep of STREAM tables: each has a stream at the broker, which is made, changed and removed with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from kalam.errors import Unsupported
from kalam.names import TableName
from kalam.rows.lone_values import timestamp_text
from kalam.schema import Table, TableDefinition
from kalam.sql import table_options
from kalam.sql.text.alterations import Action, SetOptions
from kalam.storage.log.catalogue import Catalogue, Sql
from kalam.storage.log.database import Database
from kalam.storage.log.drop_notes import forget_drops
from kalam.tables.alterations import ColumnUsers
from kalam.tables.dropped_feeds import events_may_stay
from kalam.tables.fileless import FilelessUpkeep
from kalam.tables.streams import StreamTables


class StreamUpkeep(FilelessUpkeep):
    """Keeps STREAM tables; an Upkeep."""

    def __init__(self, database: Database, catalogue: Catalogue, streams: StreamTables) -> None:
        self._database, self._catalogue, self._streams = database, catalogue, streams

    async def create(self, definition: TableDefinition) -> Table:
        """A table in the catalogue and its stream."""
        table = await self._catalogue.create_table(definition)
        try:
            await self._streams.port.create(table)
        except BaseException:
            await self._catalogue.undo_create(table)
            await self.clear(table, ())
            raise
        return table

    @asynccontextmanager
    async def filling(self, definition: TableDefinition) -> AsyncIterator[Table]:
        """A table whose events are told as they come; after an error it is dropped."""
        table = await self.create(definition)
        try:
            yield table
        except BaseException:
            await self._catalogue.undo_create(table)
            await self.clear(table, ())
            raise

    async def alter(
        self, table: Table, action: Action, user: str, column_users: ColumnUsers, also: Sequence[Sql] = ()
    ) -> tuple[Table, str]:
        """New options for the stream, changed in place; if the catalogue refuses them, it is changed back."""
        if not isinstance(action, SetOptions):
            raise Unsupported(
                f"the columns of the STREAM table {table.name} cannot be altered: its events stay as they are",
                hint="create a new STREAM table",
            )
        options = table_options(table.kind, action.options, table.columns, current=table.options)
        await self._streams.alter(replace(table, options=options))
        try:
            new = await self._catalogue.alter_table(table, table.columns, table.key, options)
        except BaseException:
            await self._streams.alter(table)
            raise
        return new, f"{', '.join(name.upper() for name in action.options)} set"

    async def rename(self, table: Table, name: TableName) -> Table:
        """The broker's streams keep their names, and events the subjects that they were published on."""
        raise Unsupported(
            f"the STREAM table {table.name} keeps its name: its events have it in their subjects",
            hint="create another STREAM table and INSERT INTO it … SELECT",
        )

    async def truncate(self, table: Table) -> None:
        """Purge its stream, whose numbers go on."""
        await self._streams.truncate(table)

    async def clear(self, table: Table, garbage: Sequence[str]) -> None:
        """Remove its stream."""
        self._streams.forget(table)
        with events_may_stay(table):
            await self._streams.port.drop(table)
            await self._database.write(lambda conn: forget_drops(conn, [table.table_id]))

    async def state(self, table: Table) -> list[tuple[str, Any]]:
        """What the stream holds, and what became of its events."""
        streams = self._streams
        state, counts = await streams.port.state(table), streams.counters.of(table.table_id)
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


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else timestamp_text(moment)
