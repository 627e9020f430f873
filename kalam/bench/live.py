"""Live queries: from an insert to its delivery, while more and more of them are open; and how far the feed is behind.

Each insert concerns exactly one live query, whatever their number: what grows with it is the cost of having live
queries, not of delivering.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

from kalam.bench.feed_client import Behind, FeedClientTask
from kalam.bench.figures import Figure, Unit, percentile
from kalam.bench.idle import PROC, usage
from kalam.bench.live_client import Delivered, LiveClientTask
from kalam.bench.process import Process
from kalam.bench.rows import NO_FLUSH, create_table
from kalam.bench.stage import NAMESPACE, USER, Stage
from kalam.bench.streams import receive
from kalam.bench.subscriber import Reading, Received, SubscriberTask
from kalam.cli.failure import CommandFailed

BARE_ENGINE: Final = "nats-server, publish to subscriber"
CLOSED_S: Final = 30.0
POLL_S: Final = 0.05
FEED_ROWS_PER_MESSAGE: Final = 20


def measure_live(stage: Stage) -> Iterator[Figure]:
    """Some, more and many live queries; then the change feed, paced and at full speed."""
    for queries in stage.sizes.live_queries:
        yield from _live_queries(stage, queries)
    yield from _feed_lag(stage)
    yield from _feed_speed(stage)


def _live_queries(stage: Stage, queries: int) -> Iterator[Figure]:
    sizes = stage.sizes
    inserts = round(sizes.live_per_s * sizes.paced_s)
    stage.progress.step(f"live: {queries:,} live queries, {sizes.live_per_s:,} inserts/s for {sizes.paced_s:g} s")
    table = f"{NAMESPACE}.live_{queries}"
    stage.sql.run(
        f"CREATE SHARED TABLE {table} (id BIGINT PRIMARY KEY, owner TEXT NOT NULL, v DOUBLE) WITH ({NO_FLUSH})"
    )
    kalam, cpu_s, took_s = _deliver(stage, stage.server.nats_url, table, queries, inserts)
    bare, _, _ = _deliver(stage, stage.broker.url, "", queries, inserts)
    wait_closed(stage)
    situation = f"{queries:,} live queries, {sizes.live_per_s:,} inserts/s"
    complete = not kalam.wrong and len(kalam.delays_ns) == inserts
    note = f"{len(kalam.delays_ns):,} of {inserts:,} delivered"
    for percent in (50, 99):
        yield Figure(
            name=f"insert to delivery, p{percent}",
            situation=situation,
            unit=Unit.MS,
            kalam=percentile(kalam.delays_ns, percent) / 1e6,
            bare=percentile(bare.delays_ns, percent) / 1e6,
            bare_engine=BARE_ENGINE,
            complete=complete,
            note=note,
            detail={"live_queries": queries, "delivered": len(kalam.delays_ns)},
        )
    if cpu_s is not None:
        share = Figure(name="server", situation=situation, unit=Unit.CPU, kalam=cpu_s / took_s * 100)
        cost = Figure(name="server, for an insert", situation=situation, unit=Unit.US, kalam=cpu_s / inserts * 1e6)
        yield from (share, cost)


def _deliver(stage: Stage, url: str, table: str, queries: int, inserts: int) -> tuple[Delivered, float | None, float]:
    """What was delivered, and the server's processor time and the wall clock's meanwhile."""
    task = LiveClientTask(
        url=url, user=USER, table=table, queries=queries, inserts=inserts, per_s=stage.sizes.live_per_s
    )
    with Process("live_client", task, stage.log) as process:
        process.wait_ready()
        before, started = _cpu_s(stage), time.perf_counter()
        process.go()
        delivered = process.result(Delivered)
        after, took_s = _cpu_s(stage), time.perf_counter() - started
    return delivered, None if before is None or after is None else after - before, took_s


def _cpu_s(stage: Stage) -> float | None:
    """The processor time that the server has used; None where it cannot be read."""
    return usage(stage.server.pid).cpu_s if (PROC / "self" / "stat").exists() else None


def wait_closed(stage: Stage) -> None:
    """Wait until no live query is open, so that none of them costs the next measurement anything."""
    deadline = time.monotonic() + CLOSED_S
    while stage.sql.run("SELECT count(*) FROM system.live_queries").rows[0][0]:
        if time.monotonic() > deadline:
            raise CommandFailed(f"error: live queries were still open {CLOSED_S:g} s after they were closed")
        time.sleep(POLL_S)


def _feed_lag(stage: Stage) -> Iterator[Figure]:
    sizes = stage.sizes
    messages = round(sizes.feed_per_s * sizes.paced_s / FEED_ROWS_PER_MESSAGE)
    stage.progress.step(f"live: the feed at {sizes.feed_per_s:,} changes/s for {sizes.paced_s:g} s")
    table = f"{NAMESPACE}.feed_paced"
    stage.sql.run(create_table("SHARED", table, NO_FLUSH))
    task = FeedClientTask(
        url=stage.server.nats_url,
        user=USER,
        table=table,
        messages=messages,
        rows_per_message=FEED_ROWS_PER_MESSAGE,
        per_s=sizes.feed_per_s,
    )
    with Process("feed_client", task, stage.log) as process:
        process.wait_ready()
        process.go()
        behind = process.result(Behind)
    rows = messages * FEED_ROWS_PER_MESSAGE
    for percent in (50, 99):
        yield Figure(
            name=f"feed behind the ack, p{percent}",
            situation=f"{sizes.feed_per_s:,} changes/s, {FEED_ROWS_PER_MESSAGE} rows a message",
            unit=Unit.MS,
            kalam=percentile(behind.delays_ns, percent) / 1e6,
            complete=behind.received == rows and not behind.holes and len(behind.delays_ns) == messages,
            note=f"{behind.received:,} of {rows:,} changes" + (f", {behind.holes} holes" if behind.holes else ""),
        )


def _feed_speed(stage: Stage) -> Iterator[Figure]:
    rows = stage.sizes.batched_rows
    stage.progress.step(f"live: the feed of {rows:,} rows at full speed")
    table = f"{NAMESPACE}.feed_full"
    stage.sql.run(create_table("SHARED", table, NO_FLUSH))
    listening = SubscriberTask(
        url=stage.server.nats_url,
        subject=f"kalam.shared.{table}.>",
        reading=Reading.CHANGES,
        expected=rows,
        progress="",
    )
    with ExitStack() as stack:
        subscriber = stack.enter_context(Process("subscriber", listening, stage.log))
        inserter = stack.enter_context(stage.inserter(table, 0, rows))
        subscriber.wait_ready()
        before = _cpu_s(stage)
        acknowledged, received = stage.inserted(inserter, rows), receive(subscriber)
        after = _cpu_s(stage)
    complete = received.received == rows and not received.holes
    situation = "1,000 rows a message, 8 in flight"
    for name, ended_ns in (("acknowledged", acknowledged.ended_ns), ("published", received.last_ns)):
        seconds = max(1, ended_ns - acknowledged.started_ns) / 1e9
        yield Figure(
            name=name,
            situation=situation,
            unit=Unit.ROWS_PER_S,
            kalam=rows / seconds,
            complete=complete,
            note=_told(received, rows),
        )
    if before is not None and after is not None:
        yield Figure(name="server, for a row", situation=situation, unit=Unit.US, kalam=(after - before) / rows * 1e6)


def _told(received: Received, rows: int) -> str:
    return f"{received.received:,} of {rows:,} changes" + (f", {received.holes} holes" if received.holes else "")
