"""Writers keep a ledger while the server is killed fifty times: what it acknowledged is what there is."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import random
import subprocess
import urllib.error
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from change_feed import connected, read_feed, replay, work_until_cut_off
from nats.aio.client import Client
from server_process import ServerProcess

ROUNDS = 50
GONE = (ConnectionError, http.client.HTTPException, urllib.error.URLError)
USERS = ("ann", "bob")
DELETED = "deleted"
TABLE = "(id BIGINT PRIMARY KEY, writer TEXT, body TEXT)"
READ = "SELECT id, body FROM {table}; SELECT count(*) FROM {table}"


@dataclass
class Writer:
    """Writes rows of its own to one table; knows what each of them may be now.

    ``may_be`` has for each row the bodies that the table may show: one once the last statement on it was acknowledged,
    two while it was not. DELETED stands for no row.
    """

    number: int
    table: str
    user: str
    may_be: dict[int, set[str]] = field(default_factory=dict)
    acknowledged: int = 0

    def __post_init__(self) -> None:
        self.dice = random.Random(self.number)

    async def write(self, url: str) -> None:
        """Write until the server is gone."""
        await work_until_cut_off(url, self.work)

    async def work(self, client: Client) -> None:
        while True:
            await self.turn(client)

    async def turn(self, client: Client) -> None:
        certain = [row_id for row_id, bodies in self.may_be.items() if len(bodies) == 1 and DELETED not in bodies]
        choice = self.dice.random()
        if self.table == "l.events" or choice < 0.7 or not certain:
            await self.insert(client, self.dice.choice((1, 1, 3, 10)))
        elif choice < 0.9:
            await self.change(client, self.dice.choice(certain), f"changed {self.dice.random()}")
        else:
            await self.change(client, self.dice.choice(certain), DELETED)

    async def insert(self, client: Client, count: int) -> None:
        first = self.number * 1_000_000 + len(self.may_be)
        bodies = {row_id: f"body {row_id}" for row_id in range(first, first + count)}
        rows = [{"id": row_id, "writer": f"w{self.number}", "body": body} for row_id, body in bodies.items()]
        self.may_be |= {row_id: {DELETED, body} for row_id, body in bodies.items()}
        payload = json.dumps(rows if count > 1 else rows[0]).encode()
        reply = await client.request(f"kalam.api.{self.user}.insert.{self.table}", payload, timeout=10)
        if is_acknowledged(reply):
            assert json.loads(reply.data)["rows"] == count
            self.may_be |= {row_id: {body} for row_id, body in bodies.items()}
            self.acknowledged += count

    async def change(self, client: Client, row_id: int, body: str) -> None:
        self.may_be[row_id].add(body)
        text = f"UPDATE {self.table} SET body = $1 WHERE id = {row_id}"
        if body == DELETED:
            text = f"DELETE FROM {self.table} WHERE id = {row_id}"
        request = json.dumps({"sql": text, "params": [] if body == DELETED else [body]}).encode()
        reply = await client.request(f"kalam.api.{self.user}.sql", request, timeout=10)
        if is_acknowledged(reply):
            assert json.loads(reply.data)["results"][0]["row_count"] == 1
            self.may_be[row_id] = {body}
            self.acknowledged += 1

    def settle(self, found: dict[int, str]) -> None:
        """After a restart what is found has to be among what may be; then it is certain."""
        for row_id, bodies in self.may_be.items():
            body = found.get(row_id, DELETED)
            assert body in bodies, f"row {row_id} of {self.table} is {body!r} and not one of {bodies}"
            self.may_be[row_id] = {body}


def is_acknowledged(reply: Any) -> bool:
    """Whether it was done; an error that says that it was not is allowed only while the server goes down."""
    if reply.headers is None:
        return True
    assert reply.headers["Nats-Service-Error-Code"] == "503", reply.headers
    return False


def writers() -> list[Writer]:
    tables = [("l.shared", "sam")] * 3 + [("l.mine", user) for user in USERS] + [("l.events", "eve")] * 3
    return [Writer(number, table, user) for number, (table, user) in enumerate(tables, 1)]


def found_rows(server: ServerProcess, table: str, user: str) -> dict[int, str]:
    """The rows in the order in which they are read, which for events is that of their inserts."""
    rows, [count] = (result["rows"] for result in server.results(READ.format(table=table), user=user))
    doubled = [row_id for row_id, times in Counter(row_id for row_id, _ in rows).items() if times > 1]
    assert doubled == [], f"rows of {table} are there more than once"
    assert count == [len(rows)]
    return dict(rows)


def check(server: ServerProcess, crew: list[Writer]) -> None:
    """Every acknowledged row is there exactly once, and no row that nobody sent."""
    for table, user in {(writer.table, writer.user) for writer in crew}:
        found = found_rows(server, table, user)
        mates = [writer for writer in crew if (writer.table, writer.user) == (table, user)]
        assert set(found) <= {row_id for writer in mates for row_id in writer.may_be}
        for writer in mates:
            writer.settle(found)
            if table == "l.events":
                mine = [row_id for row_id in found if row_id in writer.may_be]
                assert mine == sorted(mine), "the events of a writer are in another order"


async def tidy(server: ServerProcess, flushed: asyncio.Event) -> None:
    """Flush and compact until the server is gone, so that it is killed in the middle of that, too."""
    with suppress(*GONE):
        while True:
            for statement in ("FLUSH ALL TABLES", "COMPACT TABLE l.shared", "COMPACT TABLE l.mine"):
                await asyncio.to_thread(server.sql, statement)
                flushed.set()


async def run_until_killed(server: ServerProcess, crew: list[Writer], dice: random.Random, *, warm: bool) -> None:
    """Kill the server amid the writers' work; ``warm`` waits until its process for flushes has started and done one."""
    flushed = asyncio.Event()
    works = [*(writer.write(server.nats_url) for writer in crew), tidy(server, flushed)]
    tasks = [asyncio.create_task(work) for work in works]
    if warm:
        await flushed.wait()
    enough = sum(writer.acknowledged for writer in crew) + dice.randrange(1, 250)
    while sum(writer.acknowledged for writer in crew) < enough:
        assert not any(task.done() for task in tasks), [task for task in tasks if task.done()]
        await asyncio.sleep(dice.random() / 50)
    server.kill()
    await asyncio.gather(*tasks)


