"""Logins: how long one takes, how soon a crowd is in, and what it costs that everybody is asked.

A second server asks everybody who comes; it and the one that asks nobody take turns with the same load, and of the
rounds the best of each counts.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from kalam.bench.asker import AskerTask, Asking
from kalam.bench.comers import Came, ComersTask
from kalam.bench.figures import Figure, Unit
from kalam.bench.http_sql import HttpSql
from kalam.bench.inserter import Acknowledged, InserterTask
from kalam.bench.live_client import Delivered, LiveClientTask
from kalam.bench.process import Process
from kalam.bench.rows import NO_FLUSH, create_table
from kalam.bench.stage import NAMESPACE, USER, Stage
from kalam.cli.demo_server import DemoServer
from kalam.cli.failure import CommandFailed
from kalam.credentials import Credentials

ALONE: Final = "Kalam, authentication off"
IN_FLIGHT: Final = 16
LIVE_QUERIES: Final = 100
CROWD_USERS: Final = 10


@dataclass(frozen=True, slots=True)
class Side:
    """A server, and the address under which the bench's user comes to its NATS."""

    name: str
    sql: HttpSql
    nats_url: str


def measure_logins(stage: Stage) -> Iterator[Figure]:
    """Logins by themselves, and then the same load with and without."""
    with ExitStack() as stack:
        on, password = stack.enter_context(_guarded(stage))
        off = Side("off", stage.sql, stage.server.nats_url)
        yield from _lone_logins(stage, on, password)
        yield _crowd(stage, on)
        yield from _costs(stage, off, on)


@contextmanager
def _guarded(stage: Stage) -> Iterator[tuple[Side, str]]:
    """A server whose users log in, with the bench's user and that user's password."""
    stage.progress.step("logins: starting a server that asks who comes")
    password = secrets.token_hex(16)
    admin = Credentials(user="admin", secret=password)
    with (
        DemoServer(stage.home / "guarded", stage.home / "guarded.log", password) as server,
        HttpSql(server.http_url, admin) as sql,
    ):
        sql.run(f"CREATE NAMESPACE {NAMESPACE}; CREATE USER {USER} WITH PASSWORD '{password}'")
        sql.run(f"GRANT ALL ON NAMESPACE {NAMESPACE} TO {USER}")
        yield Side("on", sql, server.nats_url.replace("://", f"://{USER}:{password}@")), password


