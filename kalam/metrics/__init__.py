"""The server's metrics, read from its parts when Prometheus asks."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Info, ProcessCollector

from kalam import __version__
from kalam.engine import Stats
from kalam.engine.inserts import Inserts
from kalam.metrics.server import BrokerCounts, RequestCounts, ServerMetrics
from kalam.metrics.storage import StorageMetrics
from kalam.metrics.tables import TableMetrics
from kalam.storage.log.database import Database
from kalam.tables.outbox import Outbox


def add_metrics(
    registry: CollectorRegistry, stats: Stats, requests: RequestCounts, broker: BrokerCounts, *, tables_max: int
) -> None:
    """Show the server's metrics in ``registry``, and of STREAM tables those of the first ``tables_max``."""
    for collector in (ServerMetrics(stats, requests, broker), StorageMetrics(stats), TableMetrics(stats, tables_max)):
        registry.register(collector)
    ProcessCollector(registry=registry)
    Info("kalam_build", "What runs.", registry=registry).info({"version": __version__})


def statistics(inserts: Inserts, outbox: Outbox, database: Database) -> list[tuple[str, float]]:
    """The rows of ``system.stats``."""
    return [
        ("rows_accepted", float(inserts.accepted_rows)),
        ("rows_in_flight", float(inserts.rows_inflight)),
        ("commits", float(database.commits)),
        ("changes_published", float(outbox.published_rows)),
        ("outbox_bytes", float(outbox.byte_count)),
    ]
