"""A stream that is made anew, purged, or falls back to an older state while live queries are open on its table."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

from conftest import NatsServer
from live_subscriber import Subscriber, ask, connected, subscribe
from nats.aio.client import Client
from server_process import ServerProcess


async def insert(client: Client, table: str, first: int, count: int) -> None:
    """Insert rows one by one, again where the broker has just lost what it knew."""
    for n in range(first, first + count):
        async with asyncio.timeout(30):
            while True:
                msg = await client.request(f"kalam.api.ada.insert.{table}", json.dumps({"id": n}).encode(), timeout=15)
                if not (msg.headers and "Nats-Service-Error" in msg.headers):
                    break
                await asyncio.sleep(0.05)


def runs(live: Subscriber) -> list[list[int]]:
    """The ids that were told, apart at each ``resync``; fails where numbers do not grow within one."""
    told: list[list[tuple[int, int]]] = [[]]
    for message in live.messages:
        if message["type"] == "resync":
            told.append([])
        for change in message.get("changes", ()):
            told[-1].append((change["seq"], change["row"]["id"]))
    for run in told:
        assert [seq for seq, _ in run] == sorted({seq for seq, _ in run})
    return [[row_id for _, row_id in run] for run in told]


async def test_a_purge_takes_nothing_from_a_live_query(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE purged; CREATE STREAM TABLE purged.t (id BIGINT)")
    async with connected(shared_server.nats_url) as client:
        live = await subscribe(client, "SELECT id FROM purged.t")
        for first in (0, 10, 20):
            await insert(client, "purged.t", first, 10)
            await client.jetstream().purge_stream("KALAM-purged-t")
        await live.wait_changes(30)
        await asyncio.sleep(0.6)  # longer than two looks
        assert runs(live) == [list(range(30))]


async def test_a_stream_that_somebody_removes_begins_anew_and_nothing_comes_twice(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE removed; CREATE STREAM TABLE removed.t (id BIGINT)")
    async with connected(shared_server.nats_url) as client:
        live = await subscribe(client, "SELECT id FROM removed.t")
        judged = await subscribe(client, "SELECT id FROM removed.t WHERE id % 2 = 0")
        await insert(client, "removed.t", 0, 20)
        await live.wait_changes(20)
        await client.jetstream().delete_stream("KALAM-removed-t")
        await insert(client, "removed.t", 100, 50)  # more than there were, so that the numbers pass the former ones
        for each, step in ((live, 1), (judged, 2)):
            last = 150 - step
            await each.wait(lambda each=each, last=last: any(c["row"]["id"] == last for c in each.changes))  # type: ignore[misc]
            before, *between, after = runs(each)
            assert before == list(range(0, 20, step))
            assert [*chain.from_iterable(between), *after] == list(range(100, 150, step))
        assert live.of("resync")[-1]["seq"] < 50
        late = await subscribe(client, "SELECT id FROM removed.t", last_rows=0)
        await insert(client, "removed.t", 200, 5)
        await late.wait_changes(5)
        assert runs(late) == [list(range(200, 205))]


async def test_a_table_of_the_same_name_is_another_one(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE again; CREATE STREAM TABLE again.t (id BIGINT)")
    async with connected(shared_server.nats_url) as client:
        first = await subscribe(client, "SELECT id FROM again.t")
        await insert(client, "again.t", 0, 10)
        await first.wait_changes(10)
        await first.close()
        await first.wait(lambda: first.of("closed"))
        shared_server.sql("DROP TABLE again.t; CREATE STREAM TABLE again.t (id BIGINT)")
        second = await subscribe(client, "SELECT id FROM again.t")
        await insert(client, "again.t", 100, 20)
        await second.wait_changes(20)
        assert runs(second) == [list(range(100, 120))]
        assert [change["seq"] for change in second.changes] == list(range(1, 21))


async def told_after_the_store_changed(
    broker: NatsServer, server: ServerProcess, change_store: Callable[[], Any], *, keep: int
) -> list[list[int]]:
    """What a live query is told of 20 events before and 50 after the broker's store was changed while it was down."""
    server.sql("CREATE NAMESPACE lost; CREATE STREAM TABLE lost.t (id BIGINT)")
    async with connected(broker.url, max_reconnect_attempts=-1, reconnect_time_wait=0.05) as client:
        live = await subscribe(client, "SELECT id FROM lost.t")
        await insert(client, "lost.t", 0, keep)
        await live.wait_changes(keep)  # what is on its way to a broker that ends is lost
        await asyncio.to_thread(broker.stop)
        change_store()
        await asyncio.to_thread(broker.start)
        await ask_until_answered(client, "lost.t")
        await insert(client, "lost.t", keep, 20 - keep)
        await live.wait_changes(20)
        await asyncio.to_thread(broker.stop)
        change_store()
        await asyncio.to_thread(broker.start)
        await ask_until_answered(client, "lost.t")
        await insert(client, "lost.t", 100, 50)
        await live.wait(lambda: live.changes[-1]["row"]["id"] == 149)
        return runs(live)


