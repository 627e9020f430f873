"""What inserts are compared with: the consumer that one writes by hand with nats-py, SQLite and JSON.

What has come while the disk was busy is one transaction, after which every message gets its answer: one fsync for
many messages, as a developer does it who has measured. It runs in the event loop: a thread for it costs more.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from typing import Any

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from kalam.bench.task import read_task, run, say_ready, wait_go_async


class StoreTask(msgspec.Struct, kw_only=True):
    """Store the rows that come on ``subject`` in a new database at ``path``, which has these columns, by the first.

    With ``told`` each row, which is then a message of its own, is published on ``told.<owner>`` once it is stored.
    """

    url: str
    subject: str
    path: str
    columns: list[str]
    told: str = ""


class Store:
    """The database, and the messages whose rows are not in it yet."""

    def __init__(self, task: StoreTask, client: Client, conn: sqlite3.Connection) -> None:
        self._client, self._conn, self._told = client, conn, task.told
        key, *others = task.columns
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            conn.execute(f"PRAGMA {pragma}")
        conn.execute(f"CREATE TABLE rows ({', '.join([f'{key} INTEGER PRIMARY KEY', *others])})")
        marks = ", ".join(f":{name}" for name in task.columns)
        self._insert = f"INSERT INTO rows VALUES ({marks})"  # noqa: S608 - our own columns
        self._waiting: list[Msg] = []
        self._came = asyncio.Event()

    async def take(self, message: Msg) -> None:
        """Keep a message for the next transaction."""
        self._waiting.append(message)
        self._came.set()

    async def store(self) -> None:
        """Store what has come, for ever."""
        while True:
            await self._came.wait()
            self._came.clear()
            messages, self._waiting = self._waiting, []
            contents = [json.loads(message.data) for message in messages]
            with self._conn:
                for content in contents:
                    self._conn.executemany(self._insert, content if isinstance(content, list) else [content])
            for message, content in zip(messages, contents, strict=True):
                await self._tell(message, content)

    async def _tell(self, message: Msg, content: Any) -> None:
        if message.reply:
            await message.respond(b'{"rows":%d}' % (len(content) if isinstance(content, list) else 1))
        if self._told:
            await self._client.publish(f"{self._told}.{content['owner']}", message.data)


async def main(task: StoreTask) -> None:
    """Store, until there is nobody any more who sends."""
    client = await nats.connect(task.url)
    with closing(sqlite3.connect(task.path)) as conn:
        store = Store(task, client, conn)
        await client.subscribe(task.subject, cb=store.take)
        await client.flush()
        storing = asyncio.create_task(store.store(), name="store")
        say_ready()
        await wait_go_async()
        storing.cancel()


if __name__ == "__main__":
    run(main(read_task(StoreTask)))