def kill_while_it_starts(server: ServerProcess, dice: random.Random) -> None:
    """Begin a start and cut it off at some moment, at which it may mend what the last kill left."""
    server.launch()
    assert server.process is not None
    with suppress(subprocess.TimeoutExpired):
        server.process.wait(dice.random() / 2)
    assert server.process.poll() is None, server.log_text()[-3_000:]
    server.kill()


def content(server: ServerProcess, table: str, user: str) -> dict[int, dict[str, Any]]:
    result = server.results(f"SELECT * FROM {table}", user=user)[-1]
    names = [column["name"] for column in result["columns"]]
    return {row[0]: dict(zip(names, row, strict=True)) for row in result["rows"]}


def jobs_were_cut_off(server: ServerProcess) -> bool:
    """Whether flushes and compactions were killed, and others not; how many, depends on the machine."""
    ended = Counter(status for [status] in server.sql("SELECT status FROM system.jobs"))
    return ended["completed"] > 10 and ended["failed"] > 20


@pytest.mark.timeout(1800)
async def test_what_was_acknowledged_survives_every_kill_and_the_feed_tells_it(
    kalam_server: ServerProcess, wait_until: Any
) -> None:
    server, dice, crew = kalam_server, random.Random(8), writers()
    server.sql("CREATE NAMESPACE l")
    server.sql(f"CREATE TABLE l.shared {TABLE} FLUSH POLICY ROWS 150")
    server.sql(f"CREATE USER TABLE l.mine {TABLE} FLUSH POLICY ROWS 100")
    server.sql("CREATE STREAM TABLE l.events (id BIGINT, writer TEXT, body TEXT) MAX_BUFFER 1000000")
    for number in itertools.count():
        await run_until_killed(server, crew, dice, warm=number % 3 == 1)
        if number % 5 == 4:
            kill_while_it_starts(server, dice)
        server.restart()
        check(server, crew)
        if number >= ROUNDS - 1 and jobs_were_cut_off(server):
            break
    assert all(writer.acknowledged > ROUNDS for writer in crew)
    copies = [("l.shared", "sam", "kalam.shared.l.shared.>")]
    copies += [("l.mine", user, f"kalam.user.{user}.l.mine.>") for user in USERS]
    for table, user, subject in copies:
        expected = content(server, table, user)

        async def is_told(subject: str = subject, expected: dict[int, Any] = expected) -> bool:
            return replay(await read_feed(server.nats_url, subject), "id") == expected

        await wait_until(is_told)


async def test_the_order_of_events_is_the_order_of_their_inserts(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE ordered")
    shared_server.sql("CREATE STREAM TABLE ordered.t (n BIGINT)")
    async with connected(shared_server.nats_url) as client:
        for n in range(0, 2_000, 10):  # without waiting for answers, so that batches form
            await client.publish("kalam.api.u.insert.ordered.t", json.dumps([{"n": n + i} for i in range(10)]).encode())
        await client.request("kalam.api.u.insert.ordered.t", b'{"n": 2000}', timeout=10)
    assert shared_server.sql("SELECT n FROM ordered.t") == [[n] for n in range(2_001)]


def test_events_of_one_millisecond_all_survive_under_keys_of_their_own(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE instant")
    shared_server.sql("CREATE STREAM TABLE instant.t (n BIGINT)")
    values = ", ".join(f"({n})" for n in range(1_000))
    shared_server.sql(f"INSERT INTO instant.t VALUES {values}")
    rows = shared_server.sql("SELECT _key, n FROM instant.t")
    assert [n for _, n in rows] == list(range(1_000))
    assert len({key for key, _ in rows}) == 1_000
    assert max(Counter(key.split(":")[0] for key, _ in rows).values()) > 1
