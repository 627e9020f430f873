"""Streams of another JetStream domain behind a leaf node: read, followed, restored from a backup, fallen back.

Kalam is at the leaf, so that it and its listeners stay while the broker that has the streams goes and comes.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import NatsServer
from foreign_streams import ids, publish, restore, snapshot
from guarded_world import free_port
from live_subscriber import connected, subscribe
from nats.js import JetStreamContext
from nats.js.api import StreamConfig
from server_process import ServerProcess, SqlFailed

_numbers = itertools.count(1)
WaitFor = Callable[[Callable[[], Any]], Any]


class Hub:
    """The broker of the streams, and Kalam behind a leaf node of it."""

    def __init__(self, folder: Path) -> None:
        self._port = free_port()
        self.broker = NatsServer(folder / "hub")
        self._leaf = NatsServer(folder / "leaf")
        for server in (self.broker, self._leaf):
            server.folder.mkdir()
        self.start()
        remotes = [{"url": f"nats-leaf://127.0.0.1:{self._port}"}]
        self._leaf.start(server_name="leaf", jetstream=self._store(self._leaf), leafnodes={"remotes": remotes})
        self.kalam = ServerProcess(folder / "data", flags=(f"--nats-url={self._leaf.url}",)).start()

    def start(self) -> None:
        leafnodes = {"host": "127.0.0.1", "port": self._port}
        self.broker.start(server_name="hub", jetstream=self._store(self.broker), leafnodes=leafnodes)

    @property
    def store(self) -> Path:
        return self.broker.folder / "jetstream"

    @staticmethod
    def _store(server: NatsServer) -> dict[str, str]:
        return {"store_dir": str(server.folder), "domain": server.folder.name}

    def end(self) -> None:
        self.kalam.kill()
        self._leaf.kill()
        self.broker.kill()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    hub = Hub(tmp_path_factory.mktemp("domains"))
    hub.kalam.sql("CREATE NAMESPACE n")
    yield hub
    hub.end()


def is_there(server: ServerProcess, name: str) -> bool:
    """Whether the stream is found behind the leaf node."""
    try:
        server.sql(f"DESCRIBE STREAM '{name}' DOMAIN 'hub'")
    except SqlFailed as failure:
        if failure.code not in ("broker_unavailable", "not_found"):
            raise
        return False
    return True


@pytest.fixture
def name() -> str:
    return f"H{next(_numbers)}"


async def make(js: JetStreamContext, name: str) -> None:
    await js.add_stream(StreamConfig(name=name, subjects=[f"h.{name}"]))
    await publish(js, f"h.{name}", range(1, 6))


async def test_a_stream_of_another_domain_is_read_and_followed(hub: Hub, wait_for: WaitFor, name: str) -> None:
    server, table = hub.kalam, f"n.{name.lower()}"
    async with connected(hub.broker.url) as client:
        await make(client.jetstream(), name)
        wait_for(lambda: is_there(server, name))
        with pytest.raises(SqlFailed) as failure:
            server.sql(f"CREATE STREAM TABLE {table} (id BIGINT) OVER STREAM '{name}'")
        assert failure.value.code == "not_found"
        assert "DOMAIN" in failure.value.problem["hint"]
        server.sql(f"CREATE STREAM TABLE {table} (id BIGINT) OVER STREAM '{name}' DOMAIN 'hub'")
        assert ids(server, table) == [1, 2, 3, 4, 5]
        assert ids(server, table, "WHERE _seq > 3") == [4, 5]
        async with connected(server.nats_url) as listener:
            live = await subscribe(listener, f"SELECT id FROM {table}")
            await publish(client.jetstream(), f"h.{name}", range(6, 9))
            assert [change["row"]["id"] for change in await live.wait_changes(3)] == [6, 7, 8]
        while (await client.jetstream().stream_info(name)).state.consumer_count:
            pass  # the last read has a consumer until its end


async def test_a_restored_stream_is_the_same_to_tables_and_live_queries(hub: Hub, name: str) -> None:
    server, table = hub.kalam, f"n.{name.lower()}"
    async with connected(hub.broker.url) as client, connected(server.nats_url) as listener:
        js = client.jetstream()
        await make(js, name)
        server.sql(f"CREATE STREAM TABLE {table} (id BIGINT) OVER STREAM '{name}' DOMAIN 'hub'")
        live = await subscribe(listener, f"SELECT id FROM {table}")
        await publish(js, f"h.{name}", range(6, 8))
        await live.wait_changes(2)
        before = (await js.stream_info(name)).created
        backup = await snapshot(client, name)
        await js.delete_stream(name)
        await restore(client, name, backup)
        assert (await js.stream_info(name)).created != before
        assert ids(server, table) == [1, 2, 3, 4, 5, 6, 7]
        await publish(js, f"h.{name}", range(8, 10))
        changes = await live.wait_changes(4)
        assert [(change["row"]["id"], change["seq"]) for change in changes] == [(6, 6), (7, 7), (8, 8), (9, 9)]
        assert not live.of("resync")
        assert ids(server, table) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("behind", [2, 5, 8], ids=["fewer", "as-many", "more"])
async def test_what_follows_a_fall_back_is_told_though_its_sequences_were_given_before(
    hub: Hub, tmp_path: Path, wait_for: WaitFor, name: str, behind: int
) -> None:
    server, table = hub.kalam, f"n.{name.lower()}"
    async with connected(hub.broker.url) as client:
        await make(client.jetstream(), name)
    server.sql(f"CREATE STREAM TABLE {table} (id BIGINT) OVER STREAM '{name}' DOMAIN 'hub'")
    async with connected(server.nats_url) as listener:
        live = await subscribe(listener, f"SELECT id FROM {table}", last_rows=0)
        hub.broker.stop()
        shutil.copytree(hub.store, tmp_path / "older")
        hub.start()
        async with connected(hub.broker.url) as client:
            await publish(client.jetstream(), f"h.{name}", range(6, 11))
        await live.wait_changes(5)
        hub.broker.kill()
        shutil.rmtree(hub.store)
        shutil.copytree(tmp_path / "older", hub.store)
        wait_for(lambda: not is_there(server, name))
        hub.start()
        async with connected(hub.broker.url) as client:
            await publish(client.jetstream(), f"h.{name}", range(106, 106 + behind))
        changes = await live.wait_changes(5 + behind)
        told = [(change["row"]["id"], change["seq"]) for change in changes]
        again = [(105 + number, 5 + number) for number in range(1, behind + 1)]
        assert told == [*((number, number) for number in range(6, 11)), *again]
        assert len(live.of("resync")) == 1
        await asyncio.to_thread(wait_for, lambda: is_there(server, name))
        assert ids(server, table) == [1, 2, 3, 4, 5, *range(106, 106 + behind)]


async def test_a_bucket_that_falls_back_and_is_restored_is_told_as_what_is_another(
    hub: Hub, tmp_path: Path, wait_for: WaitFor, name: str
) -> None:
    server, table, many = hub.kalam, f"n.{name.lower()}", [f"k{number}" for number in range(100)]
    async with connected(hub.broker.url) as client:
        bucket = await client.jetstream().create_key_value(bucket=name)
        for key in ("a", "b", *many):
            await bucket.put(key, b'{"v": 1}')
    await asyncio.to_thread(wait_for, lambda: is_there(server, name))
    server.sql(f"CREATE STREAM TABLE {table} (v BIGINT) OVER BUCKET '{name}' DOMAIN 'hub'")
    async with connected(server.nats_url) as listener:
        live = await subscribe(listener, f"SELECT _key, v FROM {table}")
        hub.broker.stop()
        shutil.copytree(hub.store, tmp_path / "older")
        hub.start()
        async with connected(hub.broker.url) as client:
            bucket = await client.jetstream().key_value(name)
            for key in ("a", "c", "d"):
                await bucket.put(key, b'{"v": 2}')
        await live.wait_changes(3)
        hub.broker.kill()
        shutil.rmtree(hub.store)
        shutil.copytree(tmp_path / "older", hub.store)
        await asyncio.to_thread(wait_for, lambda: not is_there(server, name))
        hub.start()
        async with connected(hub.broker.url) as client:
            bucket = await client.jetstream().key_value(name)
            for key in ("b", "d", "e", "f", "g"):  # past the sequences of before
                await bucket.put(key, b'{"v": 3}')
            await live.wait(lambda: live.changes[-1]["row"] == {"_key": "g", "v": 3})
            backup = await snapshot(client, f"KV_{name}")
            await client.jetstream().delete_stream(f"KV_{name}")
            await restore(client, f"KV_{name}", backup)
            await bucket.put("last", b'{"v": 4}')
        await live.wait(lambda: live.changes[-1]["row"]["_key"] == "last")
    state = {row["_key"]: row["v"] for row in live.rows}
    for change in live.changes:
        key, before = change["row"]["_key"], state.pop(change["row"]["_key"], None)
        assert before == (change["old"]["v"] if change["op"] == "update" else before)
        assert (before is None) is (change["op"] == "insert")
        if change["op"] != "delete":
            state[key] = change["row"]["v"]
    assert state == dict.fromkeys(("a", *many), 1) | dict.fromkeys(("b", "d", "e", "f", "g"), 3) | {"last": 4}
    assert dict(server.sql(f"SELECT _key, v FROM {table}")) == state
    assert not live.of("resync")
