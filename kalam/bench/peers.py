"""Kalam beside what one would take or write instead: a consumer by hand, PostgreSQL, and JetStream by hand.

All that speaks NATS does so at the same broker. Each turn asks one side after the other, and the medians of the turns
count: a turn is short, and machines are not quiet.
"""

from __future__ import annotations

from collections.abc import Iterator

from kalam.bench.events_by_hand import measure_events
from kalam.bench.figures import Figure
from kalam.bench.live_by_hand import measure_live_query
from kalam.bench.stage import Stage
from kalam.bench.stored_by_hand import measure_stored


def measure_peers(stage: Stage) -> Iterator[Figure]:
    """Inserts, live queries, events; rows by key are among ``stored_tables``, queries in ``select``."""
    yield from measure_stored(stage)
    yield from measure_live_query(stage)
    yield from measure_events(stage)
