"""The process that sends events, in bursts under back-pressure or at a fixed pace."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import msgspec
from nats.aio.msg import Msg

from kalam.bench.client import FrameClient, connect, frame, typed_frame
from kalam.bench.pace import due
from kalam.bench.rows import Encoding, paced_payload, payloads
from kalam.bench.task import answer, read_task, run, say_ready, wait_go_async

WINDOW_EVENTS: Final = 500
WINDOWS_IN_FLIGHT: Final = 8
UNSEEN_MAX: Final = 20_000
STALL_S: Final = 60.0
ARROW_STREAM: Final = "application/vnd.apache.arrow.stream"


class ProducerTask(msgspec.Struct, kw_only=True):
    """Send ``events`` events to ``subject``: at ``per_s``, or, if that is 0, as fast as they are acknowledged.

    ``progress`` is where the subscriber reports its count, empty if there is none; what arrives on ``rejected`` was
    refused. Messages of several rows are all acknowledged, of single events the last of each window is. Paced events
    take turns between ``subject`` and ``more_subjects``.
    """

    url: str
    subject: str
    events: int
    per_s: int
    progress: str
    rejected: str
    rows_per_message: int = 1
    encoding: Encoding = Encoding.JSON
    more_subjects: list[str] = []


class Ack(msgspec.Struct):
    """The answer to an insert; the bare engine's has neither."""

    rows: int = 0
    discarded: int = 0


class Produced(msgspec.Struct, kw_only=True):
    """What was sent, and what its acks say of rows; the clock is ``perf_counter_ns``."""

    started_ns: int
    ended_ns: int
    rejected: int
    problem: str = ""
    rows: int = 0
    discarded: int = 0


class Producer:
    """The counts that hold the sending back."""

    def __init__(self, client: FrameClient, task: ProducerTask) -> None:
        self._client, self._task = client, task
        self._acknowledged = 0
        self._seen = 0
        self._moved = asyncio.Event()
        self._window_messages = WINDOW_EVENTS if task.rows_per_message == 1 else 1
        self._window_events = self._window_messages * task.rows_per_message
        self._windows_in_flight = WINDOWS_IN_FLIGHT * WINDOW_EVENTS // self._window_events
        self._acks = msgspec.json.Decoder(Ack)
        self.rows = self.discarded = 0
        self.rejected = 0
        self.problem = ""

    async def on_ack(self, message: Msg) -> None:
        """An answer to the last event of a window."""
        if message.headers or b'"error"' in message.data:
            self.problem = self.problem or message.data.decode(errors="replace")
        else:
            ack = self._acks.decode(message.data)
            self.rows += ack.rows
            self.discarded += ack.discarded
        self._acknowledged += 1
        self._moved.set()

    async def on_progress(self, message: Msg) -> None:
        """The subscriber's count."""
        self._seen = int(message.data)
        self._moved.set()

    async def on_rejected(self, _: Msg) -> None:
        """An event that was refused."""
        self.rejected += 1

    def windows(self, inbox: str) -> list[bytes]:
        """All events as windows of commands; the last of each asks for an answer."""
        task, window = self._task, self._window_messages
        messages = list(payloads(0, task.events, task.rows_per_message, task.encoding))
        frames: list[bytes] = []
        for number, payload in enumerate(messages, 1):
            reply = inbox if number % window == 0 or number == len(messages) else ""
            if task.encoding is Encoding.ARROW:
                frames.append(typed_frame(task.subject, payload, ARROW_STREAM, reply))
            else:
                frames.append(frame(task.subject, payload, reply))
        return [b"".join(frames[start : start + window]) for start in range(0, len(frames), window)]

    async def burst(self, windows: list[bytes]) -> None:
        """Send everything as fast as the answers and the subscriber allow."""
        for number, window in enumerate(windows):
            unseen_from = number * self._window_events - UNSEEN_MAX if self._task.progress else 0
            await self._wait(number - self._windows_in_flight + 1, unseen_from)
            await self._client.write(window)
        await self._wait(len(windows), 0)

    async def pace(self) -> None:
        """Send each event when it is due; a turn of the clock sends all that are."""
        subjects = [self._task.subject, *self._task.more_subjects]
        async for numbers in due(self._task.events, self._task.per_s):
            for number in numbers:
                subject = subjects[number % len(subjects)]
                await self._client.publish(subject, paced_payload(time.perf_counter_ns()))
        await self._client.flush()

    async def _wait(self, acknowledged: int, seen: int) -> None:
        while (self._acknowledged < acknowledged or self._seen < seen) and not self.problem:
            self._moved.clear()
            try:
                async with asyncio.timeout(STALL_S):
                    await self._moved.wait()
            except TimeoutError:
                self.problem = (
                    f"no progress for {STALL_S:g} s: {self._acknowledged} windows answered, {self._seen} seen"
                )


async def main(task: ProducerTask) -> None:
    """Prepare, send, answer."""
    client = await connect(task.url, "producer")
    producer = Producer(client, task)
    inbox = client.new_inbox()
    await client.listen(inbox, producer.on_ack)
    if task.progress:
        await client.listen(task.progress, producer.on_progress)
    await client.listen(task.rejected, producer.on_rejected)
    windows = [] if task.per_s else producer.windows(inbox)
    await client.flush()
    say_ready()
    await wait_go_async()
    started_ns = time.perf_counter_ns()
    await (producer.pace() if task.per_s else producer.burst(windows))
    ended_ns = time.perf_counter_ns()
    produced = Produced(
        started_ns=started_ns,
        ended_ns=ended_ns,
        rejected=producer.rejected,
        problem=producer.problem,
        rows=producer.rows,
        discarded=producer.discarded,
    )
    answer(produced)
    await client.close()


if __name__ == "__main__":
    run(main(read_task(ProducerTask)))
