"""What views add to the processor time of the inserts of their table: of one view a row, of many, and of a refresh.

All of a server's processes count, until the views have had the last row and their changes are published. Tables with
views and without take turns, and the least of each counts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from kalam.bench import process_tree
from kalam.bench.figures import Figure, Unit
from kalam.bench.rows import NO_FLUSH, create_table
from kalam.bench.stage import NAMESPACE, POLL_S, Stage
from kalam.bench.triggered import triggered
from kalam.bench.view_client import SELECT as FOLLOWED
from kalam.bench.view_client import Shown, ViewClientTask, followed
from kalam.cli.failure import CommandFailed

SELECT: Final = """
    SELECT url, count(*) AS n, sum(status) AS total, avg(latency) AS mean, max(latency) AS most FROM {} GROUP BY url
"""
CAUGHT_UP_S: Final = 300.0
GROUPS: Final = 997
REFRESHED_ROWS: Final = 1_000
REFRESHES_PER_S: Final = 10


def measure_view_costs(stage: Stage) -> Iterator[Figure]:
    """A row in messages of two sizes, many views, a refresh."""
    if not process_tree.there():
        stage.progress.step("views: their costs are left out, for this system has no /proc")
        return
    yield from _of_a_row(stage)
    yield _of_many(stage)
    yield _of_a_refresh(stage)


@contextmanager
def viewed(stage: Stage, table: str, views: int, refresh: str, select: str = SELECT) -> Iterator[list[str]]:
    """A new table with so many views, all of them filled; they are dropped at the end."""
    stage.sql.run(create_table("SHARED", table, NO_FLUSH))
    names = [f"{table}_view_{number}" for number in range(views)]
    for name in names:
        stage.sql.run(f"CREATE MATERIALIZED VIEW {name} WITH (refresh = '{refresh}') AS {select.format(table)}")
    for name in names:
        stage.sql.count(name)  # which waits until it is filled
    yield names
    for name in names:
        stage.sql.run(f"DROP MATERIALIZED VIEW {name}")


def wait_caught_up(stage: Stage, view: str, rows: int) -> float:
    """Seconds until a view has so many rows counted; raises CommandFailed where it does not come to that."""
    started_s = time.monotonic()
    while time.monotonic() < started_s + CAUGHT_UP_S:
        [[counted]] = stage.sql.run(f"SELECT sum(n) FROM {view}").rows  # noqa: S608 - our own name
        if counted == rows:
            return time.monotonic() - started_s
        time.sleep(POLL_S)
    raise CommandFailed(f"error: {view} counts {counted} of {rows:,} rows")


def _cpu_s(stage: Stage, table: str, rows: int, *, views: int, each: int, refresh: str = "0") -> float:
    """The processor seconds of so many rows, ``each`` in a message."""
    with (
        viewed(stage, table, views, refresh) as names,
        stage.inserter(table, 0, rows, rows_per_message=each) as process,
    ):
        before = process_tree.cpu_s(stage.server.pid)
        stage.inserted(process, rows)
        for name in names:
            wait_caught_up(stage, name, rows)
        stage.wait_published()
        return process_tree.cpu_s(stage.server.pid) - before


def _of_a_row(stage: Stage) -> Iterator[Figure]:
    rows, rounds = stage.sizes.viewed_rows, stage.sizes.rounds
    with triggered(stage) as postgres:
        for each in (1_000, 5_000):
            ours: list[list[float]] = [[], []]
            theirs: list[list[float]] = [[], []]
            for number in range(1, rounds + 1):
                stage.progress.step(f"views: processor time, {each:,} rows a message, round {number} of {rounds}")
                for kept in (False, True):
                    table = f"{NAMESPACE}.cost_{each}_{number}_{kept:d}"
                    ours[kept].append(_cpu_s(stage, table, rows, views=int(kept), each=each))
                    if postgres is not None:
                        theirs[kept].append(postgres.cpu_s(rows, each, kept=kept))
            yield Figure(
                name="added for a row",
                situation=f"{each:,} rows a message, a view of {GROUPS} groups, refresh = '0'",
                unit=Unit.US,
                kalam=_added_us(ours, rows),
                bare=None if postgres is None else _added_us(theirs, rows),
                bare_engine=None if postgres is None else postgres.name,
                note=f"without a view {min(ours[False]) / rows * 1e6:.1f} µs",
                detail={"cost_rows": rows},
            )


def _added_us(spent: list[list[float]], rows: int) -> float:
    """What it is more a row, in microseconds."""
    without, kept = map(min, spent)
    return max(0.0, kept - without) / rows * 1e6


def _of_many(stage: Stage) -> Figure:
    many, rounds = stage.sizes.many_views, stage.sizes.rounds
    # What one view takes is little beside the rows themselves, so it needs more of them.
    sizes = {0: stage.sizes.viewed_rows, 1: stage.sizes.viewed_rows, many: stage.sizes.viewed_rows // 5}
    us: dict[int, list[float]] = {views: [] for views in sizes}
    for number in range(1, rounds + 1):
        stage.progress.step(f"views: processor time of {many} over one table, round {number} of {rounds}")
        for views, rows in sizes.items():
            table = f"{NAMESPACE}.many_{number}_{views}"
            us[views].append(_cpu_s(stage, table, rows, views=views, each=1_000, refresh="250ms") / rows * 1e6)
    without, one, all_of_them = (min(us[views]) for views in sizes)
    return Figure(
        name=f"added for a row by {many} views",
        situation=f"over one table, of {GROUPS} groups each, 1,000 rows a message, refresh = '250ms'",
        unit=Unit.US,
        kalam=max(0.0, all_of_them - without),
        bare=max(0.0, one - without),
        bare_engine="one view",
        detail={"many_rows": sizes[many]},
    )


def _of_a_refresh(stage: Stage) -> Figure:
    messages = round(REFRESHES_PER_S * stage.sizes.paced_s)
    stage.progress.step(f"views: {messages} refreshes of {REFRESHED_ROWS:,} rows")
    spent: list[float] = []
    shown: Shown | None = None
    for views in (0, 1):
        table = f"{NAMESPACE}.refreshed_{views}"
        with viewed(stage, table, views, "0", FOLLOWED) as names:
            before = process_tree.cpu_s(stage.server.pid)
            shown = followed(
                stage,
                ViewClientTask.of(stage, table, *names, messages=messages, each=REFRESHED_ROWS, per_s=REFRESHES_PER_S),
            )
            spent.append(process_tree.cpu_s(stage.server.pid) - before)
    assert shown is not None
    return Figure(
        name=f"a refresh of {REFRESHED_ROWS:,} rows",
        situation=f"a view of {GROUPS} groups, refresh = '0', {REFRESHES_PER_S} messages/s, with its changes published",
        unit=Unit.MS,
        kalam=max(0.0, spent[1] - spent[0]) / messages * 1e3,
        complete=shown.complete,
        note=shown.told,
        detail={"refreshed_rows": messages * REFRESHED_ROWS},
    )
