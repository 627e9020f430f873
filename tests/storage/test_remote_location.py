"""Tables whose LOCATION is a URL, on a real S3 server (moto's) and on fsspec's own view of the file system."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed

from kalam.errors import InvalidOption
from kalam.names import TableName
from kalam.storage.backup.restore import restore
from kalam.storage.segments.remote import MARKER, Remote, cache_folder, check_remote_location, evict, matching, readable

pytest.importorskip("s3fs", reason="the extra s3 is not installed")
pytest.importorskip("moto.server", reason="moto's S3 server is not installed")

from object_store import BUCKET, S3, s3_server


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("moto")) as s3:
        yield s3


@pytest.fixture(scope="module")
def server(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a cache for segments of one megabyte."""
    environment = s3.environment | {"KALAM_SEGMENT_CACHE_BYTES_MAX": str(1 << 20)}
    server = ServerProcess(tmp_path_factory.mktemp("kalam") / "data", (), environment).start()
    server.sql("CREATE NAMESPACE r")
    yield server
    server.kill()


def fill(server: ServerProcess, table: str) -> None:
    """Rows in three segments: flushed, flushed again with an update and a deletion; and a hot one."""
    values = ", ".join(f"({n}, 'text {n}')" for n in range(100))
    server.sql(f"INSERT INTO {table} VALUES {values}; FLUSH TABLE {table}")
    server.sql(f"UPDATE {table} SET t = 'changed' WHERE id < 10; DELETE FROM {table} WHERE id >= 90")
    server.sql(f"FLUSH TABLE {table}; INSERT INTO {table} VALUES (200, 'hot')")


def counts(server: ServerProcess, table: str) -> list[Any]:
    return server.sql(f"SELECT count(*), sum(id), count(CASE WHEN t = 'changed' THEN 1 END) FROM {table}")


