"""A failing disk: system calls of a process that runs get an error from the kernel's tracer instead of being made."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from server_process import ServerProcess, SqlFailed

SYNC = ("fsync", "fdatasync")
WRITE = ("write", "pwrite64")
RENAME = ("rename", "renameat", "renameat2")

REFUSED = (503, "storage_full")
"""The status and the code of what a failing disk made impossible."""


@contextmanager
def failing_calls(
    pid: int, calls: Sequence[str], error: str = "EIO", *, paths: Sequence[Path] = (), when: str = "1+"
) -> Iterator[None]:
    """Let system calls of a process fail in the block, those on ``paths`` or all of them; skips where it may not trace.

    ``when`` counts the calls of each thread, as strace does: ``3`` is the third one, ``2+3`` every third from the
    second on.
    """
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    listed = ",".join(calls)
    command = ["strace", "-f", "-p", str(pid), "-o", os.devnull, "-e", f"trace={listed}"]
    command += ["-e", f"inject={listed}:error={error}:when={when}"]
    for path in paths:
        command += ["-P", str(path)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert tracer.stderr is not None
        said = tracer.stderr.readline()
        if "attached" not in said:
            pytest.skip(f"no process can be traced here: {said.strip()}")
        yield
    finally:
        tracer.terminate()
        tracer.communicate()


def log_of(server: ServerProcess) -> list[Path]:
    """The file that a commit writes and syncs, as a list of one."""
    return [server.data_dir / "kalam.db-wal"]


def pid_of(server: ServerProcess) -> int:
    assert server.process is not None
    return server.process.pid


def refused(server: ServerProcess, text: str, *params: Any, user: str = "admin") -> None:
    """Run a statement that the disk has to refuse."""
    with pytest.raises(SqlFailed) as failed:
        server.sql(text, *params, user=user)
    assert (failed.value.status, failed.value.code) == REFUSED, failed.value
