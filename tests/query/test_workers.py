"""Queries run in processes of their own: what becomes of one that ends, and of what it leaves behind.

Here the processes themselves are looked at, so the servers start from nothing, as users' do.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from query_processes import cpu_ticks, query_processes, runs, workers
from server_process import ServerProcess, SqlFailed

ENDLESS = "SELECT count(*) FROM range(1, 1000000) a JOIN range(1, 1000000) b ON a.value + b.value > $1"
PATIENCE_S = 90.0
COLD = {"KALAM_COLD_STARTS": "1"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    environment = COLD | {"KALAM_QUERY_MEMORY_BYTES": str(128 << 20)}
    server = ServerProcess(tmp_path_factory.mktemp("kalam") / "data", environment=environment).start()
    server.sql("CREATE NAMESPACE a; CREATE TABLE a.t (k INT PRIMARY KEY, v TEXT)")
    server.sql("INSERT INTO a.t SELECT value, 'v' || value FROM range(0, 1000)")
    yield server
    server.kill()


def pid_of(server: ServerProcess) -> int:
    assert server.process is not None
    return server.process.pid


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


class Asked(threading.Thread):
    """A statement that is being run; ``outcome`` is its rows or the code of its error."""

    def __init__(self, server: ServerProcess, text: str, *params: Any) -> None:
        super().__init__()
        self._server, self._text, self._params = server, text, params
        self.outcome: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.outcome = self._server.sql(self._text, *self._params)
        except SqlFailed as refused:
            self.outcome = refused.code
        except OSError as broken:  # the server was killed
            self.outcome = type(broken).__name__

    def result(self) -> Any:
        self.join(PATIENCE_S)
        assert not self.is_alive()
        return self.outcome


def test_the_server_itself_has_no_query_engine(server: ServerProcess) -> None:
    assert server.sql("SELECT count(*), max(v) FROM a.t WHERE v LIKE 'v9%'") == [[111, "v999"]]
    mapped = Path(f"/proc/{pid_of(server)}/maps").read_text()
    assert "datafusion" not in mapped
    assert any("datafusion" in Path(f"/proc/{pid}/maps").read_text() for pid in workers(pid_of(server)))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_worker_that_is_killed_ends_its_query_and_no_other(server: ServerProcess, number: signal.Signals) -> None:
    server.sql("SELECT 1 + 1")
    before = workers(pid_of(server))
    asked = Asked(server, ENDLESS, 5)
    (busy,) = wait_for(lambda: [pid for pid in workers(pid_of(server)) if _is_busy(pid)])
    assert server.sql("SELECT count(*) FROM a.t WHERE k % 2 = 0") == [[500]]
    [query_id] = [row[0] for row in server.sql("SHOW QUERIES") if row[3] == ENDLESS]
    os.kill(busy, number)
    assert asked.result() == "internal"
    told = [line for line in server.log_text().splitlines() if "a query process ended" in line and query_id in line]
    assert len(told) == 1
    assert str(-number) in told[0]
    assert server.sql("SELECT count(*) FROM a.t WHERE k % 2 = 1") == [[500]]
    assert workers(pid_of(server)) - before


def _is_busy(pid: int) -> bool:
    """Whether it has worked for longer than any small query does."""
    return runs(pid) and cpu_ticks(pid) > 100


@pytest.mark.parametrize(
    "text",
    [
        "SELECT repeat('x', 1000000000)",
        "SELECT sum(length(repeat('x', 100000000))) FROM range(1, 100)",
        "SELECT array_agg(repeat('x', 1000)) FROM range(1, 10000000)",
        "SELECT range(1, 1000000000)",
        "SELECT a.value, array_agg(b.value) FROM range(1, 100000) a, range(1, 100000) b GROUP BY a.value",
    ],
)
def test_a_query_that_takes_too_much_memory_is_told_so(server: ServerProcess, text: str) -> None:
    assert Asked(server, text).result() == "too_large"
    assert server.sql("SELECT count(*) FROM a.t WHERE k % 2 = 0") == [[500]]


def test_no_query_process_outlives_its_server(start_kalam: Callable[..., ServerProcess]) -> None:
    server = start_kalam(**COLD)
    asked = Asked(server, ENDLESS, 5)
    wait_for(lambda: [pid for pid in workers(pid_of(server)) if _is_busy(pid)])
    left = query_processes(pid_of(server))
    server.kill()
    wait_for(lambda: not any(runs(pid) for pid in left))
    asked.join()


def test_a_server_stops_while_queries_run(start_kalam: Callable[..., ServerProcess]) -> None:
    server = start_kalam(**COLD)
    asked = [Asked(server, ENDLESS, 5) for _ in range(3)]
    wait_for(lambda: len([pid for pid in workers(pid_of(server)) if _is_busy(pid)]) >= 3)
    left = query_processes(pid_of(server))
    assert server.stop() == 0
    assert not any(runs(pid) for pid in left)
    assert [each.result() for each in asked] == ["internal"] * 3
