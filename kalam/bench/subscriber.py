"""The process that receives: it counts single events, takes the time of each, or counts the rows of change messages."""

from __future__ import annotations

import asyncio
import enum
import sys
import time
from typing import Final

import msgspec
from nats.aio.msg import Msg

from kalam.bench.client import FrameClient, connect
from kalam.bench.task import answer, read_task, run, say_ready

PROGRESS_EVENTS: Final = 1_000


class Reading(enum.StrEnum):
    """How a message is read."""

    COUNT = "count"
    DELAY = "delay"
    CHANGES = "changes"


class SubscriberTask(msgspec.Struct, kw_only=True):
    """Receive ``expected`` events or rows on ``subject``; report the count on ``progress`` now and then.

    With ``consumer`` they come by an ordered consumer of the stream of that subject, from now on.
    """

    url: str
    subject: str
    reading: Reading
    expected: int
    progress: str
    consumer: bool = False


class Received(msgspec.Struct, kw_only=True):
    """What came. ``holes`` counts changes whose number is not the next; ``delays_ns`` is there for DELAY."""

    received: int
    first_ns: int
    last_ns: int
    holes: int = 0
    delays_ns: list[int] = []


class Keyed(msgspec.Struct):
    """The one column of an event that is read: its key is the instant at which it was sent."""

    id: int


class Run(msgspec.Struct):
    """A change message: the first number and the rows."""

    seq: int
    rows: list[msgspec.Raw]


class Subscriber:
    """Counts what comes."""

    def __init__(self, client: FrameClient, task: SubscriberTask) -> None:
        self._client, self._task = client, task
        self._received = 0
        self._first_ns = self._last_ns = 0
        self._holes = 0
        self._next_seq = 1
        self._delays_ns: list[int] = []
        self._keyed = msgspec.json.Decoder(Keyed)
        self._run = msgspec.json.Decoder(Run)
        self.done = asyncio.Event()

    async def on_event(self, _: Msg) -> None:
        """Count one event."""
        self._received += 1
        if self._received % PROGRESS_EVENTS == 0:
            await self._client.publish(self._task.progress, b"%d" % self._received)
        if self._received >= self._task.expected or self._received == 1:
            self._note_time()

    async def on_paced(self, message: Msg) -> None:
        """Take the time that one event needed."""
        now = time.perf_counter_ns()
        self._delays_ns.append(now - self._keyed.decode(message.data).id)
        self._received += 1
        if self._received >= self._task.expected or self._received == 1:
            self._note_time()

    async def on_changes(self, message: Msg) -> None:
        """Count the rows of a run of changes, and whether it is the next."""
        run = self._run.decode(message.data)
        self._holes += run.seq != self._next_seq
        self._next_seq = run.seq + len(run.rows)
        self._received += len(run.rows)
        self._note_time()

    def _note_time(self) -> None:
        self._last_ns = time.perf_counter_ns()
        self._first_ns = self._first_ns or self._last_ns
        if self._received >= self._task.expected:
            self.done.set()

    def received(self) -> Received:
        """What came so far."""
        return Received(
            received=self._received,
            first_ns=self._first_ns,
            last_ns=self._last_ns,
            holes=self._holes,
            delays_ns=self._delays_ns,
        )


async def main(task: SubscriberTask) -> None:
    """Subscribe, count until everything came or the bench does not want to wait any more, answer."""
    client = await connect(task.url, "subscriber")
    subscriber = Subscriber(client, task)
    callbacks = {
        Reading.COUNT: subscriber.on_event,
        Reading.DELAY: subscriber.on_paced,
        Reading.CHANGES: subscriber.on_changes,
    }
    if task.consumer:
        await client.consume(task.subject, callbacks[task.reading])
    else:
        await client.listen(task.subject, callbacks[task.reading])
    await client.flush()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), subscriber.done.set)
    say_ready()
    await subscriber.done.wait()
    answer(subscriber.received())
    await client.close()


if __name__ == "__main__":
    run(main(read_task(SubscriberTask)))
