"""What is on disk and what is on its way there: commits, hot rows, jobs, unpublished changes.

Nothing here has a table as a label: SHARED and USER tables are told apart by kind, so that ten thousand of them cost a
scrape as much as ten.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import structlog
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from kalam.engine import Stats
from kalam.metrics.families import counter, counters, gauge, gauges, histogram, histograms

log = structlog.get_logger(__name__)


class StorageMetrics(Collector):
    """Reads the counters of what is stored."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        yield from self._commits()
        yield from self._hot()
        yield from self._jobs()
        yield from self._outbox()
        yield from self._lake()
        yield from self._disk()

    def _commits(self) -> Iterator[Metric]:
        database = self._stats.database
        yield from counters((("kalam_commits", "SQLite transactions.", database.commits),))
        yield histogram("kalam_commit_seconds", "Time of a COMMIT, its fsync included.", database.commit_latency)
        yield from gauges((("kalam_writer_queue", "Writes that wait for their turn.", database.queued),))
        rows = (((kind.value, op), count) for (kind, op), count in list(self._stats.outbox.committed_rows.items()))
        text = "Rows of SHARED and USER tables that were committed."
        yield counter("kalam_rows_committed", text, ("kind", "op"), rows)

    def _hot(self) -> Iterator[Metric]:
        hot = {(kind.value,): part for kind, part in self._stats.hot_by_kind().items()}
        now_us = time.time_ns() // 1_000
        ages = {kind: 0 if p.oldest_us is None else max(now_us - p.oldest_us, 0) / 1e6 for kind, p in hot.items()}
        rows = ((kind, part.row_count) for kind, part in hot.items())
        yield gauge("kalam_hot_rows", "Rows that are not flushed to Parquet yet.", ("kind",), rows)
        sizes = ((kind, part.byte_count) for kind, part in hot.items())
        yield gauge("kalam_hot_bytes", "Their bytes, most of them in memory.", ("kind",), sizes)
        yield gauge("kalam_hot_oldest_seconds", "Age of the oldest of them.", ("kind",), ages.items())

    def _jobs(self) -> Iterator[Metric]:
        jobs, flusher = self._stats.jobs, self._stats.flusher
        yield gauge("kalam_jobs", "Jobs that run, by type.", ("type",), (((t,), n) for t, n in jobs.running().items()))
        text = "Jobs that ended, by type and status."
        yield counter("kalam_jobs_ended", text, ("type", "status"), list(jobs.ended.items()))
        yield histograms("kalam_job_seconds", "How long jobs took, by type.", "type", list(jobs.durations.items()))
        yield from counters(
            (
                ("kalam_flushed_rows", "Rows that were flushed to Parquet.", flusher.flushed_rows),
                ("kalam_flushed_bytes", "Bytes of Parquet that flushes wrote.", flusher.flushed_bytes),
            )
        )
        failing = len(self._stats.schedule.failing)
        yield from gauges((("kalam_flush_failing_tables", "Tables whose last flush failed.", failing),))

    def _outbox(self) -> Iterator[Metric]:
        outbox = self._stats.outbox
        waiting = outbox.waiting()
        age_s = 0.0 if waiting.oldest_us is None else max(time.time() - waiting.oldest_us / 1e6, 0.0)
        yield from counters((("kalam_changes_published", "Changes published on the feeds.", outbox.published_rows),))
        yield from gauges(
            (
                ("kalam_outbox_changes", "Committed changes that are not yet published.", waiting.changes),
                ("kalam_outbox_bytes", "Their bytes.", outbox.byte_count),
                ("kalam_outbox_oldest_seconds", "Age of the oldest of them.", age_s),
            )
        )

    def _lake(self) -> Iterator[Metric]:
        work, now = self._stats.lake.work, self._stats.lake.figures()
        yield histogram("kalam_lake_commit_seconds", "How long commits to the lake took.", work.durations)
        yield from counters((("kalam_lake_failures", "Commits to the lake that failed.", work.failures),))
        yield from gauges(
            (
                ("kalam_lake_tables", "Tables whose files for other engines are made.", now.tables),
                ("kalam_lake_lag_seconds", "How long the lake has been behind a flush, at most.", now.lag_s),
                ("kalam_lake_metadata_bytes", "Bytes of the lake's metadata.", now.metadata_bytes),
                ("kalam_lake_kept_bytes", "Replaced segments kept for other engines.", now.kept_bytes),
            )
        )

    def _disk(self) -> Iterator[Metric]:
        try:
            now = self._stats.disk()
        except OSError as exc:  # a gap in the picture, and no reason to show nothing
            log.warning("the disk cannot be asked", error=str(exc))
            return
        yield from gauges(
            (
                ("kalam_database_bytes", "Size of kalam.db.", now.database_bytes),
                ("kalam_wal_bytes", "Size of its write-ahead log.", now.log_bytes),
                ("kalam_disk_free_bytes", "Free bytes on the disk of the data directory.", now.free_bytes),
            )
        )
