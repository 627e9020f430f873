"""The bare engine of SELECT: DataFusion on the Parquet files that the server wrote, and nothing hot beside them."""

from __future__ import annotations

import statistics
import time
from typing import Any, Final

import msgspec

from kalam.bench.task import answer, read_task, say_ready, wait_go

TABLE: Final = "bare"


class DatafusionTask(msgspec.Struct, kw_only=True):
    """At each ``go`` run each query ``runs`` times on the files in ``folder``, which it knows as the table ``bare``."""

    folder: str
    queries: dict[str, str]
    runs: int


class Answered(msgspec.Struct, kw_only=True):
    """The median time of each query, and the first row of its result."""

    median_ms: dict[str, float]
    first_rows: dict[str, list[Any]]


def main(task: DatafusionTask) -> None:
    """Prepare, then ask and answer as often as the bench wants."""
    from datafusion import SessionContext  # here, because the bench itself imports the task from this module

    context = SessionContext()
    context.register_parquet(TABLE, f"{task.folder}/")
    first_rows = {name: _first_row(context, query) for name, query in task.queries.items()}
    say_ready()
    while True:
        wait_go()
        median_ms = {name: _median_ms(context, query, task.runs) for name, query in task.queries.items()}
        answer(Answered(median_ms=median_ms, first_rows=first_rows))


def _first_row(context: Any, query: str) -> list[Any]:
    rows = context.sql(query).to_pylist()
    return list(rows[0].values())


def _median_ms(context: Any, query: str, runs: int) -> float:
    """The median after one run that does not count."""
    times = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        context.sql(query).collect()
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times[1:])


if __name__ == "__main__":
    main(read_task(DatafusionTask))
