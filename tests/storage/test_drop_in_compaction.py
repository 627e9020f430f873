"""DROP does not wait for a compaction: it ends it, and nothing of it stays."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flush_pause import wait_writing, worker_process
from held_process import held
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed

ROWS = 60_000


def make(server: ServerProcess, namespace: str, rows: int) -> Path:
    """A table of two segments; the folder in which they are."""
    server.sql(f"CREATE NAMESPACE IF NOT EXISTS {namespace}; CREATE TABLE {namespace}.t (id BIGINT PRIMARY KEY)")
    for offset in range(2):
        server.sql(f"INSERT INTO {namespace}.t SELECT value * 2 + {offset} FROM range(0, {rows})")
        server.sql(f"FLUSH TABLE {namespace}.t")
    return server.data_dir / "shared" / namespace / "t"


@contextmanager
def stopped_compaction(server: ServerProcess, table: str, folder: Path) -> Iterator[Future[Any]]:
    """Compact a table, and stop the worker for good as soon as it writes."""
    pid = worker_process(server, "compact_worker")
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(server.sql, f"COMPACT TABLE {table}")
        wait_writing(folder, future)
        with held(pid):
            assert list(folder.glob(".*.tmp")), "the compaction was over before it could be held"
            yield future


def jobs(server: ServerProcess, namespace: str) -> list[list[str]]:
    query = "SELECT status, error FROM system.jobs WHERE namespace = $1 AND job_type = 'compaction' ORDER BY created_at"
    return server.sql(query, namespace)


def test_a_drop_cancels_the_compaction_that_runs_and_leaves_none_of_its_files(shared_server: ServerProcess) -> None:
    make(shared_server, "warm", 10)
    shared_server.sql("COMPACT TABLE warm.t")
    folder = make(shared_server, "busy", ROWS)
    with stopped_compaction(shared_server, "busy.t", folder) as compaction:
        shared_server.sql("DROP TABLE busy.t")  # although the worker will never answer
        with pytest.raises(SqlFailed) as failed:
            compaction.result(PATIENCE_S)
    assert failed.value.code == "cancelled"
    assert "the table was dropped" in str(failed.value)
    assert jobs(shared_server, "busy") == [["cancelled", "the table was dropped"]]
    assert not folder.exists()
    make(shared_server, "busy", 10)
    assert shared_server.sql("SELECT count(*), max(id) FROM busy.t") == [[20, 19]]
    shared_server.sql("COMPACT TABLE busy.t")
    assert shared_server.sql("SELECT count(*), max(id) FROM busy.t") == [[20, 19]]
    assert [status for status, _ in jobs(shared_server, "busy")] == ["cancelled", "completed"]


def test_a_drop_of_the_namespace_does_so_too(shared_server: ServerProcess) -> None:
    make(shared_server, "warm_again", 10)
    shared_server.sql("COMPACT TABLE warm_again.t")
    folder = make(shared_server, "whole", ROWS)
    with stopped_compaction(shared_server, "whole.t", folder) as compaction:
        shared_server.sql("DROP NAMESPACE whole CASCADE")
        with pytest.raises(SqlFailed) as failed:
            compaction.result(PATIENCE_S)
    assert failed.value.code == "cancelled"
    assert not folder.exists()
