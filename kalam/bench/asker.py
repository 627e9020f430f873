"""The process that sends SQL over NATS, with a fixed number of requests in flight: each answer lets the next one go."""

from __future__ import annotations

import asyncio
import enum
import json
import time
from collections.abc import Iterator
from itertools import islice

import msgspec
from nats.aio.msg import Msg

from kalam.bench.client import FrameClient, connect, frame
from kalam.bench.rows import scatter
from kalam.bench.task import answer, read_task, run, say_ready, wait_done, wait_go_async


class Asking(enum.StrEnum):
    """What is asked for."""

    POINT = "point"
    UPSERT = "upsert"
    UPDATE = "update"


class AskerTask(msgspec.Struct, kw_only=True):
    """Send ``requests`` requests about ``keys_each`` of the keys 0 … ``keys - 1`` of a table."""

    url: str
    subject: str
    table: str
    asking: Asking
    keys: int
    requests: int
    in_flight: int
    keys_each: int = 1


class Asked(msgspec.Struct, kw_only=True):
    """How many requests were answered with the rows they are about; one at a time also how long each took."""

    requests: int
    seconds: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    problem: str = ""


def requests(task: AskerTask) -> Iterator[bytes]:
    """The requests, each with keys from all over the table, no key twice in one."""
    step = max(1, task.keys // task.keys_each)
    for number in range(task.requests):
        keys = [place * step + scatter(number * task.keys_each + place) % step for place in range(task.keys_each)]
        yield _request(task, keys, number)


def _request(task: AskerTask, keys: list[int], number: int) -> bytes:
    table = task.table
    match task.asking:
        case Asking.POINT:
            body = {"sql": f"SELECT * FROM {table} WHERE id = $1", "params": keys}  # noqa: S608 - our own, here and below
        case Asking.UPDATE:
            body = {"sql": f"UPDATE {table} SET latency = $2 WHERE id = $1", "params": [*keys, number]}  # noqa: S608
        case Asking.UPSERT:
            rows = ", ".join(f"({key}, {number + 0.5}, 'changed')" for key in keys)
            text = f"INSERT INTO {table} (id, latency, tag) VALUES {rows} ON CONFLICT (id) DO UPDATE "  # noqa: S608
            body = {"sql": f"{text}SET latency = excluded.latency, tag = excluded.tag"}
    return json.dumps(body).encode()


class Asker:
    """Sends the next request for each answer."""

    def __init__(self, client: FrameClient, frames: list[bytes], keys_each: int) -> None:
        self._client = client
        self._left: Iterator[bytes] = iter(frames)
        self._unanswered = len(frames)
        self._expected = b'"row_count":%d,' % keys_each
        self._sent_at = 0.0
        self.times_s: list[float] = []
        self.answered = 0
        self.problem = ""
        self.done = asyncio.Event()

    async def begin(self, in_flight: int) -> None:
        """Send the first requests."""
        for message in list(islice(self._left, in_flight)):
            await self._send(message)

    async def _send(self, message: bytes) -> None:
        self._sent_at = time.perf_counter()
        await self._client.write(message)

    async def on_answer(self, message: Msg) -> None:
        """Look whether the answer has the rows, and send the next request."""
        self.times_s.append(time.perf_counter() - self._sent_at)
        if message.headers or self._expected not in message.data:
            self.problem = message.data[:500].decode(errors="replace")
            self.done.set()
            return
        self.answered += 1
        self._unanswered -= 1
        following = next(self._left, None)
        if following is not None:
            await self._send(following)
        elif not self._unanswered:
            self.done.set()


async def main(task: AskerTask) -> None:
    """Prepare, ask, answer."""
    client = await connect(task.url, "asker")
    inbox = client.new_inbox()
    asker = Asker(client, [frame(task.subject, request, inbox) for request in requests(task)], task.keys_each)
    await client.listen(inbox, asker.on_answer)
    await client.flush()
    say_ready()
    await wait_go_async()
    started = time.perf_counter()
    await asker.begin(task.in_flight)
    stalled = await wait_done(asker.done, lambda: asker.answered)
    seconds = time.perf_counter() - started
    times_ms = sorted(time_s * 1e3 for time_s in asker.times_s) or [0.0]
    p50_ms, p99_ms = times_ms[len(times_ms) // 2], times_ms[len(times_ms) * 99 // 100]
    problem = asker.problem or stalled
    answer(Asked(requests=asker.answered, seconds=seconds, p50_ms=p50_ms, p99_ms=p99_ms, problem=problem))
    await client.close()


if __name__ == "__main__":
    run(main(read_task(AskerTask)))
