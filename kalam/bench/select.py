"""SELECT over HTTP on cold and hot rows, without and with overridden keys."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from kalam.bench.analytic import measure_analytic
from kalam.bench.bare_datafusion import TABLE as BARE_TABLE
from kalam.bench.bare_datafusion import Answered, DatafusionTask
from kalam.bench.figures import Figure, Unit
from kalam.bench.flush import flush_table
from kalam.bench.process import Process
from kalam.bench.rows import FIRST_MS, NO_FLUSH, create_table
from kalam.bench.stage import NAMESPACE, Stage
from kalam.cli.failure import CommandFailed

TABLE: Final = f"{NAMESPACE}.rows"
SEGMENT_ROWS: Final = 1_000_000
LOAD_MESSAGE_ROWS: Final = 5_000
BARE_ENGINE: Final = "DataFusion on the cold rows"
CHANGED: Final = "changed"


@dataclass(frozen=True, slots=True)
class Timed:
    """A query's medians, the client's and the server's, and the first row of its result."""

    wall_ms: float
    took_ms: float
    first_row: list[Any]


def queries(table: str, cold_rows: int) -> dict[str, str]:
    """The queries by name: all rows, all rows, all rows, one row in a hundred, one row."""
    first_ms = FIRST_MS + cold_rows // 2
    last_ms = first_ms + cold_rows // 100
    return {
        "count": f"SELECT COUNT(*) FROM {table}",  # noqa: S608 - our own table, here and below
        "group-by": f"SELECT status, COUNT(*), AVG(latency) FROM {table} GROUP BY status ORDER BY status",  # noqa: S608
        "top-5": f"SELECT id, url, latency FROM {table} ORDER BY latency DESC, id LIMIT 5",  # noqa: S608
        "range": f"SELECT COUNT(*), MAX(latency) FROM {table} "  # noqa: S608
        f"WHERE ts >= to_timestamp_millis({first_ms}) AND ts < to_timestamp_millis({last_ms})",
        "point": f"SELECT id, user_id, url FROM {table} WHERE id = {cold_rows // 3}",  # noqa: S608
    }


