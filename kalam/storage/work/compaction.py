"""Compaction: segments of a copy are merged into fewer ones, without the rows that newer versions hide.

The law: it changes nothing of what is read. New files are complete, synced and renamed before ONE transaction puts them
in the place of the old ones; readers that began before finish on the old files, which stay until the last of them is
done. Writers and flushes go on meanwhile: what they add has larger seqs, and only old segments are replaced.

An override may be forgotten when every segment that existed when the run began was either merged by it or can hold no
row that the override hides. Segments that a flush adds later cannot: their versions are newer than the override.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from kalam.errors import Cancelled, Internal, KalamError
from kalam.schema import Table
from kalam.storage.log.copies import Key, Segment
from kalam.storage.log.copy_store import CopyStore
from kalam.storage.log.crash import crash_point
from kalam.storage.log.database import now_us, storage_error
from kalam.storage.log.troubles import Troubles, log_failure, reason_of
from kalam.storage.log.written_file import WrittenFile
from kalam.storage.segments.cold_keys import ColdKeyIndex
from kalam.storage.segments.folders import Folders
from kalam.storage.segments.garbage import forget_garbage
from kalam.storage.segments.remote import remove_file
from kalam.storage.segments.replaced import ReplacedFiles
from kalam.storage.segments.segment_file import Identity, Misfit
from kalam.storage.work.compact_worker import CompactAnswer, CompactInput, CompactRequest
from kalam.storage.work.compaction_plan import Plan, plan
from kalam.storage.work.flush import forgotten_before, paths_of, rename_files
from kalam.storage.work.jobs import Job, Jobs
from kalam.storage.work.replacement import Forgetting, Replacement
from kalam.storage.work.worker_process import WorkerProcess
from kalam.threads import Purpose, in_thread

FORGET_AT_ONCE = 10_000
"""Overrides that are forgotten in one transaction."""
ROUNDS_MAX = 8


class Compacted(msgspec.Struct):
    """What a compaction of a table did."""

    job_id: str = ""
    segments_before: int = 0
    segments_after: int = 0
    rows: int = 0
    rows_removed: int = 0
    overrides_forgotten: int = 0
    bytes: int = 0
    duration_ms: float = 0.0

    def result(self) -> dict[str, Any]:
        """What the job says."""
        names = ("segments_before", "segments_after", "rows", "rows_removed", "overrides_forgotten", "bytes")
        return {name: getattr(self, name) for name in names}


class Compactor(msgspec.Struct):
    """Compacts tables, one compaction of a table at a time. ``listeners`` hear of a copy whose files changed.

    ``keeps`` says whether the replaced files of a table's rows stay until the lake lets go of them.
    """

    store: CopyStore
    jobs: Jobs
    folders: Folders
    cold_keys: ColdKeyIndex
    process: WorkerProcess
    replaced: ReplacedFiles
    troubles: Troubles
    segment_rows_max: int
    listeners: list[Callable[[int, str], None]] = msgspec.field(default_factory=list)
    keeps: Callable[[Table], bool] = lambda table: False
    locks: dict[int, asyncio.Lock] = msgspec.field(default_factory=dict)
    _names: int = 0
    _unnamed: list[Path] = msgspec.field(default_factory=list)

    def lock(self, table: Table) -> asyncio.Lock:
        """The lock that whoever replaces segments of the table holds."""
        return self.locks.setdefault(table.table_id, asyncio.Lock())

    async def compact(
        self,
        table: Table,
        *,
        owners: Sequence[str] | None = None,
        small_rows: int | None = None,
        overridden: bool = True,
        reason: str = "statement",
    ) -> Compacted:
        """Compact all copies of a table or those of ``owners``; one job, none if there is nothing to do.

        Raises the error that made the job fail; what was recorded before it stays, and is complete in itself.
        """
        with self.troubles.watching(table.table_id, "compaction"):
            return await self._compact(table, owners, small_rows, overridden, reason)

    async def _compact(
        self, table: Table, owners: Sequence[str] | None, small_rows: int | None, overridden: bool, reason: str
    ) -> Compacted:
        started = time.perf_counter()
        done = Compacted()
        small = self.segment_rows_max // 2 if small_rows is None else small_rows
        async with self.lock(table):
            chosen = await in_thread(Purpose.FILES, self.store.users, table) if owners is None else owners
            failures: list[tuple[str, Exception]] = []
            planned: list[tuple[str, Plan]] = []
            for owner in chosen:
                async with _each_by_itself(table, owner, failures, one_of=len(chosen)):
                    if made := await self._plan(table, owner, small, overridden):
                        planned.append((owner, made))
            if not planned and not failures:
                return done

            async def work(job: Job) -> dict[str, Any]:
                await self._remove_unnamed()
                for owner, made in planned:
                    async with _each_by_itself(table, owner, failures, one_of=len(chosen)):
                        await self._compact_copy(table, owner, made, small, done, job)
                if failures:
                    raise _not_compacted(failures, len(chosen)) from failures[0][1]
                return done.result()

            done.job_id = await self.jobs.run("compaction", table.name, {"reason": reason}, work)
        done.duration_ms = round((time.perf_counter() - started) * 1e3, 3)
        return done

    async def _plan(self, table: Table, owner: str, small_rows: int, overridden: bool) -> Plan | None:
        copy = await self.store.open(table, owner)
        if copy is None:
            return None
        view = copy.view
        made = await in_thread(
            Purpose.FILES, plan, view, self.cold_keys.key_filter, small_rows=small_rows, overridden=overridden
        )
        return made if made.steps or made.forget else None

    async def _compact_copy(
        self, table: Table, owner: str, made: Plan, small_rows: int, done: Compacted, job: Job
    ) -> None:
        for _ in range(ROUNDS_MAX):
            for step in made.steps:
                await self.merge(table, owner, step, done, job)
            if made.forget:
                await self._forget(table, owner, made.forget, done)
            if len(made.steps) < 2:  # else the files of the steps may still be small
                return
            made = await self._plan(table, owner, small_rows, overridden=False) or Plan()

    async def merge(self, table: Table, owner: str, step: Sequence[Segment], done: Compacted, job: Job) -> None:
        """Merge some segments of a copy, all live ones or all of deleted rows; the caller holds the table's lock."""
        copy = await self.store.open(table, owner)
        if copy is None:
            raise Cancelled(f"table {table.name} was dropped")
        table = self.store.catalogue.newest(table)
        rows_total = sum(segment.row_count for segment in step)

        def tell(rows: int) -> None:
            job.progress = {**done.result(), "rows_read": rows, "rows_of_step": rows_total}

        answer = await self.merged(table, owner, copy.copy_id, step, tell)
        await self._replace(table, owner, copy.copy_id, self.folders.folder(table, owner), step, answer.files)
        done.segments_before += len(step)
        done.segments_after += len(answer.files)
        done.rows += answer.row_count
        done.rows_removed += answer.removed
        done.bytes += sum(file.byte_count for file in answer.files)

    async def merged(
        self,
        table: Table,
        owner: str,
        copy_id: int,
        step: Sequence[Segment],
        tell: Callable[[int], None],
        left_out: Path | None = None,
    ) -> CompactAnswer:
        """Segments merged into files that nothing names yet; without the versions of a ``LeftOut``, if one is given.

        Where none of those is in them nothing is written, and ``untouched`` is set.
        """
        self._names += 1
        request = CompactRequest(
            database=str(self.store.database.path),
            table_id=table.table_id,
            schema_version=table.schema_version,
            copy_id=copy_id,
            inputs=[
                CompactInput(
                    path=segment.path,
                    schema_version=segment.schema_version,
                    identity=Identity.of(table, segment),
                )
                for segment in step
            ],
            deleted=step[0].deleted,
            columns=table.columns,
            history=dict(self.store.catalogue.history(table)),
            key=table.key,
            folder=str(self.folders.folder(table, owner)),
            name=f"{self.folders.file_prefix(table)}{now_us()}-c{self._names}",
            compression=table.stored_options.compression,
            segment_rows_max=self.segment_rows_max,
            forget_deleted_us=forgotten_before(table, now_us()),
            left_out=None if left_out is None else str(left_out),
        )
        crash_point("compact.before_write")
        answer = await self.process.run(request, CompactAnswer, tell)
        if answer.damaged is not None:
            raise self.folders.checks.failed(table, step[answer.damaged], Misfit(answer.damage))
        return answer

    async def _replace(
        self, table: Table, owner: str, copy_id: int, folder: Path, old: Sequence[Segment], new: Sequence[WrittenFile]
    ) -> None:
        crash_point("compact.before_rename")
        try:
            await in_thread(Purpose.FILES, rename_files, folder, new)
            crash_point("compact.after_rename")
            await self.store.database.submit(Replacement(self, table, owner, copy_id, old, new))
        except OSError as exc:
            self._unnamed += paths_of(folder, new)
            raise storage_error(exc) from exc
        except BaseException:
            self._unnamed += paths_of(folder, new)
            raise
        crash_point("compact.after_commit")
        self.tell(table.table_id, owner)

    def tell(self, table_id: int, owner: str) -> None:
        """Tell whoever keeps something of a copy's files that they have changed."""
        for listener in self.listeners:
            listener(table_id, owner)

    async def rewrite(self, table: Table, chosen: Mapping[str, Sequence[int]], *, reason: str) -> Compacted:
        """Write segments, by owner and id, again under the newest schema version; one job. Some may be gone already."""
        started, done = time.perf_counter(), Compacted()
        with self.troubles.watching(table.table_id, "compaction"):
            async with self.lock(table):

                async def work(job: Job) -> dict[str, Any]:
                    for owner, ids in chosen.items():
                        copy = await self.store.open(table, owner)
                        for segment in copy.segments if copy is not None else ():
                            if segment.segment_id in ids:
                                await self.merge(table, owner, [segment], done, job)
                    return done.result()

                done.job_id = await self.jobs.run("compaction", table.name, {"reason": reason}, work)
        done.duration_ms = round((time.perf_counter() - started) * 1e3, 3)
        return done

    async def replace(self, table: Table, owner: str, old: Sequence[Segment]) -> None:
        """Let go of segments whose rows nobody needs any more."""
        copy = await self.store.open(table, owner)
        if copy is not None:
            await self.store.database.submit(Replacement(self, table, owner, copy.copy_id, old, ()))
            self.tell(table.table_id, owner)

    async def _forget(self, table: Table, owner: str, overrides: Mapping[Key, int], done: Compacted) -> None:
        left = iter(overrides.items())
        while part := list(islice(left, FORGET_AT_ONCE)):
            await self.store.database.submit(Forgetting(self.store, table, owner, part))
            done.overrides_forgotten += len(part)

    async def remove_replaced(self) -> None:
        """Remove the replaced files that nobody reads any more."""
        removed = await in_thread(Purpose.FILES, self.replaced.remove)
        if removed:
            await self.store.database.write(lambda conn: forget_garbage(conn, removed))

    def leave(self, folder: Path, files: Sequence[WrittenFile]) -> None:
        """Have written files removed that no transaction has named, by the next job."""
        self._unnamed += paths_of(folder, files)

    async def _remove_unnamed(self) -> None:
        """Remove the files of runs that could not be recorded; not at once, for the reason that a flush has."""
        paths, self._unnamed = self._unnamed, []
        named = set()
        if paths:
            with self.store.database.reading() as conn:
                named = {path for (path,) in conn.execute("SELECT path FROM segments")}
        for path in paths:
            if path.name not in named:
                await in_thread(Purpose.FILES, remove_file, path)


@asynccontextmanager
async def _each_by_itself(
    table: Table, owner: str, failures: list[tuple[str, Exception]], *, one_of: int
) -> AsyncIterator[None]:
    """Note what goes wrong with one user's copy, so that the others have their turn; raise it where there is one."""
    try:
        yield
    except Cancelled:  # the table was dropped
        raise
    except Exception as exc:
        if one_of == 1:
            raise
        log_failure("compaction failed", exc, table=str(table.name), user=owner)
        failures.append((owner, exc))


def _not_compacted(failures: Sequence[tuple[str, Exception]], copies: int) -> KalamError:
    """The error of the copies that could not be compacted, of the first one's kind."""
    first = failures[0][1]
    kind = type(first) if isinstance(first, KalamError) else Internal
    told = "; ".join(f"{owner}: {reason_of(exc)}" for owner, exc in failures[:20])
    more = f" and {len(failures) - 20} more" if len(failures) > 20 else ""
    return kind(f"{len(failures)} of {copies} users' copies could not be compacted: {told}{more}")
