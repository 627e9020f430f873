"""How far readers are behind, as real brokers tell it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from kalam_nats.broker.connection import broker_connection
from kalam_nats.door.reader_backlog import BACKLOG_BYTES_MAX, ReaderBacklog


def reader(url: str, subject: bytes) -> socket.socket:
    """A subscriber that has said so and reads no more than that."""
    host, _, port = url.rpartition("//")[2].rpartition(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.connect((host, int(port)))
    connection.sendall(b'CONNECT {"verbose":false}\r\nSUB %b 1\r\nPING\r\n' % subject)
    answer = b""
    while b"PONG" not in answer:
        answer += connection.recv(4_096)
    return connection


async def test_a_reader_that_is_far_behind_is_waited_for_until_it_reads(nats_url: str) -> None:
    async with broker_connection(nats_url) as connection:
        stuck = await asyncio.to_thread(reader, nats_url, b"a")
        for _ in range(20):
            await connection.client.publish("a", b"x" * (BACKLOG_BYTES_MAX // 8))
        await connection.client.flush()
        waiting = asyncio.create_task(ReaderBacklog(connection).wait_small("a"))
        await asyncio.wait([waiting], timeout=1)
        assert not waiting.done()
        await ReaderBacklog(connection).wait_small("b")  # others are not behind
        while not waiting.done():
            await asyncio.to_thread(stuck.recv, 1 << 20)
        await waiting
        stuck.close()


async def test_a_broker_that_does_not_tell_is_not_asked_every_time(
    start_nats_server: Callable[..., Any],
) -> None:
    user = {"user": "k", "password": "k", "permissions": {"publish": {"deny": ["$SYS.>"]}}}
    broker = start_nats_server(authorization={"users": [user]})
    async with broker_connection(broker.url.replace("//", "//k:k@")) as connection:
        backlog = ReaderBacklog(connection)
        await backlog.wait_small("a")
        asked = connection.client.stats["out_msgs"]
        for _ in range(5):
            await backlog.wait_small("a")
        assert connection.client.stats["out_msgs"] == asked
