"""What is wrong with one table is told at the table: the server stays ready and the other tables go on."""

from __future__ import annotations

import http.client
import json
import os
import resource
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from failing_calls import SYNC, failing_calls, log_of, pid_of
from held_process import held
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed

ROWS = "(id BIGINT PRIMARY KEY)"


def readiness(server: ServerProcess) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"{server.http_url}/readyz", timeout=PATIENCE_S) as response:
            return dict(json.load(response))
    except urllib.error.HTTPError as exc:
        with exc:
            return dict(json.load(exc))


def stats(server: ServerProcess, table: str) -> dict[str, str]:
    return dict(server.sql(f"SHOW STATS FOR TABLE {table}"))


def refused(server: ServerProcess, text: str) -> dict[str, Any]:
    with pytest.raises(SqlFailed) as failed:
        server.sql(text)
    return failed.value.problem


@pytest.mark.parametrize(
    ("location", "said"),
    [("{data}/tables/" + "x" * 300, "File name too long"), ("{data}/" + "/".join(["x" * 250] * 20), "too long")],
)
def test_a_location_with_names_that_are_too_long(shared_server: ServerProcess, location: str, said: str) -> None:
    server = shared_server
    server.sql("CREATE NAMESPACE IF NOT EXISTS l")
    place = location.format(data=server.data_dir)
    problem = refused(server, f"CREATE TABLE l.t {ROWS} LOCATION '{place}'")
    assert problem["code"] == "invalid_option"
    assert said in problem["detail"]
    assert refused(server, "SELECT 1 FROM l.t")["code"] == "table_not_found"
    assert not (server.data_dir / "tables").exists()


def test_a_location_in_which_no_folder_can_be_made(shared_server: ServerProcess) -> None:
    server = shared_server
    server.sql("CREATE NAMESPACE IF NOT EXISTS l")
    (server.data_dir / "file").write_text("mine")
    problem = refused(server, f"CREATE USER TABLE l.t {ROWS} LOCATION '{server.data_dir}/file/${{user_id}}'")
    assert (problem["code"], "Not a directory" in problem["detail"]) == ("invalid_option", True)


def test_a_location_on_a_file_system_that_is_read_only(shared_server: ServerProcess) -> None:
    server = shared_server
    place = next((path for path in ("/sys/kernel", "/proc/self") if not os.access(path, os.W_OK)), "/proc/self")
    started = ServerProcess(server.data_dir.with_name("other"), environment={"KALAM_LOCATION_ROOTS": place}).start()
    try:
        started.sql("CREATE NAMESPACE l")
        problem = refused(started, f"CREATE TABLE l.t {ROWS} LOCATION '{place}/kalam'")
        assert problem["code"] == "invalid_option"
    finally:
        started.kill()


def test_a_location_that_can_be_used_is_as_it_was(shared_server: ServerProcess) -> None:
    server = shared_server
    server.sql("CREATE NAMESPACE IF NOT EXISTS l")
    place = server.data_dir / "places" / "deep"
    server.sql(f"CREATE USER TABLE l.u {ROWS} LOCATION '{place}/${{user_id}}'")
    assert not place.exists()
    server.sql("INSERT INTO l.u VALUES (1)", user="ann")
    server.sql("FLUSH TABLE l.u")
    assert [path.parent.name for path in place.rglob("*.parquet")] == ["ann"]


def break_folder(server: ServerProcess, table: str) -> Path:
    """Put a file where the folder of a table's segments will be."""
    folder = server.data_dir / "shared" / table.replace(".", "/")
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("in the way")
    return folder


async def test_a_table_that_cannot_be_flushed(shared_server: ServerProcess, wait_until: Any) -> None:
    server = shared_server
    server.sql("CREATE NAMESPACE f")
    for name in ("a", "b", "c"):
        server.sql(f"CREATE TABLE f.{name} {ROWS} FLUSH POLICY ROWS 5")
    folder = break_folder(server, "f.b")
    for name in ("a", "b", "c"):
        server.sql(f"INSERT INTO f.{name} VALUES (1), (2)")
    problem = refused(server, "FLUSH ALL TABLES IN f")
    assert (problem["status"], problem["code"], problem["tables"]) == (503, "storage_full", ["f.b"])
    assert "the 2 others were" in problem["detail"]
    assert str(server.data_dir) not in problem["detail"]
    assert [stats(server, f"f.{name}")["hot_rows"] for name in ("a", "b", "c")] == ["0", "2", "0"]

    server.sql("INSERT INTO f.b VALUES (3), (4), (5)")  # now the policy tries, too
    await wait_until(lambda: "failing for f.b" in str(readiness(server)))
    assert readiness(server)["ready"]
    assert "trouble_flush" in stats(server, "f.b")
    assert "trouble_flush" not in stats(server, "f.a")
    assert 'kalam_table_trouble{table="f.b",what="flush"} 1.0' in server.metrics()
    server.sql("INSERT INTO f.a VALUES (3), (4), (5), (6), (7)")
    await wait_until(lambda: stats(server, "f.a")["hot_rows"] == "0")

    folder.unlink()
    server.sql("FLUSH TABLE f.b")
    assert "trouble_flush" not in stats(server, "f.b")
    assert "kalam_table_trouble{" not in server.metrics()
    assert server.sql("SELECT count(*) FROM f.b") == [[5]]


