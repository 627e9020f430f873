"""protocol.md, "Command line": the server as a process, and what it keeps from one to the next."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nats
import pytest
from foreign_program import Program
from nats.aio.client import Client
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed

Start = Callable[..., ServerProcess]
Connect = Callable[[ServerProcess], Awaitable[Program]]
WaitUntil = Callable[[Callable[[], Any]], Awaitable[None]]


def status_of(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read()


def ready(server: ServerProcess) -> bool:
    return status_of(f"{server.http_url}/readyz")[0] == 200


async def accepts(server: ServerProcess, connect: Connect, table: str, row: dict[str, Any]) -> bool:
    """Whether a new connection can insert; the row has to be a new one."""
    try:
        return (await (await connect(server)).insert(table, row)).code is None
    except (OSError, nats.errors.Error):
        return False


# The announcement


def test_a_ready_server_says_where_it_is_in_a_file_and_on_stdout(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    command = [
        sys.executable,
        "-m",
        "kalam",
        "serve",
        "--data-dir",
        str(folder),
        "--http-port",
        "0",
        "--nats-port",
        "0",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            said = json.loads(line)
            assert (folder / "kalam.json").read_bytes() == line
            assert set(said) == {"pid", "http_url", "nats_url", "nats_ws_url", "pg_url", "version"}
            assert (said["pid"], said["nats_ws_url"], said["pg_url"]) == (process.pid, None, None)
            assert status_of(f"{said['http_url']}/readyz")[0] == 200
            assert status_of(f"{said['http_url']}/livez") == (200, b"ok\n")
            assert b"# TYPE" in status_of(f"{said['http_url']}/metrics")[1]
            process.send_signal(signal.SIGTERM)
            assert (process.stdout.read(), process.wait(30)) == (b"", 0)
        finally:
            process.kill()
    assert not (folder / "kalam.json").exists()


def test_a_second_server_on_a_data_directory_is_refused(start_kalam: Start) -> None:
    first = start_kalam()
    second = subprocess.run(
        [sys.executable, "-m", "kalam", "serve", "--data-dir", str(first.data_dir), "--http-port=0", "--nats-port=0"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (second.returncode, second.stdout) == (1, "")
    assert str(first.data_dir) in second.stderr
    assert "Traceback" not in second.stderr
    assert first.sql("SELECT 1") == [[1]]
    assert json.loads((first.data_dir / "kalam.json").read_text())["pid"] == first.announcement["pid"]


def test_settings_come_from_toml_then_the_environment_then_flags(start_kalam: Start, tmp_path: Path) -> None:
    config = tmp_path / "kalam.toml"
    config.write_text("result_rows_max = 5\nbatch_rows_max = 7\nlog_format = 'text'\n")
    server = start_kalam(
        flags=("--config", str(config), "--log-format", "json"),
        KALAM_RESULT_ROWS_MAX="3",
        KALAM_LOG_FORMAT="text",
        KALAM_LOG_LEVEL="debug",
    )
    assert len(server.sql("SELECT * FROM generate_series(1, 3)")) == 3
    with pytest.raises(SqlFailed, match="more than 3 rows"):
        server.sql("SELECT * FROM generate_series(1, 4)")
    lines = [line for line in server.log_text().splitlines() if line]
    assert all(isinstance(json.loads(line), dict) for line in lines)


def test_a_variable_that_is_no_setting_is_told_with_the_one_that_was_meant(start_kalam: Start) -> None:
    server = start_kalam(
        KALAM_LOG_FORMAT="json", KALAM_QUERY_TIME="5", KALAM_URL="http://localhost:1", KALAM_WHATEVER=""
    )
    told = [json.loads(line) for line in server.log_file.read_text().splitlines() if "is no setting" in line]
    assert [(line["variable"], line["meant"]) for line in told] == [
        ("KALAM_QUERY_TIME", "KALAM_QUERY_TIME_S"),
        ("KALAM_WHATEVER", None),
    ]


def test_an_address_for_other_machines_is_warned_of(start_kalam: Start) -> None:
    server = start_kalam(KALAM_HTTP_HOST="0.0.0.0", KALAM_INSECURE="true", KALAM_LOG_FORMAT="json")
    told = [json.loads(line) for line in server.log_text().splitlines() if "no authentication" in line]
    assert [(line["setting"], line["host"]) for line in told] == [("http_host", "0.0.0.0")]


@pytest.mark.parametrize("toml", ["nonsense = 1", "row_bytes_max = 'x'", "row_bytes_max = 1", "= broken"])
def test_wrong_settings_are_told_by_name(tmp_path: Path, toml: str) -> None:
    config = tmp_path / "kalam.toml"
    config.write_text(toml)
    done = subprocess.run(
        [sys.executable, "-m", "kalam", "serve", "--data-dir", str(tmp_path / "data"), "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert ("kalam.toml" if toml == "= broken" else toml.split(" ", 1)[0]) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_page_of_kalams_own_may_open_a_websocket_whatever_the_port(start_kalam: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        ws_port = probe.getsockname()[1]
    server = start_kalam(flags=("--nats-ws-port", str(ws_port)))
    own = urlsplit(server.http_url).netloc
    for origin, status in ((f"http://{own}", 101), ("http://127.0.0.1:1", 403)):
        connection = http.client.HTTPConnection("127.0.0.1", ws_port)
        headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Origin": origin, "Sec-WebSocket-Version": "13"}
        connection.request("GET", "/", headers={**headers, "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})
        assert connection.getresponse().status == status
        connection.close()


# Restarts


def contents(server: ServerProcess) -> list[Any]:
    queries = ["SELECT namespace FROM system.namespaces ORDER BY namespace"]
    queries += [
        f"SELECT namespace, table_name, {more} FROM system.tables ORDER BY table_id" for more in ("options", "table_id")
    ]
    queries += [
        "SELECT * FROM a.shared ORDER BY k",
        "SELECT * FROM a.shared WHERE _deleted",
        "SELECT k, _key FROM a.stream",
    ]
    shown = [server.sql(query) for query in queries]
    return shown + [server.sql("SELECT * FROM a.user ORDER BY k", user=user) for user in ("ann", "bob")]


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_restart_keeps_everything(start_kalam: Start, connect: Connect, end: str) -> None:
    server = start_kalam()
    server.sql("CREATE NAMESPACE a; CREATE NAMESPACE empty; CREATE STREAM TABLE a.stream (k INT) RETENTION 1h")
    server.sql("CREATE TABLE a.shared (k INT PRIMARY KEY, v TEXT); CREATE USER TABLE a.user (k INT PRIMARY KEY)")
    for first in (1, 11):
        server.sql(f"INSERT INTO a.shared SELECT value, 'v' FROM generate_series({first}, {first + 9})")
        server.sql(f"INSERT INTO a.stream SELECT value FROM generate_series({first}, {first + 9})")
        for user in ("ann", "bob"):
            server.sql(f"INSERT INTO a.user VALUES ({first})", user=user)
        if first == 1:
            server.sql("FLUSH ALL TABLES")
    server.sql("DELETE FROM a.shared WHERE k IN (2, 12); UPDATE a.shared SET v = 'w' WHERE k IN (3, 13)")
    before = contents(server)
    if end == "stop":
        assert server.stop() == 0
    else:
        server.kill()
    server.restart()
    assert contents(server) == before
    program = await connect(server)
    assert (await program.insert("a.shared", {"k": 100})).json["seq"] == 25
    assert (await program.insert("a.user", {"k": 100})).json["seq"] == 3
    assert (await program.insert("a.stream", {"k": 100})).json["seq"] == 21
    with pytest.raises(SqlFailed):
        server.sql("INSERT INTO a.shared VALUES (1, 'again')")


async def test_sigterm_commits_and_publishes_what_came(start_kalam: Start, connect: Connect, nats_url: str) -> None:
    server = start_kalam(flags=("--nats-url", nats_url))
    server.sql("CREATE NAMESPACE a; CREATE TABLE a.t (k INT PRIMARY KEY)")
    program = await connect(server)
    asked = [program.insert("a.t", [{"k": 100 * n + k} for k in range(100)]) for n in range(100)]
    tasks = [asyncio.create_task(question) for question in asked]
    await tasks[0]
    assert await asyncio.to_thread(server.stop) == 0
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    acknowledged = [answer.json for answer in answers if not isinstance(answer, BaseException)]
    changes = await program.broker.jetstream().get_last_msg("KALAM-CHANGES", "kalam.shared.a.t.insert")
    last = json.loads(changes.data or b"")
    server.restart()
    [[count]] = server.sql("SELECT count(*) FROM a.t")
    assert count >= 100 * len(acknowledged) > 0
    assert last["seq"] + len(last["rows"]) - 1 == count


# The broker


async def test_a_killed_embedded_broker_is_started_again(
    start_kalam: Start, connect: Connect, wait_until: WaitUntil
) -> None:
    server = start_kalam()
    server.sql("CREATE NAMESPACE a; CREATE TABLE a.t (k INT); CREATE STREAM TABLE a.s (k INT)")
    program = await connect(server)
    for table in ("a.t", "a.s"):
        assert (await program.insert(table, {"k": 1})).json["seq"] == 1
    os.kill(int((server.data_dir / "nats" / "nats.pid").read_text()), signal.SIGKILL)
    await wait_until(lambda: not program.broker.is_connected)
    for table in ("a.t", "a.s"):
        await wait_until(partial(accepts, server, connect, table, {"k": 2}))
    await wait_until(lambda: ready(server))
    assert server.sql("SELECT k FROM a.s") == [[1], [2]]
    assert server.sql("SELECT k FROM a.t ORDER BY k") == [[1], [2]]


@pytest.mark.parametrize("by", ["flag", "environment"])
async def test_an_outside_broker_takes_the_place_of_the_embedded_one(
    start_kalam: Start, connect: Connect, nats_url: str, by: str
) -> None:
    server = start_kalam(flags=("--nats-url", nats_url)) if by == "flag" else start_kalam(NATS_URL=nats_url)
    assert server.nats_url.rsplit(":", 1)[1] == nats_url.rsplit(":", 1)[1]
    assert not (server.data_dir / "nats").exists()
    server.sql("CREATE NAMESPACE a; CREATE STREAM TABLE a.s (k INT)")
    program = await connect(server)
    assert (await program.insert("a.s", {"k": 1})).json == {"rows": 1, "seq": 1}
    stream = await program.broker.jetstream().stream_info("KALAM-a-s")
    assert (stream.config.subjects, stream.state.messages) == (["kalam.stream.a.s"], 1)


@pytest.mark.parametrize("login", ["", "user:wrong@"])
def test_a_broker_that_refuses_the_login_ends_the_start(
    tmp_path: Path, start_nats_server: Callable[..., Any], login: str
) -> None:
    broker = start_nats_server(authorization={"user": "user", "password": "right"})
    url = broker.url.replace("nats://", f"nats://{login}")
    command = [sys.executable, "-m", "kalam", "serve", f"--data-dir={tmp_path / 'data'}", f"--nats-url={url}"]
    done = subprocess.run([*command, "--http-port=0"], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert "error [broker_unavailable]" in done.stderr
    assert "Authorization Violation" in done.stderr
    assert "Traceback" not in done.stderr
    assert "wrong" not in done.stdout + done.stderr


async def test_without_the_broker_the_server_is_not_ready_and_refuses_for_good(
    start_kalam: Start, connect: Connect, nats_server: Any, wait_until: WaitUntil
) -> None:
    server = start_kalam(flags=("--nats-url", nats_server.url), KALAM_BROKER_TIMEOUT_S="1")
    server.sql("CREATE NAMESPACE a; CREATE TABLE a.t (k INT PRIMARY KEY); CREATE STREAM TABLE a.s (k INT)")
    nats_server.kill()
    await wait_until(lambda: not ready(server))
    status, body = status_of(f"{server.http_url}/readyz")
    checks = {check["name"]: check["ok"] for check in json.loads(body)["checks"]}
    assert (status, checks["nats"], checks["sqlite"]) == (503, False, True)
    assert status_of(f"{server.http_url}/livez")[0] == 200
    with pytest.raises(SqlFailed) as refused:
        server.sql("INSERT INTO a.s VALUES (1)")
    assert (refused.value.status, refused.value.code) == (503, "broker_unavailable")
    assert server.results("INSERT INTO a.t VALUES (1)")[0]["row_count"] == 1
    assert server.sql("SELECT k FROM a.t") == [[1]]
    nats_server.start()
    await wait_until(lambda: ready(server))
    await wait_until(lambda: accepts(server, connect, "a.s", {"k": 2}))
    assert server.sql("SELECT k FROM a.s") == [[2]]
    program = await connect(server)
    jetstream = program.broker.jetstream()

    async def published() -> bool:
        try:
            await jetstream.get_last_msg("KALAM-CHANGES", "kalam.shared.a.t.insert")
        except nats.js.errors.NotFoundError:
            return False
        return True

    await wait_until(published)


def refusal(server: ServerProcess) -> str:
    """What a server says that does not start."""
    server.launch()
    assert server.wait_end() == 1
    assert "Traceback" not in server.log_text()
    return server.log_text()


async def test_a_foreign_stream_of_that_name_keeps_the_server_from_starting(
    start_kalam: Start, nats_client: Client, nats_url: str
) -> None:
    await nats_client.jetstream().add_stream(name="KALAM-CHANGES", subjects=["something.else"])
    assert "KALAM-CHANGES" in refusal(start_kalam(flags=("--nats-url", nats_url), start=False))
    stream = await nats_client.jetstream().stream_info("KALAM-CHANGES")
    assert stream.config.subjects == ["something.else"]


async def test_a_foreign_stream_keeps_a_table_from_being_made(
    start_kalam: Start, nats_client: Client, nats_url: str
) -> None:
    await nats_client.jetstream().add_stream(name="KALAM-a-s", subjects=["something.else"])
    server = start_kalam(flags=("--nats-url", nats_url))
    server.sql("CREATE NAMESPACE a")
    with pytest.raises(SqlFailed, match="KALAM-a-s"):
        server.sql("CREATE STREAM TABLE a.s (k INT)")
    assert server.sql("SHOW TABLES IN a") == []
    assert (await nats_client.jetstream().stream_info("KALAM-a-s")).config.subjects == ["something.else"]


async def test_another_data_directory_on_the_same_broker_is_refused(start_kalam: Start, nats_url: str) -> None:
    first = start_kalam("first", flags=("--nats-url", nats_url))
    first.sql("CREATE NAMESPACE a; CREATE STREAM TABLE a.s (k INT); INSERT INTO a.s VALUES (1)")
    assert "data directory" in refusal(start_kalam("second", flags=("--nats-url", nats_url), start=False))
    other = start_kalam("third", flags=("--nats-url", nats_url), KALAM_SUBJECT_PREFIX="other")
    other.sql("CREATE NAMESPACE a; CREATE STREAM TABLE a.s (k INT); INSERT INTO a.s VALUES (2)")
    assert (first.sql("SELECT k FROM a.s"), other.sql("SELECT k FROM a.s")) == ([[1]], [[2]])
    assert (first.stop(), other.stop()) == (0, 0)
    assert "data directory" in refusal(start_kalam("second", flags=("--nats-url", nats_url), start=False))


async def test_the_prefix_is_the_head_of_every_subject_and_stream(
    start_kalam: Start, nats_client: Client, nats_url: str
) -> None:
    server = start_kalam(flags=("--nats-url", nats_url), KALAM_SUBJECT_PREFIX="shop")
    server.sql("CREATE NAMESPACE a; CREATE STREAM TABLE a.s (k INT); CREATE TABLE a.t (k INT)")
    heard = await nats_client.subscribe("shop.shared.a.t.insert")
    for table in ("s", "t"):
        reply = await nats_client.request(f"shop.api.ann.insert.a.{table}", b'{"k": 1}', timeout=PATIENCE_S)
        assert json.loads(reply.data) == {"rows": 1, "seq": 1}
    assert json.loads((await heard.next_msg(20)).data)["op"] == "insert"
    with pytest.raises(nats.errors.NoRespondersError):
        await nats_client.request("kalam.api.ann.insert.a.t", b'{"k": 1}', timeout=20)
    streams = {stream.config.name for stream in await nats_client.jetstream().streams_info()}
    assert streams == {"SHOP-CHANGES", "SHOP-USER-CHANGES", "SHOP-a-s"}


@pytest.fixture
async def nats_client(nats_url: str) -> Any:
    """A client of the outside broker."""
    client = await nats.connect(nats_url)
    yield client
    await client.close()


# Notices


async def test_what_the_server_does_is_told(kalam_server: ServerProcess, connect: Connect) -> None:
    program = await connect(kalam_server)
    events = await program.listen("kalam.event.>")
    kalam_server.sql("CREATE NAMESPACE a; CREATE USER TABLE a.t (k INT); INSERT INTO a.t VALUES (1); FLUSH TABLE a.t")
    kalam_server.sql("DROP TABLE a.t")
    told = [await events() for _ in range(3)]
    assert [event.subject for event in told] == [
        f"kalam.event.{what}" for what in ("table.created", "job.finished", "table.dropped")
    ]
    assert told[0].json == told[2].json == {"namespace": "a", "table": "t", "kind": "USER"}
    job = told[1].json
    assert [job[name] for name in ("job_type", "namespace", "table", "status")] == ["flush", "a", "t", "completed"]
