"""Replaced segments that other engines may still read: marked in ``kalam.db``, and let go of when none can any more."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from kalam.schema import Table
from kalam.storage.log.database import Database, now_us
from kalam.storage.segments.folders import Folders
from kalam.storage.segments.garbage import list_garbage, remove_garbage
from kalam.storage.segments.replaced import Marked, ReplacedFiles, read_marked, read_marked_bytes
from kalam.threads import Purpose, in_thread


class KeptFiles:
    """The files of all tables that are marked as replaced."""

    def __init__(self, database: Database, folders: Folders, replaced: ReplacedFiles) -> None:
        self._database, self._folders, self._replaced = database, folders, replaced
        self.byte_count = 0
        """The bytes of all of them, as of the last look at one table's."""

    async def listed(self, table_id: int | None = None) -> list[Marked]:
        """Those of a table or of all, oldest first."""
        return await in_thread(Purpose.CATALOGUE, self._listed, table_id)

    def _listed(self, table_id: int | None) -> list[Marked]:
        with self._database.reading() as conn:
            self.byte_count = read_marked_bytes(conn)
            return read_marked(conn, table_id)

    async def note_unnamed(self, table: Table, upto_id: int, commit_us: int) -> None:
        """The commit of that time, and every later one, names none of a table's files up to this number."""

        def update(conn: sqlite3.Connection) -> None:
            conn.execute(
                "UPDATE replaced_segments SET unnamed_us = ? "
                "WHERE table_id = ? AND replaced_id <= ? AND unnamed_us IS NULL",
                (commit_us, table.table_id, upto_id),
            )

        await self._database.write(update)

    async def let_go(self, table: Table, marked: Sequence[Marked]) -> list[Marked]:
        """Remove files, but those that somebody here reads, which are given back."""
        paths = {one: self._folders.folder(table, one.user) / one.path for one in marked}
        free = [one for one in marked if not self._replaced.is_read(paths[one])]
        garbage = [str(paths[one]) for one in free]

        def forget(conn: sqlite3.Connection) -> None:
            conn.executemany(
                "DELETE FROM replaced_segments WHERE replaced_id = ?", [(one.replaced_id,) for one in free]
            )
            list_garbage(conn, garbage, now_us())

        if free:
            await self._database.write(forget)
            self.byte_count -= sum(one.byte_count for one in free)
            await remove_garbage(self._database, garbage)
        return [one for one in marked if one not in free]
