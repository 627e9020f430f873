"""Live queries come and go, through every door and in every way: no task, queue or subscription stays behind."""

from __future__ import annotations

import asyncio
import json
import urllib.parse
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from live_subscriber import Subscriber, ask, connected, subscribe
from nats.aio.client import Client
from patience import PATIENCE_S
from server_process import ServerProcess

WaitUntil = Callable[[Callable[[], Any]], Awaitable[None]]
KINDS = ("SHARED", "USER", "STREAM")
WHERES = ("id = {}", "u LIKE 'x{}%'", "id IN ({0}, -{0}) AND u > 'a'")


def gauges(server: ServerProcess) -> dict[str, float]:
    with urllib.request.urlopen(f"{server.http_url}/metrics", timeout=PATIENCE_S) as answer:
        lines = [line.split() for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line for line in lines if len(line) == 2)}


async def kalams_subscriptions(client: Client) -> int:
    """How many subscriptions the broker has of everybody but this client."""
    msg = await client.request("$SYS.REQ.ACCOUNT.PING.CONNZ", b"{}", timeout=PATIENCE_S)
    connections = json.loads(msg.data)["data"]["connections"]
    return sum(connection["subscriptions"] for connection in connections if connection["cid"] != client.client_id)


@pytest.fixture
def tables(shared_server: ServerProcess) -> list[str]:
    shared_server.sql("CREATE NAMESPACE IF NOT EXISTS leaks")
    for kind in KINDS:
        key = "" if kind == "STREAM" else "PRIMARY KEY"
        shared_server.sql(f"CREATE {kind} TABLE IF NOT EXISTS leaks.{kind.lower()} (id BIGINT {key}, u TEXT)")
    return [f"leaks.{kind.lower()}" for kind in KINDS]


async def open_some(client: Client, tables: list[str], count: int) -> list[Subscriber]:
    queries = [f"SELECT * FROM {tables[n % 3]} WHERE {WHERES[n // 3 % 3].format(n)}" for n in range(count)]
    return list(await asyncio.gather(*(subscribe(client, sql, last_rows=0) for sql in queries)))


async def events_until_ready(server: ServerProcess, table: str) -> None:
    """A reader of Server-Sent Events that goes away once it is served."""
    host, port = server.http_url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    path = "/v1/live?" + urllib.parse.urlencode({"sql": f"SELECT * FROM {table} WHERE u > 'a'"})
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    while b'"ready"' not in await reader.readline():
        pass
    writer.close()


async def test_a_thousand_live_queries_leave_no_task_no_queue_and_no_subscription(
    shared_server: ServerProcess, tables: list[str], wait_until: WaitUntil
) -> None:
    async with connected(shared_server.nats_url) as client:
        for live in await open_some(client, tables, 9):  # what is made once, for the first of its kind, is made
            await live.close()
        await events_until_ready(shared_server, tables[0])
        await wait_until(lambda: gauges(shared_server)["kalam_live_queries"] == 0)
        before, subscribed = gauges(shared_server), await kalams_subscriptions(client)
        async with connected(shared_server.nats_url) as leaver:
            gone = await open_some(leaver, tables, 200)
            stayed = await open_some(client, tables, 800)
            assert gauges(shared_server)["kalam_live_queries"] == 1_000
            await asyncio.gather(*(events_until_ready(shared_server, table) for table in tables * 10))
            for table in tables:
                await ask(client, f"kalam.api.ada.insert.{table}", [{"id": n, "u": f"x{n}"} for n in range(1_000)])
        assert all(not live.of("closed") for live in gone)  # their connection ended without a word
        for number, live in enumerate(stayed):
            match number % 4:
                case 0:
                    await live.subscription.unsubscribe()
                case 1 if number < 100:
                    shared_server.sql(f"KILL LIVE QUERY '{live.id}'")
                case _:
                    await live.close()
        async with asyncio.timeout(PATIENCE_S):
            while gauges(shared_server)["kalam_live_queries"]:  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.1)
        await wait_until(lambda: gauges(shared_server)["kalam_tasks"] <= before["kalam_tasks"])
        assert await kalams_subscriptions(client) == subscribed
    for table in tables:
        shared_server.sql(f"DROP TABLE {table}")
