"""Running the command line as a process of its own, and a real server that the tests of a module share."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_process import environment
from server_process import ServerProcess
from warm_start import may_be_warm, run_kalam_command

COMMAND_S = 100
NAMESPACE = "cli"
Run = Callable[..., subprocess.CompletedProcess[str]]
numbers = itertools.count(1)


@pytest.fixture
def kalam_server(shared_server: ServerProcess) -> ServerProcess:
    """A server that the tests of a module share; each test that writes has a table of its own."""
    shared_server.sql(f"CREATE NAMESPACE IF NOT EXISTS {NAMESPACE}")
    return shared_server


@pytest.fixture
def create_table(kalam_server: ServerProcess) -> Callable[..., str]:
    """Create a table of some columns under a new name, and return its full name."""

    def create(columns: str, kind: str = "STREAM", options: str = "") -> str:
        name = f"{NAMESPACE}.t{next(numbers)}"
        kalam_server.sql(f"CREATE {kind} TABLE {name} ({columns}) {options}")
        return name

    return create


@pytest.fixture
def table(create_table: Callable[..., str]) -> str:
    """A STREAM table, which returns its rows in the order of their insert; its one column is ``id BIGINT``."""
    return create_table("id BIGINT", options="WITH (MAX_BUFFER = 1000000)")


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """The folder in which a command makes its temporary one."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start ``kalam`` in an empty folder; whatever still runs at the end of the test is killed."""
    empty = tmp_path / "empty"
    empty.mkdir()
    started: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "kalam", *arguments]
        process = subprocess.Popen(command, cwd=empty, env=environment(**(env or {})), **options)
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def kalam(start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> Run:
    """Run ``kalam`` with some arguments to its end and return its status and what it printed."""

    def run(*arguments: str, stdin: bytes | str = b"", env: dict[str, str] | None = None) -> Any:
        given = stdin if isinstance(stdin, bytes) else stdin.encode()
        if may_be_warm(arguments, env or {}):
            whole = environment(**(env or {}))
            status, out, err = run_kalam_command(arguments, whole, tmp_path / "empty", given, COMMAND_S)
            return subprocess.CompletedProcess(arguments, status, out.decode(), err.decode())
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process = start(*arguments, env=env, **pipes)
        out, err = process.communicate(given, COMMAND_S)
        return subprocess.CompletedProcess(arguments, process.returncode, out.decode(), err.decode())

    return run


@pytest.fixture
def at_server(kalam: Run, kalam_server: ServerProcess) -> Run:
    """Run a command of ``kalam`` against the server."""

    def run(command: str, *arguments: str, **options: Any) -> Any:
        return kalam(command, "--data-dir", str(kalam_server.data_dir), *arguments, **options)

    return run
