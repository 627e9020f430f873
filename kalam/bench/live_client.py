"""The process that opens live queries, inserts at an even pace, and takes the time from each insert to its delivery.

Inserter and subscribers are one process, so that one clock and one light client do for all. Every live query pins
``owner`` to a value of its own, and each insert concerns exactly one of them. Next to the bare engine it subscribes to
a subject for each owner and publishes the rows there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import msgspec
from nats.aio.msg import Msg

from kalam.bench.client import FrameClient, connect, frame
from kalam.bench.pace import due
from kalam.bench.task import answer, read_task, run, say_ready, wait_go_async

OPENINGS_AT_ONCE: Final = 100
OPEN_S: Final = 60.0
LATE_S: Final = 10.0
BARE_SUBJECT: Final = "bench.live"


class LiveClientTask(msgspec.Struct, kw_only=True):
    """Open ``queries`` live queries of ``user`` on ``table`` and insert ``inserts`` rows, ``per_s`` each second.

    Without a table: subscribe to as many subjects and publish the rows to them, or, with ``through``, to that subject,
    from which a service passes them on.
    """

    url: str
    user: str
    table: str
    queries: int
    inserts: int
    per_s: int
    through: str = ""


class Delivered(msgspec.Struct, kw_only=True):
    """The time from each insert to its delivery, and how many deliveries came twice or were not asked for."""

    delays_ns: list[int]
    wrong: int
    opened_s: float


class _Row(msgspec.Struct):
    id: int


class _Change(msgspec.Struct):
    row: _Row


class _Message(msgspec.Struct):
    type: str = ""
    changes: list[_Change] = []


class LiveClient:
    """Counts what comes."""

    def __init__(self, client: FrameClient, task: LiveClientTask) -> None:
        self._client, self._task = client, task
        self._sent_ns: list[int] = []
        self._came_ns = [0] * task.inserts
        self._left = task.inserts
        self._wrong = 0
        self._unready = task.queries
        self._ready, self._done = asyncio.Event(), asyncio.Event()
        self._messages = msgspec.json.Decoder(_Message)
        self._rows = msgspec.json.Decoder(_Row)
        self._ids: list[str] = []

    async def open(self) -> None:
        """Open everything and wait until it is."""
        if not self._task.table:
            for number in range(self._task.queries):
                await self._client.subscribe(f"{BARE_SUBJECT}.u{number}", cb=self._on_row)
            await self._client.flush()
            return
        await self._client.listen(f"kalam.live.{self._task.user}.*", self._on_message)
        opening = asyncio.Semaphore(OPENINGS_AT_ONCE)

        async def open_one(number: int) -> None:
            async with opening:
                sql = f"SELECT id, v FROM {self._task.table} WHERE owner = 'u{number}'"  # noqa: S608 - our own table
                body = msgspec.json.encode({"sql": sql, "last_rows": 0})
                msg = await self._client.request(f"kalam.api.{self._task.user}.live", body, timeout=OPEN_S)
                self._ids.append(msgspec.json.decode(msg.data)["id"])

        async with asyncio.TaskGroup() as group:
            for number in range(self._task.queries):
                group.create_task(open_one(number))
        async with asyncio.timeout(OPEN_S):
            await self._ready.wait()

    async def close(self) -> None:
        """End the live queries."""
        for query_id in self._ids:
            await self._client.publish(f"kalam.api.{self._task.user}.live.{query_id}.close")
        await self._client.flush()

    async def pace(self) -> None:
        """Insert each row when it is due, and wait for the last delivery."""
        framed = self._framed()
        async for numbers in due(self._task.inserts, self._task.per_s):
            for number in numbers:
                self._sent_ns.append(time.perf_counter_ns())
                await self._client.write(framed(number))
        try:
            async with asyncio.timeout(LATE_S):
                await self._done.wait()
        except TimeoutError:
            return

    def _framed(self) -> Callable[[int], bytes]:
        task = self._task
        subject = f"kalam.api.{task.user}.insert.{task.table}" if task.table else task.through

        def framed(number: int) -> bytes:
            owner = number % task.queries
            row = b'{"id":%d,"owner":"u%d","v":1.5}' % (number, owner)
            return frame(subject or f"{BARE_SUBJECT}.u{owner}", row)

        return framed

    async def _on_message(self, msg: Msg) -> None:
        message = self._messages.decode(msg.data)
        if message.type == "ready":
            self._unready -= 1
            if not self._unready:
                self._ready.set()
        for change in message.changes:
            self._note(change.row.id)

    async def _on_row(self, msg: Msg) -> None:
        self._note(self._rows.decode(msg.data).id)

    def _note(self, number: int) -> None:
        if self._came_ns[number]:
            self._wrong += 1
            return
        self._came_ns[number] = time.perf_counter_ns()
        self._left -= 1
        if not self._left:
            self._done.set()

    def delivered(self, opened_s: float) -> Delivered:
        """What came."""
        pairs = zip(self._came_ns, self._sent_ns, strict=True)
        delays = [came - sent for came, sent in pairs if came]
        return Delivered(delays_ns=delays, wrong=self._wrong, opened_s=opened_s)


async def main(task: LiveClientTask) -> None:
    """Open, insert, answer."""
    client = await connect(task.url, "live client")
    live = LiveClient(client, task)
    started = time.perf_counter()
    await live.open()
    opened_s = time.perf_counter() - started
    say_ready()
    await wait_go_async()
    await live.pace()
    answer(live.delivered(opened_s))
    await live.close()
    await client.close()


if __name__ == "__main__":
    run(main(read_task(LiveClientTask)))
