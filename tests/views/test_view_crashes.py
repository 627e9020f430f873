"""Row-wise views whose server is killed at every step: nothing is lost or comes twice, what was missed is counted.

The ledger is what the source was given: each row has a number, and the view has each of them once.
"""

from __future__ import annotations

import asyncio
import http.client
import sqlite3
import threading
import urllib.error
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import nats
import pytest
from conftest import NatsServer
from foreign_streams import publish
from nats.aio.client import Client
from nats.js.api import StreamConfig
from server_process import ServerProcess, SqlFailed
from view_watching import standing

WaitFor = Callable[[Callable[[], Any]], Any]
GONE = (ConnectionError, http.client.HTTPException, urllib.error.URLError, SqlFailed)
POINTS = ("view.fill", "view.filling", "view.filled", "view.before_write", "view.after_write", "commit.after:9")


@pytest.fixture
async def server(start_kalam: Callable[..., ServerProcess], nats_server: NatsServer, tmp_path: Path) -> ServerProcess:
    armed = tmp_path / "armed"
    armed.write_text("")
    return start_kalam(flags=[f"--nats-url={nats_server.url}"], KALAM_CRASHPOINT=f"@{armed}")


def arm(tmp_path: Path, point: str) -> None:
    (tmp_path / "armed").write_text(point)


def ledger(server: ServerProcess, view: str) -> list[Any]:
    """How many rows a view has, of how many numbers, the greatest, and their sum."""
    with suppress(SqlFailed):
        [row] = server.sql(f"SELECT count(*), count(DISTINCT n), max(n), sum(n) FROM {view}")
        return list(row)
    return []


