"""Compaction: what is read stays the same, files get fewer, hidden rows go, and a crash at any point loses nothing."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from server_process import ServerProcess, SqlFailed

CRASH_POINTS = ("compact.before_write", "compact.before_rename", "compact.after_rename", "compact.after_commit")
QUIET = {
    "KALAM_COMPACTION_SEGMENTS_MIN": "1000000",
    "KALAM_COMPACTION_OVERRIDES_PERCENT": "1000000",
    "KALAM_ICEBERG": "false",  # with it replaced files stay for a while
}


@pytest.fixture
def ns(shared_server: ServerProcess, request: pytest.FixtureRequest) -> str:
    name = f"c{abs(hash(request.node.name)) % 10**9}"
    shared_server.sql(f"CREATE NAMESPACE {name}")
    return name


def files(server: ServerProcess, ns: str, table: str = "t") -> list[str]:
    folder = Path(server.data_dir) / "shared" / ns / table
    return sorted(path.name for path in folder.iterdir())


def named(server: ServerProcess, ns: str) -> list[str]:
    return sorted(row[0] for row in server.sql(f"SELECT path FROM system.segments WHERE namespace = '{ns}'"))


def fragmented(server: ServerProcess, ns: str, seed: int = 1) -> dict[int, list[object]]:
    """A table of several segments with changed, deleted and re-inserted rows; returns what it holds."""
    server.sql(f"CREATE TABLE {ns}.t (id BIGINT PRIMARY KEY, v TEXT, x DOUBLE)")
    chance, rows = random.Random(seed), dict[int, list[object]]()
    for turn in range(5):
        keys = [key for key in chance.sample(range(200), 40) if key not in rows]
        server.sql(f"INSERT INTO {ns}.t VALUES " + ", ".join(f"({key}, 'i{turn}', {turn}.5)" for key in keys))
        rows |= {key: [key, f"i{turn}", turn + 0.5] for key in keys}
        if turn % 2 == 0:
            server.sql(f"FLUSH TABLE {ns}.t")
        changed = chance.sample(sorted(rows), 15)
        server.sql(f"UPDATE {ns}.t SET v = 'u{turn}' WHERE id IN ({', '.join(map(str, changed))})")
        rows |= {key: [key, f"u{turn}", rows[key][2]] for key in changed}
        gone = chance.sample(sorted(rows), 10)
        server.sql(f"DELETE FROM {ns}.t WHERE id IN ({', '.join(map(str, gone))})")
        rows = {key: row for key, row in rows.items() if key not in gone}
        server.sql(f"FLUSH TABLE {ns}.t")
    return rows


def content(server: ServerProcess, ns: str) -> dict[int, list[object]]:
    return {row[0]: row for row in server.sql(f"SELECT id, v, x FROM {ns}.t")}


def deleted(server: ServerProcess, ns: str) -> list[list[object]]:
    return list(server.sql(f"SELECT id, v FROM {ns}.t WHERE _deleted ORDER BY id"))


@pytest.mark.parametrize("seed", range(3))
def test_a_compaction_changes_nothing_that_is_read(shared_server: ServerProcess, ns: str, seed: int) -> None:
    expected = fragmented(shared_server, ns, seed)
    tombstones = deleted(shared_server, ns)
    assert content(shared_server, ns) == expected
    [done] = shared_server.sql(f"COMPACT TABLE {ns}.t")
    assert done[2] > done[3] == 2
    assert done[5] > 0
    assert content(shared_server, ns) == expected
    assert deleted(shared_server, ns) == tombstones
    assert len(named(shared_server, ns)) == 2, "one file of rows and one of deleted rows"
    assert shared_server.sql(f"COMPACT TABLE {ns}.t") == [], "nothing is left to do"
    key = next(iter(expected))
    with pytest.raises(SqlFailed) as failed:
        shared_server.sql(f"INSERT INTO {ns}.t VALUES ({key}, 'again', 0)")
    assert failed.value.code == "duplicate_key"
    gone = [row[0] for row in tombstones]
    shared_server.sql(f"INSERT INTO {ns}.t VALUES ({gone[0]}, 'back', 1); FLUSH TABLE {ns}.t")
    assert content(shared_server, ns) == expected | {gone[0]: [gone[0], "back", 1.0]}
    shared_server.sql(f"COMPACT TABLE {ns}.t")
    assert content(shared_server, ns) == expected | {gone[0]: [gone[0], "back", 1.0]}


def test_old_schema_versions_are_merged_into_the_present_one(shared_server: ServerProcess, ns: str) -> None:
    sql = shared_server.sql
    sql(f"CREATE TABLE {ns}.t (id TEXT PRIMARY KEY, a INT, b TIMESTAMP)")
    sql(f"INSERT INTO {ns}.t VALUES ('x', 1, '1960-01-01T00:00:00.000001Z'); FLUSH TABLE {ns}.t")
    sql(f"ALTER TABLE {ns}.t RENAME COLUMN a TO c; ALTER TABLE {ns}.t ADD COLUMN a DECIMAL(5,1) DEFAULT 2.5")
    sql(f"INSERT INTO {ns}.t VALUES ('y', 2, NULL, 9); FLUSH TABLE {ns}.t; ALTER TABLE {ns}.t DROP COLUMN b")
    before = sql(f"SELECT id, c, a FROM {ns}.t ORDER BY id")
    assert before == [["x", 1, "2.5"], ["y", 2, "9.0"]]
    sql(f"COMPACT TABLE {ns}.t")
    assert sql(f"SELECT id, c, a FROM {ns}.t ORDER BY id") == before
    assert sql(f"SELECT schema_version FROM system.segments WHERE namespace = '{ns}'") == [[4]]


def test_a_users_copies_are_compacted_apart(shared_server: ServerProcess, ns: str) -> None:
    shared_server.sql(f"CREATE USER TABLE {ns}.u (id INT PRIMARY KEY)")
    for user in ("ann", "bob"):
        for number in range(3):
            shared_server.sql(f"INSERT INTO {ns}.u VALUES ({number}); FLUSH TABLE {ns}.u", user=user)
    [done] = shared_server.sql(f"COMPACT TABLE {ns}.u")
    assert done[2:5] == [6, 2, 6]
    assert shared_server.sql(f"SELECT count(*) FROM {ns}.u", user="bob") == [[3]]


def test_a_users_copy_that_is_damaged_keeps_no_other_from_being_compacted(
    shared_server: ServerProcess, ns: str
) -> None:
    shared_server.sql(f"CREATE USER TABLE {ns}.u (id INT PRIMARY KEY)")
    for user in ("ann", "bob", "cleo"):
        for number in range(3):
            shared_server.sql(f"INSERT INTO {ns}.u VALUES ({number}); FLUSH TABLE {ns}.u", user=user)
    damaged = min(shared_server.data_dir.glob(f"**/{ns}/u/ann/*.parquet"))
    damaged.write_bytes(b"PAR1" + b"\x07" * (damaged.stat().st_size - 8) + b"PAR1")
    with pytest.raises(SqlFailed, match=r"1 of 3 users' copies could not be compacted: ann: .*damaged") as failed:
        shared_server.sql(f"COMPACT TABLE {ns}.u")
    assert failed.value.code == "corrupt_segment"
    counted = f"SELECT user_id, count(*) FROM system.segments WHERE namespace = '{ns}' GROUP BY user_id ORDER BY 1"
    assert shared_server.sql(counted) == [["ann", 3], ["bob", 1], ["cleo", 1]]


def test_replaced_files_go_when_nobody_reads_them(start_kalam: object) -> None:
    server: ServerProcess = start_kalam(**QUIET)  # type: ignore[operator]
    server.sql("CREATE NAMESPACE n")
    expected = fragmented(server, "n")
    server.sql("COMPACT TABLE n.t")
    assert content(server, "n") == expected
    wait(lambda: files(server, "n") == named(server, "n"))
    server.kill()
    server.restart()
    assert content(server, "n") == expected
    assert files(server, "n") == named(server, "n")


def wait(condition: object, patience_s: float = 15.0) -> None:
    """Wait until a condition holds."""
    turn = threading.Event()
    for _ in range(int(patience_s / 0.05)):
        if condition():  # type: ignore[operator]
            return
        turn.wait(0.05)
    raise TimeoutError


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_crash_in_a_compaction_loses_and_doubles_nothing(start_kalam: object, point: str) -> None:
    server: ServerProcess = start_kalam(**QUIET)  # type: ignore[operator]
    server.sql("CREATE NAMESPACE n")
    expected = fragmented(server, "n")
    tombstones = deleted(server, "n")
    server.stop()
    server.start(KALAM_CRASHPOINT=point)
    with suppress(OSError):
        server.sql("COMPACT TABLE n.t")
    server.wait_end()
    server.start()
    assert content(server, "n") == expected
    assert deleted(server, "n") == tombstones
    assert files(server, "n") == named(server, "n")
    jobs = server.sql("SELECT status FROM system.jobs WHERE job_type = 'compaction'")
    assert jobs == [["failed"]]
    server.sql("COMPACT TABLE n.t")
    assert content(server, "n") == expected


def test_counts_never_move_and_writes_go_on_while_compactions_run(shared_server: ServerProcess, ns: str) -> None:
    sql = shared_server.sql
    sql(f"CREATE TABLE {ns}.t (id BIGINT PRIMARY KEY, v TEXT)")
    sql(f"INSERT INTO {ns}.t SELECT value, 'v' FROM range(0, 5000); FLUSH TABLE {ns}.t")
    stop = threading.Event()

    def read() -> set[int]:
        seen: set[int] = set()
        while not stop.is_set():
            seen.add(sql(f"SELECT count(*) FROM {ns}.t")[0][0])
        return seen

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for turn in range(4):
                sql(f"UPDATE {ns}.t SET v = 'u{turn}' WHERE id % 10 = {turn}; FLUSH TABLE {ns}.t")
                sql(f"UPDATE {ns}.t SET v = v || '+' WHERE id % 100 = {turn}")
                sql(f"COMPACT TABLE {ns}.t")
        finally:
            stop.set()
        assert [reader.result() for reader in readers] == [{5000}, {5000}]
    assert sql(f"SELECT count(*) FROM {ns}.t WHERE v LIKE 'u%+'") == [[200]]


def test_small_segments_and_overrides_are_compacted_by_themselves(start_kalam: object) -> None:
    server: ServerProcess = start_kalam(KALAM_COMPACTION_SEGMENTS_MIN="3")  # type: ignore[operator]
    server.sql("CREATE NAMESPACE n; CREATE TABLE n.t (id BIGINT PRIMARY KEY, v INT)")
    for number in range(3):
        server.sql(
            f"INSERT INTO n.t SELECT value, 0 FROM range({number * 1000}, {number * 1000 + 1000}); FLUSH TABLE n.t"
        )
    wait(lambda: len(named(server, "n")) == 1)
    server.sql("UPDATE n.t SET v = 1; FLUSH TABLE n.t")
    wait(lambda: server.sql("SELECT sum(rows) FROM system.segments WHERE namespace = 'n'") == [[3000]])
    assert server.sql("SELECT count(*), sum(v) FROM n.t") == [[3000, 3000]]
    jobs = "SELECT DISTINCT status FROM system.jobs WHERE job_type = 'compaction'"
    wait(lambda: server.sql(jobs) == [["completed"]])  # what a job did is seen a moment before its end is recorded


def test_a_stream_table_is_not_compacted(shared_server: ServerProcess, ns: str) -> None:
    shared_server.sql(f"CREATE STREAM TABLE {ns}.s (x INT)")
    with pytest.raises(SqlFailed) as failed:
        shared_server.sql(f"COMPACT TABLE {ns}.s")
    assert failed.value.code == "unsupported"
