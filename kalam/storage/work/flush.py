"""The flush: hot versions of a copy become Parquet segments.

The law (storage/DESIGN.md): the files are complete, synced and renamed before ONE transaction names them and removes
exactly the versions that were read. Killed before that transaction, the rows are still hot and the files are strays;
killed after it, they are cold. What is written meanwhile has larger seqs and is not touched.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog

from kalam.errors import KalamError
from kalam.rows.keys import keys_of
from kalam.rows.stored import StoredRows
from kalam.rows.versions import StoredVersions
from kalam.schema import Table
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.copies import Copy, Segment, drop_flushed
from kalam.storage.log.copy_store import CopyStore, unpack_key
from kalam.storage.log.crash import crash_point
from kalam.storage.log.database import Database, fsync_directory, make_directory, now_us, storage_error
from kalam.storage.log.troubles import Troubles
from kalam.storage.log.view_positions import READ_UPTO
from kalam.storage.log.written_file import WrittenFile
from kalam.storage.segments.folders import Folders
from kalam.storage.segments.remote import remove_file, upload
from kalam.storage.work.disposal import let_go
from kalam.storage.work.flush_worker import FlushAnswer, FlushRequest
from kalam.storage.work.jobs import Job, Jobs
from kalam.storage.work.worker_process import WorkerProcess
from kalam.threads import Purpose, in_thread
from kalam.tracing import span

log = structlog.get_logger(__name__)

FAILURES_MAX = 3
"""Copies that cannot be flushed, after which the others of a table are not tried: the disk is to blame."""


class Flushed(msgspec.Struct):
    """What a flush of a table did."""

    job_id: str = ""
    rows_flushed: int = 0
    segments: int = 0
    bytes: int = 0
    duration_ms: float = 0.0


class Step(msgspec.Struct, frozen=True):
    """A flush of one copy that has been written and not yet recorded."""

    copy_id: int
    user: str
    upto_seq: int
    answer: FlushAnswer


class Flusher(msgspec.Struct):
    """Flushes tables, one flush of a table at a time. ``flushed_rows`` and ``flushed_bytes`` only grow."""

    database: Database
    catalogue: Catalogue
    store: CopyStore
    jobs: Jobs
    folders: Folders
    process: WorkerProcess
    troubles: Troubles
    segment_rows_max: int
    locks: dict[int, asyncio.Lock] = msgspec.field(default_factory=dict)
    flushed_rows: int = 0
    flushed_bytes: int = 0
    _names: int = 0
    _unnamed: list[Path] = msgspec.field(default_factory=list)

    def lock(self, table: Table) -> asyncio.Lock:
        """The lock that a flush, a DROP or an ALTER of the table holds."""
        return self.locks.setdefault(table.table_id, asyncio.Lock())

    async def flush(self, table: Table, *, users: Sequence[str] | None = None, reason: str = "statement") -> Flushed:
        """Flush everything committed before the call, of all copies or those of ``users``; one job.

        Raises the error that made the job fail; then everything is still hot.
        """
        with self.troubles.watching(table.table_id, "flush"), span("kalam.flush", table=str(table.name), reason=reason):
            return await self._flush(table, users, reason)

    async def _flush(self, table: Table, users: Sequence[str] | None, reason: str) -> Flushed:
        started = time.perf_counter()
        done = Flushed()
        async with self.lock(table):
            newest = self.catalogue.by_id.get(table.table_id)
            if newest is None:  # it was dropped meanwhile, and another one of its name is another one's matter
                return done
            table = newest
            waiting = await in_thread(Purpose.FILES, self._hot_copies, table, users)
            if not waiting:
                return done

            def result() -> dict[str, Any]:
                return {"rows_flushed": done.rows_flushed, "segments": done.segments, "bytes": done.bytes}

            async def work(job: Job) -> dict[str, Any]:
                await self._remove_unnamed()
                failures: list[KalamError] = []
                for number, (copy_id, user, upto_seq) in enumerate(waiting):
                    job.progress = {"copies": len(waiting), "copies_done": number, **result()}
                    try:
                        await self._flush_copy(table, copy_id, user, upto_seq, done)
                    except KalamError as exc:  # one user's folder is no reason to leave the others hot
                        failures.append(exc.as_value())
                        if len(failures) == FAILURES_MAX:
                            break
                if failures:
                    raise failures[0]
                return result()

            done.job_id = await self.jobs.run("flush", table.name, {"reason": reason}, work)
            done.duration_ms = round((time.perf_counter() - started) * 1e3, 3)
        log.info("flushed", table=str(table.name), rows=done.rows_flushed, segments=done.segments, reason=reason)
        return done

    async def _remove_unnamed(self) -> None:
        """Remove the files of flushes that could not be recorded.

        Not at once: a commit that failed may yet be found in the log of SQLite after a power cut, until another one has
        taken its place there. The start of a job is one.
        """
        paths, self._unnamed = self._unnamed, []
        if paths:
            await in_thread(Purpose.FILES, _remove, paths)

    def _hot_copies(self, table: Table, users: Sequence[str] | None) -> list[tuple[int, str, int]]:
        """Copy id, user and newest committed seq of each copy that has hot rows."""
        with self.database.reading() as conn:
            rows = conn.execute(
                """SELECT copy_id, user_id, max(first_seq + row_count - 1) FROM copies JOIN log USING (copy_id)
                WHERE table_id = ? AND flushed = 0 GROUP BY copy_id""",
                (table.table_id,),
            ).fetchall()
        return [row for row in rows if users is None or row[1] in users]

    async def _flush_copy(self, table: Table, copy_id: int, user: str, upto_seq: int, done: Flushed) -> None:
        folder = self.folders.folder(table, user)
        try:
            await in_thread(Purpose.FILES, make_directory, folder)
        except OSError as exc:
            raise storage_error(exc) from exc
        self._names += 1
        request = FlushRequest(
            database=str(self.database.path),
            table_id=table.table_id,
            schema_version=table.schema_version,
            copy_id=copy_id,
            upto_seq=upto_seq,
            columns=table.columns,
            history=dict(self.catalogue.history(table)),
            key=table.key,
            folder=str(folder),
            name=f"{self.folders.file_prefix(table)}{now_us()}-{self._names}",
            compression=table.stored_options.compression,
            segment_rows_max=self.segment_rows_max,
            forget_deleted_us=forgotten_before(table, now_us()),
        )
        crash_point("flush.before_write")
        answer = await self.process.run(request, FlushAnswer)
        crash_point("flush.before_rename")
        try:
            await in_thread(Purpose.FILES, rename_files, folder, answer.files)
        except OSError as exc:
            await in_thread(Purpose.FILES, _remove, paths_of(folder, answer.files))
            raise storage_error(exc) from exc
        crash_point("flush.after_rename")
        record = FlushRecord(self.store, table, Step(copy_id, user, upto_seq, answer))
        try:
            await self.database.submit(record)
        except Exception:
            self._unnamed += paths_of(folder, answer.files)
            raise
        crash_point("flush.after_commit")
        written_bytes = sum(file.byte_count for file in answer.files)
        done.rows_flushed += answer.row_count
        done.segments += len(answer.files)
        done.bytes += written_bytes
        self.flushed_rows += answer.row_count
        self.flushed_bytes += written_bytes


def paths_of(folder: Path, files: Sequence[WrittenFile]) -> list[Path]:
    """Where written files lie, or will when they have their names."""
    return [folder / name for file in files for name in (file.temporary, file.path)]


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        remove_file(path)


def forgotten_before(table: Table, now: int) -> int:
    """The time, like ``now`` in microseconds since 1970, before which deleted rows are removed for good."""
    retention_s = table.stored_options.deleted_retention_s
    return 0 if retention_s is None else now - retention_s * 1_000_000


def rename_files(folder: Path, files: Sequence[WrittenFile]) -> None:
    """Give written files their names, durably."""
    for file in files:
        os.rename(folder / file.temporary, folder / file.path)  # noqa: PTH104 - the names of the system calls
    fsync_directory(folder)
    upload(folder, [file.path for file in files])


class FlushRecord:
    """The transaction of a flush: names the segments, removes the versions, records the overrides."""

    cost = 1

    def __init__(self, store: CopyStore, table: Table, step: Step) -> None:
        self._store, self._table, self._step = store, table, step
        self._segments: list[Segment] = []
        self._copy: Copy | None = None

    def apply(self, conn: sqlite3.Connection) -> Any:
        """Change the database; memory follows after the commit.

        A copy that is not in memory now may be loaded later in this transaction; it will know of this flush already.
        """
        step, now = self._step, now_us()
        copy = self._copy = self._store.loaded.get((self._table.table_id, step.user))
        self._segments = [
            self._store.insert_segment(conn, step.copy_id, self._table, file, now) for file in step.answer.files
        ]
        conn.executemany(
            "INSERT INTO overrides VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET seq = excluded.seq",
            ((step.copy_id, key, seq) for key, seq in step.answer.overriding()),
        )
        published = copy.published_seq if copy else 0
        conn.execute(
            "UPDATE copies SET flushed_seq = ?, published_seq = max(published_seq, ?) WHERE copy_id = ?",
            (step.upto_seq, published, step.copy_id),
        )
        # A version that has not been published yet stays in the log for the outbox, out of the readers' sight; so does
        # one that a view has not had.
        conn.execute(
            f"""DELETE FROM log WHERE copy_id = ? AND first_seq <= ? AND first_seq + row_count - 1 <=
            (SELECT min(published_seq, {READ_UPTO}) FROM copies WHERE copies.copy_id = log.copy_id)""",  # noqa: S608 - a constant
            (step.copy_id, step.upto_seq),
        )
        # Only those that are not marked yet: SQLite reads the whole payload of a row that it updates.
        conn.execute(
            "UPDATE log SET flushed = 1 WHERE copy_id = ? AND first_seq <= ? AND flushed = 0",
            (step.copy_id, step.upto_seq),
        )

    def committed(self) -> None:
        """Bring the copy in memory, if it was there, to the same state."""
        self._store.backlogs.pop((self._table.table_id, self._step.user), None)
        self._store.catalogue.note_changed(self._table.table_id)
        copy = self._copy
        if copy is None:
            return
        reader = StoredRows(self._table.key_columns)
        keys = StoredVersions(self._table.key_columns, self._store.catalogue.history(self._table))
        former = drop_flushed(
            copy,
            self._step.upto_seq,
            lambda chunk: keys_of(keys.unpack(chunk.payload, chunk.schema_version)),
        )
        let_go(former.single)
        copy.segments = (*copy.segments, *self._segments)
        if self._step.answer.overrides:
            new = {unpack_key(key, reader): seq for key, seq in self._step.answer.overriding()}
            copy.overrides = {**copy.overrides, **new}
        copy.publish_view()

    def rolled_back(self) -> None:
        """Forget the copy, which may have been loaded after the flush was applied."""
        self._store.forget(self._table.table_id, self._step.user)

    def announcements(self) -> list[Any]:
        """Nothing: a flush is no change."""
        return []
