"""CHECK TABLE: every segment of a table compared with what the catalogue says of it, as a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from kalam.errors import CorruptSegment
from kalam.schema import Table
from kalam.storage.log.copies import Segment
from kalam.storage.log.copy_store import CopyStore
from kalam.storage.segments.folders import Folders
from kalam.storage.work.jobs import Job, Jobs
from kalam.threads import Purpose, in_thread


class CheckedSegment(msgspec.Struct, frozen=True):
    """A segment of ``owner`` ('' for a SHARED table); ``fault`` is what is wrong with it, None for nothing."""

    owner: str
    segment: Segment
    fault: str | None


class TableCheck(msgspec.Struct):
    """Checks tables. Nothing is locked meanwhile: what a compaction replaces is checked as long as it is there."""

    store: CopyStore
    jobs: Jobs
    folders: Folders

    async def check(self, table: Table) -> tuple[str, list[CheckedSegment]]:
        """Check all copies of a table; the job's id and every segment, by owner and age."""
        found: list[CheckedSegment] = []

        async def work(job: Job) -> dict[str, Any]:
            for owner in await in_thread(Purpose.FILES, self.store.users, table):
                copy = await self.store.open(table, owner)
                folder = self.folders.folder(table, owner)
                for segment in copy.view.segments if copy else ():
                    fault = await in_thread(Purpose.FILES, self._fault, table, folder, segment)
                    found.append(CheckedSegment(owner, segment, fault))
                    job.progress = _counts(found)
            return _counts(found)

        return await self.jobs.run("check", table.name, {}, work), found

    def _fault(self, table: Table, folder: Path, segment: Segment) -> str | None:
        try:
            self.folders.checks.check_anew(table, folder, segment, thoroughly=True)
        except CorruptSegment as exc:
            return exc.detail
        return None


def _counts(found: list[CheckedSegment]) -> dict[str, Any]:
    return {
        "segments": len(found),
        "bytes": sum(one.segment.byte_count for one in found),
        "damaged": sum(one.fault is not None for one in found),
    }
