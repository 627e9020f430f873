"""The server's memory while a table takes many rows and flushes them: it may depend on what is hot, not on what was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

from kalam.bench.figures import Figure, Unit
from kalam.bench.flush import flush_table
from kalam.bench.idle import PROC, usage
from kalam.bench.process import Process
from kalam.bench.rows import NO_FLUSH, create_table
from kalam.bench.stage import NAMESPACE, Stage

TABLE: Final = f"{NAMESPACE}.lasting"
PARTS: Final = 10
MESSAGE_ROWS: Final = 5_000


def measure_lasting(stage: Stage) -> Iterator[Figure]:
    """Resident memory after the first part is flushed, after half of them, and after the last."""
    if not (PROC / "self" / "stat").exists():
        stage.progress.step("stored_tables: memory is left out, for this system has no /proc")
        return
    rows = stage.sizes.lasting_rows
    megabytes = _fill(stage, rows // PARTS)
    whole = stage.sql.count(TABLE) == rows
    stage.sql.run(f"DROP TABLE {TABLE}")
    for name, part in (("start", 0), ("middle", PARTS // 2 - 1), ("end", PARTS - 1)):
        yield Figure(
            name=f"server, {name}",
            situation=f"{rows:,} rows inserted, every {rows // PARTS:,} flushed",
            unit=Unit.MB,
            kalam=megabytes[part],
            complete=whole,
            note=f"resident after {(part + 1) * (rows // PARTS):,} rows",
            detail={"lasting_rows": (part + 1) * (rows // PARTS)},
        )


def _fill(stage: Stage, part_rows: int) -> list[float]:
    """Insert and flush part after part, while the next is being encoded; the megabytes after each."""
    stage.sql.run(create_table("SHARED", TABLE, NO_FLUSH))
    megabytes: list[float] = []
    with ExitStack() as stack:

        def loader(part: int) -> Process:
            first = part * part_rows
            return stack.enter_context(stage.inserter(TABLE, first, part_rows, rows_per_message=MESSAGE_ROWS))

        following = loader(0)
        for part in range(PARTS):
            process = following
            stage.inserted(process, part_rows)
            if part + 1 < PARTS:
                following = loader(part + 1)
            stage.wait_published()
            flush_table(stage, TABLE)
            megabytes.append(usage(stage.server.pid).memory_bytes / 1e6)
            stage.progress.step(f"stored_tables: {(part + 1) * part_rows:,} rows inserted and flushed")
    return megabytes
