"""Six analytic queries over HTTP beside DataFusion in process, on the same files: what a report asks of all rows.

Each turn asks every query of one and of the other, once before it counts, and the medians of the turns count.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Final

from kalam.bench.bare_datafusion import TABLE as BARE_TABLE
from kalam.bench.bare_datafusion import Answered, DatafusionTask
from kalam.bench.figures import Figure, Unit
from kalam.bench.process import Process
from kalam.bench.stage import Stage
from kalam.cli.failure import CommandFailed

BARE_ENGINE: Final = "DataFusion on the same files"


def queries(table: str) -> dict[str, str]:
    """The queries by name; each answers in one order only, and with few rows."""
    return {
        "totals": f"SELECT COUNT(*), SUM(status), MIN(latency), MAX(latency) FROM {table} WHERE ok",  # noqa: S608 - our own table, here and below
        "group by two": f"SELECT tag, status, COUNT(*), MAX(latency) FROM {table} "  # noqa: S608
        "GROUP BY tag, status ORDER BY tag, status",
        "10 busiest of 5,003": f"SELECT user_id, COUNT(*) AS n, MAX(latency) FROM {table} "  # noqa: S608
        "GROUP BY user_id ORDER BY n DESC, user_id LIMIT 10",
        "distinct": f"SELECT COUNT(DISTINCT user_id), COUNT(DISTINCT url) FROM {table}",  # noqa: S608
        "by minute": f"SELECT date_part('minute', ts) AS minute, COUNT(*), MAX(latency) FROM {table} "  # noqa: S608
        "WHERE status >= 400 GROUP BY minute ORDER BY minute",
        "text filtered": f"SELECT url, COUNT(*) AS n FROM {table} WHERE url LIKE '/item/1%' AND tag = 'eu' "  # noqa: S608
        "GROUP BY url ORDER BY n DESC, url LIMIT 10",
    }


def measure_analytic(stage: Stage, table: str, segments: Path, situation: str) -> Iterator[Figure]:
    """Each query, and all of them together."""
    own: dict[str, list[float]] = {name: [] for name in queries(table)}
    bare: dict[str, list[float]] = {name: [] for name in queries(table)}
    with Process("bare_datafusion", _task(segments), stage.log) as datafusion:
        datafusion.wait_ready()
        for turn in range(stage.sizes.query_runs):
            stage.progress.step(f"select: {situation}, turn {turn + 1} of {stage.sizes.query_runs}")
            datafusion.go()
            answered = datafusion.result(Answered)
            for name, text in queries(table).items():
                _check_alike(name, stage.sql.run(text).rows[0], answered)
                own[name].append(stage.sql.run(text).wall_ms)
                bare[name].append(answered.median_ms[name])
    of_each = {name: (median(own[name]), median(bare[name])) for name in own}
    together = tuple(map(sum, zip(*of_each.values(), strict=True)))
    for name, (kalam_ms, bare_ms) in {**of_each, "six together": together}.items():
        yield Figure(
            name=name,
            situation=situation,
            unit=Unit.MS,
            kalam=kalam_ms,
            bare=bare_ms,
            bare_engine=BARE_ENGINE,
            note="over HTTP",
            detail={"analytic": True},
        )


def _task(segments: Path) -> DatafusionTask:
    return DatafusionTask(folder=str(segments), queries=queries(BARE_TABLE), runs=1)


def _check_alike(name: str, first_row: list[object], answered: Answered) -> None:
    if first_row != answered.first_rows[name]:
        raise CommandFailed(f"error: {name} answers {first_row} instead of {answered.first_rows[name]}")
