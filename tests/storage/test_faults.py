"""A disk that fails for a while: clear errors, nothing acknowledged lost, nothing refused stored, no restart needed."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from change_feed import connected, read_feed, replay
from failing_calls import REFUSED, SYNC, WRITE, failing_calls, log_of, pid_of, refused
from nats.aio.client import Client
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed

USERS = ("ann", "bob")
COLUMNS = "(id BIGINT PRIMARY KEY, v TEXT)"


def readiness(server: ServerProcess) -> int:
    try:
        with urllib.request.urlopen(f"{server.http_url}/readyz", timeout=PATIENCE_S) as response:
            return int(response.status)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code


@dataclass
class Ledger:
    """What one writer was told of its rows in one copy."""

    table: str
    user: str
    first: int
    acknowledged: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)

    async def insert(self, client: Client, row_ids: Sequence[int]) -> None:
        rows = [{"id": row_id, "v": f"v{row_id}"} for row_id in row_ids]
        subject = f"kalam.api.{self.user}.insert.{self.table}"
        reply = await client.request(subject, json.dumps(rows).encode(), timeout=PATIENCE_S)
        told = json.loads(reply.data)
        if reply.headers is None:
            assert told["rows"] == len(rows)
            self.acknowledged |= set(row_ids)
            self.refused -= set(row_ids)
        else:
            assert (told["status"], told["code"]) == REFUSED
            self.refused |= set(row_ids)

    async def write(self, client: Client, statements: int) -> None:
        for number in range(statements):
            first = self.first + 3 * number
            await self.insert(client, range(first, first + 1 + number % 3))


async def add(server: ServerProcess, times: int) -> int:
    """Add one to a counter so many times, one after the other; how often that was acknowledged."""
    done = 0
    for _ in range(times):
        try:
            await asyncio.to_thread(server.sql, "UPDATE f.counter SET n = n + 1 WHERE id = 1")
        except SqlFailed as exc:
            if (exc.status, exc.code) != REFUSED:
                raise
        else:
            done += 1
    return done


def is_exact(server: ServerProcess, ledgers: Sequence[Ledger]) -> None:
    """Each copy holds what was acknowledged, once, and nothing of what was refused."""
    for table, user in {(ledger.table, ledger.user) for ledger in ledgers}:
        mine = [ledger for ledger in ledgers if (ledger.table, ledger.user) == (table, user)]
        expected = sorted(row_id for ledger in mine for row_id in ledger.acknowledged)
        rows = sorted(server.sql(f"SELECT id, v FROM {table}", user=user))
        assert rows == [[row_id, f"v{row_id}"] for row_id in expected]
        assert server.sql(f"SELECT count(*) FROM {table}", user=user) == [[len(expected)]]


@pytest.mark.parametrize(
    ("calls", "error", "when"), [(SYNC, "EIO", "2+5"), (WRITE, "EIO", "5+13"), (WRITE, "ENOSPC", "5+13")]
)
async def test_commits_that_fail_now_and_then_refuse_what_they_do_not_store(
    kalam_server: ServerProcess, wait_until: Any, calls: tuple[str, ...], error: str, when: str
) -> None:
    server = kalam_server
    server.sql(f"CREATE NAMESPACE f; CREATE TABLE f.t {COLUMNS}; CREATE USER TABLE f.mine {COLUMNS}")
    server.sql("CREATE TABLE f.counter (id INT PRIMARY KEY, n INT); INSERT INTO f.counter VALUES (1, 0)")
    ledgers = [Ledger("f.t", "sam", number * 10_000) for number in (1, 2, 3)]
    ledgers += [Ledger("f.mine", user, number * 10_000) for number, user in enumerate(USERS, 4)]
    async with connected(server.nats_url) as client:
        with failing_calls(pid_of(server), calls, error, paths=log_of(server), when=when):
            writing = [ledger.write(client, 40) for ledger in ledgers]
            *_, added = await asyncio.gather(*writing, add(server, 30))
            is_exact(server, ledgers)
        assert added > 0
        assert all(ledger.acknowledged for ledger in ledgers)
        assert any(ledger.refused for ledger in ledgers)
        for ledger in ledgers:
            for row_id in sorted(ledger.refused):
                await ledger.insert(client, [row_id])
            assert not ledger.refused
    assert readiness(server) == 200
    server.sql("FLUSH ALL TABLES")
    for _ in range(2):
        is_exact(server, ledgers)
        assert server.sql("SELECT n FROM f.counter") == [[added]]
        server.kill()
        server.restart()
    for subject, mine in (("kalam.shared.f.t.>", ledgers[:3]), ("kalam.user.ann.f.mine.>", ledgers[3:4])):
        expected = {row_id for ledger in mine for row_id in ledger.acknowledged}

        async def is_told(subject: str = subject, expected: set[int] = expected) -> bool:
            return replay(await read_feed(server.nats_url, subject), "id").keys() == expected

        await wait_until(is_told)


CHANGES = (
    "INSERT INTO f.t VALUES (10, 'refused')",
    "INSERT INTO f.t SELECT value, 'refused' FROM range(10, 20)",
    "INSERT INTO f.t VALUES (1, 'refused') ON CONFLICT (id) DO UPDATE SET v = excluded.v",
    "UPDATE f.t SET v = 'refused'",
    "UPDATE f.t SET id = id + 100 WHERE id = 1",
    "DELETE FROM f.t WHERE id <= 2",
    "INSERT INTO f.mine VALUES (1, 'refused')",
    "ALTER TABLE f.t ADD COLUMN x INT DEFAULT 5",
    "ALTER TABLE f.t RENAME COLUMN v TO w",
    "CREATE TABLE f.other (id INT PRIMARY KEY)",
    "CREATE STREAM TABLE f.events (id INT)",
    "CREATE NAMESPACE g",
    "DROP TABLE f.t",
    "FLUSH TABLE f.t",
    "COMPACT TABLE f.t",
)


@pytest.mark.parametrize(("calls", "error"), [(SYNC, "EIO"), (WRITE, "ENOSPC")])
def test_while_no_commit_succeeds_every_change_is_refused_and_reads_go_on(
    kalam_server: ServerProcess, calls: tuple[str, ...], error: str
) -> None:
    server = kalam_server
    server.sql(f"CREATE NAMESPACE f; CREATE TABLE f.t {COLUMNS}; CREATE USER TABLE f.mine {COLUMNS}")
    for row_id in (1, 2):
        server.sql(f"INSERT INTO f.t VALUES ({row_id}, 'kept'); FLUSH TABLE f.t")
    server.sql("INSERT INTO f.t VALUES (3, 'kept')")
    expected = [[row_id, "kept"] for row_id in (1, 2, 3)]
    with failing_calls(pid_of(server), calls, error, paths=log_of(server)):
        for text in CHANGES:
            refused(server, text, user="newcomer")
            assert sorted(server.sql("SELECT * EXCLUDE (_updated, _deleted) FROM f.t")) == expected
        assert server.sql("SELECT count(*) FROM f.mine", user="newcomer") == [[0]]
        assert readiness(server) == 503
    server.sql("INSERT INTO f.t VALUES (10, 'now')")
    assert readiness(server) == 200
    server.sql("INSERT INTO f.mine VALUES (1, 'now')", user="newcomer")
    for text in CHANGES[7:12]:  # which find nothing of themselves
        server.sql(text)
    for _ in range(2):
        assert sorted(server.sql("SELECT id, w FROM f.t")) == [[1, "kept"], [2, "kept"], [3, "kept"], [10, "now"]]
        assert server.sql("SELECT id, v FROM f.mine", user="newcomer") == [[1, "now"]]
        server.kill()
        server.restart()


@pytest.mark.parametrize("calls", [SYNC, WRITE])
def test_what_was_refused_does_not_come_back_with_the_next_start(
    kalam_server: ServerProcess, calls: tuple[str, ...]
) -> None:
    server = kalam_server
    server.sql("CREATE NAMESPACE f; CREATE TABLE f.t (v TEXT)")
    with failing_calls(pid_of(server), calls, paths=log_of(server)):
        refused(server, "INSERT INTO f.t VALUES ('refused')")
        server.kill()  # before another commit takes the place of the one that failed
    server.restart()
    assert server.sql("SELECT v FROM f.t") == []
    server.sql("INSERT INTO f.t VALUES ('now')")
    assert server.sql("SELECT v FROM f.t") == [["now"]]


async def test_rows_that_wait_for_a_flush_are_flushed_after_a_failure_though_nobody_touches_their_table(
    kalam_server: ServerProcess, wait_until: Any
) -> None:
    server = kalam_server
    server.sql("CREATE NAMESPACE f")
    for name in ("written", "dropped"):
        server.sql(f"CREATE TABLE f.{name} {COLUMNS} FLUSH POLICY TIME 5s; INSERT INTO f.{name} VALUES (1, 'kept')")
    with failing_calls(pid_of(server), SYNC, paths=log_of(server)):
        refused(server, "INSERT INTO f.written VALUES (2, 'refused')")
        refused(server, "DROP TABLE f.dropped")
    segments = "SELECT table_name, rows FROM system.segments ORDER BY 1"
    await wait_until(lambda: server.sql(segments) == [["dropped", 1], ["written", 1]])


@pytest.mark.parametrize("calls", [SYNC, WRITE])
def test_a_checkpoint_that_fails_costs_no_row_and_is_made_good(
    kalam_server: ServerProcess, calls: tuple[str, ...]
) -> None:
    server = kalam_server
    server.sql(f"CREATE NAMESPACE f; CREATE TABLE f.t {COLUMNS}")
    with failing_calls(pid_of(server), calls, paths=[server.data_dir / "kalam.db"]):
        for row_id in range(25):  # thrice the pages after which SQLite wants to write its log back
            server.sql("INSERT INTO f.t VALUES ($1, $2)", row_id, "x" * 400_000)
    [log] = log_of(server)
    server.sql("INSERT INTO f.t VALUES (25, '')")
    size = log.stat().st_size
    assert size > 10_000_000
    for row_id in range(26, 36):
        server.sql("INSERT INTO f.t VALUES ($1, $2)", row_id, "x" * 400_000)
    assert log.stat().st_size == size, "the log was not written back, and grew"
    for _ in range(2):
        assert server.sql("SELECT count(*), min(id), max(id), sum(length(v)) FROM f.t") == [[36, 0, 35, 14_000_000]]
        server.kill()
        server.restart()
