"""The upkeep of SHARED and USER tables: their LOCATION, their files, and what the log and the segments hold of them."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

from kalam.lake.lake import lake_garbage
from kalam.names import TableName
from kalam.schema import Table, TableDefinition
from kalam.settings import Settings
from kalam.sql.text.alterations import Action
from kalam.storage.log.catalogue import Sql
from kalam.storage.log.crash import crash_point
from kalam.storage.log.disk_faults import disk_may_fail
from kalam.storage.log.drop_notes import renamed_note
from kalam.storage.opened import Storage
from kalam.storage.segments.garbage import garbage_of, remove_garbage
from kalam.storage.segments.replaced import read_marked_bytes
from kalam.storage.work.background import Background
from kalam.storage.work.table_drop import TableDrop
from kalam.tables.alterations import ColumnUsers, altered
from kalam.tables.dropped_feeds import events_may_stay
from kalam.tables.locations import check_location
from kalam.tables.outbox import Outbox
from kalam.tables.ports import FeedPort
from kalam.tables.truncation import Truncation
from kalam.threads import Purpose, in_thread

FILLED_HOT_BYTES_MAX: Final = 32 << 20
"""Hot bytes of a table that is being filled, at which it is flushed."""
_PUBLISHED: Final = "UPDATE copies SET published_seq = max(published_seq, ?) WHERE copy_id = ?"
FILE_JOBS: Final = ("compaction", "check", "deleted_cleanup", "change")
"""The jobs that read or replace a table's segments."""


class StoredUpkeep:
    """Keeps SHARED and USER tables; an Upkeep."""

    def __init__(
        self, settings: Settings, storage: Storage, background: Background, outbox: Outbox, feed: FeedPort
    ) -> None:
        self._settings, self._storage, self._outbox, self._feed = settings, storage, outbox, feed
        self._jobs, self._flusher, self._compactor = background.jobs, background.schedule.flusher, background.compactor

    async def create(self, definition: TableDefinition) -> Table:
        """A table in the catalogue, whose LOCATION can be used."""
        storage = self._storage
        where = (definition, self._settings, storage.catalogue, storage.folders)
        await in_thread(Purpose.FILES, check_location, *where)
        return await storage.catalogue.create_table(definition)

    @asynccontextmanager
    async def filling(self, definition: TableDefinition) -> AsyncIterator[Table]:
        """A table with a name that nobody can give; the last step gives it its own, and its changes are told then."""
        storage = self._storage
        await in_thread(Purpose.FILES, check_location, definition, self._settings, storage.catalogue, storage.folders)
        table = await storage.catalogue.create_table(definition, unfinished=True)
        async with self._outbox.holding(table):
            try:
                yield table
                crash_point("fill.before_commit")
                async with self._flusher.lock(table):
                    await storage.catalogue.rename_table(table, definition.name, ())
                crash_point("fill.after_commit")
            except BaseException:
                await self._undo(table)
                raise

    async def settle(self, table: Table) -> None:
        """Flush what is hot of it, once that is much."""
        copies = [copy for (table_id, _), copy in self._storage.store.loaded.items() if table_id == table.table_id]
        if sum(copy.byte_count for copy in copies) >= FILLED_HOT_BYTES_MAX:
            await self._flusher.flush(table, reason="memory")

    async def _undo(self, table: Table) -> None:
        """Remove a table that nobody has seen; what a crash leaves of it goes at the next start."""
        async with self._compactor.lock(table), self._flusher.lock(table):
            garbage = await self.garbage(table)
            await self._outbox.forget_unfinished(table)
            await self._storage.database.submit(TableDrop(self._storage.store, table, garbage))
            self._storage.catalogue.forget(table)
        with disk_may_fail("the removal of an unfinished table's files"):
            await remove_garbage(self._storage.database, garbage)

    def altering(self, table: Table) -> AbstractAsyncContextManager[object]:
        """No flush runs meanwhile."""
        return self._flusher.lock(table)

    async def alter(
        self, table: Table, action: Action, user: str, column_users: ColumnUsers, also: Sequence[Sql] = ()
    ) -> tuple[Table, str]:
        """A new schema version, and what changes with it."""
        catalogue = self._storage.catalogue
        ids = [column.column_id for columns in catalogue.history(table).values() for column in columns]
        new = altered(table, action, user=user, now=datetime.now(UTC), used_ids=ids, column_users=column_users)
        return await catalogue.alter_table(table, new.columns, new.key, new.options, also), new.message

    async def rename(self, table: Table, name: TableName) -> Table:
        """Its files stay where they are; its changes go on under the new name, and those under the former one go."""
        async with self._outbox.holding(table) as published:
            crash_point("rename.before_commit")
            marks = [(_PUBLISHED, (seq, copy_id)) for copy_id, seq in published.items()]
            renamed = await self._storage.catalogue.rename_table(table, name, [renamed_note(table), *marks])
            crash_point("rename.after_commit")
            with events_may_stay(table):
                await self._outbox.forget_name(table)
        return renamed

    async def truncate(self, table: Table) -> None:
        """One transaction over all copies; files go with their last reader."""
        crash_point("truncate.before_commit")
        await self._storage.database.submit(Truncation(self._compactor, table))
        crash_point("truncate.after_commit")

    @asynccontextmanager
    async def dropping(self, table: Table, reason: str) -> AsyncIterator[None]:
        """Its jobs have ended, and no other begins."""
        await self._jobs.cancel(table.name, FILE_JOBS, reason)
        # In this order: a clean-up, which replaces segments, flushes meanwhile.
        async with self._compactor.lock(table), self._flusher.lock(table):
            yield

    async def garbage(self, table: Table) -> list[str]:
        """Its segments, what a crash may have left of others, and its lake."""
        segments = await in_thread(Purpose.CATALOGUE, garbage_of, self._storage.database, self._storage.folders, table)
        return [*segments, *await in_thread(Purpose.FILES, lake_garbage, self._storage, table)]

    async def clear(self, table: Table, garbage: Sequence[str]) -> None:
        """Remove its changes from the feed, and its files, which are listed."""
        with events_may_stay(table):
            await self._outbox.forget_table(table)
        with disk_may_fail("the removal of a dropped table's files"):
            await remove_garbage(self._storage.database, garbage)

    async def state(self, table: Table) -> list[tuple[str, Any]]:
        """What the log and the segments hold."""
        return await in_thread(Purpose.CATALOGUE, self._state, table)

    def _state(self, table: Table) -> list[tuple[str, Any]]:
        known, folders = self._storage.store.hot_row_counts(table), self._storage.folders
        with self._storage.database.reading() as conn:
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
            replaced_bytes = read_marked_bytes(conn, table.table_id)
            [copies] = _one(conn, "SELECT count(*) FROM copies WHERE table_id = ?", table)
        return [
            ("hot_rows", sum(known.get(copy_id, versions) for copy_id, versions, _ in logged)),
            ("hot_bytes", sum(size for _, _, size in logged)),
            ("cold_rows", cold),
            ("segments", segments),
            ("segment_bytes", cold_bytes),
            ("replaced_bytes", replaced_bytes),
            ("damaged_segments", folders.checks.shown(table.table_id)),
            *([("users", copies)] if table.per_user else []),
            ("location", folders.location(table)),
            ("subject", self._feed.subject(table)),
        ]


def _one(conn: sqlite3.Connection, sql: str, table: Table) -> tuple[Any, ...]:
    row: tuple[Any, ...] = conn.execute(sql, (table.table_id,)).fetchone()
    return row
