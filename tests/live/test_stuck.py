"""A hundred subscribers that do not read, over NATS and over HTTP: memory stays flat, and nobody else suffers."""

from __future__ import annotations

import asyncio
import socket
import urllib.parse
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from live_subscriber import Subscriber, ask, connected, subscribe
from nats.aio.client import Client
from patience import PATIENCE_S
from server_process import ServerProcess

from kalam_nats.door.live_delivery import ROUND_BYTES_MAX, UNPROVEN_BYTES_MAX

WaitUntil = Callable[[Callable[[], Any]], Awaitable[None]]
STUCK = 50
ROWS, ROW_BYTES, BATCH = 8_000, 2_000, 200
COLLECTOR = 3  # Go's collector lets garbage grow to as much as is in use
SHARE_MAX = 0.25


def stuck_socket(url: str, words: bytes) -> socket.socket:
    """A connection that says something and never reads, with little room for what comes."""
    host, _, port = url.rpartition("//")[2].rpartition(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.connect((host, int(port)))
    connection.sendall(words)
    return connection


async def stuck_over_nats(client: Client, url: str) -> socket.socket:
    answer = await ask(client, "kalam.api.ada.live", {"sql": "SELECT * FROM stuck.t", "last_rows": 0})
    return stuck_socket(url, b'CONNECT {"verbose":false}\r\nSUB %b 1\r\nPING\r\n' % answer["subject"].encode())


def stuck_over_http(url: str) -> socket.socket:
    path = "/v1/live?" + urllib.parse.urlencode({"sql": "SELECT * FROM stuck.t", "last_rows": "0"})
    host = url.removeprefix("http://")
    return stuck_socket(url, f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1_024
    raise AssertionError("no VmHWM")


async def pour(client: Client, live: Subscriber, first: int) -> None:
    """Insert rows, each message once the one before is stored; the one who reads has each of them, in order."""
    for start in range(first, first + ROWS, BATCH):
        rows = [{"id": start + n, "filler": "x" * ROW_BYTES} for n in range(BATCH)]
        assert (await ask(client, "kalam.api.ada.insert.stuck.t", rows))["rows"] == BATCH
    await live.wait(lambda: len(live.changes) >= first + ROWS)


async def test_a_hundred_stuck_subscribers_cost_little_memory_and_harm_nobody(
    start_kalam: Callable[..., ServerProcess], wait_until: WaitUntil
) -> None:
    server = start_kalam(KALAM_LIVE_QUEUE_BYTES_MAX=str(1 << 18))
    server.sql("CREATE NAMESPACE stuck; CREATE SHARED TABLE stuck.t (id BIGINT PRIMARY KEY, filler TEXT)")
    assert server.process is not None
    pids = {"server": server.process.pid, "broker": int((server.data_dir / "nats" / "nats.pid").read_text())}
    async with connected(server.nats_url) as client:
        live = await subscribe(client, "SELECT id FROM stuck.t", last_rows=0)
        await pour(client, live, 0)
        before = {name: peak_bytes(pid) for name, pid in pids.items()}
        stuck = [await stuck_over_nats(client, server.nats_url) for _ in range(STUCK)]
        stuck += [stuck_over_http(server.http_url) for _ in range(STUCK)]
        await wait_until(lambda: len(server.sql("SHOW LIVE QUERIES")) == 2 * STUCK + 1)
        await pour(client, live, ROWS)
        async with asyncio.timeout(PATIENCE_S):
            while len(server.sql("SHOW LIVE QUERIES")) > 1:  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.2)
        filled = {name: peak_bytes(pid) for name, pid in pids.items()}
        await pour(client, live, 2 * ROWS)
        flat = {name: peak_bytes(pid) for name, pid in pids.items()}
        assert [change["row"]["id"] for change in live.changes] == list(range(3 * ROWS))
    sent = STUCK * ROWS * ROW_BYTES  # on either way, of which a broker holds as much as it lets wait
    # What the broker was asked about, and what is sent while it answers.
    assert filled["broker"] - before["broker"] < COLLECTOR * STUCK * (UNPROVEN_BYTES_MAX + 2 * ROUND_BYTES_MAX)
    assert filled["server"] - before["server"] < SHARE_MAX * 2 * sent
    for name in pids:
        assert flat[name] - filled[name] < SHARE_MAX * sent, name
    for connection in stuck:
        connection.close()
