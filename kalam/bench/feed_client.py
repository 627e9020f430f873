"""The process that inserts at an even pace and takes the time from each ack to the change on the table's subject.

The ack is sent when the rows are committed, so what a change comes later than its ack is how far the feed is behind the
commits.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

import msgspec
from nats.aio.msg import Msg

from kalam.bench.client import FrameClient, connect, frame
from kalam.bench.pace import due
from kalam.bench.rows import payloads
from kalam.bench.task import answer, read_task, run, say_ready, wait_go_async

LATE_S: Final = 10.0


class FeedClientTask(msgspec.Struct, kw_only=True):
    """Insert ``messages`` messages of ``rows_per_message`` rows into ``table``, ``per_s`` rows each second."""

    url: str
    user: str
    table: str
    messages: int
    rows_per_message: int
    per_s: int


class Behind(msgspec.Struct, kw_only=True):
    """By how much the last change of each message came later than its ack, and how many changes came out of order."""

    delays_ns: list[int]
    received: int
    holes: int


class _Run(msgspec.Struct):
    seq: int
    rows: list[msgspec.Raw]


class FeedClient:
    """Counts acks and changes; the rows of one client are numbered in the order of its messages."""

    def __init__(self, client: FrameClient, task: FeedClientTask) -> None:
        self._client, self._task = client, task
        self._acked_ns = [0] * task.messages
        self._told_ns = [0] * task.messages
        self._decoder = msgspec.json.Decoder(_Run)
        self._next_seq, self._holes, self._acks = 1, 0, 0
        self._inbox = client.new_inbox()
        self._done = asyncio.Event()

    async def open(self) -> None:
        """Listen."""
        await self._client.listen(f"{self._inbox}.*", self._on_ack)
        await self._client.listen(f"kalam.shared.{self._task.table}.insert", self._on_changes)
        await self._client.flush()

    async def pace(self) -> None:
        """Send each message when it is due, and wait for the last change."""
        task = self._task
        subject = f"kalam.api.{task.user}.insert.{task.table}"
        rows = payloads(0, task.messages * task.rows_per_message, task.rows_per_message)
        frames = [frame(subject, payload, f"{self._inbox}.{number}") for number, payload in enumerate(rows)]
        async for numbers in due(task.messages, task.per_s / task.rows_per_message):
            for number in numbers:
                await self._client.write(frames[number])
        try:
            async with asyncio.timeout(LATE_S):
                await self._done.wait()
        except TimeoutError:
            return

    async def _on_ack(self, msg: Msg) -> None:
        self._acked_ns[int(msg.subject.rpartition(".")[2])] = time.perf_counter_ns()
        self._acks += 1
        self._look()

    async def _on_changes(self, msg: Msg) -> None:
        now = time.perf_counter_ns()
        told = self._decoder.decode(msg.data)
        self._holes += told.seq != self._next_seq
        first = (self._next_seq - 1) // self._task.rows_per_message
        self._next_seq = told.seq + len(told.rows)
        for number in range(first, (self._next_seq - 1) // self._task.rows_per_message):
            self._told_ns[number] = now
        self._look()

    def _look(self) -> None:
        if self._acks == self._task.messages and all(self._told_ns[-1:]):
            self._done.set()

    def behind(self) -> Behind:
        """What came."""
        pairs = zip(self._told_ns, self._acked_ns, strict=True)
        delays = [max(0, told - acked) for told, acked in pairs if told and acked]
        return Behind(delays_ns=delays, received=self._next_seq - 1, holes=self._holes)


async def main(task: FeedClientTask) -> None:
    """Prepare, insert, answer."""
    client = await connect(task.url, "feed client")
    feed = FeedClient(client, task)
    await feed.open()
    say_ready()
    await wait_go_async()
    await feed.pace()
    answer(feed.behind())
    await client.close()


if __name__ == "__main__":
    run(main(read_task(FeedClientTask)))
