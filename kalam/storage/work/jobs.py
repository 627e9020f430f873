"""Jobs: long work as rows of ``system.jobs``. A job that dies with the process is ``failed`` after the restart."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Coroutine
from typing import Any, Literal

import msgspec

from kalam.errors import Cancelled, KalamError, NotFound, without_folders
from kalam.latency import Latency
from kalam.names import TableName
from kalam.rows.ids import UuidV7s
from kalam.storage.log.database import Database, now_us

JobType = Literal["flush", "stream_eviction", "deleted_cleanup", "compaction", "check", "table_deletion", "change"]
Status = Literal["running", "completed", "failed", "cancelled"]


class Job(msgspec.Struct):
    """A job that runs: its id, and how far it is, as ``system.jobs`` shows it in ``result``.

    ``cancelled_by`` says what ended it before its time.
    """

    job_id: str
    job_type: JobType
    table: TableName
    progress: dict[str, Any] = msgspec.field(default_factory=dict)
    cancelled_by: str | None = None


class Jobs:
    """The table of jobs. ``on_finished`` is told of each job that ends, for the event ``job.finished``.

    ``ended`` counts those that ended since the start, by type and status, and ``durations`` how long they took.
    """

    def __init__(self, database: Database, on_finished: Callable[[dict[str, Any]], None] = lambda job: None) -> None:
        self._database = database
        self._ids = UuidV7s()
        self._running: dict[str, tuple[Job, asyncio.Task[Any]]] = {}
        self._unrecorded: list[tuple[str, Status, dict[str, Any] | None, str | None]] = []
        self.on_finished = on_finished
        self.ended: Counter[tuple[JobType, Status]] = Counter()
        self.durations: defaultdict[JobType, Latency] = defaultdict(Latency)

    def running(self) -> Counter[JobType]:
        """How many run now, by type."""
        return Counter(job.job_type for job, _ in self._running.values())

    async def run(
        self,
        job_type: JobType,
        table: TableName,
        parameters: dict[str, Any],
        work: Callable[[Job], Coroutine[Any, Any, dict[str, Any]]],
    ) -> str:
        """Do the work as a job and return its id; what it returns is the job's result.

        Raises what the work raises, and Cancelled when the job was ended before its time.
        """
        job = Job(await self.start(job_type, table, parameters), job_type, table)
        task = asyncio.create_task(work(job), name=f"{job_type} {table}")
        self._running[job.job_id] = (job, task)
        started = time.perf_counter()
        try:
            result = await task
        except BaseException as exc:
            cancelled = isinstance(exc, asyncio.CancelledError)
            detail = job.cancelled_by or without_folders(str(exc)) or type(exc).__name__
            status: Status = "cancelled" if cancelled else "failed"
            self.ended[job_type, status] += 1
            await self._end(job.job_id, status, None, detail)
            if cancelled and job.cancelled_by is not None:
                raise Cancelled(f"job {job.job_id} ({job_type} of table {table}) was cancelled: {detail}") from exc
            raise
        finally:
            del self._running[job.job_id]
            del task  # or an error would hold itself, and with its frames the segments that a compaction replaced
            self.durations[job_type].record(time.perf_counter() - started)
        self.ended[job_type, "completed"] += 1
        await self._end(job.job_id, "completed", result, None)
        return job.job_id

    async def kill(self, job_id: str) -> None:
        """Cancel a job that runs and wait until it has ended; raises NotFound for any other."""
        known = self._running.get(job_id)
        if known is None:
            raise NotFound(f"no job {job_id!r} runs", hint="SHOW JOBS lists the jobs; only a running one can be killed")
        await self._cancel(known, "killed by KILL JOB")

    async def cancel(self, table: TableName, job_types: Container[JobType], why: str) -> None:
        """Cancel the jobs of these types that run for a table, and wait until they have ended."""
        for known in list(self._running.values()):
            if known[0].table == table and known[0].job_type in job_types:
                await self._cancel(known, why)

    async def _cancel(self, known: tuple[Job, asyncio.Task[Any]], why: str) -> None:
        job, task = known
        job.cancelled_by = why
        task.cancel()
        await asyncio.wait([task])

    def progress(self) -> dict[str, str]:
        """How far each running job is, as JSON text, by its id."""
        return {job_id: _json(job.progress) or "" for job_id, (job, _) in list(self._running.items()) if job.progress}

    async def start(self, job_type: JobType, table: TableName, parameters: dict[str, Any]) -> str:
        """Record a job that runs now; returns its id."""
        job_id, now = self._ids.take(1)[0], now_us()
        row = (job_id, job_type, table.namespace, table.table, "running", _json(parameters), None, None, now, now, None)
        ended = list(self._unrecorded)

        def insert(conn: sqlite3.Connection) -> None:
            conn.execute("INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            for other in ended:
                _finish(conn, *other)

        await self._database.write(insert)
        self._unrecorded = [other for other in self._unrecorded if other not in ended]
        return job_id

    async def _end(self, job_id: str, status: Status, result: dict[str, Any] | None, error: str | None) -> None:
        """Record the end of a job; if the disk refuses that, the next job's start records it: the work is as it is."""
        try:
            await self.finish(job_id, status, result=result, error=error)
        except KalamError:
            self._unrecorded.append((job_id, status, result, error))

    async def finish(
        self, job_id: str, status: Status, *, result: dict[str, Any] | None = None, error: str | None = None
    ) -> None:
        """Record how a job ended."""
        what = await self._database.write(lambda conn: _finish(conn, job_id, status, result, error))
        self.on_finished({"job_id": job_id, **what, "status": status, "result": result, "error": error})

    async def record(
        self, job_type: JobType, table: TableName, parameters: dict[str, Any], result: dict[str, Any]
    ) -> None:
        """Record a job that is over already."""
        job_id, now = self._ids.take(1)[0], now_us()
        values = (job_id, job_type, table.namespace, table.table, "completed", _json(parameters), _json(result))
        await self._database.write(
            lambda conn: conn.execute(
                "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, NULL, ?, ?, ?)", (*values, now, now, now)
            )
        )
        self.ended[job_type, "completed"] += 1
        what = {"job_type": job_type, "namespace": table.namespace, "table": table.table}
        self.on_finished({"job_id": job_id, **what, "status": "completed", "result": result, "error": None})

    async def discard(self, job_id: str) -> None:
        """Remove a job that turned out to have nothing to do."""
        await self._database.write(lambda conn: conn.execute("DELETE FROM jobs WHERE job_id = ?", (job_id,)))

    async def recover(self, history_s: int) -> None:
        """At the start: what was running has failed, and what is older than the history goes."""
        now = now_us()

        def update(conn: sqlite3.Connection) -> None:
            conn.execute(
                "UPDATE jobs SET status = 'failed', error = 'the server stopped while the job ran', finished_us = ? "
                "WHERE status = 'running'",
                (now,),
            )
            conn.execute("DELETE FROM jobs WHERE finished_us < ?", (now - history_s * 1_000_000,))

        await self._database.write(update)


def _finish(
    conn: sqlite3.Connection, job_id: str, status: Status, result: dict[str, Any] | None, error: str | None
) -> dict[str, Any]:
    found = conn.execute(
        "UPDATE jobs SET status = ?, result = ?, error = ?, finished_us = ? WHERE job_id = ? "
        "RETURNING job_type, namespace, table_name",
        (status, _json(result), error, now_us(), job_id),
    ).fetchall()
    return dict(zip(("job_type", "namespace", "table"), found[0], strict=True)) if found else {}


def _json(value: dict[str, Any] | None) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()
