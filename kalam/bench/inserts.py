"""Rows that are acknowledged by a SHARED table, one a message and a thousand a message, and their changes published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from kalam.bench.bare_sqlite import Committed, SqliteTask
from kalam.bench.figures import Figure, Unit
from kalam.bench.inserter import Acknowledged
from kalam.bench.process import Process
from kalam.bench.rows import NO_FLUSH, create_table
from kalam.bench.stage import NAMESPACE, Stage
from kalam.bench.streams import receive
from kalam.bench.subscriber import Reading, Received, SubscriberTask

BARE_ENGINE: Final = "SQLite executemany"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How rows are sent; the bare engine commits ``bare_commit_rows`` at once."""

    table: str
    words: str
    rows: int
    rows_per_message: int
    in_flight: int
    bare_commit_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What was acknowledged, stored and published, and what the bare engine did after it."""

    acknowledged: Acknowledged
    received: Received
    stored_rows: int
    bare: Committed

    @property
    def seconds(self) -> float:
        """From the first row to the last ack."""
        return self.acknowledged.seconds

    @property
    def lag_ms(self) -> float:
        """From the last ack to the last change."""
        return max(0.0, (self.received.last_ns - self.acknowledged.ended_ns) / 1e6)


def measure_inserts(stage: Stage) -> Iterator[Figure]:
    """Single rows, then batches."""
    sizes = stage.sizes
    for load in (
        Load(
            table=f"{NAMESPACE}.single",
            words="1 row a message, 256 in flight",
            rows=sizes.single_rows,
            rows_per_message=1,
            in_flight=256,
            bare_commit_rows=256,
        ),
        Load(
            table=f"{NAMESPACE}.batched",
            words="1,000 rows a message, 8 in flight",
            rows=sizes.batched_rows,
            rows_per_message=1_000,
            in_flight=8,
            bare_commit_rows=1_000,
        ),
    ):
        yield from _figures(load, [_round(stage, load, number) for number in range(1, sizes.rounds + 1)])


def _round(stage: Stage, load: Load, number: int) -> Round:
    stage.progress.step(f"inserts: {load.rows:,} rows, {load.words}, round {number} of {stage.sizes.rounds}")
    table = f"{load.table}_{number}"
    acknowledged, received = _insert(stage, load, table)
    stage.wait_published()
    stored_rows = stage.sql.count(table)
    return Round(acknowledged=acknowledged, received=received, stored_rows=stored_rows, bare=_bare(stage, load, table))


def _insert(stage: Stage, load: Load, table: str) -> tuple[Acknowledged, Received]:
    """Insert while a subscriber counts the changes."""
    stage.sql.run(create_table("SHARED", table, NO_FLUSH))
    task = SubscriberTask(
        url=stage.server.nats_url,
        subject=f"kalam.shared.{table}.>",
        reading=Reading.CHANGES,
        expected=load.rows,
        progress="",
    )
    with ExitStack() as stack:
        subscriber = stack.enter_context(Process("subscriber", task, stage.log))
        inserter = stack.enter_context(
            stage.inserter(table, 0, load.rows, rows_per_message=load.rows_per_message, in_flight=load.in_flight)
        )
        subscriber.wait_ready()
        return stage.inserted(inserter, load.rows), receive(subscriber)


def _bare(stage: Stage, load: Load, name: str) -> Committed:
    task = SqliteTask(path=str(stage.folder(name) / "bare.db"), rows=load.rows, rows_per_commit=load.bare_commit_rows)
    with Process("bare_sqlite", task, stage.log) as process:
        process.wait_ready()
        process.go()
        return process.result(Committed)


def _figures(load: Load, rounds: Sequence[Round]) -> Iterator[Figure]:
    best = min(rounds, key=lambda done: done.seconds)
    stored_rows = min(done.stored_rows for done in rounds)
    yield Figure(
        name="acknowledged",
        situation=load.words,
        unit=Unit.ROWS_PER_S,
        kalam=load.rows / best.seconds,
        bare=load.rows / min(done.bare.seconds for done in rounds),
        bare_engine=BARE_ENGINE,
        complete=all(done.stored_rows == done.bare.rows == load.rows for done in rounds),
        note=f"{stored_rows:,} rows; SQLite: {load.bare_commit_rows:,} a commit",
        detail={"stored_rows": stored_rows},
    )
    received, holes = min(done.received.received for done in rounds), sum(done.received.holes for done in rounds)
    published = received == load.rows and holes == 0
    yield Figure(
        name="last change after last ack",
        situation=load.words,
        unit=Unit.MS,
        kalam=best.lag_ms,
        complete=published,
        note=f"{received:,} changes published" + (f", {holes} holes between" if holes else ""),
        detail={"published": published, "received": received, "holes": holes},
    )
