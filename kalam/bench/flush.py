"""Hot rows that become a Parquet segment, as FLUSH TABLE times it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from kalam.bench.bare_parquet import ParquetTask, WrittenFile
from kalam.bench.figures import Figure, Unit
from kalam.bench.process import Process
from kalam.bench.rows import NO_FLUSH, create_table
from kalam.bench.stage import NAMESPACE, Stage

TABLE: Final = f"{NAMESPACE}.flushed"
WARM_UP_ROWS: Final = 1_000
BARE_ENGINE: Final = "fastparquet.write"


@dataclass(frozen=True, slots=True)
class Flushed:
    """What a flush wrote and how long it took, as the server counts; ``row_bytes`` is what the rows had as JSON."""

    rows: int
    byte_count: int
    seconds: float
    row_bytes: int = 0


def measure_flush(stage: Stage) -> Iterator[Figure]:
    """Flushes of tables that have not been flushed before, the flush process being there already."""
    rows, rounds = stage.sizes.flush_rows, stage.sizes.rounds
    _flush_new(stage, f"{TABLE}_before", WARM_UP_ROWS)
    flushed: list[Flushed] = []
    bare: list[WrittenFile] = []
    for number in range(1, rounds + 1):
        stage.progress.step(f"flush: {rows:,} rows, round {number} of {rounds}")
        flushed.append(_flush_new(stage, f"{TABLE}_{number}", rows))
        bare.append(write_bare(stage, f"parquet_{number}", rows))
    best, best_bare = min(flushed, key=lambda done: done.seconds), min(bare, key=lambda done: done.seconds)
    complete = {*(done.rows for done in flushed), *(done.rows for done in bare)} == {rows}
    yield Figure(
        name="FLUSH TABLE",
        situation="hot rows to one Parquet file",
        unit=Unit.ROWS_PER_S,
        kalam=best.rows / best.seconds,
        bare=best_bare.rows / best_bare.seconds,
        bare_engine=BARE_ENGINE,
        complete=complete,
        note=f"{best.rows:,} rows; {best.byte_count / 1e6:,.1f} MB, bare {best_bare.byte_count / 1e6:,.1f} MB",
        detail={"rows": best.rows, "bytes": best.byte_count, "bare_bytes": best_bare.byte_count},
    )
    yield Figure(
        name="FLUSH TABLE, row data",
        situation="hot rows to one Parquet file",
        unit=Unit.MB_PER_S,
        kalam=best.row_bytes / 1e6 / best.seconds,
        bare=best.row_bytes / 1e6 / best_bare.seconds,
        bare_engine=BARE_ENGINE,
        complete=complete,
        note=f"{best.row_bytes / 1e6:,.1f} MB as JSON",
        detail={"row_bytes": best.row_bytes},
    )


def _flush_new(stage: Stage, table: str, rows: int) -> Flushed:
    """Fill a new table and flush it; a flush that lost a row counts for none."""
    stage.sql.run(create_table("SHARED", table, NO_FLUSH))
    row_bytes = stage.insert(table, 0, rows).payload_bytes
    flushed = replace(flush_table(stage, table), row_bytes=row_bytes)
    return flushed if stage.sql.count(table) == rows else replace(flushed, rows=0)


def flush_table(stage: Stage, table: str) -> Flushed:
    """Flush a table."""
    [(_, _, rows, _, byte_count, duration_ms)] = stage.sql.run(f"FLUSH TABLE {table}").rows
    return Flushed(rows, byte_count, duration_ms / 1e3)


def write_bare(stage: Stage, folder: str, rows: int) -> WrittenFile:
    """What the bare engine needs for a file of so many rows."""
    task = ParquetTask(folder=str(stage.folder(folder)), rows=rows)
    with Process("bare_parquet", task, stage.log) as process:
        process.wait_ready()
        process.go()
        return process.result(WrittenFile)
