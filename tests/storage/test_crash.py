"""The process is cut off at every named point: what was acknowledged is there, once, and nothing lies about."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from change_feed import connected, read_feed, replay, work_until_cut_off
from nats.aio.client import Client
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed

STATUS = 137
USER = "ann"
TABLES = (("c.t", "admin", "kalam.shared.c.t.>"), ("c.mine", USER, f"kalam.user.{USER}.c.mine.>"))
SOURCES = Path(__file__).parents[2] / "kalam"

COMMIT_POINTS = ("commit.before", "commit.after")
FLUSH_POINTS = ("flush.before_write", "flush.before_rename", "flush.after_rename", "flush.after_commit")
OUTBOX_POINTS = ("outbox.before_publish", "outbox.after_publish")

GONE = (ConnectionError, http.client.HTTPException, urllib.error.URLError)

Rows = dict[int, dict[str, Any]]


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with rows of every fate: cold, hot, updated and deleted in both, inserted again."""
    server = ServerProcess(tmp_path_factory.mktemp("lived-in") / "data").start()
    server.sql("CREATE NAMESPACE c")
    for create in ("CREATE TABLE c.t", "CREATE USER TABLE c.mine"):  # which no timer flushes
        server.sql(f"{create} (id BIGINT PRIMARY KEY, v TEXT) FLUSH POLICY ROWS 100000")
    for table, user, _ in TABLES:
        server.sql(f"INSERT INTO {table} SELECT value, 'first' FROM generate_series(1, 30)", user=user)
        server.sql(f"FLUSH TABLE {table}")
        server.sql(f"UPDATE {table} SET v = 'second' WHERE id <= 10", user=user)
        server.sql(f"DELETE FROM {table} WHERE id BETWEEN 5 AND 15", user=user)
        server.sql(f"FLUSH TABLE {table}")
        server.sql(f"INSERT INTO {table} VALUES (5, 'again'), (31, 'hot'), (32, 'hot')", user=user)
        server.sql(f"UPDATE {table} SET v = 'third' WHERE id IN (1, 20, 31)", user=user)
        server.sql(f"DELETE FROM {table} WHERE id IN (2, 21, 32)", user=user)
    server.stop()
    return server.data_dir


@pytest.fixture
def server(lived_in: Path, start_kalam: Callable[..., ServerProcess]) -> ServerProcess:
    """A server, not yet started, on a copy of that data directory."""
    server = start_kalam(start=False)
    shutil.copytree(lived_in, server.data_dir)
    return server


def content(server: ServerProcess, table: str, user: str) -> Rows:
    result = server.results(f"SELECT * FROM {table}", user=user)[-1]
    names = [column["name"] for column in result["columns"]]
    rows = [dict(zip(names, row, strict=True)) for row in result["rows"]]
    by_id = {row["id"]: row for row in rows}
    assert len(by_id) == len(rows), "a row is seen twice"
    assert server.sql(f"SELECT count(*) FROM {table}", user=user) == [[len(rows)]]
    return by_id


def assert_no_strays(server: ServerProcess) -> None:
    named = {path for [path] in server.sql("SELECT path FROM system.segments")}
    found = {path.name for kind in ("shared", "user") for path in (server.data_dir / kind).rglob("*") if path.is_file()}
    assert found == named


async def assert_feeds_tell_all(server: ServerProcess, wait_until: Any) -> None:
    """Each feed, from its first change to its last, without hole or repeat, makes the content of its table."""
    for table, user, subject in TABLES:
        expected = content(server, table, user)

        async def is_whole(subject: str = subject, expected: Rows = expected) -> bool:
            return replay(await read_feed(server.nats_url, subject), "id") == expected

        await wait_until(is_whole)


async def insert(client: Client, table: str, user: str, row_id: int, msg_id: str | None = None) -> None:
    """One acknowledged insert."""
    headers = {"Nats-Msg-Id": msg_id} if msg_id else None
    row = json.dumps({"id": row_id, "v": "late"}).encode()
    reply = await client.request(f"kalam.api.{user}.insert.{table}", row, timeout=PATIENCE_S, headers=headers)
    assert reply.headers is None, reply.headers
    assert json.loads(reply.data)["rows"] == 1


