"""The writer: one transaction for all that waits, and a failure that touches nobody and nothing but its own."""

from __future__ import annotations

import asyncio
import json
import resource
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from change_feed import read_feed, replay
from conftest import NatsServer
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed

from kalam.errors import DuplicateKey, StorageFull, Unavailable
from kalam.storage.log.data_dir import prepare_database
from kalam.storage.log.database import Database
from kalam.storage.log.write_task import Work

NO_LIMIT = resource.RLIM_INFINITY


class Note:
    """A task that writes one row, and remembers in memory what it wrote, as a copy does."""

    cost = 1

    def __init__(self, name: str, memory: list[str], error: Exception | None = None) -> None:
        self.name, self.memory, self.error = name, memory, error

    def apply(self, conn: sqlite3.Connection) -> str:
        if isinstance(self.error, DuplicateKey):
            raise self.error
        conn.execute("INSERT INTO meta VALUES (?, '')", (self.name,))
        self.memory.append(self.name)
        if self.error is not None:
            raise self.error
        return self.name

    def committed(self) -> None:
        self.memory.append(f"{self.name} committed")

    def rolled_back(self) -> None:
        self.memory.clear()

    def announcements(self) -> list[Any]:
        return [self.name]


class Gate:
    """Holds the writer's thread until it is opened, so that whatever is submitted meanwhile waits together."""

    def __init__(self, database: Database) -> None:
        self._opened = threading.Event()
        self._entered = threading.Event()
        self.done = database.submit(Work(self._wait))

    def _wait(self, _: sqlite3.Connection) -> None:
        self._entered.set()
        assert self._opened.wait(10)

    async def wait_entered(self) -> None:
        await asyncio.to_thread(self._entered.wait, 10)

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def database(data_dir: Path) -> Iterator[Database]:
    prepare_database(data_dir)
    database = Database(data_dir / "kalam.db", commit_rows_max=1_000)
    database.start()
    yield database
    database.close()


def names(database: Database) -> list[str]:
    with database.reading() as conn:
        return [name for (name,) in conn.execute("SELECT name FROM meta WHERE name <> 'data_id' ORDER BY name")]


async def gather(database: Database, *tasks: Any) -> list[Any]:
    """Submit tasks so that they wait together; their results or errors."""
    gate = Gate(database)
    await gate.wait_entered()
    futures = [database.submit(task) for task in tasks]
    gate.open()
    await gate.done
    return await asyncio.gather(*futures, return_exceptions=True)


async def test_tasks_that_wait_together_share_a_commit(database: Database) -> None:
    memory: list[str] = []
    wanted = [f"n{number:03d}" for number in range(200)]
    assert await gather(database, *(Note(name, memory) for name in wanted)) == wanted
    assert database.commits == 2  # the gate's own, and one for all
    assert names(database) == wanted


async def test_a_group_is_bounded(data_dir: Path) -> None:
    prepare_database(data_dir)
    database = Database(data_dir / "kalam.db", commit_rows_max=10)
    database.start()
    await gather(database, *(Note(f"n{number}", []) for number in range(100)))
    assert database.commits == 11
    database.close()


async def test_a_task_that_refuses_itself_leaves_the_others_of_its_group_alone(database: Database) -> None:
    memory: list[str] = []
    refusal = DuplicateKey("taken")
    outcomes = await gather(database, Note("a", memory), Note("b", memory, refusal), Note("c", memory))
    assert outcomes == ["a", refusal, "c"]
    assert names(database) == ["a", "c"]
    assert database.commits == 2
    assert memory == ["a", "c", "a committed", "c committed"]


async def test_a_task_that_fails_is_undone_alone_in_the_database_and_in_memory(database: Database) -> None:
    memories: list[list[str]] = [[], [], []]
    failure = sqlite3.OperationalError("database or disk is full")
    tasks = [Note(name, memory) for name, memory in zip("abc", memories, strict=True)]
    tasks[1].error = failure
    outcomes = await gather(database, *tasks)
    assert outcomes[::2] == ["a", "c"]
    assert isinstance(outcomes[1], StorageFull)
    assert outcomes[1].__cause__ is failure
    assert names(database) == ["a", "c"]
    assert memories == [["a", "a committed"], [], ["c", "c committed"]]


async def test_a_failure_is_shown_until_the_next_commit(database: Database) -> None:
    with pytest.raises(StorageFull):
        await database.submit(Note("a", [], sqlite3.OperationalError("disk I/O error")))
    assert database.failure == "disk I/O error"
    await database.submit(Note("b", []))
    assert database.failure is None


async def test_the_loop_hears_of_a_commit_before_whoever_waits_for_it(database: Database) -> None:
    heard: list[Any] = []
    database.add_listener(heard.append)
    outcome = database.submit(Note("a", []))
    outcome.add_done_callback(lambda future: heard.append(f"{future.result()} done"))
    await outcome
    await asyncio.sleep(0)
    assert heard == ["a", "a done"]


async def test_what_is_committed_together_is_told_of_with_one_call_before_each_is_by_itself(database: Database) -> None:
    heard: list[Any] = []

    def fail(together: Any) -> None:
        raise RuntimeError(f"told of {together}")

    database.add_listener(heard.append)
    database.add_group_listener(fail)
    database.add_group_listener(lambda together: heard.append(tuple(together)))
    assert await gather(database, *(Note(name, []) for name in "abc")) == ["a", "b", "c"]
    assert heard == [("a", "b", "c"), "a", "b", "c"]


