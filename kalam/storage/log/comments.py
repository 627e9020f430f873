"""What is said of tables and columns, in memory and in ``kalam.db``: it follows a column through every ALTER."""

from __future__ import annotations

import sqlite3
from typing import Final

from kalam.schema import Table
from kalam.storage.log.database import Database

OF_TABLE: Final = 0
"""Stands for the table itself, where a column has its id."""


class Comments:
    """The comments of one database; changed by the loop's thread after the commit."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[tuple[int, int], str] = {}

    def load(self, conn: sqlite3.Connection) -> None:
        """Read everything; blocking, for the start."""
        rows = conn.execute("SELECT table_id, column_id, comment FROM comments")
        self._known = {(table_id, column_id): comment for table_id, column_id, comment in rows}

    def of(self, table: Table, column_id: int = OF_TABLE) -> str | None:
        """What is said of a table, or of one of its columns."""
        return self._known.get((table.table_id, column_id))

    def by_table(self) -> dict[int, dict[int, str]]:
        """All that is said: of each table, by its id, what is said of it (0) and of its columns, by their ids."""
        found: dict[int, dict[int, str]] = {}
        for (table_id, column_id), comment in self._known.items():
            found.setdefault(table_id, {})[column_id] = comment
        return found

    async def put(self, table: Table, column_id: int, comment: str | None) -> None:
        """Say something of a table or column, or nothing any more."""
        name = (table.table_id, column_id)

        def write(conn: sqlite3.Connection) -> None:
            if comment is None:
                conn.execute("DELETE FROM comments WHERE table_id = ? AND column_id = ?", name)
            else:
                conn.execute("INSERT OR REPLACE INTO comments VALUES (?, ?, ?)", (*name, comment))

        await self._database.write(write)
        if comment is None:
            self._known.pop(name, None)
        else:
            self._known[name] = comment

    def forget(self, table_id: int) -> None:
        """The table was dropped, in a transaction of its own."""
        for name in [name for name in self._known if name[0] == table_id]:
            del self._known[name]
