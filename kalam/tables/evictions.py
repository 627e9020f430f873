"""Accounting for what JetStream evicts, and its help where JetStream is late.

JetStream evicts and does not tell. But of all that a stream ever took, its last sequence tells how much, and its count
of messages what is left: the difference is gone. Of that, what was deleted on purpose and what was counted before is
known, and the rest was evicted since: by MAX_BUFFER as far as rows have come after it, by its age otherwise. So nothing
is counted twice or lost, whenever one looks. A table is looked at only while something can be evicted from it: a moment
after it was published to, and when its oldest event expires.

JetStream keeps expired events of a stream up to a second and a half; those are purged here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec
import structlog

from kalam.errors import KalamError
from kalam.names import numbered
from kalam.schema import StreamOptions, Table
from kalam.storage.log.disk_faults import disk_may_fail
from kalam.storage.log.troubles import log_failure
from kalam.storage.work.jobs import Jobs
from kalam.tables.ports import StreamPort, StreamState
from kalam.tables.stream_counters import StreamCounters, StreamCounts

log = structlog.get_logger(__name__)

TICK_S = 0.25
LOOK_S = 0.5
"""How long after a publish a table is looked at, and the least pause between looks at one that changes all the time."""
EXPIRED_S = 0.3
"""How long after its oldest event expired a table is looked at."""
FIRST_JOB_S = 0.5
JOB_PAUSE_S = 60.0
COUNTERS_PAUSE_S = 10.0


class Watch(msgspec.Struct):
    """A table that something may be evicted from; ``ttl`` and ``max_buffer`` wait to be recorded in a job.

    Times are monotonic seconds. ``lock`` is held while events are counted or deleted.
    """

    table: Table
    look_at: float
    ttl: int = 0
    max_buffer: int = 0
    noticed_at: float | None = None
    recorded_at: float | None = None
    created: str = ""  # when the stream was made, as the last look told
    noted: int = 0  # how often it was published to or altered
    lock: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)


class Evicted(msgspec.Struct, frozen=True):
    """How many events went, by reason."""

    ttl: int
    max_buffer: int


def account(options: StreamOptions, state: StreamState, accounted: int) -> Evicted:
    """What was evicted, if ``accounted`` of the events that are gone have been counted before."""
    gone = max(0, state.last_seq - state.messages - state.holes - accounted)
    pushed_out = max(0, state.last_seq - options.max_buffer_rows - accounted)
    max_buffer = min(gone, pushed_out) if options.retention_s is not None else gone
    return Evicted(gone - max_buffer, max_buffer)


def text(evicted: Evicted) -> str:
    """The message of an eviction job."""
    reasons = [f"{name}: {n}" for name, n in (("ttl", evicted.ttl), ("max_buffer", evicted.max_buffer)) if n]
    return f"Evicted {numbered(evicted.ttl + evicted.max_buffer, 'event')} ({', '.join(reasons)})"


class Evictions:
    """Watches the STREAM tables that hold something."""

    def __init__(self, port: StreamPort, counters: StreamCounters, jobs: Jobs) -> None:
        self._port, self._counters, self._jobs = port, counters, jobs
        self._watches: dict[int, Watch] = {}
        self._forgotten: set[int] = set()

    def note_publish(self, table: Table) -> None:
        """Look at a table soon, because it was published to or altered."""
        if table.table_id in self._forgotten:
            return
        watch = self._watch(table)
        watch.table = table
        watch.noted += 1
        watch.look_at = min(watch.look_at, time.monotonic() + LOOK_S)

    def lock(self, table: Table) -> asyncio.Lock:
        """What is held while events are deleted on purpose and counted as such."""
        return self._watch(table).lock

    def _watch(self, table: Table) -> Watch:
        watch = self._watches.get(table.table_id)
        if watch is None:
            watch = Watch(table, time.monotonic() + LOOK_S)
            if table.table_id not in self._forgotten:
                self._watches[table.table_id] = watch
        return watch

    def forget(self, table: Table) -> None:
        """A table was dropped."""
        self._forgotten.add(table.table_id)
        self._watches.pop(table.table_id, None)

    def start(self, tables: Iterable[Table]) -> None:
        """At the start: look at every table, for what went while the server was away."""
        for table in tables:
            self.note_publish(table)

    async def run(self) -> None:
        """Look at what is due, until cancelled."""
        written_at = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            for watch in [watch for watch in self._watches.values() if watch.look_at <= now]:
                await self._look_safely(watch)
            try:
                await self._record_due(now)
                if now - written_at >= COUNTERS_PAUSE_S:
                    written_at = now
                    await self._counters.write()
            except KalamError as exc:  # a full disk; what was counted is kept for the next time
                log.warning("evictions not recorded", reason=exc.detail)

    async def _look_safely(self, watch: Watch) -> None:
        watch.look_at = time.monotonic() + LOOK_S
        if watch.lock.locked():  # events are being deleted
            return
        try:
            async with watch.lock:
                await self._look(watch)
        except KalamError as exc:
            log.debug("stream not looked at", table=str(watch.table.name), reason=exc.detail)
        except Exception as exc:  # noqa: BLE001 - whatever it was, it is this table's, and there are others
            log_failure("stream not looked at", exc, table=str(watch.table.name))

    async def _look(self, watch: Watch) -> None:
        table, noted = watch.table, watch.noted
        state = await self._port.state(table)
        retention_s = table.stream_options.retention_s
        if retention_s is not None and state.first_at is not None:
            oldest = datetime.now(UTC) - timedelta(seconds=retention_s)
            if state.first_at < oldest - timedelta(seconds=TICK_S):
                await self._port.expire(table, oldest, state.last_seq)
                noted = watch.noted
                state = await self._port.state(table)
        self._count(watch, state)
        if noted == watch.noted:  # else it is looked at again soon, for what this answer did not know
            self._plan(watch, state)

    def _count(self, watch: Watch, state: StreamState) -> None:
        if watch.table.table_id not in self._watches:
            return  # dropped meanwhile
        counts = self._counters.of(watch.table.table_id)
        anew = watch.created not in ("", state.created)
        if anew or counts.accounted_gone > state.last_seq:
            counts.accounted_gone = 0
        watch.created = state.created
        evicted = account(watch.table.stream_options, state, counts.accounted_gone)
        counts.accounted_gone += evicted.ttl + evicted.max_buffer
        if evicted.ttl or evicted.max_buffer:
            _add(counts, watch, evicted)

    def _plan(self, watch: Watch, state: StreamState) -> None:
        retention_s = watch.table.stream_options.retention_s
        if retention_s is None or state.first_at is None:
            if watch.noticed_at is None:
                watch.look_at = float("inf")  # nothing can go before the next publish
            return
        expires_s = (state.first_at - datetime.now(UTC)).total_seconds() + retention_s
        watch.look_at = time.monotonic() + max(LOOK_S, expires_s + EXPIRED_S)

    async def _record_due(self, now: float) -> None:
        for watch in list(self._watches.values()):
            if watch.noticed_at is None or now - watch.noticed_at < FIRST_JOB_S:
                continue
            if watch.recorded_at is None or now - watch.recorded_at >= JOB_PAUSE_S:
                await self._record(watch)

    async def _record(self, watch: Watch) -> None:
        evicted = Evicted(watch.ttl, watch.max_buffer)
        result = {
            "evicted": evicted.ttl + evicted.max_buffer,
            "ttl": evicted.ttl,
            "max_buffer": evicted.max_buffer,
            "message": text(evicted),
        }
        options = watch.table.stream_options
        parameters = {"retention_s": options.retention_s, "max_buffer": options.max_buffer_rows}
        await self._counters.write()  # first, or a crash right after would have them counted and recorded again
        await self._jobs.record("stream_eviction", watch.table.name, parameters, result)
        watch.ttl -= evicted.ttl
        watch.max_buffer -= evicted.max_buffer
        watch.noticed_at, watch.recorded_at = None, time.monotonic()
        log.info("evicted", table=str(watch.table.name), **result)

    async def stop(self) -> None:
        """At the end: record what waits, and the counts."""
        with disk_may_fail("the record of evictions"):
            for watch in list(self._watches.values()):
                if watch.noticed_at is not None:
                    await self._record(watch)
            await self._counters.write()


def _add(counts: StreamCounts, watch: Watch, evicted: Evicted) -> None:
    counts.evicted_ttl += evicted.ttl
    counts.evicted_max_buffer += evicted.max_buffer
    watch.ttl += evicted.ttl
    watch.max_buffer += evicted.max_buffer
    if watch.noticed_at is None:
        watch.noticed_at = time.monotonic()
