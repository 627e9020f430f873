"""DELETED_RETENTION: deleted rows go for good when they are due, hot and cold, and do not come back."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from server_process import ServerProcess

Start = Callable[..., ServerProcess]


def wait(condition: Callable[[], object], patience_s: float = 20.0) -> None:
    turn = threading.Event()
    for _ in range(int(patience_s / 0.05)):
        if condition():
            return
        turn.wait(0.05)
    raise TimeoutError


def deleted(server: ServerProcess) -> list[list[object]]:
    return list(server.sql("SELECT id FROM n.t WHERE _deleted ORDER BY id"))


def test_deleted_rows_go_when_they_are_due(start_kalam: Start) -> None:
    server = start_kalam(KALAM_DELETED_CLEANUP_INTERVAL_S="0.2")
    server.sql("CREATE NAMESPACE n; CREATE TABLE n.t (id BIGINT PRIMARY KEY)")
    server.sql("CREATE TABLE n.kept (id BIGINT PRIMARY KEY) WITH (deleted_retention = 'off')")
    for table in ("t", "kept"):
        server.sql(f"INSERT INTO n.{table} SELECT value FROM range(0, 10); FLUSH TABLE n.{table}")
        server.sql(f"DELETE FROM n.{table} WHERE id < 3; FLUSH TABLE n.{table}; DELETE FROM n.{table} WHERE id = 3")
    assert deleted(server) == [[0], [1], [2], [3]], "seven days have not passed"
    server.stop()
    conn = sqlite3.connect(server.data_dir / "kalam.db")
    text = conn.execute("SELECT options FROM tables WHERE table_name = 't'").fetchone()[0]
    options = json.dumps(json.loads(text) | {"deleted_retention_s": 1})
    conn.execute("UPDATE tables SET options = ? WHERE table_name = 't'", (options,))
    conn.commit()
    conn.close()
    server.start()
    wait(lambda: deleted(server) == [])
    assert server.sql("SELECT count(*) FROM n.t") == [[6]], "nothing comes back with its tombstone gone"
    assert server.sql("SELECT count(*) FROM system.segments WHERE path LIKE 'deleted%' AND table_name = 't'") == [[0]]
    assert server.sql("SELECT count(*) FROM n.kept WHERE _deleted") == [[4]]
    jobs = server.sql("SELECT status, table_name FROM system.jobs WHERE job_type = 'deleted_cleanup'")
    assert jobs
    assert {tuple(row) for row in jobs} == {("completed", "t")}
    server.sql("INSERT INTO n.t VALUES (0), (3)")
    assert server.sql("SELECT count(*) FROM n.t") == [[8]], "the key of a row that is gone is free"
    server.sql("FLUSH TABLE n.t; COMPACT TABLE n.t")
    assert server.sql("SELECT id FROM n.t ORDER BY id LIMIT 3") == [[0], [3], [4]]
    server.kill()
    server.restart()
    assert server.sql("SELECT count(*) FROM n.t") == [[8]]
    assert Path(server.data_dir / "shared" / "n" / "kept").is_dir()