FILLED = [[91, 89 * 90 // 2 + 200, 10]]


def cached(server: ServerProcess) -> list[Path]:
    return list((server.data_dir / "remote").rglob("*.parquet"))


def empty_cache(server: ServerProcess) -> None:
    for path in cached(server):
        path.unlink()


def test_segments_lie_in_s3_and_are_read_and_looked_up_from_there(server, s3) -> None:
    server.sql(f"CREATE TABLE r.t (id BIGINT PRIMARY KEY, t TEXT) WITH (LOCATION = 's3://{BUCKET}/tables/t')")
    fill(server, "r.t")
    names = s3.names("tables/t")
    assert len(names) == 3
    listed = {path for (path,) in server.sql("SELECT path FROM system.segments WHERE table_name = 't'")}
    assert {name.rpartition("/")[2] for name in names} == listed, "the catalogue has paths relative to LOCATION"
    assert counts(server, "r.t") == FILLED
    empty_cache(server)
    with pytest.raises(SqlFailed, match="duplicate_key"):
        server.sql("INSERT INTO r.t VALUES (50, 'taken')")
    server.sql("INSERT INTO r.t VALUES (95, 'again'); DELETE FROM r.t WHERE id = 95")
    empty_cache(server)
    assert counts(server, "r.t") == FILLED
    assert cached(server) != []


def test_compaction_replaces_the_files_in_s3_and_drop_removes_them(server, s3) -> None:
    server.sql(f"CREATE TABLE r.c (id BIGINT PRIMARY KEY, t TEXT) WITH (LOCATION = 's3://{BUCKET}/tables/c')")
    fill(server, "r.c")
    before = s3.names("tables/c")
    empty_cache(server)
    server.sql("COMPACT TABLE r.c")
    assert counts(server, "r.c") == FILLED
    deadline = time.monotonic() + PATIENCE_S
    while set(before) & set(s3.names("tables/c")):
        assert time.monotonic() < deadline, "replaced files stay"
        counts(server, "r.c")
        time.sleep(0.2)
    s3.files.pipe(f"{BUCKET}/tables/c/letter.txt", b"dear")
    server.sql("DROP TABLE r.c")
    assert s3.names("tables/c") == [f"{BUCKET}/tables/c/letter.txt"]


def test_each_user_has_a_folder(server, s3) -> None:
    location = f"s3://{BUCKET}/tables/own/${{user_id}}/x"
    server.sql(f"CREATE USER TABLE r.own (id BIGINT PRIMARY KEY, t TEXT) WITH (LOCATION = '{location}')")
    for user in ("ann", "bob"):
        server.sql("INSERT INTO r.own VALUES (1, $1)", user, user=user)
    server.sql("FLUSH TABLE r.own")
    assert {name.split("/")[3] for name in s3.names("tables/own")} == {"ann", "bob"}
    empty_cache(server)
    assert server.sql("SELECT t FROM r.own", user="bob") == [["bob"]]


def test_the_cache_keeps_its_bound_and_what_left_it_is_read_all_the_same(server, s3) -> None:
    server.sql(f"CREATE TABLE r.big (id BIGINT PRIMARY KEY, t TEXT) WITH (LOCATION = 's3://{BUCKET}/tables/big')")
    for part in range(4):
        rows = [{"id": part * 1_000 + n, "t": os.urandom(300).hex()} for n in range(1_000)]
        body = json.dumps(rows).encode()
        request = urllib.request.Request(
            f"{server.http_url}/v1/tables/r/big/rows", body, {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=PATIENCE_S).close()
        server.sql("FLUSH TABLE r.big")
        assert sum(path.stat().st_size for path in cached(server)) <= 1 << 20
    for _ in range(2):
        assert server.sql("SELECT count(*), sum(id), min(length(t)) FROM r.big") == [[4_000, 3_999 * 2_000, 600]]
    assert sum(path.stat().st_size for path in cached(server)) <= 1 << 20


def test_a_segment_that_is_gone_from_s3_is_named(server, s3) -> None:
    server.sql(f"CREATE TABLE r.gone (id BIGINT PRIMARY KEY) WITH (LOCATION = 's3://{BUCKET}/tables/gone')")
    server.sql("INSERT INTO r.gone VALUES (1); FLUSH TABLE r.gone")
    (name,) = s3.names("tables/gone")
    s3.files.rm(name)
    empty_cache(server)
    with pytest.raises(SqlFailed, match=name.rpartition("/")[2]):
        server.sql("SELECT * FROM r.gone")


def test_a_crash_between_upload_and_commit_leaves_no_stray(s3, start_kalam) -> None:
    server = start_kalam("crashed", start=False, **s3.environment)
    server.start()
    server.sql(f"CREATE NAMESPACE r; CREATE TABLE r.k (id BIGINT PRIMARY KEY) WITH (LOCATION='s3://{BUCKET}/tables/k')")
    server.sql("INSERT INTO r.k VALUES (1), (2)")
    server.stop()
    server.start(KALAM_CRASHPOINT="flush.after_rename")
    with pytest.raises(OSError):  # noqa: PT011 - the connection breaks, however it does
        server.sql("FLUSH TABLE r.k")
    server.wait_end()
    assert len(s3.names("tables/k")) == 1
    server.restart()
    assert [name.split("/")[-2] for name in s3.names("tables/k")] == ["unclaimed"]
    assert server.sql("SELECT count(*) FROM r.k") == [[2]]
    server.sql("FLUSH TABLE r.k")
    assert len(s3.names("tables/k")) == 2


def test_what_lies_in_s3_is_backed_up_and_restored_into_the_data_directory(s3, start_kalam, tmp_path) -> None:
    server = start_kalam("original", **s3.environment)
    server.sql("CREATE NAMESPACE r")
    server.sql(f"CREATE TABLE r.b (id BIGINT PRIMARY KEY, t TEXT) WITH (LOCATION = 's3://{BUCKET}/tables/b')")
    fill(server, "r.b")
    for path in cached(server)[1:]:
        path.unlink()
    command = [sys.executable, "-m", "kalam", "backup", str(tmp_path / "backup"), "--data-dir", str(server.data_dir)]
    done = subprocess.run(command, env={**os.environ, **s3.environment}, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    server.sql("DROP TABLE r.b")
    assert [str(name) for name in restore(tmp_path / "backup", tmp_path / "back", lambda done, total: None).moved] == [
        "r.b"
    ]
    assert counts(start_kalam("back"), "r.b") == FILLED


def test_s3_that_does_not_answer_fails_the_flush_and_loses_nothing(s3, start_kalam, unused_tcp_port) -> None:
    server = start_kalam("nowhere", **s3.environment)
    create = "CREATE TABLE r.{} (id BIGINT PRIMARY KEY) WITH (LOCATION = 's3://{}/tables/nowhere/{}')"
    server.sql(f"CREATE NAMESPACE r; {create.format('t', BUCKET, 't')}")
    server.stop()
    server.start(FSSPEC_S3_ENDPOINT_URL=f"http://127.0.0.1:{unused_tcp_port}", AWS_MAX_ATTEMPTS="1")
    with pytest.raises(SqlFailed, match=r"invalid_option.*nowhere/other.* cannot be used"):
        server.sql(create.format("other", BUCKET, "other"))
    server.sql("INSERT INTO r.t VALUES (1)")
    with pytest.raises(SqlFailed, match=rf"storage_full.*s3://{BUCKET}/tables/nowhere/t"):
        server.sql("FLUSH TABLE r.t")
    assert server.sql("SELECT id FROM r.t") == [[1]]
    assert server.sql("SELECT status FROM system.jobs WHERE job_type = 'flush'") == [["failed"]]
    assert cached(server) == []
    server.kill()
    server.restart()
    assert server.sql("SELECT id FROM r.t") == [[1]]


ROOTS = ("/data", "s3://bucket/tables", "s3://whole")
TAKEN = {TableName("a", "b"): "s3://bucket/tables/taken/${user_id}", TableName("a", "c"): "/data/x"}


@pytest.mark.parametrize("location", ["s3://bucket/tables/t", "s3://whole/t", "s3://bucket/tables/takenaway"])
def test_a_url_under_a_root_and_apart_from_others_is_taken(location) -> None:
    check_remote_location(location, ROOTS, TAKEN)


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("s3://bucket/other/t", "not under"),
        ("s3://bucket/tablesx", "not under"),
        ("s3://bucket", "not under"),
        ("gs://bucket/tables/t", "not under"),
        ("s3://bucket/tables/../x", "plain URL"),
        ("simplecache::s3://bucket/tables/t", "plain URL"),
        ("s3://bucket/tables/*", "plain URL"),
        ("s3://bucket/tables/taken", "overlaps"),
        ("s3://bucket/tables/taken/ann", "overlaps"),
        ("s3://bucket/tables/", "overlaps"),
    ],
)
def test_another_url_is_refused(location, reason) -> None:
    with pytest.raises(InvalidOption, match=reason):
        check_remote_location(location, ROOTS, TAKEN)


def test_a_protocol_that_nobody_speaks_is_refused() -> None:
    with pytest.raises(InvalidOption, match="cannot be used"):
        check_remote_location("nope://x/t", ["nope://x"], {})


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[int], Path]:
    """A cache folder of ``file://`` with a bound in bytes, three files of 10 bytes there and one stranger."""
    store = tmp_path / "store"
    store.mkdir()
    for name in ("batch-1.parquet", "batch-2.parquet", "batch-3.parquet", "letter.txt"):
        (store / name).write_bytes(b"0123456789")

    def make(bytes_max: int) -> Path:
        return cache_folder(tmp_path / "data", "1/shared", Remote(f"file://{store}", bytes_max))

    return make


def test_what_was_used_least_lately_leaves_the_cache(folder) -> None:
    cache = folder(20)
    for seconds, name in enumerate(("batch-1.parquet", "batch-2.parquet"), 1):
        readable(cache / name).close()
        os.utime(cache / name, (seconds, seconds))
    readable(cache / "batch-1.parquet").close()  # used again, so the other one is the oldest
    with readable(cache / "batch-3.parquet") as file:
        evict(cache, Remote("", 0), keep=[])
        assert bytes(file.read()) == b"0123456789", "who has it open reads on"
    assert [path.name for path in cache.iterdir()] == [MARKER]
    for name in ("batch-1.parquet", "batch-2.parquet", "batch-1.parquet", "batch-3.parquet"):
        readable(cache / name).close()
    assert {path.name for path in cache.glob("*.parquet")} == {"batch-1.parquet", "batch-3.parquet"}


def test_names_match_here_and_there(folder) -> None:
    cache = folder(100)
    (cache / ".batch-4.parquet.tmp").touch()
    assert [path.name for path in matching(cache, "batch-*")] == [f"batch-{n}.parquet" for n in (1, 2, 3)]
    assert [path.name for path in matching(cache, ".batch-*")] == [".batch-4.parquet.tmp"]
