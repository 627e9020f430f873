"""Every command finds the same server, in the same order, and says so where it may not be the one that is meant."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from server_process import ServerProcess

Run = Callable[..., subprocess.CompletedProcess[str]]
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Another server than the shared one, with a listener for WebSockets."""
    server = ServerProcess(tmp_path_factory.mktemp("other") / "data", flags=("--nats-ws-port", "0")).start()
    server.sql("CREATE NAMESPACE which; CREATE TABLE which.other (v TEXT)")
    yield server
    server.kill()


@pytest.fixture
def mine(shared_server: ServerProcess) -> ServerProcess:
    shared_server.sql("CREATE NAMESPACE IF NOT EXISTS which; CREATE TABLE IF NOT EXISTS which.mine (v TEXT)")
    shared_server.sql("DELETE FROM which.mine; INSERT INTO which.mine VALUES ('a')")
    return shared_server


def all_commands(kalam: Run, tmp_path: Path, *flags: str, env: dict[str, str] | None = None) -> list[str]:
    """Run each command that speaks to a server; what it said on stderr."""
    file = tmp_path / "rows.ndjson"
    runs = (
        ("sql", "SELECT v FROM which.mine"),
        ("shell",),
        ("insert", "which.mine"),
        ("export", "which.mine", str(file), "--force"),
        ("flush", "which.mine"),
    )
    said = []
    for arguments in runs:
        stdin = {"insert": '{"v": "b"}', "shell": "SELECT v FROM which.mine;"}.get(arguments[0], "")
        done = kalam(*arguments, *flags, env=env, stdin=stdin)
        assert done.returncode == 0, (arguments, done.stderr)
        said.append(done.stderr)
    assert {"a", "b"} <= {json.loads(line)["v"] for line in file.read_text().splitlines()}
    return said


@pytest.mark.parametrize("kind", ["http_url", "nats_url"])
@pytest.mark.parametrize("by", ["--url", "KALAM_URL"])
def test_one_address_is_enough_for_all_commands(
    kalam: Run, mine: ServerProcess, tmp_path: Path, kind: str, by: str
) -> None:
    url = str(mine.announcement[kind])
    if by == "KALAM_URL":
        all_commands(kalam, tmp_path, env={by: url})
    else:
        all_commands(kalam, tmp_path, by, url, env={"KALAM_URL": NOWHERE})


def test_the_order_is_flag_variable_context_data_directory(
    kalam: Run, mine: ServerProcess, other: ServerProcess, tmp_path: Path
) -> None:
    for name, server in (("mine", mine), ("other", other)):
        context = tmp_path / "config" / "nats" / "context" / f"{name}.json"
        context.parent.mkdir(parents=True, exist_ok=True)
        context.write_text(json.dumps({"url": server.nats_url}))
    config = {"XDG_CONFIG_HOME": str(tmp_path / "config")}

    tables = "SELECT table_name FROM system.tables WHERE namespace = 'which'"

    def spoken(*flags: str, **env: str) -> str:
        done = kalam("sql", tables, "--format", "csv", *flags, env=config | env)
        assert done.returncode == 0, done.stderr
        return str(done.stdout.split()[-1])

    assert spoken("--url", mine.http_url, KALAM_URL=NOWHERE) == "mine"
    assert spoken("--context", "mine", KALAM_URL=NOWHERE) == "mine"
    assert spoken("--data-dir", str(mine.data_dir), KALAM_URL=NOWHERE, NATS_CONTEXT="other") == "mine"
    assert spoken(KALAM_URL=mine.nats_url, NATS_CONTEXT="other", KALAM_DATA_DIR=str(other.data_dir)) == "mine"
    assert spoken(NATS_CONTEXT="mine", KALAM_DATA_DIR=str(other.data_dir), NATS_URL=other.nats_url) == "mine"
    assert spoken(KALAM_DATA_DIR=str(mine.data_dir), NATS_URL=other.nats_url) == "mine"
    assert spoken(NATS_URL=mine.nats_url) == "mine"
    (tmp_path / "empty" / "kalam-data").symlink_to(mine.data_dir)
    assert spoken(NATS_URL=other.nats_url, KALAM_NATS_URL=other.nats_url) == "mine"


