"""What has to be tidied: answers, jobs and entries of the audit, files kept long enough, segments gone, free memory."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from collections.abc import Callable

import pyarrow as pa

from kalam.storage.log.answers import forget_answers
from kalam.storage.log.database import Database, now_us
from kalam.storage.log.disk_faults import disk_may_fail
from kalam.storage.segments.cold_keys import ColdKeyIndex
from kalam.storage.segments.unclaimed import Unclaimed
from kalam.threads import Purpose, in_thread

PAUSE_S = 30.0


class Housekeeping:
    """Removes what nobody needs any more."""

    def __init__(
        self, database: Database, unclaimed: Unclaimed, cold_keys: ColdKeyIndex, *, job_history_s: int, audit_s: int
    ) -> None:
        self._database, self._unclaimed, self._cold_keys = database, unclaimed, cold_keys
        self._job_history_us, self._audit_us = job_history_s * 1_000_000, audit_s * 1_000_000

    async def run(self, also: Callable[[], None]) -> None:
        """Tidy now and then, until cancelled; ``also`` is called each time."""
        while True:
            await asyncio.sleep(PAUSE_S)
            also()
            gc.collect(1)  # what was made since the last time, so that ten thousand live queries cost nothing here
            await in_thread(Purpose.CATALOGUE, pa.default_memory_pool().release_unused)
            await in_thread(Purpose.FILES, self._cold_keys.tidy)
            with disk_may_fail("housekeeping"):
                await self._database.write(self._forget_old)
                await self._unclaimed.remove_due()

    def _forget_old(self, conn: sqlite3.Connection) -> None:
        now = now_us()
        forget_answers(conn)
        conn.execute("DELETE FROM jobs WHERE finished_us < ?", (now - self._job_history_us,))
        conn.execute("DELETE FROM audit WHERE at_us < ?", (now - self._audit_us,))
