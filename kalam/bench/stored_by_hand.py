"""Inserts, fsynced and acknowledged, beside a consumer by hand and beside PostgreSQL, if this machine has one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Final

from kalam.bench.figures import Figure, Unit
from kalam.bench.handwritten_store import StoreTask
from kalam.bench.inserter import InserterTask
from kalam.bench.pg_client import PgClient
from kalam.bench.pg_inserter import PgInserterTask
from kalam.bench.process import Process
from kalam.bench.real_postgres import ROW_COLUMNS, NoPostgres, RealPostgres, find_postgres
from kalam.bench.rows import NO_FLUSH, Row, create_table
from kalam.bench.stage import NAMESPACE, USER, Stage

SUBJECT: Final = "peers.rows"
BY_HAND: Final = "nats-py and SQLite"
PG_TABLE: Final = "stored"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How rows are sent; PostgreSQL gets them on ``connections``, one message in flight on each."""

    name: str
    words: str
    rows: int
    rows_per_message: int
    in_flight: int
    connections: int
    pg_way: str


Side = Callable[[int], Process]
"""Makes the process that inserts the rows from a number on."""


def measure_stored(stage: Stage) -> Iterator[Figure]:
    """Single rows, then batches."""
    sizes = stage.sizes
    loads = (
        Load(
            name="single",
            words="1 row a message, fsynced, 256 in flight",
            rows=sizes.peer_single_rows,
            rows_per_message=1,
            in_flight=256,
            connections=256,
            pg_way="256 connections, prepared",
        ),
        Load(
            name="batched",
            words="1,000 rows a message, fsynced, 4 in flight",
            rows=sizes.peer_batched_rows,
            rows_per_message=1_000,
            in_flight=4,
            connections=4,
            pg_way="4 connections, COPY",
        ),
    )
    with ExitStack() as stack:
        postgres = None
        try:
            postgres = stack.enter_context(RealPostgres(find_postgres(), max(load.connections for load in loads)))
        except NoPostgres as exc:
            stage.progress.step(f"peers: without a PostgreSQL: {exc}")
        for load in loads:
            yield from _beside(stage, load, postgres)


def _beside(stage: Stage, load: Load, postgres: RealPostgres | None) -> Iterator[Figure]:
    with ExitStack() as stack:
        sides = {"Kalam": _kalam(stage, load), BY_HAND: _by_hand(stage, load, stack)}
        if postgres is not None:
            sides[f"{postgres.version}, {load.pg_way}"] = _postgres(stage, load, postgres)
        per_s: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(stage.sizes.peer_turns):
            for name, side in sides.items():
                stage.progress.step(f"peers: {load.rows:,} rows, {load.words}, turn {turn + 1}: {name}")
                with side(turn * load.rows) as process:
                    per_s[name].append(load.rows / stage.inserted(process, load.rows).seconds)
                stage.wait_published()
        table = _table(load)
        complete = stage.sql.count(table) == stage.sizes.peer_turns * load.rows
        stage.sql.run(f"DROP TABLE {table}")
    own = per_s.pop("Kalam")
    for name, rates in per_s.items():
        yield Figure(
            name="acknowledged",
            situation=load.words,
            unit=Unit.ROWS_PER_S,
            kalam=median(own),
            bare=median(rates),
            bare_engine=name,
            complete=complete,
            note=f"{load.rows:,} rows a turn",
            detail={"peer_rows": load.rows},
        )


def _table(load: Load) -> str:
    return f"{NAMESPACE}.peer_{load.name}"


def _kalam(stage: Stage, load: Load) -> Side:
    stage.sql.run(create_table("SHARED", _table(load), NO_FLUSH))
    return lambda first: Process(
        "inserter", _task(stage, load, first, f"kalam.api.{USER}.insert.{_table(load)}"), stage.log
    )


def _by_hand(stage: Stage, load: Load, stack: ExitStack) -> Side:
    task = StoreTask(
        url=stage.server.nats_url,
        subject=SUBJECT,
        path=str(stage.folder(f"by_hand_{load.name}") / "bare.db"),
        columns=list(Row.__struct_fields__),
    )
    stack.enter_context(Process("handwritten_store", task, stage.log)).wait_ready()
    return lambda first: Process("inserter", _task(stage, load, first, SUBJECT), stage.log)


def _task(stage: Stage, load: Load, first: int, subject: str) -> InserterTask:
    return InserterTask(
        url=stage.server.nats_url,
        subject=subject,
        first=first,
        rows=load.rows,
        rows_per_message=load.rows_per_message,
        in_flight=load.in_flight,
    )


def _postgres(stage: Stage, load: Load, postgres: RealPostgres) -> Side:
    with PgClient(postgres.url, USER) as client:
        client.run(f"DROP TABLE IF EXISTS {PG_TABLE}; CREATE TABLE {PG_TABLE} ({ROW_COLUMNS})")

    def side(first: int) -> Process:
        task = PgInserterTask(
            url=postgres.url,
            user=USER,
            table=PG_TABLE,
            first=first,
            rows=load.rows,
            rows_per_message=load.rows_per_message,
            in_flight=load.connections,
        )
        return Process("pg_inserter", task, stage.log)

    return side
