"""The command line starts quickly, because it imports little."""

from __future__ import annotations

import sys
import urllib.request

import pytest
from patience import PATIENCE_S

from kalam import __version__

HEAVY = {
    "pyarrow",
    "datafusion",
    "starlette",
    "pydantic_settings",
    "httpx",
    "pandas",
    "numpy",
    "nats",
    "asyncio",
    "sqlglot",
}

NEVER_IN_A_SERVER = {"aiohttp", "attr", "fastapi", "fastparquet", "opentelemetry", "pandas", "pygments", "rich"}
NOT_AT_ITS_START = NEVER_IN_A_SERVER | {"datafusion", "httpx", "s3fs", "botocore", "prompt_toolkit"}


def imported(stderr: str) -> set[str]:
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in stderr.splitlines() if "|" in line}


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("sql", "SELECT 1", "--url", "http://127.0.0.1:9")])
def test_nothing_heavy_is_imported(kalam, arguments):
    done = kalam(*arguments, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert "kalam" in imported(done.stderr)
    assert not imported(done.stderr) & HEAVY


def imported_packages(stderr: str) -> set[str]:
    """The packages of which more than the name was looked for: an import that fails is listed, too."""
    names = (line.rpartition("|")[2].strip() for line in stderr.splitlines() if "|" in line)
    return {name.partition(".")[0] for name in names if "." in name}


def test_a_server_does_without_what_libraries_import_if_it_is_there(start_kalam):
    server = start_kalam(PYTHONPROFILEIMPORTTIME="1", OTEL_SDK_DISABLED="true")  # which it uses where it is installed
    started = imported_packages(server.log_text())
    assert {"kalam", "pyarrow", "starlette", "sqlglot"} <= started  # later an import would hold up the event loop
    assert not started & NOT_AT_ITS_START
    server.sql("CREATE NAMESPACE a; CREATE TABLE a.t (id BIGINT PRIMARY KEY, v TEXT); INSERT INTO a.t VALUES (1, 'x')")
    server.sql("UPDATE a.t SET v = v || 'y' WHERE id = 1")
    assert server.sql("SELECT v, count(*) FROM a.t GROUP BY v") == [["xy", 1]]
    headers = {"Content-Type": "application/json", "Accept": "application/x-ndjson"}
    request = urllib.request.Request(f"{server.http_url}/v1/sql", b'{"sql": "SELECT v FROM a.t"}', headers)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        assert answer.read() == b'{"v":"xy"}\n'
    assert "anyio._backends" not in server.log_text()  # with the first answer in pieces it would hold up the event loop
    assert not imported_packages(server.log_text()) & NEVER_IN_A_SERVER


def test_help_lists_the_commands(kalam):
    done = kalam("--help")
    assert done.returncode == 0
    assert all(f"  {command} " in done.stdout for command in ("serve", "demo", "sql", "insert", "version"))


@pytest.mark.parametrize("word", ["version", "--version"])
def test_the_version_goes_to_stdout(kalam, word):
    done = kalam(word)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{__version__}\n", "")


def test_no_command_and_an_unknown_one_are_wrong_usage(kalam):
    assert kalam().returncode == 2
    assert kalam("nonsense").returncode == 2


def test_wrong_settings_of_serve_are_wrong_usage(kalam):
    done = kalam("serve", "--http-port", "70000")
    assert (done.returncode, done.stdout) == (2, "")
    assert "http_port" in done.stderr
    done = kalam("serve", "--config", "no-such.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no-such.toml" in done.stderr
    assert sys.executable not in done.stderr
