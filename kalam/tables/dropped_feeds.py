"""Changes of dropped tables that the broker may still hold.

The law: a table's changes leave the feed with it, and before the first change of a table that is created under the
same name. A DROP is noted in its own transaction; the note goes when the broker has purged the changes, at once or, if
the broker or the server was gone just then, at the next start or before that first change.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from kalam.errors import KalamError
from kalam.names import TableName
from kalam.schema import Table, TableKind
from kalam.storage.log.database import Database
from kalam.storage.log.drop_notes import UNPURGED
from kalam.tables.ports import FeedPort

SELECT_NOTES: Final = "SELECT value FROM meta WHERE name LIKE ? AND value NOT LIKE 'STREAM %'"
"""Of all but STREAM tables, each of which has a stream of its own."""
log = structlog.get_logger(__name__)


@contextmanager
def events_may_stay(table: Table) -> Iterator[None]:
    """Leave to the next start what the broker holds of a dropped table, if it cannot be reached now."""
    try:
        yield
    except KalamError as exc:
        log.warning("events of a dropped table stay for now", table=str(table.name), reason=str(exc))


class DroppedFeeds:
    """The notes, and the purging."""

    def __init__(self, database: Database, port: FeedPort) -> None:
        self._database, self._port = database, port
        self._kinds: dict[TableName, TableKind] = {}
        self._notes = 0
        self._purging = asyncio.Lock()

    def load(self) -> None:
        """Read the notes that an earlier run left; blocking, for the start."""
        with self._database.reading() as conn:
            for (value,) in conn.execute(SELECT_NOTES, (f"{UNPURGED}%",)):
                kind, namespace, table = value.split()
                self._kinds[TableName(namespace, table)] = TableKind(kind)

    def note(self, name: TableName, kind: TableKind) -> None:
        """A table was dropped."""
        self._kinds[name] = kind
        self._notes += 1

    async def purge(self, name: TableName) -> None:
        """Make sure that nothing of a dropped table of this name is in the feed; raises BrokerUnavailable."""
        if name in self._kinds:
            async with self._purging:  # or a second purge would take what was published after the first
                if name in self._kinds:
                    await self._purge(name, self._kinds[name])

    async def _purge(self, name: TableName, kind: TableKind) -> None:
        notes = self._notes
        await self._port.purge(name, per_user=kind.per_user)
        value = f"{kind} {name.namespace} {name.table}"

        def forget(conn: sqlite3.Connection) -> None:
            conn.execute("DELETE FROM meta WHERE name LIKE ? AND value = ?", (f"{UNPURGED}%", value))

        if notes == self._notes:  # else a table of this name may have been dropped again: better purged twice
            await self._database.write(forget)
        if notes == self._notes:
            self._kinds.pop(name, None)

    async def purge_all(self) -> None:
        """Do what is left of earlier drops, as far as the broker lets us."""
        for name in list(self._kinds):
            try:
                await self.purge(name)
            except KalamError as exc:  # the broker is away, or the disk is full
                log.warning("changes of a dropped table stay for now", table=str(name), reason=exc.detail)
