"""Three brokers in a cluster that are not Kalam's own: logins at each are answered, connections at each are ended."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from itertools import count
from pathlib import Path
from typing import Any

import nats
import pytest
from guarded_broker import PASSWORD, Plain, refused
from guarded_world import free_port
from patience import PATIENCE_S

from kalam.engine import Session
from kalam.server import open_server
from kalam.settings import Settings
from kalam_nats.access.cuts import GATHER_S
from kalam_nats.access.outside import outside_configuration, outside_keys
from kalam_nats.broker.connection import broker_connection

WaitUntil = Callable[[Callable[[], object]], Awaitable[None]]
EACH = 10


@pytest.fixture
def cluster(start_nats_server: Callable[..., Any], data_dir: Path) -> list[Any]:
    """Three servers that know each other, each configured as `kalam nats-config` says."""
    ports = [free_port() for _ in range(3)]
    servers = []
    for number, port in enumerate(ports):
        routes = [f"nats-route://127.0.0.1:{other}" for other in ports if other != port]
        configuration = {
            "server_name": f"n{number}",
            "cluster": {"name": "outside", "host": "127.0.0.1", "port": port, "routes": routes},
        }
        server = start_nats_server()
        server.stop()
        server.added = outside_configuration(data_dir)
        server.start(**configuration)
        servers.append(server)
    return servers


async def test_users_of_each_server_of_a_cluster_are_let_in_and_out(
    cluster: list[Any], data_dir: Path, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    monkeypatch.setenv("KALAM_ADMIN_PASSWORD", PASSWORD)
    settings = Settings(data_dir=data_dir, http_port=0, nats_url=cluster[0].url, auth="on", broker_timeout_s=30)
    await wait_leader(cluster[0].url, data_dir)
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(open_server(settings))
        caller = running.engine.caller(Session(), "test")
        await caller.execute(f"CREATE USER ada PASSWORD '{PASSWORD}'; CREATE USER ben PASSWORD '{PASSWORD}'")
        await caller.execute("CREATE NAMESPACE lab; CREATE TABLE lab.t (id INT PRIMARY KEY)")
        await caller.execute("GRANT SELECT ON TABLE lab.t TO ada, ben")
        people = {
            name: [await connected(stack, server.url, name) for server in cluster for _ in range(EACH)]
            for name in ("ada", "ben")
        }
        heard: set[Plain] = set()
        for plain in people["ada"]:
            await plain.client.subscribe("kalam.shared.lab.t.>", cb=taker(heard, plain))
            await plain.settle()
        ids = count(1)

        async def all_hear() -> bool:  # a server tells the others of a subscription some time after it has taken it
            await caller.execute(f"INSERT INTO lab.t VALUES ({next(ids)})")
            return len(heard) == 3 * EACH

        await wait_until(all_hear)
        await caller.execute("ALTER USER ada LOCK")
        await wait_until(lambda: all(plain.client.is_closed for plain in people["ada"]))
        assert all(plain.client.is_connected for plain in people["ben"])
        assert [await refused(server.url, user="ada", password=PASSWORD) for server in cluster] == [True] * 3
        await caller.execute("ALTER USER ada UNLOCK")
        for server in cluster:
            await connected(stack, server.url, "ada")
        late = await connected(stack, cluster[2].url, "ada")
        os.kill(cluster[2].pid, signal.SIGSTOP)
        resuming = asyncio.create_task(resumed(cluster[2].pid))
        await caller.execute("ALTER USER ada LOCK")
        await resuming
        await wait_until(lambda: late.client.is_closed)


async def wait_leader(url: str, data_dir: Path) -> None:
    """Wait until JetStream has a leader: what it is asked before is lost."""
    keys = outside_keys(data_dir)
    async with broker_connection(url, nkeys_seed_str=keys.kalam.seed) as kalam, asyncio.timeout(PATIENCE_S):
        while True:
            with suppress(nats.errors.Error, TimeoutError):
                await kalam.client.request("$JS.API.INFO", timeout=0.2)
                return


async def resumed(pid: int) -> None:
    """Let a server that is slow answer after all, well after the others."""
    await asyncio.sleep(3 * GATHER_S)
    os.kill(pid, signal.SIGCONT)


async def connected(stack: AsyncExitStack, url: str, name: str) -> Plain:
    plain = await Plain.connect(url, name)
    stack.push_async_callback(plain.client.close)
    return plain


def taker(heard: set[Plain], plain: Plain) -> Any:
    async def take(_: Any) -> None:
        heard.add(plain)

    return take
