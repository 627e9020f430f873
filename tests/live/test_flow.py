"""Live queries while much happens: rows pour in, subscribers hang, servers and brokers go."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.parse
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from held_process import held
from live_subscriber import ask, connected, subscribe
from nats.aio.client import Client
from nats.aio.msg import Msg
from patience import PATIENCE_S
from server_process import ServerProcess

import kalam.client
from kalam.client import Kalam

WaitUntil = Callable[[Callable[[], Any]], Awaitable[None]]
ROWS = 20_000
BATCH = 500


async def follow(k: Kalam, sql: str, total: int, **options: Any) -> tuple[Counter[int], int]:
    """Every id that a live query tells of, until there are ``total``; and how often it had to resume."""
    seen: Counter[int] = Counter()
    async with k.live(sql, **options) as live:
        while len(seen) < total:
            change = await anext(live)
            assert change.op in ("snapshot", "insert"), change
            assert change.row is not None
            seen[change.row["id"]] += 1
        return seen, live.resumes


async def pour(client: Client, table: str, shape: Callable[[int], dict[str, Any]]) -> None:
    window = asyncio.Semaphore(16)

    async def send(start: int) -> None:
        async with window:
            answer = await ask(client, f"kalam.api.ada.insert.{table}", [shape(n) for n in range(start, start + BATCH)])
            assert answer["rows"] == BATCH, answer

    await asyncio.gather(*(send(start) for start in range(0, ROWS, BATCH)))


async def test_twelve_live_queries_opened_while_rows_pour_in_have_each_row_once(
    shared_server: ServerProcess,
) -> None:
    shared_server.sql("CREATE NAMESPACE pour")
    for kind, table in (("SHARED", "pour.shared"), ("USER", "pour.user"), ("STREAM", "pour.stream")):
        key, options = ("", "WITH (max_buffer = 200000)") if kind == "STREAM" else ("PRIMARY KEY", "")
        shared_server.sql(f"CREATE {kind} TABLE {table} (id BIGINT {key}, g TEXT) {options}", user="ada")
        async with (
            kalam.client.connect(shared_server.nats_url, user="ada") as k,
            connected(shared_server.nats_url) as client,
        ):
            pouring = asyncio.create_task(pour(client, table, lambda n: {"id": n, "g": f"g{n % 4}"}))
            following = []
            for number in range(4):
                where = ("", " WHERE g = 'g1'", " WHERE id % 2 = 0", " WHERE g IN ('g0', 'g2') AND id >= 0")[number]
                total = (ROWS, ROWS // 4, ROWS // 2, ROWS // 2)[number]
                following.append(asyncio.create_task(follow(k, f"SELECT id FROM {table}{where}", total)))
                await asyncio.sleep(0.05)  # so that each begins at another moment of the flow
            async with asyncio.timeout(100):
                await pouring
                outcomes = await asyncio.gather(*following)
        for seen, _ in outcomes:
            assert set(seen.values()) == {1}


async def test_a_reader_of_events_that_hangs_is_cut_off_and_harms_nobody(
    start_kalam: Callable[..., ServerProcess], wait_until: WaitUntil
) -> None:
    server = start_kalam(KALAM_LIVE_QUEUE_BYTES_MAX=str(1 << 18))
    server.sql("CREATE NAMESPACE hang; CREATE SHARED TABLE hang.t (id BIGINT PRIMARY KEY, filler TEXT)")
    host, port = server.http_url.removeprefix("http://").split(":")
    readers = []
    for _ in range(5):
        reader = socket.create_connection((host, int(port)))
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        path = "/v1/live?" + urllib.parse.urlencode({"sql": "SELECT * FROM hang.t", "last_rows": "0"})
        reader.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        readers.append(reader)
    await wait_until(lambda: len(server.sql("SHOW LIVE QUERIES")) == 5)
    async with connected(server.nats_url) as client:
        live = await subscribe(client, "SELECT id FROM hang.t", last_rows=0)
        for start in range(0, 6_000, 200):
            await ask(
                client, "kalam.api.ada.insert.hang.t", [{"id": start + n, "filler": "x" * 2_000} for n in range(200)]
            )
        assert [c["row"]["id"] for c in await live.wait_changes(6_000)] == list(range(6_000))
        resyncs = [row[8] for row in server.sql("SELECT * FROM system.live_queries") if row[0] != live.id]
        assert all(count >= 1 for count in resyncs)
        async with asyncio.timeout(PATIENCE_S):
            while len(server.sql("SHOW LIVE QUERIES")) > 1:  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.2)
    for reader in readers:
        reader.close()


async def test_a_half_open_subscriber_ends_with_its_connection(
    start_nats_server: Callable[..., Any], start_kalam: Callable[..., ServerProcess]
) -> None:
    broker = start_nats_server(ping_interval="1s", ping_max=1)
    server = start_kalam(flags=(f"--nats-url={broker.url}",))
    server.sql("CREATE NAMESPACE half; CREATE SHARED TABLE half.t (id BIGINT PRIMARY KEY)")
    host, port = broker.url.removeprefix("nats://").split(":")
    async with connected(broker.url) as client:
        answer = await ask(client, "kalam.api.ada.live", {"sql": "SELECT * FROM half.t"})
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b'CONNECT {"verbose":false}\r\nSUB ' + answer["subject"].encode() + b" 1\r\nPING\r\n")
        while b"PONG" not in await reader.readline():
            pass  # what follows is never answered, as from a machine that lost its power
        async with asyncio.timeout(PATIENCE_S):
            while server.sql("SHOW LIVE QUERIES"):  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.1)
        writer.close()


async def test_a_broker_that_pauses_does_not_bring_a_message_twice(
    nats_server: Any, start_kalam: Callable[..., ServerProcess], wait_until: WaitUntil
) -> None:
    server = start_kalam(flags=(f"--nats-url={nats_server.url}",))
    server.sql("CREATE NAMESPACE p; CREATE SHARED TABLE p.t (id BIGINT PRIMARY KEY); INSERT INTO p.t VALUES (1)")
    numbers: list[int] = []
    kinds: list[str] = []

    async def take(msg: Msg) -> None:
        numbers.append(int((msg.headers or {})["Kalam-Live-Seq"]))
        kinds.append(json.loads(msg.data)["type"])

    async with connected(nats_server.url) as client:
        await client.subscribe("kalam.live.ada.>", cb=take)
        await client.flush()
        with held(nats_server.pid):
            server.sql("SUBSCRIBE TO SELECT * FROM p.t", user="ada")
            await asyncio.sleep(0.5)  # many times the pause after which the first message is tried again
        await wait_until(lambda: "ready" in kinds)
        server.sql("INSERT INTO p.t VALUES (2)")
        await wait_until(lambda: "changes" in kinds)
    assert numbers == list(range(1, len(numbers) + 1))


async def test_live_queries_are_gone_after_a_restart(start_kalam: Callable[..., ServerProcess]) -> None:
    server = start_kalam()
    server.sql("CREATE NAMESPACE gone; CREATE SHARED TABLE gone.t (id BIGINT PRIMARY KEY)")
    async with connected(server.nats_url, allow_reconnect=False) as client:
        live = await subscribe(client, "SELECT * FROM gone.t")
        await asyncio.to_thread(server.stop)
        await live.wait(lambda: live.of("closed"))
        assert live.of("closed") == [{"type": "closed", "reason": "shutdown"}]
    server.restart()
    assert server.sql("SHOW LIVE QUERIES") == []


def test_a_limit_on_live_queries_is_told(start_kalam: Callable[..., ServerProcess], tmp_path: Path) -> None:
    server = start_kalam(KALAM_LIVE_QUERIES_PER_USER_MAX="1")
    server.sql("CREATE NAMESPACE few; CREATE SHARED TABLE few.t (id BIGINT PRIMARY KEY)")

    async def open_two() -> list[Any]:
        async with connected(server.nats_url) as client:
            first = await subscribe(client, "SELECT * FROM few.t")
            msg = await client.request("kalam.api.ada.live", json.dumps({"sql": "SELECT * FROM few.t"}).encode())
            other = await subscribe(client, "SELECT * FROM few.t", user="bob")
            await first.close()
            await first.wait(lambda: first.of("closed"))
            again = await subscribe(client, "SELECT * FROM few.t")
            return [json.loads(msg.data)["code"], other.of("ready"), again.of("ready")]

    code, other, again = asyncio.run(open_two())
    assert code == "too_busy"
    assert other
    assert again
