"""Single rows by their keys: read over NATS and HTTP, and changed, one a statement and a thousand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kalam.bench.asker import Asked, AskerTask, Asking
from kalam.bench.bare_sqlite import Committed, SqliteTask
from kalam.bench.figures import Figure, Unit
from kalam.bench.http_asker import HttpAskerTask
from kalam.bench.process import Process
from kalam.bench.rows import NO_FLUSH, create_table
from kalam.bench.stage import NAMESPACE, USER, Stage

TABLE: Final = f"{NAMESPACE}.keyed"
IN_FLIGHT: Final = 16
UPSERT_KEYS: Final = 1_000
UPSERTS_IN_FLIGHT: Final = 4
BARE_ENGINE: Final = "SQLite executemany"


def measure_keyed(stage: Stage) -> Iterator[Figure]:
    """Reads of a hot table, then updates of it."""
    stage.progress.step(f"stored_tables: loading {stage.sizes.keyed_rows:,} rows to read and update by key")
    stage.sql.run(create_table("SHARED", TABLE, NO_FLUSH))
    stage.insert(TABLE, 0, stage.sizes.keyed_rows)
    yield from _reads(stage)
    yield from _updates(stage)


def _reads(stage: Stage) -> Iterator[Figure]:
    sizes = stage.sizes
    situation = f"one of {sizes.keyed_rows:,} hot rows by its key"
    asked = _ask(stage, Asking.POINT, sizes.point_reads, IN_FLIGHT)
    yield _rate(f"SELECT, NATS, {IN_FLIGHT} in flight", situation, asked.requests / asked.seconds, asked.requests)
    alone = _ask(stage, Asking.POINT, sizes.point_reads // 10, 1)
    for name, milliseconds in (("p50", alone.p50_ms), ("p99", alone.p99_ms)):
        yield Figure(name=f"SELECT, NATS, alone, {name}", situation=situation, unit=Unit.MS, kalam=milliseconds)
    over_http = _ask_http(stage, sizes.point_reads // 4)
    rate = over_http.requests / over_http.seconds
    yield _rate(f"SELECT, HTTP, {IN_FLIGHT} at once", situation, rate, over_http.requests)


def _updates(stage: Stage) -> Iterator[Figure]:
    sizes = stage.sizes
    bare = _bare(stage)
    batches = max(1, sizes.updated_rows // UPSERT_KEYS)
    asked = _ask(stage, Asking.UPSERT, batches, UPSERTS_IN_FLIGHT, UPSERT_KEYS)
    rows = batches * UPSERT_KEYS
    changed = stage.sql.run(f"SELECT COUNT(*) FROM {TABLE} WHERE tag = 'changed'").rows[0][0]  # noqa: S608 - our own
    yield Figure(
        name="updates",
        situation="1,000 keys a statement, INSERT … ON CONFLICT DO UPDATE, over NATS",
        unit=Unit.ROWS_PER_S,
        kalam=rows / asked.seconds,
        bare=bare.rows / bare.seconds,
        bare_engine=BARE_ENGINE,
        complete=asked.requests == batches and 0 < changed <= sizes.keyed_rows and bare.rows == rows,
        note=f"{rows:,} rows, {UPSERTS_IN_FLIGHT} in flight; SQLite: 1,000 a commit",
        detail={"updated_rows": rows},
    )
    single = _ask(stage, Asking.UPDATE, sizes.single_updates, IN_FLIGHT)
    situation = "1 key a statement, UPDATE … WHERE id = $1, over NATS"
    yield _rate(f"updates, {IN_FLIGHT} in flight", situation, single.requests / single.seconds, single.requests)
    stage.wait_published()


def _rate(name: str, situation: str, per_s: float, requests: int) -> Figure:
    return Figure(
        name=name,
        situation=situation,
        unit=Unit.ROWS_PER_S,
        kalam=per_s,
        note=f"{requests:,}",
        detail={"asked": requests},
    )


def _ask(stage: Stage, asking: Asking, requests: int, in_flight: int, keys_each: int = 1) -> Asked:
    words = f"{requests:,} of {keys_each:,} keys, {in_flight} in flight"
    stage.progress.step(f"stored_tables: {asking.value}s over NATS, {words}")
    task = AskerTask(
        url=stage.server.nats_url,
        subject=f"kalam.api.{USER}.sql",
        table=TABLE,
        asking=asking,
        keys=stage.sizes.keyed_rows,
        requests=requests,
        in_flight=in_flight,
        keys_each=keys_each,
    )
    with Process("asker", task, stage.log) as process:
        return stage.asked(process, requests)


def _ask_http(stage: Stage, requests: int) -> Asked:
    stage.progress.step(f"stored_tables: {requests:,} points over HTTP, {IN_FLIGHT} connections")
    keys = stage.sizes.keyed_rows
    task = HttpAskerTask(url=stage.server.http_url, table=TABLE, keys=keys, requests=requests, connections=IN_FLIGHT)
    with Process("http_asker", task, stage.log) as process:
        return stage.asked(process, requests)


def _bare(stage: Stage) -> Committed:
    rows = max(1, stage.sizes.updated_rows // UPSERT_KEYS) * UPSERT_KEYS
    task = SqliteTask(
        path=str(stage.folder("bare_updates") / "bare.db"), rows=rows, rows_per_commit=UPSERT_KEYS, updates=True
    )
    with Process("bare_sqlite", task, stage.log) as process:
        process.wait_ready()
        process.go()
        return process.result(Committed)
