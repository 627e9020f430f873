"""A cluster of three brokers: Kalam starts before it has a leader, and reads on when leaders change and servers die."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import NatsServer
from guarded_world import free_port
from live_subscriber import connected, subscribe
from nats import errors as nats_errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import StreamConfig
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed

WaitFor = Callable[[Callable[[], Any]], Any]
MANY = 40_000
"""Messages that are read by several pulls."""
NAMES = ("a", "b", "c")


class Cluster:
    """Three servers that know each other."""

    def __init__(self, folder: Path) -> None:
        self.servers = {name: NatsServer(folder / name) for name in NAMES}
        self._ports = {name: free_port() for name in NAMES}
        for server in self.servers.values():
            server.folder.mkdir()

    def start(self, name: str) -> None:
        routes = [f"nats-route://127.0.0.1:{port}" for other, port in self._ports.items() if other != name]
        cluster = {"name": "c", "host": "127.0.0.1", "port": self._ports[name], "routes": routes}
        self.servers[name].start(server_name=name, cluster=cluster)

    @property
    def urls(self) -> list[str]:
        return [server.url for server in self.servers.values()]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    for server in cluster.servers.values():
        server.kill()


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Iterator[Callable[..., ServerProcess]]:
    """Launches a Kalam that connects to the server of the cluster that is there first."""
    launched: list[ServerProcess] = []
    cluster.start("a")

    def launch(**environment: str) -> ServerProcess:
        folder = tmp_path_factory.mktemp("kalam") / "data"
        server = ServerProcess(folder, (f"--nats-url={cluster.servers['a'].url}",), environment)
        launched.append(server)
        server.launch()
        return server

    yield launch
    for server in launched:
        server.kill()


@pytest.fixture
def wait_waiting(wait_for: WaitFor) -> Callable[[ServerProcess], None]:
    """Waits until a server has said that it waits for JetStream."""
    return lambda server: wait_for(lambda: "waiting for it" in server.log_text())


def test_a_start_without_a_leader_ends_after_its_time_and_when_it_is_told_to(
    launch: Callable[..., ServerProcess], wait_waiting: Callable[[ServerProcess], None]
) -> None:
    impatient = launch(KALAM_BROKER_START_S="0.5")
    assert impatient.wait_end() == 1
    assert "broker_start_s" in impatient.log_text()
    stopped = launch()
    wait_waiting(stopped)
    assert stopped.stop() == 1
    assert "ended while it waited for JetStream" in stopped.log_text()


@pytest.fixture(scope="module")
def kalam(cluster: Cluster, launch: Callable[..., ServerProcess]) -> ServerProcess:
    """Kalam, launched while there is no majority of the cluster; the others come later."""
    server = launch(KALAM_CHANGES_REPLICAS="3")
    deadline = time.monotonic() + PATIENCE_S
    while "waiting for it" not in server.log_text():
        assert time.monotonic() < deadline, server.log_text()
        time.sleep(0.01)
    cluster.start("b")
    cluster.start("c")
    server.wait_announced()
    server.sql("CREATE NAMESPACE n")
    return server


async def publish(client: Client, subject: str, ids: range) -> None:
    """Publish each message until it is stored; an id lets JetStream tell a second one."""
    js = client.jetstream(timeout=1)
    for number in ids:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with suppress(nats_errors.Error, TimeoutError):
                    await js.publish(subject, json.dumps({"id": number}).encode(), headers={"Nats-Msg-Id": str(number)})
                    break


async def half_read(js: JetStreamContext, asked: asyncio.Task[Any]) -> str:
    """The server that leads the consumer of a read, or, where the read is over already, its stream."""
    while not asked.done():
        with suppress(nats_errors.Error, TimeoutError):
            for consumer in await js.consumers_info("S"):
                if consumer.name.startswith("kalam-") and consumer.num_pending and consumer.cluster is not None:
                    return str(consumer.cluster.leader)
    info = await js.stream_info("S")
    assert info.cluster is not None
    return str(info.cluster.leader)


def answer(server: ServerProcess, sql: str) -> list[Any]:
    """The answer, asked for again while the broker has no leader to give one."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return server.sql(sql)
        except SqlFailed as failure:
            if failure.code != "broker_unavailable" or time.monotonic() > deadline:
                raise


async def test_messages_are_read_and_told_once_while_leaders_change_and_a_server_dies(
    cluster: Cluster, kalam: ServerProcess
) -> None:
    counts = "SELECT count(*), count(DISTINCT id), max(id) FROM n.t"
    async with connected(cluster.urls) as client:
        js = client.jetstream()
        await js.add_stream(StreamConfig(name="S", subjects=["s"], num_replicas=3))
        for number in range(1, MANY):
            await client.publish("s", json.dumps({"id": number}).encode())
        await publish(client, "s", range(MANY, MANY + 1))
        kalam.sql("CREATE STREAM TABLE n.t (id BIGINT) OVER STREAM 'S'")
        live = await subscribe(client, "SELECT id FROM n.t", last_rows=0)
        await client.request("$JS.API.STREAM.LEADER.STEPDOWN.S", timeout=PATIENCE_S)
        await publish(client, "s", range(MANY + 1, MANY + 4))
        await live.wait_changes(3)
        asked = asyncio.create_task(asyncio.to_thread(answer, kalam, counts))
        cluster.servers[await half_read(js, asked)].kill()
        assert await asked == [[MANY + 3, MANY + 3, MANY + 3]]
        await publish(client, "s", range(MANY + 4, MANY + 8))
        assert await asyncio.to_thread(answer, kalam, counts) == [[MANY + 7, MANY + 7, MANY + 7]]
        changes = await live.wait_changes(7)
        told = [(change["row"]["id"], change["seq"]) for change in changes]
        assert told == [(number, number) for number in range(MANY + 1, MANY + 8)]
        assert not live.of("resync")
