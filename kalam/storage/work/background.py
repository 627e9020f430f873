"""The storage's own work: flushes, compactions and clean-ups, with their processes and schedules, put together."""

from __future__ import annotations

from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from kalam.backoff import Backoffs
from kalam.settings import Settings
from kalam.storage.log.staged import Staged
from kalam.storage.opened import Storage
from kalam.storage.segments.replaced import ReplacedFiles
from kalam.storage.work import compact_worker, flush_worker
from kalam.storage.work.compaction import Compactor
from kalam.storage.work.compaction_schedule import CompactionSchedule
from kalam.storage.work.deleted_cleanup import DeletedCleanup
from kalam.storage.work.flush import Flusher
from kalam.storage.work.flush_schedule import FlushSchedule
from kalam.storage.work.jobs import Jobs
from kalam.storage.work.worker_process import WorkerProcess

RETRY_S_MIN = 1.0
"""How long what failed for a table waits before it is tried again, the first time."""


class Background(msgspec.Struct, frozen=True):
    """What runs beside the statements, and what statements ask of it."""

    jobs: Jobs
    schedule: FlushSchedule
    compactor: Compactor
    compactions: CompactionSchedule
    cleanup: DeletedCleanup
    staged: Staged

    def loops(self) -> list[tuple[Coroutine[Any, Any, None], str]]:
        """The loops that act on the schedules, with their names."""
        return [
            (self.schedule.run(), "flush schedule"),
            (self.compactions.run(), "compaction schedule"),
            (self.cleanup.run(), "clean-up of deleted rows"),
            (self.staged.run(), "clean-up of changes that are told"),
        ]


def open_background(stack: AsyncExitStack, settings: Settings, storage: Storage, jobs: Jobs) -> Background:
    """Put everything together; the processes end with the stack."""
    processes = [
        WorkerProcess(module, settings.flush_worker_idle_s)
        for module in (flush_worker.__name__, compact_worker.__name__)
    ]
    for process in processes:
        stack.push_async_callback(process.stop)
    store, folders, cold_keys, troubles = storage.store, storage.folders, storage.cold_keys, storage.troubles
    database, catalogue, rows_max = storage.database, storage.catalogue, settings.segment_rows_max

    def retries() -> Backoffs:
        return Backoffs(RETRY_S_MIN, settings.flush_retry_s_max)

    flusher = Flusher(database, catalogue, store, jobs, folders, processes[0], troubles, rows_max)
    compactor = Compactor(store, jobs, folders, cold_keys, processes[1], ReplacedFiles(), troubles, rows_max)
    schedule = FlushSchedule(catalogue, store, flusher, settings.user_flush_rows_min, settings.hot_bytes_max, retries())
    compactions = CompactionSchedule(
        database,
        catalogue,
        compactor,
        settings.compaction_segments_min,
        settings.compaction_overrides_percent,
        retries(),
    )
    cleanup = DeletedCleanup(catalogue, flusher, compactor, settings.deleted_cleanup_interval_s, retries())
    return Background(jobs, schedule, compactor, compactions, cleanup, storage.staged)