async def ask_until_answered(client: Client, table: str) -> None:
    """Wait until the server is back on the broker."""
    async with asyncio.timeout(30):
        while True:
            try:
                await ask(client, "kalam.api.ada.sql", {"sql": f"SELECT count(*) FROM {table}"})
            except Exception:  # noqa: BLE001 - it is not back yet
                await asyncio.sleep(0.05)
            else:
                return


async def test_a_subscriber_that_returns_after_the_server_misses_nothing(
    nats_server: NatsServer, start_kalam: Callable[..., ServerProcess]
) -> None:
    server = start_kalam(flags=(f"--nats-url={nats_server.url}",))
    server.sql("CREATE NAMESPACE late; CREATE STREAM TABLE late.t (id BIGINT)")
    slow = {"max_reconnect_attempts": -1, "reconnect_time_wait": 2.0}
    async with connected(nats_server.url, **slow) as client:
        changed = await subscribe(client, "SELECT id FROM late.t")
        quiet = await subscribe(client, "SELECT id FROM late.t WHERE id < 0")
        await insert(client, "late.t", 0, 5)
        await changed.wait_changes(5)
        await asyncio.to_thread(nats_server.stop)
        await asyncio.to_thread(nats_server.start)
        async with connected(nats_server.url) as other:
            await ask_until_answered(other, "late.t")
            await insert(other, "late.t", 5, 5)
            assert not client.is_connected
        await changed.wait_changes(10)
        assert runs(changed) == [list(range(10))]
        beats = len(quiet.of("heartbeat"))
        await quiet.wait(lambda: len(quiet.of("heartbeat")) > beats)


async def test_a_broker_that_lost_its_store_begins_anew_and_nothing_comes_twice(
    nats_server: NatsServer, start_kalam: Callable[..., ServerProcess], tmp_path_factory: Any
) -> None:
    server = start_kalam(flags=(f"--nats-url={nats_server.url}",))
    store = nats_server.folder / "jetstream"
    times = 0

    def lose() -> None:
        nonlocal times
        times += 1
        if times == 2:
            shutil.rmtree(store)

    before, *between, after = await told_after_the_store_changed(nats_server, server, lose, keep=10)
    assert before == list(range(20))
    assert [*chain.from_iterable(between), *after] == list(range(100, 150))


async def test_a_broker_that_falls_back_is_noticed_and_nothing_comes_twice(
    nats_server: NatsServer, start_kalam: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = start_kalam(flags=(f"--nats-url={nats_server.url}",))
    store, kept = nats_server.folder / "jetstream", tmp_path / "kept"

    def put_back() -> None:
        if kept.exists():
            shutil.rmtree(store)
            shutil.copytree(kept, store)
        else:
            shutil.copytree(store, kept)

    before, *between, after = await told_after_the_store_changed(nats_server, server, put_back, keep=10)
    assert before == list(range(20))
    assert [*chain.from_iterable(between), *after] == list(range(100, 150))