def _lone_logins(stage: Stage, on: Side, password: str) -> Iterator[Figure]:
    """One after the other, by a password that was verified before, so that none is hashed."""
    count = stage.sizes.logins
    stage.progress.step(f"logins: {count} one after the other")
    came = _come(stage, ComersTask(url=on.nats_url, users=[USER], password=password, count=count, at_once=False))
    ordered = sorted(came.login_ms) or [0.0]
    for percent in (50, 99):
        yield Figure(
            name=f"a login without a hash, p{percent}",
            situation="NATS, one after the other",
            unit=Unit.MS,
            kalam=ordered[min(len(ordered) - 1, len(ordered) * percent // 100)],
            complete=len(came.login_ms) == count,
            note=f"{len(came.login_ms):,} of {count:,}",
            detail={"logins": len(came.login_ms)},
        )


def _crowd(stage: Stage, on: Side) -> Figure:
    """Clients of users whose passwords nobody has verified yet, all at once."""
    count = stage.sizes.crowd_logins
    stage.progress.step(f"logins: {count} at once")
    password, users = secrets.token_hex(16), [f"crowd{number}" for number in range(min(CROWD_USERS, count))]
    for user in users:
        on.sql.run(f"CREATE USER {user} WITH PASSWORD '{password}'")
    came = _come(stage, ComersTask(url=on.nats_url, users=users, password=password, count=count, at_once=True))
    return Figure(
        name="until the last is in",
        situation=f"{count} clients of {len(users)} users at once",
        unit=Unit.MS,
        kalam=max(came.login_ms, default=0.0),
        complete=len(came.login_ms) == count,
        note=f"{len(came.login_ms):,} of {count:,} are in",
        detail={"logins": len(came.login_ms)},
    )


def _come(stage: Stage, task: ComersTask) -> Came:
    with Process("comers", task, stage.log) as process:
        process.wait_ready()
        process.go()
        return process.result(Came)


def _costs(stage: Stage, off: Side, on: Side) -> Iterator[Figure]:
    sizes = stage.sizes
    single, batched = sizes.single_rows // 2, sizes.batched_rows // 2
    loads: tuple[tuple[str, Unit, Callable[[Side, int], float]], ...] = (
        ("inserts, 1 row a message", Unit.ROWS_PER_S, lambda side, no: _insert(stage, side, f"one_{no}", single, 1)),
        (
            "inserts, 1,000 rows a message",
            Unit.ROWS_PER_S,
            lambda side, no: _insert(stage, side, f"many_{no}", batched, 1_000),
        ),
        ("reads by key", Unit.ROWS_PER_S, lambda side, no: _read(stage, side, no)),
        ("insert to live query, p50", Unit.MS, lambda side, no: _follow(stage, side, no)),
    )
    for name, unit, load in loads:
        found: dict[str, list[float]] = {"off": [], "on": []}
        for number in range(sizes.login_rounds):
            for side in (off, on) if number % 2 == 0 else (on, off):
                stage.progress.step(f"logins: {name}, {side.name}, round {number + 1} of {sizes.login_rounds}")
                found[side.name].append(load(side, number))
        best = max if unit.more_is_better else min
        yield Figure(
            name=name,
            situation="users log in",
            unit=unit,
            kalam=best(found["on"]),
            bare=best(found["off"]),
            bare_engine=ALONE,
            note=f"{sizes.login_rounds} rounds each",
        )


def _insert(stage: Stage, side: Side, name: str, rows: int, rows_per_message: int) -> float:
    """Rows a second."""
    table = f"{NAMESPACE}.login_{name}"
    side.sql.run(create_table("SHARED", table, NO_FLUSH))
    task = InserterTask(
        url=side.nats_url,
        subject=stage.insert_subject(table),
        first=0,
        rows=rows,
        rows_per_message=rows_per_message,
        in_flight=256 if rows_per_message == 1 else 8,
    )
    with Process("inserter", task, stage.log) as process:
        acknowledged: Acknowledged = stage.inserted(process, rows)
    stage.wait_published(side.sql)
    return rows / acknowledged.seconds


def _read(stage: Stage, side: Side, number: int) -> float:
    """Rows a second, of those that the last round of single inserts left."""
    requests = stage.sizes.point_reads // 2
    task = AskerTask(
        url=side.nats_url,
        subject=f"kalam.api.{USER}.sql",
        table=f"{NAMESPACE}.login_one_{number}",
        asking=Asking.POINT,
        keys=stage.sizes.single_rows // 2,
        requests=requests,
        in_flight=IN_FLIGHT,
    )
    with Process("asker", task, stage.log) as process:
        return requests / stage.asked(process, requests).seconds


def _follow(stage: Stage, side: Side, number: int) -> float:
    """Milliseconds from an insert to its delivery."""
    table, sizes = f"{NAMESPACE}.login_live_{number}", stage.sizes
    columns = "id BIGINT PRIMARY KEY, owner TEXT NOT NULL, v DOUBLE"
    side.sql.run(f"CREATE SHARED TABLE {table} ({columns}) WITH ({NO_FLUSH})")
    inserts = round(sizes.live_per_s * sizes.paced_s)
    task = LiveClientTask(
        url=side.nats_url, user=USER, table=table, queries=LIVE_QUERIES, inserts=inserts, per_s=sizes.live_per_s
    )
    with Process("live_client", task, stage.log) as process:
        process.wait_ready()
        process.go()
        delays = sorted(process.result(Delivered).delays_ns)
    if len(delays) != inserts:
        raise CommandFailed(f"error: {len(delays):,} of {inserts:,} changes were delivered")
    return delays[len(delays) // 2] / 1e6
