"""A view of a GROUP BY with 997 groups: what it costs the inserts of its table, and filling it beside the same SELECT.

Inserts with the view and without take turns, and the best of each counts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from kalam.bench.figures import Figure, Unit
from kalam.bench.rows import NO_FLUSH, create_table
from kalam.bench.stage import NAMESPACE, Stage
from kalam.bench.view_costs import SELECT, measure_view_costs, wait_caught_up
from kalam.bench.view_lag import measure_view_lag

REFRESHES: Final = ("250ms", "0")
ALONE: Final = "the same inserts without a view"


def measure_views(stage: Stage) -> Iterator[Figure]:
    """Inserts, a fill, what views cost, and how soon they follow."""
    rows = stage.sizes.viewed_rows
    bare: list[float] = []
    kept: dict[str, list[tuple[float, float, float]]] = {refresh: [] for refresh in REFRESHES}
    table = ""
    for number in range(1, stage.sizes.rounds + 1):
        stage.progress.step(f"views: {rows:,} rows without a view and with one, round {number} of {stage.sizes.rounds}")
        bare.append(_inserted_s(stage, f"{NAMESPACE}.unviewed_{number}", rows))
        for refresh in REFRESHES:
            table = f"{NAMESPACE}.viewed_{number}_{refresh}"
            kept[refresh].append(_kept(stage, table, refresh, rows))
    for refresh, rounds in kept.items():
        seconds, lag_s, cost_s = min(rounds)
        yield Figure(
            name=f"inserts, refresh = '{refresh}'",
            situation=f"1,000 rows a message, a view of 997 groups, {rows:,} rows",
            unit=Unit.ROWS_PER_S,
            kalam=rows / seconds,
            bare=rows / min(bare),
            bare_engine=ALONE,
            note=f"the view was there {lag_s * 1_000:,.0f} ms after the last row, {cost_s / rows * 1e6:.1f} µs a row",
            detail={"viewed_rows": rows},
        )
    yield _filled(stage, table, rows)
    yield from measure_view_costs(stage)
    yield from measure_view_lag(stage)


def _inserted_s(stage: Stage, table: str, rows: int) -> float:
    stage.sql.run(create_table("SHARED", table, NO_FLUSH))
    return stage.insert(table, 0, rows).seconds


def _kept(stage: Stage, table: str, refresh: str, rows: int) -> tuple[float, float, float]:
    """How long the inserts took, how long after them the view was complete, and what keeping it took; in seconds."""
    stage.sql.run(create_table("SHARED", table, NO_FLUSH))
    view = f"{table}_view"
    stage.sql.run(f"CREATE MATERIALIZED VIEW {view} WITH (refresh = '{refresh}') AS {SELECT.format(table)}")
    stage.sql.count(view)  # which waits until it is filled
    with stage.inserter(table, 0, rows) as process:
        seconds = stage.inserted(process, rows).seconds
    lag_s = wait_caught_up(stage, view, rows)
    stage.wait_published()
    [[cost_ms]] = stage.sql.run(
        f"SELECT cost_ms FROM system.views WHERE view_name = '{view.partition('.')[2]}'"  # noqa: S608 - our own name
    ).rows
    return seconds, lag_s, cost_ms / 1_000


def _filled(stage: Stage, table: str, rows: int) -> Figure:
    """Filling the view anew, and its SELECT by turns."""
    stage.progress.step(f"views: filling a view of {rows:,} rows")
    fills, selects = [], []
    for _ in range(stage.sizes.rounds + 1):
        started_s = time.perf_counter()
        stage.sql.run(f"REFRESH MATERIALIZED VIEW {table}_view")
        fills.append(time.perf_counter() - started_s)
        started_s = time.perf_counter()
        stage.sql.run(SELECT.format(table))
        selects.append(time.perf_counter() - started_s)
    return Figure(
        name="filled anew",
        situation=f"a view of 997 groups over {rows:,} hot rows",
        unit=Unit.MS,
        kalam=min(fills) * 1_000,
        bare=min(selects) * 1_000,
        bare_engine="its SELECT",
        detail={"filled_rows": rows},
    )
