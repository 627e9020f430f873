"""The transaction that removes a table."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from kalam.schema import Table
from kalam.storage.log.copy_store import CopyStore
from kalam.storage.log.database import now_us
from kalam.storage.log.drop_notes import note_drop
from kalam.storage.log.table_rows import delete_table
from kalam.storage.segments.garbage import list_garbage


class TableDrop:
    """Removes a table with everything of it in the database, and lists its folders and its changes for removal.

    From the moment it is applied, writes that are still queued find the table gone.
    """

    cost = 1

    def __init__(self, store: CopyStore, table: Table, garbage: Sequence[str]) -> None:
        self._store, self._table, self._garbage = store, table, garbage

    def apply(self, conn: sqlite3.Connection) -> Any:
        """Remove the rows of the catalogue, the log and the lists of segments."""
        delete_table(conn, self._table.table_id)
        list_garbage(conn, self._garbage, now_us())
        if not self._table.name.is_unfinished:
            note_drop(conn, self._table)
        self._store.forget_table(self._table.table_id)

    def committed(self) -> None:
        """Nothing of it waits for a flush any more."""
        self._store.forget_backlogs(self._table.table_id)

    def rolled_back(self) -> None:
        """The table lives on."""
        self._store.revive_table(self._table.table_id)

    def announcements(self) -> list[Any]:
        """Nothing: whoever drops a table tells of it."""
        return []
