"""What the lake costs: the same work on tables with and without one, by turns on one server.

A turn is longer than ``iceberg_interval_s``, so that each has commits to the lake.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from kalam.bench.figures import Figure, Unit
from kalam.bench.flush import flush_table
from kalam.bench.idle import usage
from kalam.bench.prober import Probed, ProberTask
from kalam.bench.process import Process
from kalam.bench.rows import NO_FLUSH, create_table
from kalam.bench.stage import NAMESPACE, Stage

BARE_ENGINE: Final = "without a lake"
SITUATION: Final = "the lake on and off"
FIRST: Final = 10_000_000
PROBE_EVERY_S: Final = 0.002
FLUSH_EVERY_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one turn took: seconds of inserts, flushes and the server's processor, milliseconds of single inserts."""

    rows: int
    insert_s: float
    flush_s: float
    cpu_s: float
    answered_ms: list[float]
    commits: int

    def percentile_ms(self, percent: int) -> float:
        """That of the single inserts."""
        return sorted(self.answered_ms)[len(self.answered_ms) * percent // 100]


def measure_lake(stage: Stage) -> Iterator[Figure]:
    """Inserts, flushes and single inserts beside flushes."""
    turns: dict[bool, list[Turn]] = {True: [], False: []}
    for number in range(stage.sizes.lake_rounds):
        stage.progress.step(f"lake: round {number + 1} of {stage.sizes.lake_rounds}")
        for iceberg in (True, False) if number % 2 else (False, True):
            turns[iceberg].append(_turn(stage, f"lake_{number}_{int(iceberg)}", iceberg=iceberg))
    yield from _figures(turns[True], turns[False])


def _turn(stage: Stage, name: str, *, iceberg: bool) -> Turn:
    table, part = f"{NAMESPACE}.{name}", stage.sizes.lake_rows
    stage.sql.run(create_table("SHARED", table, f"{NO_FLUSH}, ICEBERG = {str(iceberg).lower()}"))
    cpu_s = usage(stage.server.pid).cpu_s
    insert_s = flush_s = 0.0
    rows, until = 0, time.perf_counter() + stage.sizes.lake_s
    while time.perf_counter() < until:
        insert_s += stage.insert(table, FIRST + rows, part).seconds
        flush_s += flush_table(stage, table).seconds
        rows += part
    probed = _probe(stage, table)
    cpu_s = usage(stage.server.pid).cpu_s - cpu_s
    commits = 0
    if iceberg:
        stage.sql.run(f"REFRESH LAKE FOR TABLE {table}")  # so that nothing of it is done in the next turn
        commits = len(list((stage.server.data_dir / "shared" / NAMESPACE / name / "iceberg").rglob("snapshot-*")))
    whole = stage.sql.count(table) == rows + len(probed.ms) + 1
    stage.sql.run(f"DROP TABLE {table}")
    rows = rows if whole else 0
    return Turn(rows=rows, insert_s=insert_s, flush_s=flush_s, cpu_s=cpu_s, answered_ms=probed.ms, commits=commits)


def _probe(stage: Stage, table: str) -> Probed:
    """Single inserts, one after another, while the table is flushed again and again."""
    seconds = stage.sizes.paced_s
    events = max(10, int(seconds / PROBE_EVERY_S / 2))
    subject = stage.insert_subject(table)
    task = ProberTask(url=stage.server.nats_url, subject=subject, events=events, every_s=PROBE_EVERY_S)
    with Process("prober", task, stage.log) as process:
        process.wait_ready()
        process.go()
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            time.sleep(min(FLUSH_EVERY_S, seconds / 2))
            stage.sql.run(f"FLUSH TABLE {table}")  # of nothing, where the prober has ended
        return process.result(Probed)


def _figures(own: Sequence[Turn], bare: Sequence[Turn]) -> Iterator[Figure]:
    rows = min(turn.rows for turn in (*own, *bare))
    note = f"medians of {len(own)} turns each; {sum(turn.commits for turn in own)} commits"
    measured = (
        ("acknowledged", Unit.ROWS_PER_S, [[turn.rows / turn.insert_s for turn in turns] for turns in (own, bare)]),
        ("FLUSH TABLE", Unit.ROWS_PER_S, [[turn.rows / turn.flush_s for turn in turns] for turns in (own, bare)]),
        (
            "processor time",
            Unit.US,
            [[turn.cpu_s * 1e6 / max(turn.rows, 1) for turn in turns] for turns in (own, bare)],
        ),
        *(
            (
                f"single insert, p{percent}",
                Unit.MS,
                [[turn.percentile_ms(percent) for turn in turns] for turns in (own, bare)],
            )
            for percent in (50, 99)
        ),
    )
    for name, unit, (ours, theirs) in measured:
        yield Figure(
            name=name,
            situation=SITUATION,
            unit=unit,
            kalam=median(ours),
            bare=median(theirs),
            bare_engine=BARE_ENGINE,
            complete=rows > 0,
            note=note,
            detail={"turns": [round(value, 3) for value in ours], "bare_turns": [round(value, 3) for value in theirs]},
        )
