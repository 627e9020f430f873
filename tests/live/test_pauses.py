"""Server and broker stop, go on, die and come back while rows change: followers miss nothing and never begin anew."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from conftest import NatsServer
from held_process import held
from server_process import ServerProcess

import kalam.client
from kalam.client import Kalam
from kalam.errors import KalamError

TABLES = ("p.shared", "p.mine")
WHERES = (
    "",
    " WHERE g = 'g1'",
    " WHERE v % 2 = 0",
    " WHERE g IN ('g0', 'g2') AND v > 10",
    " WHERE g LIKE 'g%' OR v < 0",
)
SETTLED_S = 60


@dataclass
class Follower:
    """A live query and its result by the changes alone; fails at a change that cannot be, and at a reset."""

    table: str
    where: str
    rows: dict[int, tuple[str, int]] = field(default_factory=dict)
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def sql(self) -> str:
        return f"SELECT id, g, v FROM {self.table}{self.where}"

    async def run(self, k: Kalam) -> None:
        last_seq = 0
        async for change in k.live(self.sql):
            self.begun.set()
            assert change.row is not None, change
            row_id = change.row["id"]
            assert (row_id in self.rows) is (change.op in ("update", "delete")), change
            if change.seq is not None:
                assert change.seq > last_seq
                last_seq = change.seq
            if change.op == "delete":
                del self.rows[row_id]
            else:
                self.rows[row_id] = (change.row["g"], change.row["v"])


async def write(k: Kalam, table: str, number: int) -> None:
    """Insert, update, delete and flush, on and on; what fails while a server is away is of no interest here."""
    dice, row_id = random.Random(number), number * 10_000_000
    while True:
        row_id += 100
        rows = [
            {"id": row_id + n, "g": f"g{dice.randrange(4)}", "v": dice.randrange(50)}
            for n in range(dice.choice((1, 5, 50)))
        ]
        newest = f"id > {row_id - 1_000}"
        with contextlib.suppress(KalamError):
            await k.insert(table, rows)
            await k.sql(
                f"UPDATE {table} SET v = v + 1, g = 'g{dice.randrange(4)}' WHERE id % 17 = {number} AND {newest}"
            )
            await k.sql(f"DELETE FROM {table} WHERE id % 13 = {dice.randrange(13)} AND {newest}")
            if dice.random() < 0.1:
                await k.sql(f"FLUSH TABLE {table}")
        await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def running(coroutines: list[Any]) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def pause(pid: int, seconds: float) -> None:
    with held(pid):
        await asyncio.sleep(seconds)


async def disturb(server: ServerProcess, broker: NatsServer) -> None:
    for seconds in (0.3, 1.0, 7.0):  # the last is longer than a client believes in silence
        assert server.process is not None
        await pause(server.process.pid, seconds)
        await asyncio.sleep(0.5)
        await pause(broker.pid, min(seconds, 2.0))
        await asyncio.sleep(0.5)
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.restart)
    for end in (broker.stop, broker.kill):
        await asyncio.to_thread(end)
        await asyncio.to_thread(broker.start)
        await asyncio.sleep(1.0)


@pytest.mark.timeout(600)
async def test_followers_miss_nothing_and_never_begin_anew(
    start_kalam: Callable[..., ServerProcess], nats_server: NatsServer
) -> None:
    server = start_kalam(flags=(f"--nats-url={nats_server.url}",))
    server.sql("CREATE NAMESPACE p")
    server.sql("CREATE SHARED TABLE p.shared (id BIGINT PRIMARY KEY, g TEXT, v INT) FLUSH POLICY ROWS 700")
    server.sql("CREATE USER TABLE p.mine (id BIGINT PRIMARY KEY, g TEXT, v INT)")
    followers = [Follower(table, where) for table in TABLES for where in WHERES]
    async with (
        kalam.client.connect(nats_server.url, user="ada") as reader,
        kalam.client.connect(nats_server.url, user="ada") as writer,
        running([follower.run(reader) for follower in followers]) as following,
    ):
        async with running([write(writer, table, number) for number, table in enumerate((*TABLES, *TABLES), 1)]):
            async with asyncio.timeout(SETTLED_S):
                await asyncio.gather(*(follower.begun.wait() for follower in followers))
            await disturb(server, nats_server)
        await asyncio.sleep(0)
        async with asyncio.timeout(SETTLED_S):
            for follower in followers:
                while follower.rows != {
                    row["id"]: (row["g"], row["v"]) for row in (await writer.sql(follower.sql)).rows
                }:
                    for task in following:
                        assert not task.done(), task.exception()
                    await asyncio.sleep(0.2)
