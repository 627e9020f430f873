"""What a flush must not do to rows: lose, double, revive or forget any, whatever happens while it runs."""

from __future__ import annotations

import resource
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from flush_pause import paused_flush, worker_process
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed

MANY = 60_000


def shared_folder(server: ServerProcess, namespace: str, table: str = "t") -> Path:
    return server.data_dir / "shared" / namespace / table


def create(
    server: ServerProcess, namespace: str, columns: str = "id BIGINT PRIMARY KEY, v TEXT", rest: str = ""
) -> str:
    server.sql(f"CREATE NAMESPACE {namespace}")
    server.sql(f"CREATE TABLE {namespace}.t ({columns}) {rest}")
    return f"{namespace}.t"


def fill(server: ServerProcess, table: str, count: int, first: int = 1) -> None:
    server.sql(f"INSERT INTO {table} SELECT value, 'v' || value FROM generate_series({first}, {first + count - 1})")


def content(server: ServerProcess, table: str, columns: str = "id, v", **who: Any) -> list[Any]:
    return sorted(server.sql(f"SELECT {columns} FROM {table}", **who))


def segments(server: ServerProcess, table: str) -> list[list[Any]]:
    namespace, name = table.split(".")
    query = "SELECT path, rows FROM system.segments WHERE namespace = $1 AND table_name = $2 ORDER BY path"
    return server.sql(query, namespace, name)


