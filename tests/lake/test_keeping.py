"""How long what was replaced stays for readers, and that it goes then; and a lake that is damaged, moved or full."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import chdb
import polars
import pyarrow as pa
import pytest
from lake_readers import READERS, duckdb_connection, in_folder, lake_of, metadata_of, quiet, rows_of, selected
from patience import PATIENCE_S
from pyiceberg.table import StaticTable
from server_process import ServerProcess, SqlFailed
from small_disk import fill, small_disk

Start = Callable[..., ServerProcess]
WHEN_TOLD = {"KALAM_ICEBERG_INTERVAL_S": "86400", "KALAM_COMPACTION_SEGMENTS_MIN": "1000000"}
AT_ONCE = {"KALAM_ICEBERG_INTERVAL_S": "0"}
SEGMENTS, ROWS = 20, 5_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("lake") / "data", environment=WHEN_TOLD).start()
    server.sql("CREATE NAMESPACE n")
    yield server
    server.kill()


def shown(server: ServerProcess, table: str) -> dict[str, Any]:
    """The row of SHOW LAKE."""
    result = server.results("SHOW LAKE")[0]
    names = [column["name"] for column in result["columns"]]
    [row] = [row for row in result["rows"] if row[1] == table]
    return dict(zip(names, row, strict=True))


def wait(condition: Callable[[], object], server: ServerProcess) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, (server.sql("SHOW LAKE"), server.log_text()[-2_000:])
        time.sleep(0.05)


def is_followed(server: ServerProcess, table: str) -> bool:
    state = shown(server, table)
    return state["lag_s"] == 0 and state["error"] is None and state["snapshot_id"] is not None


def files(server: ServerProcess, table: str) -> set[str]:
    return {path.name for path in (server.data_dir / "shared" / "n" / table).glob("batch-*.parquet")}


def assert_read(server: ServerProcess, name: str, engines: tuple[str, ...] = ("duckdb",)) -> None:
    seen = selected(server, f"SELECT * FROM {name}")
    for engine in engines:
        read = READERS[engine](lake_of(server, name))
        assert rows_of(read, seen.schema, "id") == rows_of(seen, seen.schema, "id"), engine


def at_snapshot(lake: Path, snapshot: int) -> dict[str, pa.Table]:
    """What each engine reads of a snapshot, by its own syntax."""
    metadata = metadata_of(lake)
    table = StaticTable.from_metadata(str(metadata))
    with quiet(), in_folder("/"):
        script = f"SELECT * FROM icebergLocal('{lake}') SETTINGS iceberg_snapshot_id = {snapshot}"
        return {
            "clickhouse": pa.ipc.open_file(chdb.query(script, "Arrow").bytes()).read_all(),
            "duckdb": duckdb_connection()
            .sql(f"SELECT * FROM iceberg_scan('{metadata}', snapshot_from_id = {snapshot})")
            .to_arrow_table(),
            "pyiceberg": table.scan(snapshot_id=snapshot).to_arrow(),
            "polars": polars.scan_iceberg(table, snapshot_id=snapshot).collect().to_arrow(),
        }


def test_readers_of_a_snapshot_finish_through_ten_compactions_and_later_ones_travel_to_it(
    server: ServerProcess,
) -> None:
    server.sql("CREATE TABLE n.t (id BIGINT PRIMARY KEY, v TEXT)")
    for part in range(SEGMENTS):
        first = part * ROWS
        server.sql(f"INSERT INTO n.t SELECT value, md5(value::text) FROM range({first}, {first + ROWS})")
        server.sql("FLUSH TABLE n.t")
    server.sql("DELETE FROM n.t WHERE id % 10 = 0; FLUSH TABLE n.t; REFRESH LAKE FOR TABLE n.t")
    seen = selected(server, "SELECT * FROM n.t")
    lake, snapshot = lake_of(server, "n.t"), shown(server, "t")["snapshot_id"]
    table = StaticTable.from_metadata(str(metadata_of(lake)))
    batches = table.scan().to_arrow_batch_reader()
    read = [batches.read_next_batch()]
    with duckdb_connection().cursor() as cursor, quiet():
        cursor.execute("SET threads = 1")
        rows = cursor.execute(f"SELECT * FROM iceberg_scan('{metadata_of(lake)}')").to_arrow_reader(1_000)
        streamed, lazy = [rows.read_next_batch()], polars.scan_iceberg(table)
        for turn in range(10):
            server.sql(f"UPDATE n.t SET v = 'turn {turn}' WHERE id % 10 = 1; FLUSH TABLE n.t")
            server.sql("COMPACT TABLE n.t; REFRESH LAKE FOR TABLE n.t")
        read += batches
        streamed += rows
        found = {
            "pyiceberg": pa.Table.from_batches(read),
            "duckdb": pa.Table.from_batches(streamed),
            "polars": lazy.collect().to_arrow(),
        }
    wanted = rows_of(seen, seen.schema, "id")
    assert len(wanted) == SEGMENTS * ROWS * 9 // 10
    later = at_snapshot(lake, snapshot)
    assert {engine: rows_of(own, seen.schema, "id") == wanted for engine, own in (*found.items(), *later.items())} == (
        dict.fromkeys(READERS, True)
    )
    by_catalogue = duckdb_connection()
    attach = f"ATTACH '' AS past (TYPE iceberg, ENDPOINT '{server.http_url}/iceberg', AUTHORIZATION_TYPE 'none')"
    by_catalogue.execute(attach)
    try:
        for moment, count in ((f"AT (VERSION => {snapshot})", 0), ("", SEGMENTS * ROWS // 10)):
            changed = f"SELECT count(*) FROM past.n.t {moment} WHERE v LIKE 'turn%'"
            assert by_catalogue.sql(changed).fetchall() == [(count,)]
    finally:
        by_catalogue.execute("DETACH past")


def test_what_was_replaced_goes_when_it_was_kept_long_enough(start_kalam: Start) -> None:
    server = start_kalam(**AT_ONCE, KALAM_SEGMENTS_KEPT_S="1")
    server.sql("CREATE NAMESPACE n; CREATE TABLE n.t (id BIGINT PRIMARY KEY, v TEXT)")
    for turn in range(15):
        server.sql(f"INSERT INTO n.t VALUES ({turn}, 'x'); UPDATE n.t SET v = '{turn}' WHERE id = 0; FLUSH TABLE n.t")
        server.sql("REFRESH LAKE FOR TABLE n.t")
        if turn % 5 == 4:
            server.sql("COMPACT TABLE n.t")

    def is_small() -> bool:
        document = json.loads(metadata_of(lake_of(server, "n.t")).read_text())
        listed = {path for (path,) in server.sql("SELECT path FROM system.segments")}
        return len(document["snapshots"]) == 1 and files(server, "t") == listed

    wait(is_small, server)
    named = [path.name for path in (lake_of(server, "n.t") / "metadata").iterdir()]
    assert len(named) < 15, named
    assert_read(server, "n.t", tuple(READERS))
    assert ["replaced_bytes", "0"] in server.sql("SHOW STATS FOR TABLE n.t")
    assert "kalam_lake_kept_bytes 0.0" in server.metrics()


def test_on_a_disk_that_is_nearly_full_it_goes_at_once(start_kalam: Start) -> None:
    server = start_kalam(**AT_ONCE)
    server.sql("CREATE NAMESPACE n; CREATE TABLE n.t (id BIGINT PRIMARY KEY)")
    for number in range(3):
        server.sql(f"INSERT INTO n.t VALUES ({number}); FLUSH TABLE n.t")
    server.sql("REFRESH LAKE; COMPACT TABLE n.t; REFRESH LAKE")
    assert len(files(server, "t")) == 4
    server.stop()
    server.start(KALAM_DISK_FREE_BYTES_MIN=str(1 << 60))
    wait(lambda: len(files(server, "t")) == 1, server)
    assert "replaced segments go early" in server.log_text()
    assert_read(server, "n.t", tuple(READERS))


def test_on_a_disk_that_is_nearly_full_it_goes_even_if_nothing_can_be_committed(start_kalam: Start) -> None:
    server = start_kalam(**AT_ONCE)
    server.sql("CREATE NAMESPACE n; CREATE TABLE n.t (id BIGINT PRIMARY KEY)")
    for number in range(3):
        server.sql(f"INSERT INTO n.t VALUES ({number}); FLUSH TABLE n.t")
    server.sql("REFRESH LAKE; COMPACT TABLE n.t; REFRESH LAKE")
    server.stop()
    lake = lake_of(server, "n.t")
    shutil.rmtree(lake)
    lake.touch()  # in the way
    server.start(KALAM_DISK_FREE_BYTES_MIN=str(1 << 60))
    wait(lambda: len(files(server, "t")) == 1, server)
    wait(lambda: "trouble_lake" in dict(server.sql("SHOW STATS FOR TABLE n.t")), server)
    lake.unlink()
    wait(lambda: is_followed(server, "t"), server)
    assert_read(server, "n.t")


def test_what_a_commit_was_cut_off_before_noting_goes_after_the_next_start(start_kalam: Start) -> None:
    server = start_kalam(**AT_ONCE)
    server.sql("CREATE NAMESPACE n; CREATE TABLE n.t (id BIGINT PRIMARY KEY)")
    for number in range(2):
        server.sql(f"INSERT INTO n.t VALUES ({number}); FLUSH TABLE n.t")
    server.sql("REFRESH LAKE; COMPACT TABLE n.t; REFRESH LAKE")
    server.stop()
    with closing(sqlite3.connect(server.data_dir / "kalam.db")) as conn:
        assert conn.execute("UPDATE replaced_segments SET unnamed_us = NULL").rowcount == 2
        conn.commit()
    server.start(KALAM_SEGMENTS_KEPT_S="0")
    wait(lambda: len(files(server, "t")) == 1, server)
    assert_read(server, "n.t")


def test_where_the_lake_finds_no_room_the_last_commit_goes_on_being_read(start_kalam: Start, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 16) as disk:
        server = start_kalam(**AT_ONCE, KALAM_LOCATION_ROOTS=str(disk))
        server.sql(f"CREATE NAMESPACE n; CREATE TABLE n.t (id BIGINT PRIMARY KEY) WITH (LOCATION = '{disk}/t')")
        server.sql("INSERT INTO n.t VALUES (1); FLUSH TABLE n.t; REFRESH LAKE")
        flushed = selected(server, "SELECT * FROM n.t")
        fill(disk / "ballast")
        server.sql("ALTER TABLE n.t ADD COLUMN v TEXT; INSERT INTO n.t VALUES (2, 'taken')")
        wait(lambda: shown(server, "t")["error"] is not None, server)
        assert shown(server, "t")["lag_s"] > 0
        assert "No space left on device" in shown(server, "t")["error"]
        with pytest.raises(SqlFailed, match="storage_full"):
            server.sql("REFRESH LAKE FOR TABLE n.t")
        wanted = rows_of(flushed, flushed.schema, "id")
        for engine, read in READERS.items():
            assert rows_of(read(disk / "t" / "iceberg"), flushed.schema, "id") == wanted, engine
        metrics = server.metrics()
        assert 'kalam_table_trouble{table="n.t",what="lake"} 1.0' in metrics
        assert "kalam_lake_failures_total 0.0" not in metrics
        assert "trouble_lake" in dict(server.sql("SHOW STATS FOR TABLE n.t"))
        assert "warn  tables           table n.t: lake fails" in doctor(server)
        (disk / "ballast").unlink()
        wait(lambda: is_followed(server, "t"), server)
        assert "trouble_lake" not in dict(server.sql("SHOW STATS FOR TABLE n.t"))
        assert "ok    lake             1 table, " in doctor(server)
        server.sql("FLUSH TABLE n.t; REFRESH LAKE")
        assert READERS["duckdb"](disk / "t" / "iceberg").num_rows == 2


def doctor(server: ServerProcess) -> str:
    command = [sys.executable, "-m", "kalam", "doctor", "--data-dir", str(server.data_dir)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S).stdout


def delete(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def turn_bits(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [delete, cut, turn_bits, empty], ids=lambda damage: damage.__name__)
def test_refresh_lake_mends_whatever_was_damaged(server: ServerProcess, damage: Callable[[Path], None]) -> None:
    table = f"m_{damage.__name__}"
    server.sql(f"CREATE TABLE n.{table} (id BIGINT PRIMARY KEY, v TEXT)")
    server.sql(f"INSERT INTO n.{table} SELECT value, 'v' FROM range(0, 100); FLUSH TABLE n.{table}")
    server.sql(f"DELETE FROM n.{table} WHERE id < 10; FLUSH TABLE n.{table}; REFRESH LAKE FOR TABLE n.{table}")
    kinds = {
        "".join(c for c in path.name if c.isalpha()) for path in (lake_of(server, f"n.{table}") / "metadata").iterdir()
    }
    assert len(kinds) == 6, kinds
    for kind in sorted(kinds):
        for path in list((lake_of(server, f"n.{table}") / "metadata").iterdir()):
            if "".join(c for c in path.name if c.isalpha()) == kind:
                damage(path)
        server.sql(f"REFRESH LAKE FOR TABLE n.{table}")
        assert_read(server, f"n.{table}", ("duckdb", "clickhouse"))


def test_a_lake_that_was_deleted_is_made_by_who_asks_for_it(server: ServerProcess) -> None:
    server.sql("CREATE TABLE n.gone (id BIGINT PRIMARY KEY); INSERT INTO n.gone VALUES (1); FLUSH TABLE n.gone")
    server.sql("REFRESH LAKE FOR TABLE n.gone")
    shutil.rmtree(lake_of(server, "n.gone"))
    with urllib.request.urlopen(f"{server.http_url}/iceberg/v1/namespaces/n/tables/gone") as response:
        location = json.load(response)["metadata-location"]
    assert StaticTable.from_metadata(location).scan().to_arrow().num_rows == 1


def test_a_start_makes_what_it_does_not_find_after_a_restore_or_a_move(start_kalam: Start, tmp_path: Path) -> None:
    server = start_kalam(**AT_ONCE)
    server.sql(
        "CREATE NAMESPACE n; CREATE TABLE n.t (id BIGINT PRIMARY KEY); CREATE USER TABLE n.u (id INT PRIMARY KEY)"
    )
    server.sql("INSERT INTO n.t VALUES (1), (2); INSERT INTO n.u VALUES (1); FLUSH ALL TABLES")
    server.sql("DELETE FROM n.t WHERE id = 1; FLUSH ALL TABLES; REFRESH LAKE")
    command = [sys.executable, "-m", "kalam"]
    backup, data = str(tmp_path / "backup"), str(server.data_dir)
    subprocess.run([*command, "backup", backup, "--data-dir", data], check=True, capture_output=True)
    subprocess.run([*command, "restore", backup, "--data-dir", str(tmp_path / "new")], check=True, capture_output=True)
    server.stop()
    server.data_dir.rename(tmp_path / "moved")
    for name in ("new", "moved"):
        found = start_kalam(name, **AT_ONCE)
        for table in ("t", "u"):
            wait(lambda table=table, found=found: is_followed(found, table), found)
        assert_read(found, "n.t", tuple(READERS))
        assert [row["user_id"] for row in READERS["duckdb"](lake_of(found, "n.u")).to_pylist()] == ["admin"]


def test_a_start_brings_lakes_to_what_the_settings_say_now(start_kalam: Start) -> None:
    server = start_kalam(**AT_ONCE, KALAM_ICEBERG="false")
    server.sql(
        "CREATE NAMESPACE n; CREATE TABLE n.t (id BIGINT PRIMARY KEY); INSERT INTO n.t VALUES (1); FLUSH TABLE n.t"
    )
    server.sql("CREATE TABLE n.own (id BIGINT PRIMARY KEY) WITH (iceberg = true)")
    assert [row[1] for row in server.sql("SHOW LAKE")] == ["own"]
    server.stop()
    server.start(KALAM_ICEBERG="true")
    wait(lambda: is_followed(server, "t"), server)
    assert_read(server, "n.t")
    server.stop()
    server.start(KALAM_ICEBERG="false")
    wait(lambda: not (server.data_dir / "shared/n/t/iceberg/metadata").exists(), server)
    assert server.sql("SELECT count(*) FROM n.t") == [[1]]


def test_a_lake_is_whole_however_often_the_server_is_killed_while_it_commits(start_kalam: Start) -> None:
    rng = random.Random(13)
    server = start_kalam(**AT_ONCE)
    server.sql("CREATE NAMESPACE n; CREATE TABLE n.t (id BIGINT PRIMARY KEY, v INT)")
    for turn in range(8):
        server.sql(f"INSERT INTO n.t SELECT value, {turn} FROM range({turn * 100}, {turn * 100 + 100})")
        server.sql(f"UPDATE n.t SET v = -{turn} WHERE id % 9 = {turn}; FLUSH TABLE n.t")

        def commit() -> None:
            with suppress(OSError, HTTPException):  # an answer may be cut off in its midst
                while True:
                    server.sql("INSERT INTO n.t VALUES (-1, 0) ON CONFLICT (id) DO UPDATE SET v = v + 1")
                    server.sql("FLUSH TABLE n.t; REFRESH LAKE FOR TABLE n.t; COMPACT TABLE n.t")

        thread = threading.Thread(target=commit)
        thread.start()
        time.sleep(rng.random())  # when it is killed is left to chance
        server.kill()
        thread.join()
        server.restart()
        server.sql("FLUSH TABLE n.t; REFRESH LAKE")
        assert_read(server, "n.t", tuple(READERS) if turn == 7 else ("duckdb",))
