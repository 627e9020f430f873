"""Tables that were being filled when the server died: nobody has seen them, and the start removes them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from kalam.schema import Table
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.database import Database, now_us
from kalam.storage.log.table_rows import delete_table
from kalam.storage.segments.folders import Folders
from kalam.storage.segments.garbage import garbage_of, list_garbage
from kalam.threads import Purpose, in_thread


async def drop_unfinished(database: Database, catalogue: Catalogue, folders: Folders) -> None:
    """Remove what a crash left unfinished; the files are listed for removal."""
    for table in catalogue.unfinished():
        garbage = await in_thread(Purpose.CATALOGUE, garbage_of, database, folders, table)

        def remove(conn: sqlite3.Connection, table: Table = table, garbage: Sequence[str] = garbage) -> None:
            delete_table(conn, table.table_id)
            list_garbage(conn, garbage, now_us())

        await database.write(remove)
        catalogue.forget(table)