def wait_segments(server: ServerProcess, table: str, rows: list[int]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while sorted(count for _, count in segments(server, table)) != rows:
        assert time.monotonic() < deadline, segments(server, table)
        time.sleep(0.02)


def test_rows_changed_between_the_read_and_the_delete_are_neither_lost_nor_doubled(
    shared_server: ServerProcess,
) -> None:
    table = create(shared_server, "amid")
    fill(shared_server, table, MANY)
    with paused_flush(shared_server, table, shared_folder(shared_server, "amid")):
        shared_server.sql(f"UPDATE {table} SET v = 'changed' WHERE id = 1")
        shared_server.sql(f"DELETE FROM {table} WHERE id = 2")
        shared_server.sql(f"DELETE FROM {table} WHERE id = 3")
        shared_server.sql(f"INSERT INTO {table} VALUES (3, 'again'), ({MANY + 1}, 'new')")
    expected = [[1, "changed"], [3, "again"], [4, "v4"], [MANY + 1, "new"]]
    for _ in range(2):
        assert shared_server.sql(f"SELECT count(*), count(DISTINCT id) FROM {table}") == [[MANY, MANY]]
        assert content(shared_server, f"{table} WHERE id IN (1, 2, 3, 4, {MANY + 1})") == expected
        assert shared_server.sql(f"SELECT id, v FROM {table} WHERE _deleted") == [[2, "v2"]]
        shared_server.sql(f"FLUSH TABLE {table}")


def test_rows_that_came_during_a_flush_are_flushed_by_the_next(shared_server: ServerProcess) -> None:
    table = create(shared_server, "meanwhile")
    fill(shared_server, table, MANY)
    with paused_flush(shared_server, table, shared_folder(shared_server, "meanwhile")) as flush:
        shared_server.sql(f"INSERT INTO {table} VALUES (0, 'a'), (-1, 'b')")
    assert flush.result()[0][2] == MANY
    assert shared_server.sql(f"FLUSH TABLE {table}")[0][2] == 2
    assert shared_server.sql(f"FLUSH TABLE {table}") == []
    assert sorted(rows for _, rows in segments(shared_server, table)) == [2, MANY]


def test_rows_that_came_during_a_flush_count_towards_the_row_policy(shared_server: ServerProcess) -> None:
    table = create(shared_server, "policy", rest=f"FLUSH POLICY ROWS {2 * MANY}")
    fill(shared_server, table, MANY)
    with paused_flush(shared_server, table, shared_folder(shared_server, "policy")):
        fill(shared_server, table, MANY - 1, first=MANY + 1)
    assert [rows for _, rows in segments(shared_server, table)] == [MANY]
    fill(shared_server, table, MANY + 1, first=2 * MANY)
    wait_segments(shared_server, table, [MANY, 2 * MANY])


def test_a_flush_by_the_row_policy_takes_what_waits_and_begins_to_count_anew(shared_server: ServerProcess) -> None:
    table = create(shared_server, "anew", rest="FLUSH POLICY ROWS 10")
    fill(shared_server, table, 10)
    wait_segments(shared_server, table, [10])
    fill(shared_server, table, 9, first=11)
    fill(shared_server, table, 10, first=20)
    wait_segments(shared_server, table, [10, 19])


def test_a_deleted_row_stays_deleted_after_another_is_inserted_and_flushed(shared_server: ServerProcess) -> None:
    table = create(shared_server, "stays")
    shared_server.sql(f"INSERT INTO {table} VALUES (1, 'a'), (2, 'b')")
    shared_server.sql(f"FLUSH TABLE {table}")
    shared_server.sql(f"DELETE FROM {table} WHERE id = 1")
    shared_server.sql(f"INSERT INTO {table} VALUES (3, 'c')")
    assert content(shared_server, table) == [[2, "b"], [3, "c"]]
    shared_server.sql(f"FLUSH TABLE {table}")
    assert content(shared_server, table) == [[2, "b"], [3, "c"]]
    assert shared_server.sql(f"SELECT count(*) FROM {table}") == [[2]]
    assert shared_server.sql(f"SELECT id, v FROM {table} WHERE _deleted") == [[1, "a"]]


def test_of_a_row_updated_after_two_flushes_only_the_last_version_is_seen(shared_server: ServerProcess) -> None:
    table = create(shared_server, "newest")
    shared_server.sql(f"INSERT INTO {table} VALUES (1, 'first'), (2, 'other')")
    for value in ("second", "third"):
        shared_server.sql(f"FLUSH TABLE {table}")
        shared_server.sql(f"UPDATE {table} SET v = $1 WHERE id = 1", value)
        assert content(shared_server, table) == [[1, value], [2, "other"]]
    shared_server.sql(f"FLUSH TABLE {table}")
    assert content(shared_server, table) == [[1, "third"], [2, "other"]]
    assert content(shared_server, f"{table} WHERE v IN ('first', 'second')") == []


def test_a_table_whose_rows_are_all_deleted_is_flushed_and_empty(shared_server: ServerProcess) -> None:
    table = create(shared_server, "emptied")
    fill(shared_server, table, 100)
    shared_server.sql(f"DELETE FROM {table}")
    shared_server.sql(f"FLUSH TABLE {table}")
    assert content(shared_server, table) == []
    assert len(shared_server.sql(f"SELECT id FROM {table} WHERE _deleted")) == 100
    assert all(path.startswith("deleted-") for path, _ in segments(shared_server, table))


def test_count_never_changes_while_flushes_run(shared_server: ServerProcess) -> None:
    table = create(shared_server, "counted", rest="FLUSH POLICY ROWS 1000000")
    counts: set[Any] = set()
    flushed: list[int] = []
    fill(shared_server, table, 20_000)
    done = threading.Event()

    def poll() -> None:
        query = f"SELECT count(*), sum(id), count(DISTINCT id) FROM {table}"
        while not done.is_set():
            counts.add(tuple(shared_server.sql(query)[0]))

    poller = threading.Thread(target=poll)
    poller.start()
    try:
        for first in range(1, 20_001, 1_000):
            # The update changes nothing that is counted, but every row moves from cold to hot and back.
            shared_server.sql(f"UPDATE {table} SET v = v || '!' WHERE id BETWEEN $1 AND $2", first, first + 999)
            flushed.append(shared_server.sql(f"FLUSH TABLE {table}")[0][2])
    finally:
        done.set()
        poller.join()
    assert counts == {(20_000, 20_000 * 20_001 // 2, 20_000)}
    assert flushed == [20_000] + [1_000] * 19


def test_each_users_copy_is_flushed_into_a_folder_of_its_own(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE peoples")
    shared_server.sql("CREATE USER TABLE peoples.t (id BIGINT PRIMARY KEY, v TEXT)")
    for user in ("ann", "bob"):
        shared_server.sql("INSERT INTO peoples.t VALUES (1, $1)", user, user=user)
    [[_, _, rows, files, _, _]] = shared_server.sql("FLUSH TABLE peoples.t")
    assert (rows, files) == (2, 2)
    for user in ("ann", "bob"):
        assert content(shared_server, "peoples.t", user=user) == [[1, user]]
        assert len(list((shared_server.data_dir / "user" / "peoples" / "t" / user).glob("batch-*.parquet"))) == 1
    assert content(shared_server, "peoples.t", user="carol") == []


def test_a_flush_that_fails_leaves_every_row_hot_and_says_why(shared_server: ServerProcess) -> None:
    table = create(shared_server, "failing")
    folder = shared_folder(shared_server, "failing")
    folder.parent.mkdir(parents=True)
    folder.write_text("a file where the folder should be")
    fill(shared_server, table, 3)
    with pytest.raises(SqlFailed) as failed:
        shared_server.sql(f"FLUSH TABLE {table}")
    assert failed.value.code == "storage_full"
    jobs = "SELECT status FROM system.jobs WHERE namespace = 'failing' ORDER BY created_at"
    assert shared_server.sql(jobs) == [["failed"]]
    assert content(shared_server, table) == [[1, "v1"], [2, "v2"], [3, "v3"]]
    folder.unlink()
    shared_server.sql(f"FLUSH TABLE {table}")
    assert shared_server.sql(jobs) == [["failed"], ["completed"]]
    assert content(shared_server, table) == [[1, "v1"], [2, "v2"], [3, "v3"]]


def test_a_flush_that_runs_out_of_disk_leaves_no_file_behind(shared_server: ServerProcess) -> None:
    table = create(shared_server, "short")
    fill(shared_server, table, 10_000)
    shared_server.sql("CREATE TABLE short.warm_up (x BIGINT)")
    shared_server.sql("INSERT INTO short.warm_up VALUES (1)")
    shared_server.sql("FLUSH TABLE short.warm_up")
    worker = worker_process(shared_server, "flush_worker")
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    with pytest.raises(SqlFailed) as failed:
        shared_server.sql(f"FLUSH TABLE {table}")
    assert failed.value.code == "storage_full"
    assert list(shared_folder(shared_server, "short").iterdir()) == []
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert shared_server.sql(f"FLUSH TABLE {table}")[0][2] == 10_000
    assert shared_server.sql(f"SELECT count(*) FROM {table}") == [[10_000]]


def test_thousands_of_keys_that_a_flush_overrides_are_hidden_in_older_files(shared_server: ServerProcess) -> None:
    table = "overridden.t"
    shared_server.sql(f"CREATE NAMESPACE overridden; CREATE TABLE {table} (id BIGINT PRIMARY KEY, n BIGINT)")
    shared_server.sql(f"INSERT INTO {table} SELECT value, 1 FROM range(0, 2500)")
    shared_server.sql(f"FLUSH TABLE {table}")
    shared_server.sql(f"UPDATE {table} SET n = 2 WHERE id >= 10; DELETE FROM {table} WHERE id >= 2490")
    shared_server.sql(f"FLUSH TABLE {table}")
    assert shared_server.sql(f"SELECT n, count(*) FROM {table} GROUP BY n ORDER BY n") == [[1, 10], [2, 2_480]]
    assert shared_server.sql(f"SELECT count(*) FROM {table} WHERE id IN (9, 10, 2489, 2490)") == [[3]]
