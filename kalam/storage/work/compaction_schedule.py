"""When to compact by itself: many small segments, or many overrides, make reads slow.

A copy is due when it has ``segments_min`` small segments, or when the overrides are a share of its cold rows; then the
work of a compaction is paid by as many flushes or changes as made it necessary.
"""

from __future__ import annotations

import asyncio

import msgspec
import structlog

from kalam.backoff import Backoffs
from kalam.schema import Table
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.database import Database
from kalam.storage.log.disk_faults import disk_may_fail
from kalam.storage.log.troubles import log_failure
from kalam.storage.work.compaction import Compactor
from kalam.threads import Purpose, in_thread

log = structlog.get_logger(__name__)

LOOK_S = 5.0
OVERRIDES_MIN = 1_000
SMALL_SHARE = 4
"""A segment with less than this part of ``segment_rows_max`` is small."""


class Fragments(msgspec.Struct, frozen=True):
    """What is known of a copy: its small segments, its overrides, and its cold rows."""

    small: int
    overrides: int
    cold_rows: int


def is_overridden(fragments: Fragments, percent: int) -> bool:
    """Whether so many overrides are worth a compaction."""
    return fragments.overrides >= max(OVERRIDES_MIN, fragments.cold_rows * percent // 100)


class CompactionSchedule(msgspec.Struct):
    """Compacts what is due, one table after the other."""

    database: Database
    catalogue: Catalogue
    compactor: Compactor
    segments_min: int
    overrides_percent: int
    retries: Backoffs

    async def run(self) -> None:
        """Look now and then, until cancelled; remove the files that nobody reads any more."""
        while True:
            await asyncio.sleep(LOOK_S)
            with disk_may_fail("compaction"):
                await self.look()
            with disk_may_fail("the removal of replaced files"):  # which are listed as garbage
                await self.compactor.remove_replaced()
            await self.compactor.process.stop_if_idle()

    async def look(self) -> None:
        """Compact every copy that is due."""
        small_rows = self.compactor.segment_rows_max // SMALL_SHARE
        found = await in_thread(Purpose.FILES, self._fragments, small_rows)
        for (table_id, owner), fragments in found.items():
            table = self.catalogue.by_id.get(table_id)
            overridden = is_overridden(fragments, self.overrides_percent)
            if table is not None and (overridden or fragments.small >= self.segments_min):
                await self._try(table, owner, small_rows, overridden)

    async def _try(self, table: Table, owner: str, small_rows: int, overridden: bool) -> None:
        if not self.retries.is_due(table.table_id) or self.compactor.lock(table).locked():
            return  # what else works on its segments may take long, and the other tables do not wait for it
        try:
            await self.compactor.compact(
                table, owners=[owner], small_rows=small_rows, overridden=overridden, reason="policy"
            )
        except Exception as exc:  # noqa: BLE001 - whatever it was, it is this table's, and there are others
            log_failure("compaction failed", exc, table=str(table.name), again_in_s=self.retries.failed(table.table_id))
        else:
            self.retries.succeeded(table.table_id)

    def _fragments(self, small_rows: int) -> dict[tuple[int, str], Fragments]:
        with self.database.reading() as conn:
            segments = conn.execute(
                """SELECT copy_id, table_id, user_id, sum(row_count < ? AND NOT deleted), sum(row_count)
                FROM segments JOIN copies USING (copy_id) GROUP BY copy_id""",
                (small_rows,),
            ).fetchall()
            overrides = dict(conn.execute("SELECT copy_id, count(*) FROM overrides GROUP BY copy_id").fetchall())
        return {
            (table_id, owner): Fragments(small, overrides.get(copy_id, 0), rows)
            for copy_id, table_id, owner, small, rows in segments
        }
