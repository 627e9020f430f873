"""Flushes and compactions on a disk that fails: what is read stays the same, and the next run does all of the work."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from failing_calls import RENAME, SYNC, WRITE, failing_calls, log_of, pid_of, refused
from flush_pause import worker_process
from server_process import ServerProcess, SqlFailed

COLUMNS = "(id BIGINT PRIMARY KEY, v TEXT)"


def wait(condition: Callable[[], bool], patience_s: float = 20.0) -> None:
    turn = threading.Event()
    for _ in range(int(patience_s / 0.05)):
        if condition():
            return
        turn.wait(0.05)
    raise TimeoutError


def wait_quiet(server: ServerProcess) -> None:
    """Wait until everything is published and that is recorded, after which the server commits nothing by itself."""
    unpublished = """SELECT count(*) FROM copies WHERE published_seq < max(flushed_seq,
        ifnull((SELECT max(first_seq + row_count - 1) FROM log WHERE log.copy_id = copies.copy_id), 0))"""

    def is_quiet() -> bool:
        with closing(sqlite3.connect(f"file:{server.data_dir / 'kalam.db'}?mode=ro", uri=True)) as conn:
            return conn.execute(unpublished).fetchone() == (0,)

    wait(is_quiet)


@dataclass(frozen=True)
class Place:
    """A place where writing segments can fail; ``worker`` is the process that fails, or else the server."""

    name: str
    calls: tuple[str, ...]
    error: str
    in_worker: bool = False
    on: str = ""
    when: str = "1+"

    def failing(self, server: ServerProcess, worker_name: str, folder: Path) -> AbstractContextManager[None]:
        pid = worker_process(server, worker_name) if self.in_worker else pid_of(server)
        paths = {"": [], "folder": [folder], "log": log_of(server)}[self.on]
        return failing_calls(pid, self.calls, self.error, paths=paths, when=self.when)


PLACES = (
    Place("the file is written", WRITE, "ENOSPC", in_worker=True, when="1"),  # then the worker says so, by writing
    Place("the file is synced", SYNC, "EIO", in_worker=True),
    Place("the file is renamed", RENAME, "EIO"),
    Place("the folder is synced", SYNC, "EIO", on="folder"),
    Place("the job is recorded", SYNC, "EIO", on="log"),
    Place("the segments are recorded", SYNC, "EIO", on="log", when="2"),  # behind the commit that records the job
    Place("the segments and the end are recorded", WRITE, "ENOSPC", on="log", when="12+"),
)


@pytest.fixture(params=PLACES, ids=lambda place: place.name)
def place(request: pytest.FixtureRequest) -> Place:
    chosen: Place = request.param
    return chosen


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that compacts only when it is told to, and whose processes for flush and compaction run."""
    server = ServerProcess(
        tmp_path_factory.mktemp("faults") / "data",
        environment={
            "KALAM_COMPACTION_SEGMENTS_MIN": "1000000",
            "KALAM_COMPACTION_OVERRIDES_PERCENT": "1000000",
            "KALAM_FLUSH_WORKER_IDLE_S": "600",
            "KALAM_ICEBERG": "false",  # so that replaced files go at once
        },
    ).start()
    server.sql("CREATE NAMESPACE warm; CREATE TABLE warm.t (id INT PRIMARY KEY)")
    for row_id in range(2):
        server.sql(f"INSERT INTO warm.t VALUES ({row_id}); FLUSH TABLE warm.t")
    server.sql("COMPACT TABLE warm.t")
    yield server
    server.kill()


def make(server: ServerProcess, prefix: str, place: Place, rest: str = "") -> tuple[str, Path]:
    """A table of two segments, the folder of its segments."""
    namespace = f"{prefix}{PLACES.index(place)}"
    server.sql(f"CREATE NAMESPACE {namespace}; CREATE TABLE {namespace}.t {COLUMNS} {rest}")
    for first in (0, 50):
        server.sql(f"INSERT INTO {namespace}.t SELECT value, 'old' FROM range({first}, {first + 50})")
        server.sql(f"FLUSH TABLE {namespace}.t")
    return f"{namespace}.t", server.data_dir / "shared" / namespace / "t"


def content(server: ServerProcess, table: str) -> dict[int, str]:
    rows = server.sql(f"SELECT id, v FROM {table}")
    assert len(dict(rows)) == len(rows), "a row is seen twice"
    assert server.sql(f"SELECT count(*) FROM {table}") == [[len(rows)]]
    return dict(rows)


