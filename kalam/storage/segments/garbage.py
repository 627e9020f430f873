"""Files that nothing names any more: listed by the transaction that let go of them, removed after it.

An entry has the time from which it may be removed: that of its transaction, or for what the catalogue does not know of
(unclaimed.py) one that is to come. The start removes all that is due; a DROP removes only what it has listed itself,
for there may be files that a compaction replaced and that somebody still reads.

The law: only files of the table itself are removed, by their names or by a pattern that holds the ids of the data
directory and of the table. So what others keep in a LOCATION stays, and a table that is created again under the same
name, in the same folder, cannot lose a file to its predecessor, whose id was another.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from kalam.schema import Table
from kalam.storage.log.database import Database, now_us
from kalam.storage.segments.folders import Folders
from kalam.storage.segments.remote import MARKER, matching, remove_file
from kalam.threads import Purpose, in_thread

log = structlog.get_logger(__name__)
LAKE: Final = "iceberg"
"""What the folder of a table's lake is called, or begins with behind a dot."""
UNCLAIMED: Final = "unclaimed"
"""The folder for files that the catalogue does not know of."""


def garbage_of(database: Database, folders: Folders, table: Table, owner: str | None = None) -> list[str]:
    """Paths, the last part of which may be a pattern, of all files of a table, or of one user's in it; blocking."""
    with database.reading() as conn:
        rows = conn.execute(
            "SELECT user_id, path FROM copies LEFT JOIN segments USING (copy_id) "
            "WHERE table_id = ?1 AND (?2 IS NULL OR user_id = ?2)",
            (table.table_id, owner),
        ).fetchall()
    strays = {str(folders.folder(table, user) / f"*{folders.file_prefix(table)}*") for user, _ in rows}
    # A backup that was restored has segments that are named after the data directory that it was taken from.
    return [*strays, *(str(folders.folder(table, user) / path) for user, path in rows if path is not None)]


async def remove_garbage(database: Database, paths: Sequence[str] | None = None) -> None:
    """Remove the files of these entries, or of all that are due, and their folders when nothing else is in them."""
    if paths is None:
        paths = await in_thread(Purpose.CATALOGUE, _due, database)
    if paths:
        removed = await in_thread(Purpose.FILES, _remove, paths)
        await database.write(lambda conn: forget_garbage(conn, removed))


def _due(database: Database) -> list[str]:
    with database.reading() as conn:
        return [path for (path,) in conn.execute("SELECT path FROM garbage WHERE created_us <= ?", (now_us(),))]


def list_garbage(conn: sqlite3.Connection, paths: Iterable[str], due_us: int) -> None:
    """List files for removal, from a time (microseconds since 1970) on."""
    conn.executemany("INSERT OR IGNORE INTO garbage VALUES (?, ?)", [(path, due_us) for path in paths])


def forget_garbage(conn: sqlite3.Connection, paths: Iterable[str]) -> None:
    """Strike removed files off the list."""
    conn.executemany("DELETE FROM garbage WHERE path = ?", [(path,) for path in paths])


def _remove(paths: Sequence[str]) -> list[str]:
    removed: list[str] = []
    for text in paths:
        path = Path(text)
        try:
            for file in matching(path.parent, path.name):
                remove_file(file)
        except OSError as exc:
            log.warning("files of a dropped table stay until the next start", path=text, error=str(exc))
        else:
            removed.append(text)
    for folder in sorted({Path(text).parent for text in removed}, key=lambda folder: -len(folder.parts)):
        if not matching(folder, "*.parquet"):
            (folder / MARKER).unlink(missing_ok=True)
        with suppress(OSError):  # not empty, or never made
            folder.rmdir()
            while UNCLAIMED in (folder := folder.parent).parts or folder.name.startswith((LAKE, f".{LAKE}-")):
                folder.rmdir()
    return removed
