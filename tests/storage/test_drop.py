"""DROP removes all of a table and nothing else; a table of the same name begins at nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from change_feed import FeedMessage, last_seq, read_feed, replay
from flush_pause import paused_flush
from server_process import ServerProcess, SqlFailed

KINDS = pytest.mark.parametrize("kind", ["SHARED", "USER"])


def folder_of(server: ServerProcess, kind: str, namespace: str) -> Path:
    parent = server.data_dir / kind.lower() / namespace / "t"
    return parent / "ann" if kind == "USER" else parent


def subject_of(kind: str, namespace: str) -> str:
    return f"kalam.user.ann.{namespace}.t.>" if kind == "USER" else f"kalam.shared.{namespace}.t.>"


def create(server: ServerProcess, kind: str, namespace: str, rest: str = "") -> str:
    server.sql(f"CREATE NAMESPACE IF NOT EXISTS {namespace}")
    server.sql(f"CREATE {kind} TABLE {namespace}.t (id BIGINT PRIMARY KEY, v TEXT) {rest}")
    return f"{namespace}.t"


def fill(server: ServerProcess, table: str, value: str) -> None:
    """Rows in segments of both sorts, and hot ones."""
    server.sql(f"INSERT INTO {table} SELECT value, $1 FROM generate_series(1, 50)", value, user="ann")
    server.sql(f"FLUSH TABLE {table}")
    server.sql(f"DELETE FROM {table} WHERE id <= 10", user="ann")
    server.sql(f"FLUSH TABLE {table}")
    server.sql(f"INSERT INTO {table} VALUES (1, $1), (100, $1)", value, user="ann")


def table_id(server: ServerProcess, table: str) -> str:
    query = "SELECT table_id FROM system.tables WHERE namespace = $1 AND table_name = $2"
    return str(server.sql(query, *table.split("."))[0][0])


async def feed_upto(server: ServerProcess, wait_until: Any, subject: str, seq: int) -> list[FeedMessage]:
    async def is_there() -> bool:
        return last_seq(await read_feed(server.nats_url, subject)) >= seq

    await wait_until(is_there)
    return await read_feed(server.nats_url, subject)


@KINDS
async def test_the_same_name_created_again_is_empty(shared_server: ServerProcess, wait_until: Any, kind: str) -> None:
    namespace = f"again_{kind.lower()}"
    subject, folder = subject_of(kind, namespace), folder_of(shared_server, kind, namespace)
    table = create(shared_server, kind, namespace)
    fill(shared_server, table, "old")
    old_feed = await feed_upto(shared_server, wait_until, subject, 62)
    old_id = table_id(shared_server, table)
    assert {message.table_id for message in old_feed} == {old_id}
    assert len(list(folder.iterdir())) == 2

    shared_server.sql(f"DROP TABLE {table}")
    assert not folder.exists()
    assert await read_feed(shared_server.nats_url, subject) == []
    left = "SELECT count(*) FROM system.segments WHERE namespace = $1"
    assert shared_server.sql(left, namespace) == [[0]]

    create(shared_server, kind, namespace)
    assert shared_server.sql(f"SELECT * FROM {table}", user="ann") == []
    assert shared_server.sql(f"SELECT * FROM {table} WHERE _deleted", user="ann") == []
    shared_server.sql(f"INSERT INTO {table} VALUES (1, 'new'), (20, 'new')", user="ann")
    shared_server.sql(f"FLUSH TABLE {table}")
    assert sorted(shared_server.sql(f"SELECT id, v FROM {table}", user="ann")) == [[1, "new"], [20, "new"]]
    [message] = await feed_upto(shared_server, wait_until, subject, 2)
    assert (message.seq, message.op, len(message.rows)) == (1, "insert", 2)
    assert message.table_id == table_id(shared_server, table) != old_id


@KINDS
async def test_a_table_dropped_and_created_again_survives_a_kill(
    kalam_server: ServerProcess, wait_until: Any, kind: str
) -> None:
    table = create(kalam_server, kind, "twice")
    fill(kalam_server, table, "old")
    kalam_server.sql(f"DROP TABLE {table}")
    create(kalam_server, kind, "twice")
    kalam_server.sql(f"INSERT INTO {table} VALUES (1, 'new')", user="ann")
    kalam_server.kill()
    kalam_server.restart()
    assert kalam_server.sql(f"SELECT id, v FROM {table}", user="ann") == [[1, "new"]]
    kalam_server.sql(f"UPDATE {table} SET v = 'newer'", user="ann")
    feed = await feed_upto(kalam_server, wait_until, subject_of(kind, "twice"), 2)
    assert [row["v"] for row in replay(feed, "id").values()] == ["newer"]


def test_a_drop_waits_for_the_flush_that_runs(shared_server: ServerProcess) -> None:
    table = create(shared_server, "SHARED", "waits")
    folder = folder_of(shared_server, "SHARED", "waits")
    shared_server.sql(f"INSERT INTO {table} SELECT value, 'x' FROM generate_series(1, 60000)")
    dropping = threading.Thread(target=shared_server.sql, args=(f"DROP TABLE {table}",))
    with paused_flush(shared_server, table, folder) as flush:
        dropping.start()
        dropping.join(0.2)
        assert dropping.is_alive()
        assert shared_server.sql(f"SELECT count(*) FROM {table}") == [[60_000]]
    dropping.join(20)
    assert not dropping.is_alive()
    assert flush.result()[0][2] == 60_000
    assert not folder.exists()
    with pytest.raises(SqlFailed) as failed:
        shared_server.sql(f"SELECT count(*) FROM {table}")
    assert failed.value.code == "table_not_found"
    create(shared_server, "SHARED", "waits")
    assert shared_server.sql(f"SELECT count(*) FROM {table}") == [[0]]


def test_writers_that_race_a_drop_get_an_answer_and_leave_nothing_in_its_successor(
    shared_server: ServerProcess,
) -> None:
    table = create(shared_server, "SHARED", "raced")
    stored: list[int] = []
    codes: set[str] = set()
    begun = threading.Barrier(5)

    def write(writer: int) -> None:
        begun.wait()
        for n in range(200):
            row_id = writer * 1_000 + n
            try:
                shared_server.sql(f"INSERT INTO {table} VALUES ({row_id}, 'x')")
            except SqlFailed as exc:
                codes.add(str(exc.code))
            else:
                stored.append(row_id)

    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in writers:
        thread.start()
    begun.wait()
    lives: list[set[int]] = []
    for _ in range(5):
        shared_server.sql(f"FLUSH TABLE {table}")
        shared_server.sql(f"DROP TABLE {table}")
        create(shared_server, "SHARED", "raced")
    for thread in writers:
        thread.join()
    lives.append({row_id for [row_id] in shared_server.sql(f"SELECT id FROM {table}")})
    assert lives[-1] <= set(stored)
    assert codes <= {"table_not_found"}
    shared_server.sql(f"FLUSH TABLE {table}")
    assert {row_id for [row_id] in shared_server.sql(f"SELECT id FROM {table}")} == lives[-1]


@KINDS
def test_what_others_keep_in_a_location_stays(
    start_kalam: Callable[..., ServerProcess], tmp_path: Path, kind: str
) -> None:
    place = tmp_path / "place"
    folder = place / "ann" if kind == "USER" else place
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    (folder / "batch-other-1-1-1-0.parquet").write_text("of another data directory")
    server = start_kalam(KALAM_LOCATION_ROOTS=str(tmp_path))
    location = f"{place}/${{user_id}}" if kind == "USER" else str(place)
    table = create(server, kind, "elsewhere", rest=f"WITH (location = '{location}')")
    fill(server, table, "x")
    assert len(list(folder.iterdir())) == 4
    server.sql(f"DROP TABLE {table}")
    assert sorted(path.name for path in folder.iterdir()) == ["batch-other-1-1-1-0.parquet", "notes.txt"]


async def test_a_drop_while_the_broker_is_away_is_made_good(
    start_kalam: Callable[..., ServerProcess], nats_server: Any, wait_until: Any
) -> None:
    server = start_kalam(flags=[f"--nats-url={nats_server.url}"])
    table = create(server, "SHARED", "away")
    fill(server, table, "old")
    await feed_upto_url(nats_server.url, wait_until, 62)
    nats_server.stop()
    server.sql(f"DROP TABLE {table}")
    create(server, "SHARED", "away")
    server.sql(f"INSERT INTO {table} VALUES (7, 'new')")
    nats_server.start()

    async def is_told() -> bool:
        feed = await read_feed(nats_server.url, "kalam.shared.away.t.>")
        new = [message for message in feed if message.table_id == table_id(server, table)]
        return [(message.seq, [row["id"] for row in message.rows]) for message in new] == [(1, [7])]

    await wait_until(is_told)


async def feed_upto_url(url: str, wait_until: Any, seq: int) -> None:
    async def is_there() -> bool:
        return last_seq(await read_feed(url, "kalam.shared.away.t.>")) >= seq

    await wait_until(is_there)
