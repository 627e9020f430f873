"""SHARED tables beyond plain inserts: by key, imported, compacted, with random keys, and for a long time."""

from __future__ import annotations

from collections.abc import Iterator

from kalam.bench.cold_points import measure_cold_points
from kalam.bench.compacted import measure_compacted
from kalam.bench.figures import Figure
from kalam.bench.imports import measure_imports
from kalam.bench.keyed import measure_keyed
from kalam.bench.lasting import measure_lasting
from kalam.bench.loads import measure_loads
from kalam.bench.random_keys import measure_random_keys
from kalam.bench.stage import Stage


def measure_stored_tables(stage: Stage) -> Iterator[Figure]:
    """One after another, the server's memory first, before anything else is in it."""
    yield from measure_lasting(stage)
    yield from measure_keyed(stage)
    yield from measure_cold_points(stage)
    yield from measure_imports(stage)
    yield from measure_loads(stage)
    yield from measure_compacted(stage)
    yield from measure_random_keys(stage)
