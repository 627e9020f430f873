"""The door for PostgreSQL's clients beside a PostgreSQL: the same questions by the same client, and what they cost.

Processor time is what is compared, of all processes of a server: a small machine is shared with the client, and a
PostgreSQL works in one process where Kalam works in three. Both take turns, and the least of each counts. Without a
PostgreSQL on this machine Kalam is measured alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from kalam.bench import process_tree
from kalam.bench.figures import Figure, Unit
from kalam.bench.http_sql import HttpSql
from kalam.bench.pg_asker import PgAsked, PgAsking, PgTask
from kalam.bench.pg_client import PgClient
from kalam.bench.process import PREPARE_S, Process
from kalam.bench.real_postgres import ROW_COLUMNS, NoPostgres, RealPostgres, find_postgres
from kalam.bench.rows import NO_FLUSH, create_table
from kalam.bench.stage import NAMESPACE, USER, Stage
from kalam.cli.demo_server import DemoServer
from kalam.cli.failure import CommandFailed

ASKED: Final = "id, ts, user_id, url, status, latency, ok, tag"
COPIED_ROWS: Final = 250_000
"""Rows of one COPY, and so of one commit."""
MANY_ROWS: Final = 5_000
"""Rows of one ``executemany``."""
QUIET_S, QUIET_CPU_S, QUIET_S_MAX = 0.5, 0.02, 30.0
"""A server is quiet that takes so little processor time in so long; so long it is waited for."""
WATCHED_S: Final = 0.05
"""How often memory is looked at."""


@dataclass(slots=True)
class Side:
    """A server: where it is, its processes, and what is done when rows were brought."""

    name: str
    url: str
    pid: int
    table: Callable[[str], str]
    settle: Callable[[str], None]
    best: dict[str, float] = field(default_factory=dict)

    def least(self, name: str, value: float) -> None:
        """Keep the best of the rounds."""
        self.best[name] = min(self.best.get(name, value), value)


@dataclass(frozen=True, slots=True)
class Spent:
    """What was answered, the processor seconds that it took, and how much memory came to it at its height."""

    asked: PgAsked
    cpu_s: float
    memory_bytes: int


def measure_postgres(stage: Stage) -> Iterator[Figure]:
    """Rows in, rows out, single rows and connections."""
    if not process_tree.there():
        stage.progress.step("postgres: left out, for this system has no /proc")
        return
    with ExitStack() as stack:
        kalam = stack.enter_context(_kalam(stage))
        sides = [kalam]
        try:
            real = RealPostgres(find_postgres(), stage.sizes.pg_connections)
        except NoPostgres as exc:
            stage.progress.step(f"postgres: Kalam alone, without a PostgreSQL: {exc}")
        else:
            stage.progress.step("postgres: starting one")
            sides.append(_real(stack.enter_context(real)))
        for number in range(1, stage.sizes.rounds + 1):
            for side in sides:
                _round(stage, side, number)
        for side in sides:
            _connections(stage, side)
        yield from _figures(stage, kalam, sides[1] if len(sides) > 1 else None)


@contextmanager
def _kalam(stage: Stage) -> Iterator[Side]:
    stage.progress.step("postgres: starting a server with a door for its clients")
    settings = {"KALAM_PG_PORT": "0", "KALAM_PG_CONNECTIONS_MAX": str(stage.sizes.pg_connections + 20)}
    with (
        DemoServer(stage.home / "door", stage.home / "door.log", settings=settings) as server,
        HttpSql(server.http_url) as sql,
    ):
        sql.run(f"CREATE NAMESPACE {NAMESPACE}")

        def settle(table: str) -> None:
            stage.wait_published(sql)
            sql.run(f"FLUSH TABLE {table}")

        yield Side("Kalam", server.pg_url, server.pid, lambda name: create_table("SHARED", name, NO_FLUSH), settle)


def _real(real: RealPostgres) -> Side:
    def settle(table: str) -> None:
        _run(real.url, f"VACUUM (FREEZE, ANALYZE) {table}")
        _run(real.url, "CHECKPOINT")

    _run(real.url, f"CREATE SCHEMA {NAMESPACE}")
    return Side(real.version, real.url, real.pid, lambda name: f"CREATE TABLE {name} ({ROW_COLUMNS})", settle)


def _run(url: str, text: str) -> None:
    with PgClient(url, USER) as client:
        client.run(text)


def _round(stage: Stage, side: Side, number: int) -> None:
    sizes = stage.sizes
    rows, many = sizes.pg_rows, sizes.pg_many_rows
    table, few = f"{NAMESPACE}.pg_{number}", f"{NAMESPACE}.pg_many_{number}"
    stage.progress.step(f"postgres: {side.name}, {rows:,} rows, round {number} of {sizes.rounds}")
    for name in (table, few):
        _run(side.url, side.table(name))
    copied = _spent(stage, side, rows, PgAsking.COPY, table=table, each=min(COPIED_ROWS, rows))
    side.least("copy", copied.cpu_s)
    added = _spent(stage, side, many, PgAsking.MANY, table=few, each=min(MANY_ROWS, many))
    side.least("many", added.cpu_s)
    side.settle(table)
    for form in ("text", "binary"):
        read = _spent(stage, side, rows, PgAsking.READ, table=table, columns=ASKED, binary=form == "binary")
        side.least(form, read.cpu_s)
        side.least(f"{form} first", read.asked.first_ms)
        side.least(f"{form} memory", read.memory_bytes)
    for name, asking, count in (
        ("point", PgAsking.POINT, sizes.pg_points),
        ("parsed", PgAsking.PARSED, sizes.pg_points),
        ("simple", PgAsking.SIMPLE, sizes.pg_points),
        ("constant", PgAsking.CONSTANT, sizes.pg_constants),
    ):
        answered = _spent(stage, side, count, asking, table=table, columns=ASKED, each=rows)
        side.least(name, answered.cpu_s)
        side.least(f"{name} p50", answered.asked.p50_ms)


def _connections(stage: Stage, side: Side) -> None:
    count = stage.sizes.pg_connections
    stage.progress.step(f"postgres: {side.name}, {count:,} connections")
    opened = _spent(stage, side, count, PgAsking.CONNECT)
    side.least("connect", opened.cpu_s)
    side.least("connections memory", opened.memory_bytes)


def _spent(stage: Stage, side: Side, count: int, asking: PgAsking, **more: Any) -> Spent:
    """Have it asked; raises CommandFailed unless all was answered."""
    task = PgTask(url=side.url, user=USER, asking=asking, count=count, **more)
    with Process("pg_asker", task, stage.log) as process:
        process.wait_ready()
        _wait_quiet(side)
        cpu_s, memory = process_tree.cpu_s(side.pid), process_tree.memory_bytes(side.pid)
        height = memory
        process.go()
        left_s = PREPARE_S
        while (asked := process.answer(PgAsked, WATCHED_S)) is None and left_s > 0:
            height = max(height, process_tree.memory_bytes(side.pid))
            left_s -= WATCHED_S
        if asked is None:
            raise CommandFailed(f"error: {side.name} did not answer for {PREPARE_S:g} s")
        if asked.problem or asked.count != count:
            raise CommandFailed(f"error: {side.name} answered {asked.count:,} of {count:,}: {asked.problem}")
        cpu_s = process_tree.cpu_s(side.pid) - cpu_s
        height = max(height, process_tree.memory_bytes(side.pid))
    return Spent(asked, cpu_s, height - memory)


def _wait_quiet(side: Side) -> None:
    """Wait until a server has done what the rows before have left to do, in processes of its own too."""
    deadline = time.monotonic() + QUIET_S_MAX
    while time.monotonic() < deadline:
        before = process_tree.cpu_s(side.pid)
        time.sleep(QUIET_S)
        if process_tree.cpu_s(side.pid) - before <= QUIET_CPU_S:
            return


def _figures(stage: Stage, kalam: Side, real: Side | None) -> Iterator[Figure]:
    sizes = stage.sizes

    def figure(name: str, situation: str, unit: Unit, key: str, shown: Callable[[float], float]) -> Figure:
        return Figure(
            name=name,
            situation=situation,
            unit=unit,
            kalam=shown(kalam.best[key]),
            bare=None if real is None else shown(real.best[key]),
            bare_engine=None if real is None else real.name,
            detail={"asked_of_door": counts[key.partition(" ")[0]]},
        )

    rows, many = sizes.pg_rows, sizes.pg_many_rows
    counts = {"copy": rows, "many": many, "text": rows, "binary": rows, "point": sizes.pg_points}
    counts |= {"parsed": sizes.pg_points, "simple": sizes.pg_points}
    counts |= {"constant": sizes.pg_constants, "connect": sizes.pg_connections, "connections": sizes.pg_connections}

    def rate(key: str) -> Callable[[float], float]:
        return lambda cpu_s: counts[key] / max(cpu_s, 0.01)

    def cost(key: str) -> Callable[[float], float]:
        return lambda cpu_s: cpu_s / counts[key] * 1e6

    for form in ("text", "binary"):
        situation = f"{rows:,} rows of 8 columns by one SELECT, {form}"
        yield figure("rows out", situation, Unit.ROWS_PER_CPU_S, form, rate(form))
        yield figure("until the first row", situation, Unit.MS, f"{form} first", float)
        yield figure("memory at its height", situation, Unit.MB, f"{form} memory", lambda size: size / 1e6)
    situation = f"{rows:,} rows of 8 columns by COPY, {COPIED_ROWS:,} a statement, fsynced"
    yield figure("rows in", situation, Unit.ROWS_PER_CPU_S, "copy", rate("copy"))
    situation = f"{many:,} rows by executemany, {MANY_ROWS:,} a run, fsynced"
    yield figure("processor time a row", situation, Unit.US, "many", cost("many"))
    one = f"one row of {rows:,} by a random key"
    for key, situation in (
        ("point", f"{one}, prepared"),
        ("parsed", f"{one}, parsed each time"),
        ("simple", f"{one}, in a simple query"),
        ("constant", "SELECT 1, not prepared"),
    ):
        yield figure("processor time", situation, Unit.US, key, cost(key))
        yield figure("p50", situation, Unit.MS, f"{key} p50", float)
    situation = f"{sizes.pg_connections:,} connections that ask nothing"
    yield figure("memory", situation, Unit.MB, "connections memory", lambda size: size / 1e6)
    yield figure("processor time to connect", situation, Unit.US, "connect", cost("connect"))
