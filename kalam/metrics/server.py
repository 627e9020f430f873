"""What a server takes and answers: inserts, SQL, live queries, its broker."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Protocol

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from kalam.engine import Stats
from kalam.metrics.families import counter, counters, gauge, gauges, histogram


class RequestCounts(Protocol):
    """What the request door counts."""

    messages: int


class BrokerCounts(Protocol):
    """What the connection to the broker counts."""

    errors: Counter[str]
    losses: int


class ServerMetrics(Collector):
    """Reads the counters of a server."""

    def __init__(self, stats: Stats, requests: RequestCounts, broker: BrokerCounts) -> None:
        self._stats, self._requests, self._broker = stats, requests, broker
        self._loop = asyncio.get_running_loop()

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        yield from self._inserts()
        yield from self._sql()
        yield from self._live()
        yield from self._surroundings()

    def _inserts(self) -> Iterator[Metric]:
        inserts = self._stats.inserts
        yield from counters(
            (
                ("kalam_insert_messages", "Insert messages taken from NATS.", self._requests.messages),
                ("kalam_rows_accepted", "Rows that were stored and acknowledged.", inserts.accepted_rows),
            )
        )
        yield from gauges((("kalam_rows_in_flight", "Rows that wait for their commit or ack.", inserts.rows_inflight),))
        yield histogram("kalam_insert_seconds", "Time from an insert message to its answer.", inserts.latency)
        rejected = (((code,), count) for code, count in list(inserts.rejected.items()))
        yield counter(
            "kalam_inserts_rejected",
            "Insert messages and bodies refused, and rows alone, by code.",
            ("code",),
            rejected,
        )

    def _sql(self) -> Iterator[Metric]:
        counts, running = self._stats.sql, self._stats.running
        text = "SQL requests by door and by what became of them: ok, or the code of the error."
        yield counter("kalam_sql_requests", text, ("door", "code"), list(counts.requests.items()))
        yield histogram("kalam_sql_seconds", "Time that a SQL request took; streamed answers apart.", counts.latency)
        states = Counter((query.door, query.state) for query in running)
        yield gauge("kalam_queries", "SQL requests that run, by door and state.", ("door", "state"), states.items())

    def _live(self) -> Iterator[Metric]:
        tally, queries = self._stats.live.tally, self._stats.live.queries()
        yield from gauges((("kalam_live_queries", "Live queries that are open.", len(queries)),))
        yield from counters(
            (
                ("kalam_live_queries_opened", "Live queries that were opened.", tally.opened),
                ("kalam_live_changes", "Changes delivered to live queries.", tally.delivered(queries)),
                ("kalam_live_resyncs", "Times that a live query had to begin anew.", tally.resyncs(queries)),
            )
        )

    def _surroundings(self) -> Iterator[Metric]:
        connected = int(self._stats.broker_connected())
        yield from gauges(
            (
                ("kalam_broker_connected", "1 while the broker is connected.", connected),
                ("kalam_tasks", "Tasks of the event loop.", len(asyncio.all_tasks(self._loop))),
            )
        )
        yield from counters(
            (("kalam_broker_disconnects", "Times that the connection to the broker was lost.", self._broker.losses),)
        )
        errors = (((kind,), count) for kind, count in list(self._broker.errors.items()))
        yield counter("kalam_broker_errors", "Complaints of and about the broker, by kind.", ("kind",), errors)
