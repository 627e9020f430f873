"""What a read by key is compared with: the service that one writes in an afternoon with nats-py, SQLite and JSON.

The rows are in one table by their key; a request is answered where it is received, in the event loop, from a database
whose pages are in memory.
"""

from __future__ import annotations

import json
import sqlite3

import msgspec
import nats
from nats.aio.msg import Msg

from kalam.bench.rows import Row, row
from kalam.bench.task import read_task, run, say_ready, wait_go_async

COLUMNS = Row.__struct_fields__


class HandwrittenTask(msgspec.Struct, kw_only=True):
    """Answer the requests on ``subject`` from ``rows`` rows in a new database at ``path``."""

    url: str
    subject: str
    path: str
    rows: int


def load(task: HandwrittenTask) -> sqlite3.Connection:
    """The database."""
    conn = sqlite3.connect(task.path)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        conn.execute(f"PRAGMA {pragma}")
    conn.execute(f"CREATE TABLE bench ({', '.join(COLUMNS)}, PRIMARY KEY (id)) WITHOUT ROWID")
    marks = ", ".join("?" * len(COLUMNS))
    conn.executemany(
        f"INSERT INTO bench VALUES ({marks})",  # noqa: S608 - our own columns
        (msgspec.structs.astuple(row(number)) for number in range(task.rows)),
    )
    conn.commit()
    return conn


async def main(task: HandwrittenTask) -> None:
    """Load, answer, until there is nobody any more who asks."""
    conn = load(task)
    client = await nats.connect(task.url)

    async def respond(message: Msg) -> None:
        [key] = json.loads(message.data)["params"]
        found = conn.execute("SELECT * FROM bench WHERE id = ?", (key,)).fetchall()
        answer = {"columns": COLUMNS, "rows": found, "row_count": len(found), "message": None}
        await message.respond(json.dumps(answer, separators=(",", ":")).encode())

    await client.subscribe(task.subject, cb=respond)
    await client.flush()
    say_ready()
    await wait_go_async()


if __name__ == "__main__":
    run(main(read_task(HandwrittenTask)))
