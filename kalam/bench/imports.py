"""Files of rows that ``kalam insert`` imports; its start, its reading and the server's acks are in the time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from kalam.bench.figures import Figure, Unit
from kalam.bench.rows import NO_FLUSH, arrow_table, create_table, row
from kalam.bench.stage import NAMESPACE, Stage
from kalam.cli.failure import CommandFailed

TABLE: Final = f"{NAMESPACE}.imported"
PART_ROWS: Final = 100_000


def measure_imports(stage: Stage) -> Iterator[Figure]:
    """One import of each kind of file into a new table; the best of the rounds counts."""
    rows, rounds = stage.sizes.imported_rows, stage.sizes.rounds
    stage.progress.step(f"stored_tables: writing files of {rows:,} rows")
    for file in _write_files(stage.folder("imports"), rows):
        kind = file.suffix.removeprefix(".")
        taken: list[float] = []
        for number in range(1, rounds + 1):
            stage.progress.step(f"stored_tables: importing {file.name}, round {number} of {rounds}")
            taken.append(_import(stage, f"{TABLE}_{kind}_{number}", file, rows))
        yield Figure(
            name=f"kalam insert, {kind}",
            situation="a file of rows",
            unit=Unit.ROWS_PER_S,
            kalam=rows / min(taken),
            note=f"{rows:,} rows, {file.stat().st_size / 1e6:,.1f} MB in {min(taken):.1f} s",
            detail={"imported_rows": rows},
        )


def _write_files(folder: Path, rows: int) -> list[Path]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    parquet, arrow = folder / "rows.parquet", folder / "rows.arrow"
    schema = arrow_table([row(0)]).schema
    with pq.ParquetWriter(parquet, schema) as into_parquet, pa.ipc.new_file(arrow, schema) as into_arrow:
        for first in range(0, rows, PART_ROWS):
            part = arrow_table([row(number) for number in range(first, min(first + PART_ROWS, rows))])
            into_parquet.write_table(part)
            into_arrow.write_table(part)
    return [parquet, arrow]


def _import(stage: Stage, table: str, file: Path, rows: int) -> float:
    """Import a file into a new table and return the seconds; raises CommandFailed unless every row is there."""
    stage.sql.run(create_table("SHARED", table, NO_FLUSH))
    started = time.perf_counter()
    insert_files(stage, table, [file])
    seconds = time.perf_counter() - started
    if stage.sql.count(table) != rows:
        raise CommandFailed(f"error: kalam insert of {file.name} stored {stage.sql.count(table):,} rows")
    stage.wait_published()
    stage.sql.run(f"DROP TABLE {table}")
    return seconds


def insert_files(stage: Stage, table: str, files: Sequence[Path]) -> None:
    """Insert the rows of files as a user does; raises CommandFailed."""
    where = ["--nats-url", stage.server.nats_url, "--subject-prefix", "kalam"]
    command = [sys.executable, "-m", "kalam", "insert", table, *map(str, files), *where]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    if done.returncode:
        raise CommandFailed(f"error: kalam insert ended with status {done.returncode}: {done.stderr}")