def measure_select(stage: Stage) -> Iterator[Figure]:
    """Each query in four states of the table; the bare engine answers next to each from the same cold files."""
    sizes = stage.sizes
    cold, hot = sizes.cold_rows, sizes.hot_rows
    step = max(1, cold // sizes.overridden_rows)
    overridden = len(range(0, cold, step))
    rows = f"{_short(cold)} cold + {_short(hot)} hot rows"
    _load(stage)
    segments = _segments(stage)
    with _datafusion(stage, segments) as bare:
        alone = list(_figures(stage, bare, f"{_short(cold)} cold rows, none hot", cold))
        yield from alone
        yield from measure_analytic(stage, TABLE, segments, f"{_short(cold)} cold rows, analytic queries")

        stage.insert(TABLE, cold, hot)
        yield from map(_beside_cold, _figures(stage, bare, rows, cold + hot), alone)

        stage.progress.step(f"select: overriding {overridden:,} keys")
        stage.sql.run(f"UPDATE {TABLE} SET tag = '{CHANGED}' WHERE id % {step} = 0 AND id < {cold}")  # noqa: S608
        stage.wait_published()
        _check_changed(stage, overridden)
        yield from _figures(stage, bare, f"{rows}, {_short(overridden)} keys overridden and hot", cold + hot)

        stage.progress.step("select: flushing them")
        flush_table(stage, TABLE)
        stage.insert(TABLE, cold + hot, hot)
        _check_changed(stage, overridden)
        yield from _figures(stage, bare, f"{rows}, {_short(overridden)} keys overridden and flushed", cold + 2 * hot)


def _load(stage: Stage) -> None:
    """The cold rows, flushed a segment at a time while the next are being encoded."""
    cold = stage.sizes.cold_rows
    stage.progress.step(f"select: loading {cold:,} rows")
    stage.sql.run(create_table("SHARED", TABLE, NO_FLUSH))
    parts = [(first, min(SEGMENT_ROWS, cold - first)) for first in range(0, cold, SEGMENT_ROWS)]
    with ExitStack() as stack:
        following = _loader(stage, stack, *parts[0])
        for number, (first, rows) in enumerate(parts):
            process = following
            stage.inserted(process, rows)
            if number + 1 < len(parts):
                following = _loader(stage, stack, *parts[number + 1])
            stage.wait_published()
            flush_table(stage, TABLE)
            stage.progress.step(f"select: {first + rows:,} of {cold:,} rows are loaded")


def _loader(stage: Stage, stack: ExitStack, first: int, rows: int) -> Process:
    return stack.enter_context(stage.inserter(TABLE, first, rows, rows_per_message=LOAD_MESSAGE_ROWS))


def _segments(stage: Stage) -> Path:
    """A folder of the segments as they are now."""
    segments = stage.server.data_dir / "shared" / NAMESPACE / TABLE.removeprefix(f"{NAMESPACE}.")
    folder = stage.folder("segments")
    for segment in segments.glob("batch-*.parquet"):
        (folder / segment.name).symlink_to(segment)
    return folder


@contextmanager
def _datafusion(stage: Stage, segments: Path) -> Iterator[Process]:
    """The bare engine on these segments."""
    task = DatafusionTask(
        folder=str(segments), queries=queries(BARE_TABLE, stage.sizes.cold_rows), runs=stage.sizes.query_runs
    )
    with Process("bare_datafusion", task, stage.log) as process:
        process.wait_ready()
        yield process


def _figures(stage: Stage, datafusion: Process, situation: str, rows: int) -> Iterator[Figure]:
    stage.progress.step(f"select: {situation}")
    datafusion.go()
    bare = datafusion.result(Answered)
    timed = {name: _time(stage, query) for name, query in queries(TABLE, stage.sizes.cold_rows).items()}
    _check_alike(timed, bare, rows)
    for name, kalam in timed.items():
        yield Figure(
            name=name,
            situation=situation,
            unit=Unit.MS,
            kalam=kalam.wall_ms,
            bare=bare.median_ms[name],
            bare_engine=BARE_ENGINE,
            note=f"{kalam.took_ms:,.2f} ms in the server",
            detail={"took_ms": round(kalam.took_ms, 3)},
        )


def _beside_cold(figure: Figure, alone: Figure) -> Figure:
    """The figure, with how many times as long as with cold rows only."""
    times = figure.kalam / alone.kalam
    note = f"{figure.note}, {times:.2f} times cold only"
    return replace(figure, note=note, detail={**figure.detail, "of_cold": round(times, 3)})


def _time(stage: Stage, query: str) -> Timed:
    first = stage.sql.run(query)
    answers = [stage.sql.run(query) for _ in range(stage.sizes.query_runs)]
    wall_ms = statistics.median(answer.wall_ms for answer in answers)
    took_ms = statistics.median(answer.took_ms for answer in answers)
    return Timed(wall_ms, took_ms, first.rows[0])


def _check_alike(kalam: Mapping[str, Timed], bare: Answered, rows: int) -> None:
    """Every row counts once, and the queries that see cold rows only answer what the bare engine does."""
    expected = {"count": [rows], **{name: bare.first_rows[name] for name in ("range", "point")}}
    for name, first_row in expected.items():
        if kalam[name].first_row != first_row:
            raise CommandFailed(f"error: {name} answers {kalam[name].first_row} instead of {first_row}")


def _check_changed(stage: Stage, overridden: int) -> None:
    found = stage.sql.run(f"SELECT COUNT(*) FROM {TABLE} WHERE tag = '{CHANGED}'").rows[0][0]  # noqa: S608
    if found != overridden:
        raise CommandFailed(f"error: {found:,} rows are changed instead of {overridden:,}")


def _short(rows: int) -> str:
    """A number of rows in few characters."""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if rows >= size:
            return f"{rows / size:g} {letter}"
    return str(rows)