def jobs(server: ServerProcess, table: str, job_type: str) -> list[str]:
    """What became of the jobs of a table, oldest first, without those of ``make``."""
    query = "SELECT status FROM system.jobs WHERE namespace = $1 AND job_type = $2 ORDER BY created_at"
    found = [status for [status] in server.sql(query, table.split(".")[0], job_type)]
    return found[2:] if job_type == "flush" else found


def named(server: ServerProcess, table: str) -> set[str]:
    return {path for [path] in server.sql("SELECT path FROM system.segments WHERE namespace = $1", table.split(".")[0])}


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_flush_that_fails_leaves_its_rows_hot_and_the_next_one_flushes_them(
    server: ServerProcess, place: Place
) -> None:
    table, folder = make(server, "flush", place)
    server.sql(f"INSERT INTO {table} VALUES (100, 'new'), (101, 'new')")
    server.sql(f"UPDATE {table} SET v = 'changed' WHERE id < 5; DELETE FROM {table} WHERE id IN (7, 60)")
    expected = content(server, table)
    wait_quiet(server)
    before = named(server, table)
    with place.failing(server, "flush_worker", folder):
        refused(server, f"FLUSH TABLE {table}")
        assert content(server, table) == expected
        if place.on != "log":
            server.sql(f"INSERT INTO {table} VALUES (102, 'amid')")
            expected[102] = "amid"
    assert named(server, table) == before
    assert content(server, table) == expected
    [flushed] = server.sql(f"FLUSH TABLE {table}")
    assert flushed[2] == 9 + (102 in expected)
    assert content(server, table) == expected
    assert files(folder) == named(server, table) > before
    assert jobs(server, table, "flush") == [*(["failed"] if place.name != "the job is recorded" else []), "completed"]
    with pytest.raises(SqlFailed) as failed:
        server.sql(f"INSERT INTO {table} VALUES (100, 'again')")
    assert failed.value.code == "duplicate_key"


def test_a_compaction_that_fails_changes_nothing_and_the_next_one_compacts(server: ServerProcess, place: Place) -> None:
    table, folder = make(server, "compact", place)
    server.sql(f"UPDATE {table} SET v = 'changed' WHERE id % 10 = 0; DELETE FROM {table} WHERE id % 10 = 1")
    server.sql(f"FLUSH TABLE {table}; INSERT INTO {table} VALUES (100, 'hot')")
    expected = content(server, table)
    deleted = sorted(server.sql(f"SELECT id FROM {table} WHERE _deleted"))
    wait_quiet(server)
    before = named(server, table)
    with place.failing(server, "compact_worker", folder):
        refused(server, f"COMPACT TABLE {table}")
        assert content(server, table) == expected
    assert place.on == "log" or named(server, table) == before
    [compacted] = server.sql(f"COMPACT TABLE {table}")
    assert compacted[2] > compacted[3]
    assert content(server, table) == expected
    assert sorted(server.sql(f"SELECT id FROM {table} WHERE _deleted")) == deleted
    wait(lambda: files(folder) == named(server, table))
    assert len(named(server, table)) == 2, "one file of rows and one of deleted rows"
    expected_jobs = [*(["failed"] if place.name != "the job is recorded" else []), "completed"]
    assert jobs(server, table, "compaction") == expected_jobs


def test_a_flush_by_policy_that_failed_is_tried_again_until_it_succeeds(server: ServerProcess) -> None:
    server.sql(f"CREATE NAMESPACE again; CREATE TABLE again.t {COLUMNS} FLUSH POLICY ROWS 10")
    with failing_calls(pid_of(server), RENAME, "ENOSPC"):
        server.sql("INSERT INTO again.t SELECT value, 'x' FROM range(0, 10)")
        wait(lambda: jobs_of_policy(server)[:1] == ["failed"])
        assert server.sql("SELECT count(*) FROM again.t") == [[10]]
    wait(lambda: jobs_of_policy(server)[-1] == "completed")
    assert files(server.data_dir / "shared" / "again" / "t") == named(server, "again.t")
    assert server.sql("SELECT count(*), count(DISTINCT id) FROM again.t") == [[10, 10]]


def jobs_of_policy(server: ServerProcess) -> list[str]:
    query = "SELECT status FROM system.jobs WHERE namespace = 'again' ORDER BY created_at"
    return [status for [status] in server.sql(query)]
