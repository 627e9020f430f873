"""The process that sends one event now and then, and takes the time of each answer."""

from __future__ import annotations

import asyncio
import time

import msgspec

from kalam.bench.client import connect
from kalam.bench.producer import Ack
from kalam.bench.rows import payloads
from kalam.bench.task import answer, read_task, run, say_ready, wait_go_async

ANSWERED_S = 10.0


class ProberTask(msgspec.Struct, kw_only=True):
    """Send ``events`` events to ``subject``, one each ``every_s`` seconds."""

    url: str
    subject: str
    events: int
    every_s: float


class Probed(msgspec.Struct, kw_only=True):
    """The milliseconds to each answer, and how many events were discarded."""

    ms: list[float]
    discarded: int


async def main(task: ProberTask) -> None:
    """Prepare, send, answer."""
    client = await connect(task.url, "prober")
    messages = list(payloads(0, task.events + 1, 1))
    await client.request(task.subject, messages.pop(), timeout=ANSWERED_S)  # the first opens the way of the answers
    say_ready()
    await wait_go_async()
    ms, discarded = [], 0
    for message in messages:
        await asyncio.sleep(task.every_s)
        started = time.perf_counter()
        reply = await client.request(task.subject, message, timeout=ANSWERED_S)
        ms.append((time.perf_counter() - started) * 1e3)
        discarded += msgspec.json.decode(reply.data, type=Ack).discarded
    answer(Probed(ms=ms, discarded=discarded))
    await client.close()


if __name__ == "__main__":
    run(main(read_task(ProberTask)))
