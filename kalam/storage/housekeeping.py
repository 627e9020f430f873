"""What has to be tidied: strays of a crash at the start, old answers and jobs now and then."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress

import structlog

from kalam.errors import StorageFull
from kalam.schema import TableKind
from kalam.storage.catalogue import Catalogue
from kalam.storage.database import Database, now_us
from kalam.storage.segments import Folders
from kalam.storage.writes import ANSWER_US

log = structlog.get_logger(__name__)

PAUSE_S = 30.0


class Housekeeping:
    """Removes what nobody needs any more."""

    def __init__(self, database: Database, catalogue: Catalogue, folders: Folders, job_history_s: int) -> None:
        self._database, self._catalogue, self._folders = database, catalogue, folders
        self._job_history_us = job_history_s * 1_000_000

    def remove_strays(self) -> None:
        """Remove the files of our tables that no segment names; blocking, for the start."""
        with self._database.reading() as conn:
            copies = conn.execute("SELECT copy_id, table_id, user_id FROM copies").fetchall()
            named: dict[int, set[str]] = {}
            for copy_id, path in conn.execute("SELECT copy_id, path FROM segments"):
                named.setdefault(copy_id, set()).add(path)
        for copy_id, table_id, user in copies:
            table = self._catalogue.by_id.get(table_id)
            if table is not None and table.kind is not TableKind.STREAM:
                strays = self._folders.remove_strays(table, user, named.get(copy_id, set()))
                if strays:
                    log.info("removed files of an unfinished flush", table=str(table.name), files=len(strays))

    async def run(self, also: Callable[[], None]) -> None:
        """Tidy now and then, until cancelled; ``also`` is called each time."""
        while True:
            await asyncio.sleep(PAUSE_S)
            also()
            with suppress(StorageFull):  # it can wait until there is room
                await self._database.write(self._forget_old)

    def _forget_old(self, conn: sqlite3.Connection) -> None:
        now = now_us()
        conn.execute("DELETE FROM answers WHERE answered_us < ?", (now - ANSWER_US,))
        conn.execute("DELETE FROM jobs WHERE finished_us < ?", (now - self._job_history_us,))
