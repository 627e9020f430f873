"""Single rows of flushed tables by random keys, over NATS: the first reads of a table, and those that follow.

The hand-written service answers at the same broker, in turns with Kalam: what is compared is who answers, and not two
brokers. The medians of the turns count, since a turn is short and machines are not quiet.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Final

from kalam.bench.asker import AskerTask, Asking
from kalam.bench.figures import Figure, Unit
from kalam.bench.flush import flush_table
from kalam.bench.handwritten import HandwrittenTask
from kalam.bench.process import PREPARE_S, Process
from kalam.bench.rows import create_table
from kalam.bench.stage import NAMESPACE, USER, Stage

TABLE: Final = f"{NAMESPACE}.cold_points"
DEFAULT_POLICY: Final = "FLUSH_POLICY = 'rows:100000,interval:300'"
LOADED_ROWS_MAX: Final = 5_000_000
SUBJECT: Final = "handwritten.sql"
IN_FLIGHT: Final = 16
BARE_ENGINE: Final = "nats-py and SQLite"


def measure_cold_points(stage: Stage) -> Iterator[Figure]:
    """A table of each size; what is kept ready for it is kept after the first reads."""
    for rows in stage.sizes.cold_point_rows:
        stage.progress.step(f"stored_tables: loading {rows:,} rows to read by key when they are flushed")
        stage.sql.run(create_table("SHARED", TABLE, DEFAULT_POLICY))
        _load(stage, rows)
        task = HandwrittenTask(
            url=stage.server.nats_url,
            subject=SUBJECT,
            path=str(stage.folder(f"handwritten_{rows}") / "bare.db"),
            rows=rows,
        )
        with Process("handwritten", task, stage.log) as peer:
            peer.wait_ready(PREPARE_S * max(1, rows // LOADED_ROWS_MAX))
            yield from _figures(stage, rows)
        stage.sql.run(f"DROP TABLE {TABLE}")


def _load(stage: Stage, rows: int) -> None:
    """The rows, of which an inserter has some in memory at a time."""
    for first in range(0, rows, LOADED_ROWS_MAX):
        stage.insert(TABLE, first, min(LOADED_ROWS_MAX, rows - first))
    flush_table(stage, TABLE)


def _figures(stage: Stage, rows: int) -> Iterator[Figure]:
    reads, turns = stage.sizes.cold_point_reads, stage.sizes.cold_point_turns
    situation = f"one of {rows:,} flushed rows by a random key"
    first = _ask(stage, rows, reads, IN_FLIGHT)
    for name, in_flight, requests in ((f"{IN_FLIGHT} in flight", IN_FLIGHT, reads), ("alone", 1, reads // 10)):
        bare: list[float] = []
        own: list[float] = []
        for _ in range(turns):
            bare.append(_ask(stage, rows, requests, in_flight, handwritten=True))
            own.append(_ask(stage, rows, requests, in_flight))
        yield Figure(
            name=f"SELECT, NATS, {name}",
            situation=situation,
            unit=Unit.ROWS_PER_S,
            kalam=median(own),
            bare=median(bare),
            bare_engine=BARE_ENGINE,
            note=f"{requests:,}; {first:,.0f} rows/s in the first {reads:,}, {IN_FLIGHT} in flight",
            detail={"cold_rows_asked": requests, "first_per_s": round(first, 1)},
        )


def _ask(stage: Stage, rows: int, requests: int, in_flight: int, *, handwritten: bool = False) -> float:
    """How many rows a second are answered."""
    whom = "the hand-written service" if handwritten else "Kalam"
    stage.progress.step(f"stored_tables: {requests:,} of {rows:,} flushed keys, {in_flight} in flight, of {whom}")
    task = AskerTask(
        url=stage.server.nats_url,
        subject=SUBJECT if handwritten else f"kalam.api.{USER}.sql",
        table=TABLE,
        asking=Asking.POINT,
        keys=rows,
        requests=requests,
        in_flight=in_flight,
    )
    with Process("asker", task, stage.log) as process:
        return requests / stage.asked(process, requests).seconds
