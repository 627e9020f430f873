"""DELETED_RETENTION: rows that were deleted long ago are removed for good.

Deleted rows lie in files of their own, so most are removed with a file; one that holds younger ones as well is written
again once its oldest are overdue by a tenth of the retention, so that a few rows do not cost a file again and again.
Hot ones go in a flush, which writes no deleted row that is due. An override stays as long as an older copy of its row
lies in a segment: what was deleted does not come back when its tombstone goes.
"""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
import pyarrow.parquet as pq
import structlog

from kalam.backoff import Backoffs
from kalam.schema import UPDATED, Table
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.copies import Segment
from kalam.storage.log.database import now_us
from kalam.storage.log.times import EPOCH
from kalam.storage.log.troubles import log_failure
from kalam.storage.segments.remote import readable
from kalam.storage.work.compaction import Compacted, Compactor
from kalam.storage.work.flush import Flusher, forgotten_before
from kalam.storage.work.jobs import Job
from kalam.threads import Purpose, in_thread

log = structlog.get_logger(__name__)

OVERDUE_SHARE = 10


class Due(msgspec.Struct):
    """What of a table is due: owners with hot rows, whole segments, and segments of which a part is."""

    hot: list[str] = msgspec.field(default_factory=list)
    whole: list[tuple[str, Segment]] = msgspec.field(default_factory=list)
    part: list[tuple[str, Segment]] = msgspec.field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.hot or self.whole or self.part)


class DeletedCleanup(msgspec.Struct):
    """Removes deleted rows when they are due."""

    catalogue: Catalogue
    flusher: Flusher
    compactor: Compactor
    pause_s: float
    retries: Backoffs
    _bounds: WeakKeyDictionary[Segment, tuple[int, int]] = msgspec.field(default_factory=WeakKeyDictionary)

    async def run(self) -> None:
        """Look at every table now and then, until cancelled."""
        while True:
            await asyncio.sleep(self.pause_s)
            for table in self.catalogue.stored():
                await self._try(table)

    async def _try(self, table: Table) -> None:
        if not self.retries.is_due(table.table_id) or self.compactor.lock(table).locked():
            return
        try:
            with self.compactor.troubles.watching(table.table_id, "clean-up"):
                await self.clean(table, now_us())
        except Exception as exc:  # noqa: BLE001 - whatever it was, it is this table's, and there are others
            log_failure("clean-up failed", exc, table=str(table.name), again_in_s=self.retries.failed(table.table_id))
        else:
            self.retries.succeeded(table.table_id)

    async def clean(self, table: Table, now: int) -> str | None:
        """Remove what is due at ``now`` (microseconds since 1970); the job's id, None if nothing was."""
        cutoff = forgotten_before(table, now)
        if not cutoff:
            return None
        async with self.compactor.lock(table):
            due = await self._due(table, now, cutoff)
            if not due:
                return None

            async def work(job: Job) -> dict[str, Any]:
                return await self._remove(table, due, job)

            return await self.compactor.jobs.run("deleted_cleanup", table.name, {"before": cutoff}, work)

    async def _remove(self, table: Table, due: Due, job: Job) -> dict[str, Any]:
        done = Compacted()
        if due.hot:
            await self.flusher.flush(table, users=due.hot, reason="deleted_cleanup")
        for owner, segment in due.whole:
            await self.compactor.replace(table, owner, [segment])
            done.rows_removed += segment.row_count
            job.progress = {"rows_removed": done.rows_removed}
        for owner, segment in due.part:
            await self.compactor.merge(table, owner, [segment], done, job)
        return {"rows_removed": done.rows_removed, "segments": len(due.whole) + len(due.part), "copies": len(due.hot)}

    async def _due(self, table: Table, now: int, cutoff: int) -> Due:
        hot, cold = await in_thread(Purpose.FILES, self._listed, table, cutoff)
        due = Due(hot=hot)
        overdue = cutoff - (now - cutoff) // OVERDUE_SHARE
        for owner in cold:
            copy = await self.compactor.store.open(table, owner)
            for segment in copy.segments if copy else ():
                if not segment.deleted:
                    continue
                oldest, newest = await in_thread(Purpose.FILES, self._times, table, owner, segment)
                if newest < cutoff:
                    due.whole.append((owner, segment))
                elif oldest < overdue:
                    due.part.append((owner, segment))
        return due

    def _listed(self, table: Table, cutoff: int) -> tuple[list[str], list[str]]:
        """The owners that have hot deleted rows which are due, and those that have segments of deleted rows."""
        with self.flusher.database.reading() as conn:
            hot = conn.execute(
                """SELECT DISTINCT user_id FROM copies JOIN log USING (copy_id)
                WHERE table_id = ? AND flushed = 0 AND op = 'delete' AND updated_us < ?""",
                (table.table_id, cutoff),
            ).fetchall()
            cold = conn.execute(
                "SELECT DISTINCT user_id FROM copies JOIN segments USING (copy_id) WHERE table_id = ? AND deleted = 1",
                (table.table_id,),
            ).fetchall()
        return [owner for (owner,) in hot], [owner for (owner,) in cold]

    def _times(self, table: Table, owner: str, segment: Segment) -> tuple[int, int]:
        """The least and the greatest ``_updated`` in a segment, from its footer; blocking."""
        known = self._bounds.get(segment)
        if known is None:
            folders = self.compactor.folders
            folder = folders.folder(table, owner)
            folders.checks.check(table, folder, [segment])
            with folders.checks.reading(table, segment):
                metadata = pq.read_metadata(readable(folder / segment.path))
            place = metadata.schema.names.index(UPDATED)
            groups = [metadata.row_group(group).column(place).statistics for group in range(metadata.num_row_groups)]
            least, greatest = min(group.min for group in groups), max(group.max for group in groups)
            known = self._bounds[segment] = (
                int((least - EPOCH).total_seconds() * 1e6),
                int((greatest - EPOCH).total_seconds() * 1e6) + 1,
            )
        return known
