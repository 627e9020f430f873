"""Statements that want everything: whatever one of them does, memory is bounded, and others are served meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from foreign_program import Program
from query_processes import query_processes, resident_bytes, workers
from server_process import ServerProcess, SqlFailed

MEMORY = 256 << 20
WORKER_MOST = MEMORY + (200 << 20)
SERVER_MOST = 700 << 20
PATIENCE_S = 60.0
Connect = Callable[[ServerProcess], Awaitable[Program]]

ENDS = {"cancelled", "too_large", "timeout", "syntax_error", "unsupported"}
PRODUCT = "SELECT count(*) FROM range(1, 1000000) a JOIN range(1, 1000000) b ON a.value + b.value > 5"
DOUBLED = "WITH c0 AS (SELECT 1 AS x)" + "".join(
    f", c{n} AS (SELECT a.x FROM c{n - 1} a, c{n - 1} b)" for n in range(1, 40)
)
HOSTILE = {
    "a join without an equality": PRODUCT,
    "forty CTEs, each naming the last twice": f"{DOUBLED} SELECT * FROM c39",
    "a sort of a product": "SELECT a.value * b.value AS v FROM range(1, 100000) a, range(1, 100000) b ORDER BY v",
    "a billion numbers": "SELECT array_agg(value) FROM range(1, 1000000000)",
    "a text of a billion characters": "SELECT repeat('x', 1000000000)",
    "many long texts": "SELECT max(length(repeat('x', 50000000) || value)) FROM range(1, 100000)",
    "an array of a billion": "SELECT range(1, 1000000000)",
    "twenty thousand columns": "SELECT " + ", ".join(f"k + {n}" for n in range(20_000)) + " FROM a.t",
    "sixty thousand ANDs": "SELECT count(*) FROM a.t WHERE " + " AND ".join(f"k <> {n}" for n in range(60_000)),
    "a million columns": "SELECT " + "1, " * 1_000_000 + "1",
    "a hundred thousand statements": "SELECT 1;" * 100_000,
    "seven million semicolons": ";" * 7_000_000,
    "a hundred thousand brackets": "SELECT " + "(" * 100_000 + "1" + ")" * 100_000,
    "a text of seven million characters": f"SELECT k FROM a.t WHERE v = '{'x' * 7_000_000}'",
    "a RETURNING of five thousand columns": "UPDATE a.t SET v = 'x' WHERE k = 1 RETURNING "
    + ", ".join(f"k + {n} AS c{n}" for n in range(5_000)),
    "a hundred tables and half a million stars": f"SELECT '{' .*' * 500_000}'"
    + "".join(f", (SELECT count(*) + {n} FROM a.t) AS c{n}" for n in range(100)),
    "five thousand columns of one name": "SELECT " + ", ".join(["k"] * 5_000) + " FROM a.t",
    "an UPDATE over a product": f"UPDATE a.t SET v = 'x' WHERE k = ({PRODUCT})",
    "an INSERT of more than may be": "INSERT INTO a.t SELECT value + 1000000, repeat('x', 1000) FROM range(0, 300000)",
    "a RETURNING that does not end": f"INSERT INTO a.t VALUES (-1, 'x') RETURNING ({PRODUCT})",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    settings = {"KALAM_QUERY_MEMORY_BYTES": str(MEMORY), "KALAM_STATEMENT_CHANGE_BYTES_MAX": str(32 << 20)}
    server = ServerProcess(tmp_path_factory.mktemp("kalam") / "data", environment=settings).start()
    server.sql("CREATE NAMESPACE a; CREATE TABLE a.t (k INT PRIMARY KEY, v TEXT)")
    server.sql("INSERT INTO a.t SELECT value, 'v' || value FROM range(0, 1000)")
    server.sql("CREATE TABLE a.quiet (k INT PRIMARY KEY, v TEXT)")
    yield server
    server.kill()


class Statement(threading.Thread):
    """A statement that a user of its own runs."""

    def __init__(self, server: ServerProcess, text: str) -> None:
        super().__init__(daemon=True)
        self._server, self._text = server, text
        self.outcome: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.outcome = self._server.sql(self._text, user="mallory")
        except SqlFailed as refused:
            self.outcome = refused.code
        except OSError as broken:
            self.outcome = type(broken).__name__


class Memory(threading.Thread):
    """Watches the memory of a server and of its query processes."""

    def __init__(self, server: ServerProcess) -> None:
        super().__init__(daemon=True)
        assert server.process is not None
        self._pid, self._done = server.process.pid, threading.Event()
        self.server = self.worker = 0
        self.start()

    def run(self) -> None:
        while not self._done.wait(0.02):
            self.server = max(self.server, resident_bytes(self._pid))
            self.worker = max([self.worker, *(resident_bytes(pid) for pid in query_processes(self._pid))])

    def stop(self) -> None:
        self._done.set()
        self.join()


def query_of(server: ServerProcess, user: str) -> str | None:
    rows = server.sql("SHOW QUERIES")
    return next((row[0] for row in rows if row[1] == user), None)


def end(server: ServerProcess, statement: Statement) -> None:
    """Cancel it until it is answered."""
    deadline = time.monotonic() + PATIENCE_S
    while statement.is_alive():
        assert time.monotonic() < deadline, "it cannot be ended"
        query_id = query_of(server, "mallory")
        if query_id is not None:
            with suppress(SqlFailed):  # it has ended just now
                server.sql(f"KILL QUERY '{query_id}'")
        statement.join(0.05)


@pytest.mark.parametrize("what", HOSTILE)
async def test_others_are_served_while_a_hostile_statement_runs(
    server: ServerProcess, connect: Connect, what: str
) -> None:
    program = await connect(server)
    changes = await program.listen("kalam.shared.a.quiet.*")
    memory = Memory(server)
    statement = Statement(server, HOSTILE[what])
    for number in range(3):
        key = hash((what, number)) % 1_000_000_000
        assert (await program.insert("a.quiet", {"k": key, "v": "x"})).code is None
        assert (await changes()).json["rows"][0]["k"] == key
        counted = await asyncio.to_thread(server.sql, "SELECT count(*) FROM a.t WHERE k < $1", 500)
        assert counted[0][0] >= 500
    await asyncio.to_thread(server.sql, "FLUSH TABLE a.quiet")
    await asyncio.to_thread(end, server, statement)
    memory.stop()
    assert isinstance(statement.outcome, list) or statement.outcome in ENDS
    assert memory.worker < WORKER_MOST
    assert memory.server < SERVER_MOST


def test_what_is_killed_uses_no_processor_any_more(server: ServerProcess) -> None:
    assert server.process is not None
    pid = server.process.pid
    statement = Statement(server, HOSTILE["a join without an equality"])
    deadline = time.monotonic() + PATIENCE_S
    while query_of(server, "mallory") is None:
        assert time.monotonic() < deadline
    busy = workers(pid)
    end(server, statement)
    assert statement.outcome == "cancelled"
    while len(busy & workers(pid)) == len(busy):  # the one that ran it is gone
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_server_stops_whatever_runs(start_kalam: Callable[..., ServerProcess]) -> None:
    server = start_kalam()
    server.sql("CREATE NAMESPACE a; CREATE TABLE a.t (k INT PRIMARY KEY, v TEXT); INSERT INTO a.t VALUES (1, 'x')")
    kinds = ("a join without an equality", "forty CTEs, each naming the last twice", "a RETURNING that does not end")
    statements = [Statement(server, HOSTILE[kind]) for kind in kinds]
    deadline = time.monotonic() + PATIENCE_S
    while len([row for row in server.sql("SHOW QUERIES") if row[7] == "running"]) < len(kinds):
        assert time.monotonic() < deadline
    assert server.process is not None
    left = query_processes(server.process.pid)
    assert server.stop() == 0
    assert not any(resident_bytes(pid) for pid in left)
    for statement in statements:
        statement.join(PATIENCE_S)
    assert [statement.outcome for statement in statements] == ["internal"] * 3