async def insert_until_the_end(server: ServerProcess) -> dict[str, tuple[list[int], int]]:
    """Insert into both tables by turns until the server is gone; by table the acknowledged ids and the next one."""
    told: dict[str, tuple[list[int], int]] = {table: ([], 100) for table, _, _ in TABLES}

    async def work(client: Client) -> None:
        for row_id in range(100, 100_000):
            for table, user, _ in TABLES:
                told[table] = (told[table][0], row_id)
                await insert(client, table, user, row_id)
                told[table] = ([*told[table][0], row_id], row_id + 1)

    await work_until_cut_off(server.nats_url, work)
    assert server.wait_end() == STATUS
    return told


def test_every_point_in_the_code_is_walked_through() -> None:
    named = {name for file in SOURCES.rglob("*.py") for name in re.findall(r'crash_point\("(.+?)"\)', file.read_text())}
    # Walked through in the tests of large changes, compactions, filled tables, renames, truncations and views.
    groups = ("change.", "compact.", "fill.", "rename.", "truncate.", "view.")
    elsewhere = {name for name in named if name.startswith(groups)}
    assert named - elsewhere == {*COMMIT_POINTS, *FLUSH_POINTS, *OUTBOX_POINTS}


@pytest.mark.parametrize(
    "point", [*(f"{point}:20" for point in COMMIT_POINTS), *(f"{point}:9" for point in OUTBOX_POINTS)]
)
async def test_cut_off_while_rows_come_in(server: ServerProcess, wait_until: Any, point: str) -> None:
    server.start(KALAM_CRASHPOINT=point)
    before = {table: content(server, table, user) for table, user, _ in TABLES}
    told = await insert_until_the_end(server)
    server.restart()
    for table, user, _ in TABLES:
        acknowledged, uncertain = told[table]
        after = content(server, table, user)
        assert {row_id: row for row_id, row in after.items() if row_id < 100} == before[table]
        assert {row_id for row_id in after if row_id >= 100} - {uncertain} == set(acknowledged)
    await assert_feeds_tell_all(server, wait_until)
    assert_no_strays(server)


@pytest.mark.parametrize(("table", "point"), [*(("c.t", point) for point in FLUSH_POINTS), ("c.mine", FLUSH_POINTS[2])])
async def test_cut_off_in_a_flush(server: ServerProcess, wait_until: Any, table: str, point: str) -> None:
    server.start(KALAM_CRASHPOINT=point)
    before = {name: content(server, name, user) for name, user, _ in TABLES}
    with pytest.raises(GONE):
        server.sql(f"FLUSH TABLE {table}")
    assert server.wait_end() == STATUS
    server.restart()
    assert_no_strays(server)
    jobs = "SELECT status, error FROM system.jobs WHERE job_type = 'flush' ORDER BY created_at DESC LIMIT 1"
    [[status, error]] = server.sql(jobs)
    assert (status, "stopped" in error) == ("failed", True)
    for _ in range(2):
        assert {name: content(server, name, user) for name, user, _ in TABLES} == before
        await assert_feeds_tell_all(server, wait_until)
        server.sql("FLUSH ALL TABLES")
    assert_no_strays(server)
    with pytest.raises(SqlFailed) as failed:
        server.sql(f"INSERT INTO {table} VALUES (30, 'taken')", user=USER)
    assert failed.value.code == "duplicate_key"


async def test_cut_off_when_nothing_has_been_told_the_next_start_tells_it_all(
    server: ServerProcess, wait_until: Any
) -> None:
    server.start(KALAM_CRASHPOINT="outbox.before_publish")
    told = await insert_until_the_end(server)
    server.launch(KALAM_CRASHPOINT="outbox.after_publish")  # and again, when the broker has it and Kalam does not know
    assert server.wait_end() == STATUS
    server.restart()
    acknowledged, uncertain = told["c.t"]
    assert set(content(server, "c.t", "admin")) - {uncertain} >= set(acknowledged)
    await assert_feeds_tell_all(server, wait_until)


async def test_inserts_that_are_repeated_after_a_crash_are_stored_once(server: ServerProcess) -> None:
    server.start(KALAM_CRASHPOINT="commit.after:20")
    sent: list[int] = []

    async def work(client: Client) -> None:
        for row_id in range(100, 100_000):
            sent.append(row_id)
            await insert(client, "c.t", USER, row_id, msg_id=f"row {row_id}")

    await work_until_cut_off(server.nats_url, work)
    assert server.wait_end() == STATUS
    server.restart()
    async with connected(server.nats_url) as client:
        for row_id in sent:
            await insert(client, "c.t", USER, row_id, msg_id=f"row {row_id}")
    assert server.sql("SELECT id FROM c.t WHERE id >= 100 ORDER BY id") == [[row_id] for row_id in sent]
