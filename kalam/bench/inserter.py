"""The process that inserts rows by request and reply, with a fixed number of messages in flight.

Each answer lets the next message go, so there is no future and no timer for a message: the client stays light.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import islice

import msgspec
from nats.aio.msg import Msg

from kalam.bench.client import FrameClient, connect, frame
from kalam.bench.rows import payloads
from kalam.bench.task import answer, read_task, run, say_ready, wait_done, wait_go_async


class InserterTask(msgspec.Struct, kw_only=True):
    """Insert ``rows`` rows from number ``first`` on through ``subject``."""

    url: str
    subject: str
    first: int
    rows: int
    rows_per_message: int
    in_flight: int
    random_keys: bool = False


class Acknowledged(msgspec.Struct, kw_only=True):
    """What was acknowledged; the clock is ``perf_counter_ns``."""

    rows: int
    started_ns: int
    ended_ns: int
    payload_bytes: int = 0
    problem: str = ""

    @property
    def seconds(self) -> float:
        """From the first row to the last ack."""
        return (self.ended_ns - self.started_ns) / 1e9


class Count(msgspec.Struct):
    """The answer to an insert."""

    rows: int


class Inserter:
    """Sends the next message for each answer."""

    def __init__(self, client: FrameClient, messages: list[bytes]) -> None:
        self._client = client
        self._left: Iterator[bytes] = iter(messages)
        self._unanswered = len(messages)
        self._decoder = msgspec.json.Decoder(Count)
        self.rows = 0
        self.problem = ""
        self.done = asyncio.Event()

    async def begin(self, in_flight: int) -> None:
        """Send the first messages."""
        for message in list(islice(self._left, in_flight)):
            await self._client.write(message)

    async def on_answer(self, message: Msg) -> None:
        """Count what was stored, and send the next message."""
        if message.headers:
            self.problem = message.data.decode(errors="replace") or str(message.headers)
            self.done.set()
            return
        self.rows += self._decoder.decode(message.data).rows
        self._unanswered -= 1
        following = next(self._left, None)
        if following is not None:
            await self._client.write(following)
        elif not self._unanswered:
            self.done.set()

    async def wait(self) -> None:
        """Wait for the last answer, or until none has come for a while."""
        self.problem = await wait_done(self.done, lambda: self.rows) or self.problem


async def main(task: InserterTask) -> None:
    """Prepare, insert, answer."""
    client = await connect(task.url, "inserter")
    inbox = client.new_inbox()
    encoded = list(payloads(task.first, task.rows, task.rows_per_message, random_keys=task.random_keys))
    inserter = Inserter(client, [frame(task.subject, payload, inbox) for payload in encoded])
    await client.listen(inbox, inserter.on_answer)
    await client.flush()
    say_ready()
    await wait_go_async()
    started_ns = time.perf_counter_ns()
    await inserter.begin(task.in_flight)
    await inserter.wait()
    ended_ns = time.perf_counter_ns()
    acknowledged = Acknowledged(
        rows=inserter.rows,
        started_ns=started_ns,
        ended_ns=ended_ns,
        payload_bytes=sum(map(len, encoded)),
        problem=inserter.problem,
    )
    answer(acknowledged)
    await client.close()


if __name__ == "__main__":
    run(main(read_task(InserterTask)))
