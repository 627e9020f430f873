"""What is counted for single tables, and the totals.

The law: a scrape does not grow with the number of tables. Only the first ``metrics_tables_max`` STREAM tables, in the
order of their creation, have series of their own; which those are changes only when one is dropped. The totals count
all of them. No user is a label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from heapq import nsmallest
from itertools import islice
from operator import itemgetter

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from kalam.engine import Stats
from kalam.metrics.families import counter, gauge
from kalam.tables.stream_counters import StreamCounts

OUTCOMES = {
    "published": "Events published to the stream.",
    "discarded": "Events of an EPHEMERAL table that nobody listened for.",
    "rejected": "Insert messages refused, and rows alone.",
    "evicted_ttl": "Events evicted because of RETENTION.",
    "evicted_max_buffer": "Events evicted because of MAX_BUFFER.",
    "undecodable": "Messages of others on its subject that were no rows.",
}
TOTALS = [name for name in StreamCounts.__struct_fields__ if name in (*OUTCOMES, "deleted")]


class TableMetrics(Collector):
    """Reads the counters of tables."""

    def __init__(self, stats: Stats, tables_max: int) -> None:
        self._stats, self._tables_max = stats, tables_max

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        kinds = Counter(table.kind.value for table in self._stats.catalogue.tables.values())
        yield gauge("kalam_tables", "Tables, by kind.", ("kind",), (((kind,), count) for kind, count in kinds.items()))
        yield from self._streams()
        yield self._lost()
        yield self._damaged()
        yield from self._troubles()

    def _streams(self) -> Iterator[Metric]:
        counters = self._stats.events
        totals = counters.totals()
        yield counter(
            "kalam_stream_events",
            "Events of all STREAM tables, by what became of them.",
            ("outcome",),
            (((name,), getattr(totals, name)) for name in TOTALS),
        )
        shown = [
            (table.name, counts)
            for table_id, counts in nsmallest(self._tables_max, counters.items(), key=itemgetter(0))
            if (table := self._stats.catalogue.by_id.get(table_id)) is not None
        ]
        for name, text in OUTCOMES.items():
            values = (((str(table),), getattr(counts, name)) for table, counts in shown)
            yield counter(f"kalam_stream_{name}", f"STREAM tables: {text}", ("table",), values)

    def _lost(self) -> Metric:
        values = (((stream,), end.lost) for stream, end in self._stats.ends.losses())
        text = "Events that a stream of the broker had and has lost."
        return counter("kalam_lost_events", text, ("stream",), islice(values, self._tables_max))

    def _damaged(self) -> Metric:
        found = Counter(segment.table_id for segment in self._stats.flusher.folders.checks.damaged())
        known = self._stats.catalogue.by_id
        values = (((str(known[table_id].name),), count) for table_id, count in found.items() if table_id in known)
        shown = islice(values, self._tables_max)
        return gauge("kalam_damaged_segments", "Segments found to be damaged.", ("table",), shown)

    def _troubles(self) -> Iterator[Metric]:
        stats, known = self._stats, self._stats.catalogue.by_id
        found = [(known[table_id], what) for table_id, what, _ in stats.troubles if table_id in known]
        shown = (((str(table.name), what), 1) for table, what in found[: self._tables_max])
        text = "1 for what cannot be done for a table at the moment."
        yield gauge("kalam_table_trouble", text, ("table", "what"), shown)
        counts = Counter(what for _, what in found)
        text = "Tables for which it cannot be done at the moment."
        yield gauge("kalam_tables_in_trouble", text, ("what",), (((what,), n) for what, n in counts.items()))
        unclaimed = ((("segment",), stats.unclaimed.files), (("stream",), len(stats.unclaimed.streams)))
        yield gauge("kalam_unclaimed", "Segments and streams that the catalogue does not name.", ("kind",), unclaimed)
