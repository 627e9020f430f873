"""The bare engine of inserts: SQLite with the durability and the rows a commit of the server, and nothing else."""

from __future__ import annotations

import sqlite3
import time

import msgspec

from kalam.bench.rows import row, scatter
from kalam.bench.task import answer, read_task, say_ready, wait_go


class SqliteTask(msgspec.Struct, kw_only=True):
    """Insert ``rows`` rows into a new database at ``path``, ``rows_per_commit`` in each transaction.

    With ``updates`` they are there already and each is changed once, in another order.
    """

    path: str
    rows: int
    rows_per_commit: int
    updates: bool = False


class Committed(msgspec.Struct, kw_only=True):
    """How many rows were written, and how long it took."""

    rows: int
    seconds: float


def main(task: SqliteTask) -> None:
    """Prepare, insert, answer."""
    conn = sqlite3.connect(task.path, isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        conn.execute(f"PRAGMA {pragma}")
    conn.execute("CREATE TABLE bench (id INTEGER PRIMARY KEY, row BLOB NOT NULL)")
    encode = msgspec.msgpack.Encoder().encode
    rows = [(number, encode(msgspec.structs.astuple(row(number)))) for number in range(task.rows)]
    statement, values = "INSERT INTO bench VALUES (?, ?)", rows
    if task.updates:
        conn.executemany(statement, rows)
        order = sorted(range(task.rows), key=scatter)
        statement, values = "UPDATE bench SET row = ?2 WHERE id = ?1", [rows[number] for number in order]
    say_ready()
    wait_go()
    started = time.perf_counter()
    for start in range(0, task.rows, task.rows_per_commit):
        conn.execute("BEGIN IMMEDIATE")
        conn.executemany(statement, values[start : start + task.rows_per_commit])
        conn.execute("COMMIT")
    seconds = time.perf_counter() - started
    (count,) = conn.execute("SELECT count(*) FROM bench").fetchone()
    conn.close()
    answer(Committed(rows=count, seconds=seconds))


if __name__ == "__main__":
    main(read_task(SqliteTask))