def whole(count: int) -> list[int]:
    return [count, count, count, count * (count + 1) // 2]


class Writer:
    """Gives the source one number after another, and remembers which were taken for certain."""

    def __init__(self, server: ServerProcess, table: str) -> None:
        self._server, self._table = server, table
        self.done, self.unsure = 0, False

    def run(self, upto: int) -> None:
        with suppress(*GONE):
            while self.done < upto:
                self.unsure = True
                self._server.sql(
                    f"INSERT INTO {self._table} SELECT value FROM range({self.done + 1}, {self.done + 11})"
                )
                self.done, self.unsure = self.done + 10, False


@pytest.mark.parametrize("kind", ["SHARED", "STREAM"])
def test_a_view_has_each_row_once_whatever_the_server_is_killed_at(
    server: ServerProcess, tmp_path: Path, wait_for: WaitFor, kind: str
) -> None:
    key = " PRIMARY KEY" if kind == "SHARED" else ""
    server.sql(
        f"CREATE NAMESPACE k; CREATE {kind} TABLE k.t (n BIGINT{key}); INSERT INTO k.t SELECT value FROM range(1, 101)"
    )
    count = 100
    for point in POINTS:
        arm(tmp_path, point)
        with suppress(*GONE):
            server.sql("CREATE MATERIALIZED VIEW IF NOT EXISTS k.w WITH (refresh = '0') AS SELECT n FROM k.t")
            if point.startswith("view.fill") and kind == "SHARED":
                server.sql("REFRESH MATERIALIZED VIEW k.w")
        writer = Writer(server, "k.t")
        writer.done = count
        writing = threading.Thread(target=writer.run, args=(count + 200,))
        writing.start()
        writing.join()
        assert server.process is not None
        if server.process.poll() is None and not (kind == "STREAM" and point.startswith("view.fill")):
            server.wait_end()
        server.kill()
        arm(tmp_path, "")
        server.restart()
        count = server.sql("SELECT max(n) FROM k.t")[0][0]
        assert writer.done <= count <= writer.done + 10 * writer.unsure
        with suppress(SqlFailed):
            server.sql("CREATE MATERIALIZED VIEW k.w WITH (refresh = '0') AS SELECT n FROM k.t")
        wait_for(lambda count=count: ledger(server, "k.w") == whole(count))
        server.sql("FLUSH TABLE k.t" if kind == "SHARED" else "FLUSH TABLE k.w")
    assert standing(server, "k.w")["missed"] == 0


async def test_messages_of_others_are_in_the_view_once_whatever_is_killed(
    server: ServerProcess, nats_server: NatsServer, tmp_path: Path, wait_for: WaitFor
) -> None:
    client: Client = await nats.connect(nats_server.url)
    js = client.jetstream()
    await js.add_stream(StreamConfig(name="OTHERS", subjects=["others.*"]))
    server.sql("CREATE NAMESPACE k; CREATE STREAM TABLE k.t (id BIGINT) OVER STREAM 'OTHERS'")
    server.sql("CREATE MATERIALIZED VIEW k.w WITH (refresh = '0') AS SELECT id AS n, _seq AS seq FROM k.t")
    count = 0
    for point in ("view.before_write", "view.after_write", "commit.before", "commit.after:2"):
        arm(tmp_path, point)
        await publish(js, "others.a", range(count + 1, count + 301))
        count += 300
        await asyncio.to_thread(server.wait_end)
        arm(tmp_path, "")
        await asyncio.to_thread(server.restart)
        await asyncio.to_thread(wait_for, lambda count=count: ledger(server, "k.w") == whole(count))
    server.kill()
    await publish(js, "others.a", range(count + 1, count + 51))
    await js.purge_stream("OTHERS", keep=20)  # 30 of them are gone before anybody has read them
    await asyncio.to_thread(server.restart)
    await asyncio.to_thread(wait_for, lambda: ledger(server, "k.w")[:1] == [count + 20])
    assert standing(server, "k.w")["missed"] == 30
    await client.close()


async def test_events_that_are_evicted_while_kalam_is_down_are_counted_as_missed(
    server: ServerProcess, nats_server: NatsServer, wait_for: WaitFor
) -> None:
    server.sql("CREATE NAMESPACE k; CREATE STREAM TABLE k.t (n BIGINT) WITH (max_buffer = 50)")
    server.sql("CREATE MATERIALIZED VIEW k.w WITH (refresh = '1h') AS SELECT n FROM k.t")
    wait_for(lambda: standing(server, "k.w")["state"] == "running")
    server.sql("INSERT INTO k.t SELECT value FROM range(1, 11)")
    wait_for(lambda: ledger(server, "k.w") in ([0, 0, None, None], whole(10)))
    before = ledger(server, "k.w")[0]
    server.sql("INSERT INTO k.t SELECT value FROM range(11, 201)")
    server.kill()
    server.restart()
    wait_for(lambda: (ledger(server, "k.w") or [0])[0] == before + 50)
    assert standing(server, "k.w")["missed"] == 150 - before


def test_what_waits_for_a_view_is_bounded_and_nothing_of_it_is_missed(
    start_kalam: Callable[..., ServerProcess], wait_for: WaitFor
) -> None:
    server = start_kalam(KALAM_VIEW_BACKLOG_BYTES_MAX=str(1 << 20))
    server.sql("CREATE NAMESPACE k; CREATE STREAM TABLE k.t (n BIGINT, s TEXT) WITH (max_buffer = 1000)")
    server.sql("CREATE TABLE k.shared (n BIGINT PRIMARY KEY, s TEXT)")
    for view, source in (("w", "t"), ("v", "shared")):
        server.sql(f"CREATE MATERIALIZED VIEW k.{view} WITH (refresh = '1h') AS SELECT n, s FROM k.{source}")
        wait_for(lambda view=view: standing(server, f"k.{view}")["state"] == "running")
    for start in range(0, 20_000, 2_000):
        for table in ("t", "shared"):
            rows = f"SELECT {start} + value, repeat('x', 250) FROM range(1, 2001)"
            server.sql(f"INSERT INTO k.{table} {rows}")
    for view in ("w", "v"):
        assert server.sql(f"SELECT count(*) > 10000 FROM k.{view}") == [[True]]
        assert standing(server, f"k.{view}")["missed"] == 0


def test_a_view_that_cannot_be_kept_keeps_nobodys_log(
    start_kalam: Callable[..., ServerProcess], wait_for: WaitFor
) -> None:
    server = start_kalam()
    server.sql("CREATE NAMESPACE k; CREATE TABLE k.t (n BIGINT PRIMARY KEY); INSERT INTO k.t VALUES (1)")
    server.sql("CREATE MATERIALIZED VIEW k.w AS SELECT n, count(*) AS rows FROM k.t GROUP BY n")
    wait_for(lambda: server.sql("SELECT n FROM k.w") == [[1]])
    server.stop()
    database = server.data_dir / "kalam.db"
    with closing(sqlite3.connect(database)) as db, db:  # as if this version could not read what it was kept by
        db.execute("UPDATE tables SET options = replace(options, ' GROUP BY n', '') WHERE table_name = 'w'")
    server.start()
    wait_for(lambda: standing(server, "k.w")["state"] == "failed")
    server.sql("INSERT INTO k.t SELECT value FROM range(2, 1001); FLUSH TABLE k.t")

    def logged() -> int:
        with closing(sqlite3.connect(database)) as db:
            [rows] = db.execute("SELECT count(*) FROM log JOIN copies USING (copy_id) WHERE table_id = 1").fetchone()
            return int(rows)

    wait_for(lambda: logged() == 0)