def test_another_server_than_that_of_the_folder_is_told(
    kalam: Run, mine: ServerProcess, other: ServerProcess, tmp_path: Path
) -> None:
    here = tmp_path / "empty" / "kalam-data"
    here.symlink_to(mine.data_dir)
    for said in all_commands(kalam, tmp_path) + all_commands(kalam, tmp_path, "--url", mine.nats_url):
        assert "speaking to" not in said
    told = f"speaking to {other.http_url} (KALAM_URL), not to the server of kalam-data ({mine.http_url})\n"
    assert kalam("sql", "SELECT 1", env={"KALAM_URL": other.http_url}).stderr == told
    assert kalam("sql", "SELECT 1", "-q", env={"KALAM_URL": other.http_url}).stderr == ""
    here.unlink()
    here.mkdir()
    announced = {"pid": 2**22 + 1, "http_url": other.http_url, "nats_url": other.nats_url}  # no process has that number
    (here / "kalam.json").write_text(json.dumps(announced))
    ended = kalam("sql", "SELECT 1")
    assert ended.returncode == 0
    assert (
        f"speaking to {other.http_url} (kalam-data): the server that announced itself there has ended" in ended.stderr
    )
    shutil.rmtree(here)
    here.mkdir()
    assert "(the default): no server runs on kalam-data" in kalam("sql", "SELECT 1").stderr


def test_what_answers_elsewhere_has_to_be_the_same_server(
    start_kalam: Any, kalam: Run, mine: ServerProcess, other: ServerProcess
) -> None:
    """As through a tunnel: an address that is right where the server is leads to another one here."""
    broker = start_kalam(flags=("--nats-url", other.nats_url), KALAM_SUBJECT_PREFIX="second")
    env = {"KALAM_SUBJECT_PREFIX": "second"}
    shown = kalam("sql", "SELECT count(*) AS n FROM system.tables", "--url", other.nats_url, "--format", "csv", env=env)
    assert shown.stdout.split() == ["n", "0"]  # of two on one NATS the one with these subjects
    broker.kill()
    gone = kalam("sql", "SELECT 1", "--url", other.nats_url, env=env)
    assert (gone.returncode, "is not found in NATS" in gone.stderr) == (1, True)


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://localhost", "://"])
def test_what_is_no_url_is_refused(kalam: Run, url: str) -> None:
    for arguments in (("sql", "SELECT 1"), ("tail", "a.b"), ("insert", "a.b")):
        done = kalam(*arguments, env={"KALAM_URL": url})
        assert (done.returncode, "KALAM_URL" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("scheme", ["http", "nats", "ws", "ftp"])
@pytest.mark.parametrize("rest", ["127.0.0.1:1", "[::1"])
def test_no_command_shows_a_password(kalam: Run, scheme: str, rest: str) -> None:
    env = {"KALAM_URL": f"{scheme}://somebody:secret@{rest}"}
    for arguments in (("sql", "SELECT 1"), ("tail", "a.b"), ("insert", "a.b"), ("export", "a.b", "x.csv")):
        done = kalam(*arguments, env=env)
        assert done.returncode in (1, 2)
        assert done.stderr.startswith("error")
        assert "secret" not in done.stdout + done.stderr
        assert "Unclosed" not in done.stderr


def test_a_web_socket_is_an_address_too(kalam: Run, start_kalam: Any, tmp_path: Path) -> None:
    server = start_kalam(flags=("--nats-ws-port", str(free_port())))
    server.sql("CREATE NAMESPACE which; CREATE TABLE which.mine (v TEXT); INSERT INTO which.mine VALUES ('a')")
    all_commands(kalam, tmp_path, env={"KALAM_URL": str(server.announcement["nats_ws_url"])})


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@pytest.mark.parametrize("command", ["sql", "shell", "insert", "tail", "export", "flush"])
def test_help_tells_the_order(kalam: Run, command: str) -> None:
    words = " ".join(kalam(command, "--help").stdout.split())
    assert "KALAM_URL, else the context that NATS_CONTEXT names, else the server of the data directory" in words


def test_tail_finds_nats_by_http(start: Any, mine: ServerProcess) -> None:
    env = {"KALAM_URL": mine.http_url}
    process = start("tail", "which.mine", env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert b'"v": "a"' in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