def test_one_user_whose_folder_cannot_be_made_keeps_no_other_hot(shared_server: ServerProcess) -> None:
    server = shared_server
    server.sql("CREATE NAMESPACE u")
    server.sql(f"CREATE USER TABLE u.t {ROWS}")
    (server.data_dir / "user/u/t").mkdir(parents=True)
    (server.data_dir / "user/u/t/bob").write_text("in the way")
    for user in ("ann", "bob", "cid"):
        server.sql("INSERT INTO u.t VALUES (1)", user=user)
    assert refused(server, "FLUSH TABLE u.t")["code"] == "storage_full"
    assert sorted(path.parent.name for path in (server.data_dir / "user/u/t").rglob("*.parquet")) == ["ann", "cid"]
    for user in ("ann", "bob", "cid"):
        assert server.sql("SELECT id FROM u.t", user=user) == [[1]]


def test_a_damaged_segment_ends_no_loop(start_kalam: Callable[..., ServerProcess]) -> None:
    """The clean-up and the compaction meet it, fail for its table, and go on with the others."""
    server = start_kalam(KALAM_DELETED_CLEANUP_INTERVAL_S="0.2", KALAM_COMPACTION_SEGMENTS_MIN="2")
    server.sql("CREATE NAMESPACE s")
    for name in ("bad", "good"):
        server.sql(f"CREATE TABLE s.{name} {ROWS} DELETED_RETENTION '1h'")
        server.sql(f"INSERT INTO s.{name} VALUES (1), (2); DELETE FROM s.{name} WHERE id = 1; FLUSH TABLE s.{name}")
    server.stop()  # so that nothing of the files is known
    for file in (server.data_dir / "shared/s/bad").glob("*.parquet"):
        file.write_bytes(b"no Parquet")
    server.restart()
    for name in ("bad", "good"):
        server.sql(f"INSERT INTO s.{name} VALUES (3); FLUSH TABLE s.{name}")
    deadline = time.monotonic() + 60
    live = "SELECT count(*) FROM system.segments WHERE table_name = 'good' AND path LIKE 'batch-%'"
    while server.sql(live) != [[1]] or server.metrics().count('kalam_table_trouble{table="s.bad"') < 2:
        assert time.monotonic() < deadline, server.log_text()[-3000:]
        time.sleep(0.1)
    assert server.process is not None
    assert server.process.poll() is None
    assert readiness(server)["ready"]
    assert server.sql("SELECT id FROM s.good ORDER BY id") == [[2], [3]]


@pytest.mark.parametrize("text", ["SELECT id FROM d.t ORDER BY id", "SELECT id FROM d.t WHERE id = 1"])
def test_running_out_of_file_descriptors_is_told_as_that(start_kalam: Callable[..., ServerProcess], text: str) -> None:
    server = start_kalam()
    server.sql("CREATE NAMESPACE d")
    for name in ("t", "other"):
        server.sql(f"CREATE TABLE d.{name} {ROWS}")
        server.sql(f"INSERT INTO d.{name} VALUES (1), (2); FLUSH TABLE d.{name}")
    server.sql(text.replace("d.t", "d.other"))  # what the first query imports is no matter here
    address = urllib.parse.urlsplit(server.http_url)
    assert server.process is not None
    with closing(http.client.HTTPConnection(address.hostname or "", address.port, timeout=PATIENCE_S)) as connection:
        ask(connection, "SELECT 1")  # the server has accepted it
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (1, limits[1]))
        told = ask(connection, text)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limits)
    assert (told.get("status"), told.get("code")) == (429, "too_busy"), told
    assert "no file descriptor left" in told["detail"]
    assert server.sql(text)[0] == [1]


def ask(connection: http.client.HTTPConnection, text: str) -> dict[str, Any]:
    connection.request("POST", "/v1/sql", json.dumps({"sql": text}), {"Content-Type": "application/json"})
    return dict(json.loads(connection.getresponse().read()))


async def test_a_broker_that_is_stopped_is_not_said_to_be_connected(
    start_kalam: Callable[..., ServerProcess], nats_server: Any, wait_until: Any
) -> None:
    server = start_kalam(flags=[f"--nats-url={nats_server.url}"])
    assert readiness(server)["ready"]
    with held(nats_server.pid):
        told = readiness(server)
        [nats] = [check for check in told["checks"] if check["name"] == "nats"]
        assert (told["ready"], nats["ok"]) == (False, False)
        assert "does not answer" in nats["detail"]
    await wait_until(lambda: readiness(server)["ready"])


def test_a_disk_that_works_again_is_known_without_traffic(
    start_kalam: Callable[..., ServerProcess],
) -> None:
    server = start_kalam()
    server.sql("CREATE NAMESPACE q")
    server.sql(f"CREATE TABLE q.t {ROWS}")
    with failing_calls(pid_of(server), SYNC, paths=log_of(server)):
        assert refused(server, "INSERT INTO q.t VALUES (1)")["code"] == "storage_full"
        assert not readiness(server)["ready"]
    assert readiness(server)["ready"]
