"""When to flush: the decision, which is pure, and the loop that acts on it.

A copy is due when its hot rows reach the row policy, or when the oldest is older than the interval; a USER table's copy
with few rows is left to wait for a day, lest ten thousand quiet users make ten thousand files every five minutes.
"""

from __future__ import annotations

import asyncio
import time

import msgspec

from kalam.backoff import Backoffs
from kalam.schema import Table
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.copy_store import CopyStore
from kalam.storage.log.database import now_us
from kalam.storage.log.troubles import log_failure
from kalam.storage.log.writes import Announcement
from kalam.storage.work.flush import Flusher

TICK_S = 0.5
DAY_US = 86_400_000_000


class Hot(msgspec.Struct, frozen=True):
    """How much of a copy is hot; ``oldest_us`` is the time of its oldest row (microseconds since 1970)."""

    row_count: int
    byte_count: int
    oldest_us: int | None


def is_due(table: Table, hot: Hot, now: int, user_rows_min: int) -> bool:
    """Whether a copy is to be flushed now (``now`` in microseconds since 1970)."""
    if not hot.row_count or hot.oldest_us is None:
        return False
    options = table.stored_options
    if options.flush_rows is not None and hot.row_count >= options.flush_rows:
        return True
    if options.flush_interval_s is None or now - hot.oldest_us < options.flush_interval_s * 1_000_000:
        return False
    return not table.per_user or hot.row_count >= user_rows_min or now - hot.oldest_us >= DAY_US


class FlushSchedule(msgspec.Struct):
    """Flushes what is due; one task for each table that is being flushed."""

    catalogue: Catalogue
    store: CopyStore
    flusher: Flusher
    user_flush_rows_min: int
    hot_bytes_max: int
    retries: Backoffs
    _tasks: dict[int, asyncio.Task[None]] = msgspec.field(default_factory=dict)
    looked_at: float = msgspec.field(default_factory=time.monotonic)

    def announce(self, announcement: Announcement) -> None:
        """Look at a copy that has just grown; called for every commit."""
        table, copy = announcement.table, announcement.copy
        table = self.catalogue.by_id.get(table.table_id, table)  # an ALTER may have changed the policy
        rows_max = table.stored_options.flush_rows
        if rows_max is not None and copy.row_count >= rows_max:
            self._start(table, "rows")

    async def run(self) -> None:
        """Look at every copy now and then, until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            self.looked_at = time.monotonic()
            self.look(now_us())
            await self.flusher.process.stop_if_idle()

    def look(self, now: int) -> None:
        """Start the flush of every table that has a copy which is due."""
        total = 0
        largest: tuple[int, Table | None] = (0, None)
        for (table_id, _), hot in self._hot():
            table = self.catalogue.by_id.get(table_id)
            if table is None:
                continue
            total += hot.byte_count
            if hot.byte_count > largest[0] and self._may_start(table):
                largest = (hot.byte_count, table)
            if is_due(table, hot, now, self.user_flush_rows_min):
                self._start(table, "policy")
        if total > self.hot_bytes_max and largest[1] is not None:
            self._start(largest[1], "memory")

    def _hot(self) -> list[tuple[tuple[int, str], Hot]]:
        loaded = [
            (name, Hot(copy.row_count, copy.byte_count, copy.oldest_us))
            for name, copy in list(self.store.loaded.items())
        ]
        waiting = [(name, Hot(b.row_count, b.byte_count, b.oldest_us)) for name, b in list(self.store.backlogs.items())]
        return loaded + waiting

    def _start(self, table: Table, reason: str) -> None:
        if not self._may_start(table):
            return
        task = asyncio.create_task(self._flush(table, reason), name=f"flush {table.name}")
        self._tasks[table.table_id] = task
        task.add_done_callback(lambda task: self._ended(table, task))

    def _may_start(self, table: Table) -> bool:
        return table.table_id not in self._tasks and self.retries.is_due(table.table_id)

    def _ended(self, table: Table, task: asyncio.Task[None]) -> None:
        """Look again at once: what was written during a flush may be due already."""
        self._tasks.pop(table.table_id, None)
        if not task.cancelled():
            self.look(now_us())

    async def _flush(self, table: Table, reason: str) -> None:
        try:
            await self.flusher.flush(table, users=self._due_users(table, reason), reason=reason)
        except Exception as exc:  # noqa: BLE001 - whatever it was, it is this table's, and there are others
            log_failure("flush failed", exc, table=str(table.name), again_in_s=self.retries.failed(table.table_id))
        else:
            self.retries.succeeded(table.table_id)

    def _due_users(self, table: Table, reason: str) -> list[str] | None:
        if not table.per_user or reason == "memory":
            return None
        counts: dict[str, Hot] = {}
        for (table_id, user), hot in self._hot():
            if table_id == table.table_id:
                counts[user] = hot
        now = now_us()
        return [user for user, hot in counts.items() if is_due(table, hot, now, self.user_flush_rows_min)]

    @property
    def failing(self) -> list[str]:
        """The tables whose last flush failed."""
        names = (self.catalogue.by_id.get(table_id) for table_id in self.retries)
        return [str(table.name) for table in names if table is not None]

    async def stop(self) -> None:
        """Cancel what runs; its rows stay hot."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
