"""All rows of a user in a USER table, removed for good: from the log, the segments, the files and the change feed.

The law: the copy itself stays, empty, and goes on counting where it was, so whoever gets the user's name begins behind
what was there: a position from before is expired, and no deleted row is left to be asked for. The broker forgets first;
what a crash leaves is found again by the rows that are still there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from kalam.schema import Table
from kalam.storage.log.copy_store import CopyStore
from kalam.storage.log.database import now_us
from kalam.storage.opened import Storage
from kalam.storage.segments.garbage import garbage_of, list_garbage, remove_garbage
from kalam.storage.work.background import Background
from kalam.tables.outbox import Outbox
from kalam.threads import Purpose, in_thread

_LAST = "(SELECT max(first_seq + row_count - 1) FROM log WHERE log.copy_id = copies.copy_id)"


class CopyRemoval:
    """The transaction that empties a copy, and lists its files for removal."""

    cost = 1

    def __init__(self, store: CopyStore, table: Table, user: str, garbage: Sequence[str]) -> None:
        self._store, self._garbage = store, garbage
        self._name = (table.table_id, user)

    def apply(self, conn: sqlite3.Connection) -> Any:
        """Remove the rows of the log and of the lists of segments; the numbering goes on."""
        whose = "table_id = ? AND user_id = ?"
        conn.execute(
            f"UPDATE copies SET flushed_seq = max(flushed_seq, ifnull({_LAST}, 0)), "  # noqa: S608 - it stands above
            f"published_seq = max(published_seq, flushed_seq, ifnull({_LAST}, 0)) WHERE {whose}",
            self._name,
        )
        copy = f"(SELECT copy_id FROM copies WHERE {whose})"  # noqa: S608 - as above
        conn.execute(
            f"DELETE FROM key_filters WHERE segment_id IN (SELECT segment_id FROM segments WHERE copy_id = {copy})",  # noqa: S608
            self._name,
        )
        for child in ("log", "segments", "overrides"):
            conn.execute(f"DELETE FROM {child} WHERE copy_id = {copy}", self._name)  # noqa: S608 - as above
        for child in ("answers", "replaced_segments"):
            conn.execute(f"DELETE FROM {child} WHERE {whose}", self._name)  # noqa: S608 - as above
        list_garbage(conn, self._garbage, now_us())
        self._store.forget(*self._name)

    def committed(self) -> None:
        """Nothing of it waits for a flush any more."""
        self._store.backlogs.pop(self._name, None)

    def rolled_back(self) -> None:
        """It is read again when next needed."""

    def announcements(self) -> list[Any]:
        """Nothing: whoever removes a copy tells of it."""
        return []


async def remove_copy(storage: Storage, background: Background, outbox: Outbox, table: Table, user: str) -> None:
    """Remove all that there is of a user in a USER table; raises BrokerUnavailable, and then nothing is removed."""
    flusher, compactor = background.schedule.flusher, background.compactor
    async with compactor.lock(table), flusher.lock(table):
        garbage = await in_thread(Purpose.CATALOGUE, garbage_of, storage.database, storage.folders, table, user)
        await outbox.forget_copy(table, user)
        await storage.database.submit(CopyRemoval(storage.store, table, user, garbage))
        storage.catalogue.note_changed(table.table_id)
    await remove_garbage(storage.database, garbage)
