"""Jobs: KILL JOB, progress while they run, what a crash leaves of them."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from flush_pause import paused_flush, worker_process
from server_process import ServerProcess, SqlFailed


def running(server: ServerProcess) -> list[list[object]]:
    rows = server.sql("SELECT job_id, job_type, result FROM system.jobs WHERE status = 'running'")
    return list(rows)


def test_a_killed_flush_loses_nothing_and_says_so(kalam_server: ServerProcess) -> None:
    sql = kalam_server.sql
    sql("CREATE NAMESPACE n; CREATE TABLE n.t (id BIGINT PRIMARY KEY, a TEXT)")
    sql("INSERT INTO n.t SELECT value, 'v' || CAST(value AS TEXT) FROM range(0, 90000)")
    folder = Path(kalam_server.data_dir) / "shared" / "n" / "t"
    with pytest.raises(SqlFailed) as failed, paused_flush(kalam_server, "n.t", folder) as flushing:  # noqa: PT012 - raised at its end
        [[job_id, job_type, progress]] = running(kalam_server)
        assert job_type == "flush"
        assert json.loads(str(progress)) == {
            "copies": 1,
            "copies_done": 0,
            "rows_flushed": 0,
            "segments": 0,
            "bytes": 0,
        }
        assert sql(f"KILL JOB '{job_id}'") == f"job {job_id} killed"
        flushing.result(20)
    assert failed.value.code == "cancelled"
    assert sql(f"SELECT status, error FROM system.jobs WHERE job_id = '{job_id}'") == [
        ["cancelled", "killed by KILL JOB"]
    ]
    assert sql("SELECT count(*) FROM n.t") == [[90000]]
    with pytest.raises(SqlFailed) as failed:
        sql(f"KILL JOB '{job_id}'")
    assert failed.value.code == "not_found"
    [done] = sql("FLUSH TABLE n.t")
    assert done[2] == 90000
    assert sql("SELECT count(*) FROM n.t") == [[90000]]
    names = {row[0] for row in sql("SELECT job_type FROM system.jobs")}
    assert names == {"flush"}


def test_a_compaction_can_be_killed_and_run_again(kalam_server: ServerProcess) -> None:
    sql = kalam_server.sql
    sql("CREATE NAMESPACE n; CREATE TABLE n.t (id BIGINT PRIMARY KEY, a TEXT)")
    for number in range(2):
        sql(f"INSERT INTO n.t SELECT value * 2 + {number}, 'x' FROM range(0, 400000)")
        sql("FLUSH TABLE n.t")
    with ThreadPoolExecutor(1) as pool:
        compacting = pool.submit(sql, "COMPACT TABLE n.t")
        while not (jobs := [row for row in running(kalam_server) if row[1] == "compaction"]):
            assert not compacting.done()
        sql(f"KILL JOB '{jobs[0][0]}'")
        with pytest.raises(SqlFailed) as failed:
            compacting.result()
    assert failed.value.code == "cancelled"
    assert sql("SELECT count(*) FROM n.t") == [[800000]]
    [done] = sql("COMPACT TABLE n.t")
    assert done[2:6] == [2, 1, 800000, 0]
    assert sql("SELECT count(*), count(DISTINCT id) FROM n.t") == [[800000, 800000]]


def test_a_job_that_dies_with_the_process_is_failed_afterwards(kalam_server: ServerProcess) -> None:
    sql = kalam_server.sql
    sql("CREATE NAMESPACE n; CREATE TABLE n.t (id BIGINT PRIMARY KEY)")
    sql("INSERT INTO n.t VALUES (1)")
    kalam_server.stop()
    kalam_server.start(KALAM_CRASHPOINT="flush.before_rename")
    with suppress(OSError):
        sql("FLUSH TABLE n.t")
    kalam_server.wait_end()
    kalam_server.start()
    [[status, error]] = sql("SELECT status, error FROM system.jobs")
    assert status == "failed"
    assert "stopped while the job ran" in error
    assert [row[4] for row in sql("SHOW JOBS")] == ["failed"]


def test_a_worker_that_dies_fails_its_job_and_the_next_one_works(kalam_server: ServerProcess) -> None:
    sql = kalam_server.sql
    sql("CREATE NAMESPACE n; CREATE TABLE n.t (id BIGINT PRIMARY KEY, a TEXT)")
    sql("INSERT INTO n.t SELECT value, 'v' || CAST(value AS TEXT) FROM range(0, 90000)")
    folder = Path(kalam_server.data_dir) / "shared" / "n" / "t"
    with pytest.raises(SqlFailed) as failed, paused_flush(kalam_server, "n.t", folder):
        os.kill(worker_process(kalam_server, "flush_worker"), signal.SIGKILL)
    assert failed.value.code == "internal"
    assert sql("SELECT status FROM system.jobs WHERE table_name = 't'") == [["failed"]]
    assert sql("FLUSH TABLE n.t")[0][2] == 90000
