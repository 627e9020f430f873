"""Holds a flush in its middle: the worker process has read the log and is writing, and nothing has been recorded."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from server_process import ServerProcess

PATIENCE_S = 20.0


def flush_worker(server: ServerProcess) -> int | None:
    """The process id of the server's flush worker, if it runs."""
    assert server.process is not None
    for task in Path(f"/proc/{server.process.pid}/task").iterdir():
        for pid in (task / "children").read_text().split():
            if b"flush_worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return int(pid)
    return None


@contextmanager
def paused_flush(server: ServerProcess, table: str, folder: Path) -> Iterator[Future[Any]]:
    """Flush a table and hold the worker as soon as it has begun to write; it goes on at the end of the block.

    The table needs so many rows (tens of thousands) that writing them takes a while. Yields the future of the flush.
    """
    server.sql("CREATE NAMESPACE IF NOT EXISTS pause")
    server.sql("CREATE TABLE IF NOT EXISTS pause.warm_up (x BIGINT)")
    server.sql("INSERT INTO pause.warm_up VALUES (1)")
    server.sql("FLUSH TABLE pause.warm_up")
    pid = flush_worker(server)
    assert pid is not None
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(server.sql, f"FLUSH TABLE {table}")
        try:
            _wait_writing(folder, future)
            os.kill(pid, signal.SIGSTOP)
            assert list(folder.glob(".*.tmp")), "the flush was over before it could be held"
            yield future
        finally:
            with suppress(ProcessLookupError):  # a killed job takes its worker with it
                os.kill(pid, signal.SIGCONT)
        future.result(PATIENCE_S)


def _wait_writing(folder: Path, future: Future[Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not list(folder.glob(".*.tmp")):
        assert not future.done(), "the flush was over before it could be held"
        assert time.monotonic() < deadline, "the flush did not begin"
        time.sleep(0.0005)
