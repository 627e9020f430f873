"""The last fifteen minutes of the server, as the console's *Overview* draws them: a ring of samples.

The server keeps it, so that a page that has just been opened shows what was before. A sample every five seconds costs
well under a millisecond: an idle server stays idle.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec
import structlog

from kalam.engine import Stats
from kalam.latency import quantile
from kalam.names import TableName

EVERY_S: Final = 5
SAMPLES_MAX: Final = 15 * 60 // EVERY_S
BUSIEST: Final = 5
FRESH_S: Final = 1.0  # over a shorter time one row looks like a thousand a second
TABLE_SERIES: Final = "table_rows_per_s:"
log = structlog.get_logger(__name__)


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What only grows, at one moment; ``at`` is monotonic, ``tables`` the changes by table id."""

    at: float
    rows: int
    events: int
    inserts: tuple[int, ...]
    statements: tuple[int, ...]
    tables: Mapping[int, int]


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One point of every series; ``at`` is seconds since 1970, ``tables`` rows a second by table."""

    at: float
    values: Mapping[str, float | None]
    tables: Mapping[TableName, float]


class Overview:
    """Samples what a server counts while ``run`` runs."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._samples: deque[Sample] = deque(maxlen=SAMPLES_MAX)
        self._last = self._totals()

    async def run(self) -> None:
        """Take a sample now and then, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            now = self._totals()
            try:
                self._samples.append(self._sample(self._last, now))
            except OSError as exc:  # a disk that cannot be asked is a gap in the picture, and no reason to stop
                log.warning("no sample for the overview", error=str(exc))
            self._last = now

    def document(self, visible: Collection[TableName] | None) -> dict[str, Any]:
        """``{"every_s", "at": [times], "series": {name: [values]}}``, the oldest first.

        A rate is that of the pause before its sample. Who sees the ``visible`` tables only is told of them alone, and
        not of the server; None sees everything.
        """
        samples = list(self._samples)
        now = self._totals()
        if not samples or now.at - self._last.at >= FRESH_S:
            samples.append(self._sample(self._last, now))
        totals = samples[-1].values if visible is None else ()
        series: dict[str, list[float | None]] = {name: [sample.values[name] for sample in samples] for name in totals}
        for name in busiest(samples, visible):
            series[f"{TABLE_SERIES}{name}"] = [round(sample.tables.get(name, 0.0), 2) for sample in samples]
        return {"every_s": EVERY_S, "at": [round(sample.at, 3) for sample in samples], "series": series}

    def _totals(self) -> Totals:
        stats = self._stats
        counts = [counts for _, counts in stats.events.items()]
        return Totals(
            at=time.monotonic(),
            rows=stats.inserts.accepted_rows,
            events=stats.outbox.published_rows + sum(count.published for count in counts),
            inserts=tuple(stats.inserts.latency.counts),
            statements=tuple(stats.sql.latency.counts),
            tables=stats.changes_by_table(),
        )

    def _sample(self, before: Totals, now: Totals) -> Sample:
        stats = self._stats
        passed_s = max(now.at - before.at, 0.001)
        inserts = [new - old for new, old in zip(now.inserts, before.inserts, strict=True)]
        statements = [new - old for new, old in zip(now.statements, before.statements, strict=True)]
        hot, on_disk = stats.hot(), stats.disk()
        return Sample(
            at=time.time(),
            values={
                "rows_accepted_per_s": round((now.rows - before.rows) / passed_s, 2),
                "events_published_per_s": round((now.events - before.events) / passed_s, 2),
                "insert_p50_ms": _ms(quantile(inserts, 0.5)),
                "insert_p99_ms": _ms(quantile(inserts, 0.99)),
                "sql_p50_ms": _ms(quantile(statements, 0.5)),
                "sql_p99_ms": _ms(quantile(statements, 0.99)),
                "live_queries": len(stats.live.queries()),
                "hot_rows": hot.row_count,
                "hot_bytes": hot.byte_count,
                "flush_backlog_rows": hot.row_count,
                "unpublished_bytes": stats.outbox.byte_count,
                "wal_bytes": on_disk.log_bytes,
                "disk_free_bytes": on_disk.free_bytes,
                "broker_connected": int(stats.broker_connected()),
            },
            tables={
                table.name: (count - before.tables.get(table_id, 0)) / passed_s
                for table_id, count in now.tables.items()
                if count > before.tables.get(table_id, 0) and (table := stats.catalogue.by_id.get(table_id))
            },
        )


def busiest(samples: list[Sample], visible: Collection[TableName] | None = None) -> list[TableName]:
    """The tables that took most rows in all samples, the busiest first; of all, or of those that are ``visible``."""
    totals: dict[TableName, float] = {}
    for sample in samples:
        for name, rate in sample.tables.items():
            if visible is not None and name not in visible:
                continue
            totals[name] = totals.get(name, 0.0) + rate
    return sorted(totals, key=lambda name: (-totals[name], name))[:BUSIEST]


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
