"""A row-wise view that keeps every message of a stream of others, fsynced, and a raw pull of the same messages.

The clock runs from the CREATE until the view has caught up. What a raw pull keeps is gone with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from kalam.bench.figures import Figure, Unit
from kalam.bench.process import Process
from kalam.bench.raw_pull import Pulled, PullTask
from kalam.bench.rows import COLUMNS
from kalam.bench.stage import NAMESPACE, POLL_S, Stage
from kalam.cli.failure import CommandFailed

KEPT: Final = "adopt-kept"
RAW: Final = "a socket and a parser that only pull the same messages"
PATIENCE_S: Final = 600.0


def measure_view(stage: Stage, fill: Callable[[Stage, str, str, int], None]) -> Iterator[Figure]:
    """By turns, and the best of each counts; ``fill`` makes the stream."""
    messages, url = stage.sizes.adopted_messages, stage.server.nats_url
    fill(stage, url, KEPT, messages)
    source, view = f"{NAMESPACE}.kept_source", f"{NAMESPACE}.kept"
    columns = COLUMNS.format(id="BIGINT", key="")
    stage.sql.run(f"CREATE STREAM TABLE {source} ({columns}) OVER STREAM '{KEPT}'")
    ours: list[float] = []
    theirs: list[Pulled] = []
    counts: set[int] = set()
    for number in range(1, stage.sizes.rounds + 1):
        stage.progress.step(f"adopt: a view keeps {messages:,} messages, round {number} of {stage.sizes.rounds}")
        ours.append(_kept_s(stage, source, view))
        counts.add(stage.sql.count(view))
        stage.sql.run(f"DROP MATERIALIZED VIEW {view}")
        theirs.append(_pulled(stage, PullTask(url=url, stream=KEPT, messages=messages)))
    stage.sql.run(f"DROP TABLE {source}")
    yield Figure(
        name="kept by a view, fsynced",
        situation=f"messages: {messages:,}",
        unit=Unit.EVENTS_PER_S,
        kalam=messages / min(ours),
        bare=max(each.messages / each.seconds for each in theirs),
        bare_engine=RAW,
        complete=counts == {messages} and all(each.messages == messages for each in theirs),
        detail={"kept_messages": min(counts)},
    )


def _kept_s(stage: Stage, source: str, view: str) -> float:
    """How long it takes until the view has caught up; raises CommandFailed if it does not."""
    started = time.perf_counter()
    select = f"SELECT id, ts, user_id, url, status, latency, ok, tag FROM {source}"  # noqa: S608 - our own table
    stage.sql.run(f"CREATE MATERIALIZED VIEW {view} WITH (flush_policy = 'rows:10000000') AS {select}")
    name = view.partition(".")[2]
    state = f"SELECT state, lag_rows, reason FROM system.views WHERE view_name = '{name}'"  # noqa: S608 - likewise
    while time.perf_counter() - started < PATIENCE_S:
        [[now, lag, reason]] = stage.sql.run(state).rows
        if now == "running" and lag == 0:
            return time.perf_counter() - started
        if now in ("stopped", "failed"):
            raise CommandFailed(f"error: the view is {now}: {reason}")
        time.sleep(POLL_S)
    raise CommandFailed(f"error: the view had not caught up after {PATIENCE_S:g} s")


def _pulled(stage: Stage, task: PullTask) -> Pulled:
    with Process("raw_pull", task, stage.log) as process:
        process.wait_ready()
        process.go()
        return process.result(Pulled, PATIENCE_S)
