"""Holds a flush in its middle: the worker process has read the log and is writing, and nothing has been recorded."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from held_process import held
from patience import PATIENCE_S
from server_process import ServerProcess


def worker_process(server: ServerProcess, module: str) -> int:
    """The process id of the server's worker that runs this module: ``"flush_worker"`` or ``"compact_worker"``."""
    assert server.process is not None
    for task in Path(f"/proc/{server.process.pid}/task").iterdir():
        for pid in (task / "children").read_text().split():
            if (
                module in Path(f"/proc/{pid}/cmdline").read_text()
                or Path(f"/proc/{pid}/comm").read_text() == f"{module}\n"
            ):
                return int(pid)
    raise AssertionError(f"no {module} runs")


@contextmanager
def paused_flush(server: ServerProcess, table: str, folder: Path) -> Iterator[Future[Any]]:
    """Flush a table and hold the worker as soon as it has begun to write; it goes on at the end of the block.

    The table needs so many rows (tens of thousands) that writing them takes a while. Yields the future of the flush.
    """
    server.sql("CREATE NAMESPACE IF NOT EXISTS pause")
    server.sql("CREATE TABLE IF NOT EXISTS pause.warm_up (x BIGINT)")
    server.sql("INSERT INTO pause.warm_up VALUES (1)")
    server.sql("FLUSH TABLE pause.warm_up")
    pid = worker_process(server, "flush_worker")
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(server.sql, f"FLUSH TABLE {table}")
        wait_writing(folder, future)
        with held(pid):  # a killed job takes its worker with it
            assert list(folder.glob(".*.tmp")), "the flush was over before it could be held"
            yield future
        future.result(PATIENCE_S)


def wait_writing(folder: Path, job: Future[Any]) -> None:
    """Wait until a flush or a compaction has begun to write a segment into the folder."""
    deadline = time.monotonic() + PATIENCE_S
    while not list(folder.glob(".*.tmp")):
        assert not job.done(), "the job was over before it could be held"
        assert time.monotonic() < deadline, "the job did not begin"
        time.sleep(0.0005)
