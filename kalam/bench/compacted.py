"""Small segments, some of their rows overridden, that COMPACT TABLE makes into large ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from kalam.bench.figures import Figure, Unit
from kalam.bench.flush import BARE_ENGINE, flush_table, write_bare
from kalam.bench.rows import NO_FLUSH, create_table
from kalam.bench.stage import NAMESPACE, Stage

TABLE: Final = f"{NAMESPACE}.compacted"
SEGMENTS: Final = 10
WARM_UP_ROWS: Final = 1_000
OVERRIDDEN_STEP: Final = 100


def measure_compacted(stage: Stage) -> Iterator[Figure]:
    """One compaction, as the server times it; the bare engine writes as many rows that lie ready in memory."""
    rows = stage.sizes.flush_rows
    _load(stage, f"{TABLE}_before", WARM_UP_ROWS)
    _compact(stage, f"{TABLE}_before")  # the worker process is there now
    _load(stage, TABLE, rows)
    stage.progress.step(f"stored_tables: compacting {rows:,} rows")
    (_, _, before, after, written, _, forgotten, _, duration_ms) = _compact(stage, TABLE)
    whole = stage.sql.count(TABLE) == rows and forgotten == len(range(0, rows, OVERRIDDEN_STEP))
    stage.sql.run(f"DROP TABLE {TABLE}")
    bare = write_bare(stage, "compacted", rows)
    yield Figure(
        name="COMPACT TABLE",
        situation="small segments, 1 % of their rows overridden",
        unit=Unit.ROWS_PER_S,
        kalam=written / (duration_ms / 1e3),
        bare=bare.rows / bare.seconds,
        bare_engine=BARE_ENGINE,
        complete=whole and bare.rows == rows,
        note=f"{written:,} rows, {before} segments to {after}",
        detail={"compacted_rows": written, "segments_before": before, "segments_after": after},
    )


def _load(stage: Stage, table: str, rows: int) -> None:
    stage.progress.step(f"stored_tables: {SEGMENTS} segments of {rows // SEGMENTS:,} rows to compact")
    stage.sql.run(create_table("SHARED", table, NO_FLUSH))
    for first in range(0, rows, rows // SEGMENTS):
        stage.insert(table, first, rows // SEGMENTS)
        flush_table(stage, table)
    stage.sql.run(f"UPDATE {table} SET tag = 'changed' WHERE id % {OVERRIDDEN_STEP} = 0")  # noqa: S608 - our own table
    stage.wait_published()
    flush_table(stage, table)


def _compact(stage: Stage, table: str) -> list[Any]:
    """What COMPACT TABLE answers."""
    [answer] = stage.sql.run(f"COMPACT TABLE {table}").rows
    return answer
