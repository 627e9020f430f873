"""The bare engine of a flush: fastparquet writes a frame that is ready, sorted and in memory, and syncs the file."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from kalam.bench.rows import Row, row
from kalam.bench.task import answer, read_task, say_ready, wait_go

GROUP_ROWS: Final = 50_000
WARM_UP_ROWS: Final = 1_000


class ParquetTask(msgspec.Struct, kw_only=True):
    """Write ``rows`` rows into ``folder``."""

    folder: str
    rows: int


class WrittenFile(msgspec.Struct, kw_only=True):
    """How many rows the file holds, its size, and how long it took."""

    rows: int
    byte_count: int
    seconds: float


def frame(rows: int) -> Any:
    """The columns of a segment: those of the table, when the row was changed, and its number."""
    import numpy as np
    import pandas as pd  # here, because the bench itself imports the task from this module

    made = pd.DataFrame([msgspec.structs.astuple(row(number)) for number in range(rows)], columns=Row.__struct_fields__)
    made["ts"] = pd.to_datetime(made["ts"], unit="ms", utc=True).dt.as_unit("us")
    made["status"] = made["status"].astype("int32")
    made["_updated"] = made["ts"]
    made["_seq"] = np.arange(1, rows + 1)
    return made


def write(path: Path, rows: Any) -> None:
    """Write the frame as a flush does: zstd, row groups of the same size, on the disk for certain."""
    import fastparquet

    groups = list(range(0, len(rows), GROUP_ROWS))
    fastparquet.write(str(path), rows, compression="ZSTD", row_group_offsets=groups, write_index=False)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def stored_rows(path: Path) -> int:
    """How many rows the file holds."""
    from pyarrow.parquet import read_metadata

    return int(read_metadata(path).num_rows)


def main(task: ParquetTask) -> None:
    """Prepare, write, answer."""
    folder = Path(task.folder)
    rows = frame(task.rows)
    write(folder / "warm-up.parquet", rows.head(WARM_UP_ROWS))
    say_ready()
    wait_go()
    path = folder / "bare.parquet"
    started = time.perf_counter()
    write(path, rows)
    seconds = time.perf_counter() - started
    answer(WrittenFile(rows=stored_rows(path), byte_count=path.stat().st_size, seconds=seconds))


if __name__ == "__main__":
    main(read_task(ParquetTask))
