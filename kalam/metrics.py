"""The server's metrics, read from its parts when Prometheus asks."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kalam.engine import Engine, Inserts
from kalam.storage.database import Database
from kalam.tables.outbox import Outbox


class RequestCounts(Protocol):
    """What the request door counts."""

    messages: int
    rejected: Counter[str]


class ServerMetrics(Collector):
    """Reads the counters of a server."""

    def __init__(self, engine: Engine, requests: RequestCounts) -> None:
        self._engine, self._requests = engine, requests
        self._loop = asyncio.get_running_loop()

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        engine, requests = self._engine, self._requests
        counters = (
            ("kalam_insert_messages", "Insert messages taken from NATS.", requests.messages),
            ("kalam_rows_accepted", "Rows that were stored and acknowledged.", engine.inserts.accepted_rows),
            ("kalam_commits", "SQLite transactions.", engine.database.commits),
            ("kalam_changes_published", "Changes published on the feeds.", engine.outbox.published_rows),
        )
        gauges = (
            ("kalam_rows_in_flight", "Rows that wait for their commit or ack.", engine.inserts.rows_inflight),
            ("kalam_outbox_bytes", "Committed changes that are not yet published, in bytes.", engine.outbox.byte_count),
            ("kalam_tables", "Tables.", len(engine.catalogue.tables)),
            ("kalam_live_queries", "Live queries that are open.", len(engine.live.registry.queries())),
            ("kalam_tasks", "Tasks of the event loop.", len(asyncio.all_tasks(self._loop))),
            ("kalam_broker_connected", "1 while the broker is connected.", int(engine.broker_connected())),
        )
        for name, text, value in counters:
            yield CounterMetricFamily(name, text, value=value)
        for name, text, value in gauges:
            yield GaugeMetricFamily(name, text, value=value)
        yield from self._streams()
        yield self._damaged()
        yield from self._troubles()
        rejected = CounterMetricFamily("kalam_inserts_rejected", "Insert messages refused, by code.", labels=["code"])
        for code, count in requests.rejected.items():
            rejected.add_metric([code], count)
        yield rejected

    def _damaged(self) -> Metric:
        family = GaugeMetricFamily("kalam_damaged_segments", "Segments found to be damaged.", labels=["table"])
        for table_id, count in Counter(one.table_id for one in self._engine.flusher.folders.checks.damaged()).items():
            table = self._engine.catalogue.by_id.get(table_id)
            if table is not None:
                family.add_metric([str(table.name)], count)
        return family

    def _troubles(self) -> Iterator[Metric]:
        engine = self._engine
        troubles = GaugeMetricFamily(
            "kalam_table_trouble", "1 for what cannot be done for a table at the moment.", labels=["table", "what"]
        )
        for table_id, what, _ in engine.troubles:
            table = engine.catalogue.by_id.get(table_id)
            if table is not None:
                troubles.add_metric([str(table.name), what], 1)
        yield troubles
        unclaimed = GaugeMetricFamily(
            "kalam_unclaimed", "Segments and streams that the catalogue does not name.", labels=["kind"]
        )
        unclaimed.add_metric(["segment"], engine.unclaimed.files)
        unclaimed.add_metric(["stream"], len(engine.unclaimed.streams))
        yield unclaimed

    def _streams(self) -> Iterator[Metric]:
        counters = self._engine.streams.counters
        for name, text in (
            ("published", "Events published to the stream."),
            ("discarded", "Events of an EPHEMERAL table that nobody listened for."),
            ("rejected", "Insert messages refused."),
            ("evicted_ttl", "Events evicted because of RETENTION."),
            ("evicted_max_buffer", "Events evicted because of MAX_BUFFER."),
            ("undecodable", "Messages of others on its subject that were no rows."),
        ):
            family = CounterMetricFamily(f"kalam_stream_{name}", f"STREAM tables: {text}", labels=["table"])
            for table_id, counts in counters.items():
                table = self._engine.catalogue.by_id.get(table_id)
                if table is not None:
                    family.add_metric([str(table.name)], getattr(counts, name))
            yield family


def add_metrics(registry: CollectorRegistry, engine: Engine, requests: RequestCounts) -> None:
    """Show the server's metrics in ``registry``."""
    registry.register(ServerMetrics(engine, requests))


def statistics(inserts: Inserts, outbox: Outbox, database: Database) -> list[tuple[str, float]]:
    """The rows of ``system.stats``."""
    return [
        ("rows_accepted", float(inserts.accepted_rows)),
        ("rows_in_flight", float(inserts.rows_inflight)),
        ("commits", float(database.commits)),
        ("changes_published", float(outbox.published_rows)),
        ("outbox_bytes", float(outbox.byte_count)),
    ]