async def test_a_function_that_raises_leaves_no_trace_of_what_it_wrote(database: Database) -> None:
    def write_and_refuse(conn: sqlite3.Connection) -> None:
        conn.execute("INSERT INTO meta VALUES ('half', '')")
        raise DuplicateKey("after all")

    with pytest.raises(DuplicateKey):
        await database.write(write_and_refuse)
    assert names(database) == []


async def test_closing_finishes_what_waits_and_refuses_what_comes(database: Database) -> None:
    gate = Gate(database)
    await gate.wait_entered()
    futures = [database.submit(Note(f"n{number}", [])) for number in range(10)]
    closing = asyncio.create_task(asyncio.to_thread(database.close))
    gate.open()
    assert len(await asyncio.gather(*futures)) == 10
    await closing
    with pytest.raises(Unavailable):
        await database.submit(Note("late", []))


def test_a_second_server_on_a_data_directory_is_refused(kalam_server: ServerProcess) -> None:
    command = ["serve", f"--data-dir={kalam_server.data_dir}", "--http-port=0", "--nats-port=0"]
    announced = (kalam_server.data_dir / "kalam.json").read_text()
    done = second_run(command)
    assert done.returncode == 1
    assert "another server runs on the data directory" in done.stderr
    assert "Traceback" not in done.stderr
    assert (kalam_server.data_dir / "kalam.json").read_text() == announced
    assert kalam_server.sql("SELECT 1") == [[1]]


def second_run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "kalam", *command], capture_output=True, text=True, timeout=PATIENCE_S)


def limit_files(server: ServerProcess, size: int) -> None:
    """Refuse the server, from now on, writes beyond this size of a file, as a full disk refuses them."""
    assert server.process is not None
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, NO_LIMIT))


def get_status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
            return int(response.status)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code


async def fill_up(server: ServerProcess, table: str, first: int = 1, *, size: int, user: str = "u") -> list[int]:
    """Insert rows of so many bytes one by one until the disk is full; the ids of those that were acknowledged."""
    acknowledged: list[int] = []
    client = await nats.connect(server.nats_url)
    try:
        for row_id in range(first, 10_000):
            row = {"id": row_id, "body": "x" * size}
            reply = await client.request(
                f"kalam.api.{user}.insert.{table}", json.dumps(row).encode(), timeout=PATIENCE_S
            )
            if reply.headers is not None:
                problem = json.loads(reply.data)
                assert (problem["code"], problem["status"]) == ("storage_full", 503)
                assert reply.headers["Nats-Service-Error-Code"] == "503"
                return acknowledged
            acknowledged.append(row_id)
    finally:
        await client.close()
    raise AssertionError("the disk did not fill up")


async def test_a_full_disk_refuses_inserts_loses_nothing_and_service_resumes(
    start_kalam: Callable[..., ServerProcess], nats_server: NatsServer
) -> None:
    server = start_kalam(flags=[f"--nats-url={nats_server.url}"])
    server.sql("CREATE NAMESPACE full")
    server.sql("CREATE TABLE full.t (id BIGINT PRIMARY KEY, body TEXT)")
    server.sql("CREATE USER TABLE full.mine (id BIGINT PRIMARY KEY, body TEXT)")
    limit_files(server, 1 << 20)

    acknowledged = await fill_up(server, "full.t", size=20_000)
    refused = acknowledged[-1] + 1
    acknowledged += await fill_up(server, "full.t", refused, size=1)
    refused = acknowledged[-1] + 1
    with pytest.raises(SqlFailed) as failed:
        server.sql("INSERT INTO full.t VALUES ($1, $2)", refused, "x" * 20_000)
    assert (failed.value.status, failed.value.code) == (503, "storage_full")
    with pytest.raises(SqlFailed) as failed:
        server.sql("INSERT INTO full.mine VALUES (1, $1)", "x" * 20_000, user="newcomer")
    assert failed.value.code == "storage_full"
    with pytest.raises(SqlFailed) as failed:
        server.sql("UPDATE full.t SET body = body || 'y'")
    assert failed.value.code == "storage_full"
    assert server.sql("SELECT id FROM full.t ORDER BY id") == [[row_id] for row_id in acknowledged]
    ready = await asyncio.to_thread(get_status, f"{server.http_url}/readyz")
    assert ready == 503

    limit_files(server, NO_LIMIT)
    server.sql("INSERT INTO full.t VALUES ($1, 'now')", refused)
    server.sql("INSERT INTO full.mine VALUES (1, 'mine')", user="newcomer")
    expected = [[row_id] for row_id in (*acknowledged, refused)]
    assert server.sql("SELECT id FROM full.t ORDER BY id") == expected
    server.sql("FLUSH ALL TABLES IN full")
    assert await asyncio.to_thread(get_status, f"{server.http_url}/readyz") == 200
    server.kill()
    server.restart()
    assert server.sql("SELECT id FROM full.t ORDER BY id") == expected
    assert server.sql("SELECT id, body FROM full.mine", user="newcomer") == [[1, "mine"]]
    feed = replay(await read_feed(nats_server.url, "kalam.shared.full.t.>"), "id")
    assert sorted(feed) == [row_id for [row_id] in expected]
