"""New rows with random keys, which no statistics of segments rule out, into an empty table and one with a history."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kalam.bench.figures import Figure, Unit
from kalam.bench.flush import flush_table
from kalam.bench.inserter import Acknowledged
from kalam.bench.rows import NO_FLUSH, create_table
from kalam.bench.stage import NAMESPACE, Stage

EMPTY_TABLE: Final = f"{NAMESPACE}.random_new"
TABLE: Final = f"{NAMESPACE}.random"
SEGMENT_ROWS: Final = 1_000_000
MESSAGE_ROWS: Final = 1_000
DUPLICATE: Final = "duplicate_key"


def measure_random_keys(stage: Stage) -> Iterator[Figure]:
    """The same rows into both tables; of the second one's a message with a key that is cold is refused."""
    cold, rows = stage.sizes.cold_rows, stage.sizes.random_rows
    stage.progress.step(f"stored_tables: {rows:,} rows with random keys into an empty table")
    new = _insert_new(stage, EMPTY_TABLE, cold)
    stage.sql.run(f"DROP TABLE {EMPTY_TABLE}")
    _load(stage)
    stage.progress.step(f"stored_tables: {rows:,} rows with random keys beside {cold:,} cold ones")
    beside = _insert_new(stage, TABLE, cold)
    refused = _refuses_duplicate(stage)
    whole = stage.sql.count(TABLE) == cold + rows
    stage.sql.run(f"DROP TABLE {TABLE}")
    ratio = new.seconds / beside.seconds
    yield Figure(
        name="into an empty table",
        situation="new random UUID keys, 1,000 rows a message",
        unit=Unit.ROWS_PER_S,
        kalam=rows / new.seconds,
        note=f"{rows:,} rows",
        detail={"random_rows": rows},
    )
    yield Figure(
        name="beside cold rows",
        situation="new random UUID keys, 1,000 rows a message",
        unit=Unit.ROWS_PER_S,
        kalam=rows / beside.seconds,
        complete=whole and refused,
        note=f"{ratio:.2f} of it with {cold:,} cold rows" + (", a duplicate refused" if refused else ""),
        detail={"random_rows": rows, "of_empty": round(ratio, 3), "duplicate_refused": refused},
    )


def _insert_new(stage: Stage, table: str, first: int) -> Acknowledged:
    if table == EMPTY_TABLE:
        stage.sql.run(create_table("SHARED", table, NO_FLUSH, random_keys=True))
    return stage.insert(table, first, stage.sizes.random_rows, random_keys=True)


def _load(stage: Stage) -> None:
    """The cold rows, in several segments that all span the whole range of keys."""
    cold = stage.sizes.cold_rows
    stage.sql.run(create_table("SHARED", TABLE, NO_FLUSH, random_keys=True))
    part = min(SEGMENT_ROWS, max(1, cold // 5))
    for first in range(0, cold, part):
        rows = min(part, cold - first)
        stage.progress.step(f"stored_tables: {first:,} of {cold:,} rows with random keys are cold")
        stage.insert(TABLE, first, rows, random_keys=True)
        flush_table(stage, TABLE)


def _refuses_duplicate(stage: Stage) -> bool:
    """Whether a message of new rows is refused whole because the last one's key, that of row 0, is cold."""
    with stage.inserter(TABLE, 1 - MESSAGE_ROWS, MESSAGE_ROWS, random_keys=True) as process:
        process.wait_ready()
        process.go()
        outcome = process.result(Acknowledged)
    return outcome.rows == 0 and DUPLICATE in outcome.problem
