"""Nothing that is told to a user holds a folder of the server, whatever went wrong and wherever it is told."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest
from foreign_program import Program
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed

from kalam.errors import Internal, InvalidOption, without_folders

FORMATS = ("application/json", "application/x-ndjson", "text/csv", "application/vnd.apache.arrow.stream")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("segment /var/lib/kalam/shared/a/t/batch-1.parquet cannot be read", "segment batch-1.parquet cannot be read"),
        ("[Errno 2] No such file: '/my data/a b/c.parquet'", "[Errno 2] No such file: 'c.parquet'"),
        ("Object at location var/lib/kalam/x.parquet not found: /var/lib/kalam/x.parquet", None),
        ("file:///var/lib/kalam/x.parquet is damaged", "x.parquet is damaged"),
        ("LOCATION '/mnt/big/t': refused", "LOCATION '/mnt/big/t': refused"),
        ("LOCATION s3://bucket/folder: refused", "LOCATION s3://bucket/folder: refused"),
        ("6 / 2 and a/b and application/json stay", "6 / 2 and a/b and application/json stay"),
    ],
)
def test_a_path_is_told_by_its_files_name(text: str, told: str | None) -> None:
    assert without_folders(text) == (told or "Object at location x.parquet not found: x.parquet")


def test_only_what_is_the_servers_fault_loses_its_folders() -> None:
    assert Internal("/a/b/c.db is gone").problem()["detail"] == "c.db is gone"
    assert InvalidOption("'/a/b/c' is no folder").problem()["detail"] == "'/a/b/c' is no folder"


def damaged(server: ServerProcess, namespace: str) -> str:
    """A table one of whose segments holds something else, and one is gone."""
    table = f"{namespace}.t"
    server.sql(f"CREATE TABLE {table} (k BIGINT PRIMARY KEY, v TEXT)")
    for k in range(2):
        server.sql(f"INSERT INTO {table} VALUES ({k}, 'x')")
        server.sql(f"FLUSH TABLE {table}")
    first, second = sorted((server.data_dir / "shared" / namespace / "t").glob("batch-*.parquet"))
    first.write_bytes(b"PAR1" + b"\x07" * (first.stat().st_size - 8) + b"PAR1")
    second.unlink()
    return table


def answer(server: ServerProcess, sql: str, accept: str) -> str:
    """What a client reads of an answer, however it ends."""
    body = json.dumps({"sql": sql}).encode()
    headers = {"Content-Type": "application/json", "Accept": accept}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{server.http_url}/v1/sql", body, headers)) as found:
            return str(found.read())
    except urllib.error.HTTPError as exc:
        with exc:
            return str(exc.read())


async def test_a_damaged_segment_is_told_without_its_folder_at_every_door(program: Program, namespace: str) -> None:
    server = program.server
    finished = await program.listen("kalam.event.job.finished")
    table = damaged(server, namespace)
    texts = [
        answer(server, sql, accept)
        for sql in (f"SELECT * FROM {table}", f"SELECT v FROM {table} WHERE k = 1")
        for accept in FORMATS
    ]
    assert all("internal" in text or "corrupt_segment" in text for text in texts), texts
    reply = await program.broker.request(
        "kalam.api.ann.sql", json.dumps({"sql": f"SELECT * FROM {table}"}).encode(), timeout=PATIENCE_S
    )
    texts += [str(reply.headers), str(reply.data)]
    for statement in (f"COMPACT TABLE {table}", f"UPDATE {table} SET v = 'y'", f"DELETE FROM {table} WHERE k = 0"):
        with pytest.raises(SqlFailed) as failed:
            server.sql(statement)
        texts.append(str(failed.value.problem))
    texts.append(str(server.results("SELECT * FROM system.jobs; SELECT * FROM system.segments; SHOW JOBS")))
    texts.append(str((await finished()).body))
    texts.append(server.metrics())
    folders = (str(server.data_dir), str(server.data_dir).lstrip("/"))
    assert [text for text in texts if any(folder in text for folder in folders)] == []


@pytest.mark.parametrize("how", ["EXPLAIN", "explain analyze", "/* a */ EXPLAIN", "-- a\nEXPLAIN ANALYZE"])
def test_a_plan_names_files_and_no_folders(shared_server: ServerProcess, namespace: str, how: str) -> None:
    table = f"{namespace}.t"
    shared_server.sql(f"CREATE TABLE {table} (k BIGINT PRIMARY KEY, v TEXT); INSERT INTO {table} VALUES (1, '/a/b/c')")
    shared_server.sql(f"FLUSH TABLE {table}; INSERT INTO {table} VALUES (2, 'y'); FLUSH TABLE {table}")
    query = f"{how} SELECT k FROM {table} WHERE v = '/a/b/c'"
    texts = [answer(shared_server, query, accept) for accept in FORMATS]
    texts.append(str(shared_server.sql(query)))
    assert all("[batch-" in text and "= /a/b/c" in text for text in texts)
    assert [text for text in texts if str(shared_server.data_dir).lstrip("/") in text] == []


async def test_a_location_is_refused_without_the_folders_of_the_server(program: Program, namespace: str) -> None:
    folder = str(program.server.data_dir)
    for location in ("/elsewhere/t", f"{folder}/shared", "relative"):
        with pytest.raises(SqlFailed) as failed:
            program.server.sql(f"CREATE TABLE {namespace}.l (k INT) WITH (location = '{location}')")
        assert folder not in str(failed.value.problem).replace(location, "")


def test_a_streamed_read_of_a_table_that_is_dropped_says_so(shared_server: ServerProcess, namespace: str) -> None:
    table = f"{namespace}.t"
    shared_server.sql(f"CREATE TABLE {table} (k BIGINT, v TEXT)")
    for _ in range(4):
        shared_server.sql(f"INSERT INTO {table} SELECT value, repeat('x', 500) FROM generate_series(1, 30000)")
        shared_server.sql(f"FLUSH TABLE {table}")
    body = json.dumps({"sql": f"SELECT * FROM {table}"}).encode()
    headers = {"Content-Type": "application/json", "Accept": "application/x-ndjson"}
    with urllib.request.urlopen(urllib.request.Request(f"{shared_server.http_url}/v1/sql", body, headers)) as found:
        found.readline()
        shared_server.sql(f"DROP TABLE {table}")
        lines: list[Any] = [json.loads(line) for line in found]
    end = lines[-1]
    assert len(lines) == 119_999 or end["error"]["code"] == "table_not_found", end
    assert "/" not in end.get("error", {}).get("detail", "")


def test_no_function_tells_the_file_that_a_row_is_in(shared_server: ServerProcess, namespace: str) -> None:
    shared_server.sql(f"CREATE TABLE {namespace}.t (k BIGINT)")
    shared_server.sql(f"INSERT INTO {namespace}.t VALUES (1)")
    shared_server.sql(f"FLUSH TABLE {namespace}.t")
    for call in ("input_file_name()", "INPUT_FILE_NAME ( ) || 'x'", '"input_file_name"()', "file_row_index()"):
        for text in (f"SELECT {call} FROM {namespace}.t", f"SELECT k FROM {namespace}.t WHERE {call} IS NOT NULL"):
            with pytest.raises(SqlFailed) as failed:
                shared_server.sql(text)
            assert failed.value.code == "unsupported"
