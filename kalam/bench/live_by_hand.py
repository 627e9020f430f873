"""From an insert to one of many live queries, beside a consumer by hand that tells the owner's subject."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Final

from kalam.bench.figures import Figure, Unit
from kalam.bench.handwritten_store import StoreTask
from kalam.bench.live import wait_closed
from kalam.bench.live_client import BARE_SUBJECT, Delivered, LiveClientTask
from kalam.bench.process import Process
from kalam.bench.rows import NO_FLUSH
from kalam.bench.stage import NAMESPACE, USER, Stage
from kalam.bench.streams import percentile_ms

SUBJECT: Final = "peers.live"
PERCENTS: Final = (50, 99)


def measure_live_query(stage: Stage) -> Iterator[Figure]:
    """The delay of inserts at a fixed pace, each of which concerns one of the live queries."""
    sizes = stage.sizes
    inserts = round(sizes.live_per_s * sizes.paced_s)
    own: list[Delivered] = []
    bare: list[Delivered] = []
    for turn in range(sizes.peer_turns):
        stage.progress.step(
            f"peers: {sizes.peer_live_queries:,} live queries, {sizes.live_per_s:,} inserts/s, turn {turn + 1}"
        )
        own.append(_kalam(stage, turn, inserts))
        bare.append(_by_hand(stage, turn, inserts))
    complete = all(len(one.delays_ns) == inserts and not one.wrong for one in (*own, *bare))
    for percent in PERCENTS:
        yield Figure(
            name=f"insert to delivery, p{percent}",
            situation=f"{sizes.peer_live_queries:,} live queries, {sizes.live_per_s:,} inserts/s, fsynced",
            unit=Unit.MS,
            kalam=_median_ms(own, percent),
            bare=_median_ms(bare, percent),
            bare_engine="nats-py and SQLite, fixed subjects",
            complete=complete,
            note=f"{inserts:,} inserts a turn",
            detail={"peer_delivered": min(len(one.delays_ns) for one in own)},
        )


def _median_ms(several: list[Delivered], percent: int) -> float:
    return median(percentile_ms(sorted(one.delays_ns), percent) for one in several)


def _kalam(stage: Stage, turn: int, inserts: int) -> Delivered:
    table = f"{NAMESPACE}.peer_live_{turn}"
    stage.sql.run(
        f"CREATE SHARED TABLE {table} (id BIGINT PRIMARY KEY, owner TEXT NOT NULL, v DOUBLE) WITH ({NO_FLUSH})"
    )
    delivered = _deliver(stage, inserts, table)
    wait_closed(stage)
    stage.wait_published()
    stage.sql.run(f"DROP TABLE {table}")
    return delivered


def _by_hand(stage: Stage, turn: int, inserts: int) -> Delivered:
    task = StoreTask(
        url=stage.server.nats_url,
        subject=SUBJECT,
        path=str(stage.folder(f"by_hand_live_{turn}") / "bare.db"),
        columns=["id", "owner", "v"],
        told=BARE_SUBJECT,
    )
    with Process("handwritten_store", task, stage.log) as peer:
        peer.wait_ready()
        return _deliver(stage, inserts, "")


def _deliver(stage: Stage, inserts: int, table: str) -> Delivered:
    task = LiveClientTask(
        url=stage.server.nats_url,
        user=USER,
        table=table,
        queries=stage.sizes.peer_live_queries,
        inserts=inserts,
        per_s=stage.sizes.live_per_s,
        through="" if table else SUBJECT,
    )
    with Process("live_client", task, stage.log) as process:
        process.wait_ready()
        process.go()
        return process.result(Delivered)
