"""The process that reads a key-value bucket as programs do: nats-py's ``watchall``, in asyncio's own loop, to the end.

Before that it makes the bucket and fills it, if it is not there yet.
"""

from __future__ import annotations

import asyncio
import time

import msgspec
from nats.js.errors import NotFoundError
from nats.js.kv import KeyValue

from kalam.bench.client import FrameClient, connect, frame
from kalam.bench.rows import row
from kalam.bench.task import answer, read_task, say_ready, wait_go_async

WINDOW = 500
SITES = 100


class WatchTask(msgspec.Struct, kw_only=True):
    """Read a bucket that holds ``keys``."""

    url: str
    bucket: str
    keys: int


class Watched(msgspec.Struct, kw_only=True):
    """How many keys were read, in how long, and with how much of this process's CPU time."""

    keys: int
    seconds: float
    cpu_s: float


async def filled(client: FrameClient, task: WatchTask) -> KeyValue:
    """The bucket with its keys."""
    stream = client.jetstream()
    try:
        return await stream.key_value(task.bucket)
    except NotFoundError:
        bucket = await stream.create_key_value(bucket=task.bucket)
    inbox = client.new_inbox()
    acks = await client.subscribe(inbox)
    for start in range(0, task.keys, WINDOW):
        numbers = range(start, min(start + WINDOW, task.keys))
        subjects = {number: f"$KV.{task.bucket}.site{number % SITES}.device{number}" for number in numbers}
        await client.write(
            b"".join(
                frame(subject, msgspec.json.encode(row(number)), inbox if number == numbers[-1] else "")
                for number, subject in subjects.items()
            )
        )
        await acks.next_msg(60)
    return bucket


async def main(task: WatchTask) -> None:
    """Prepare, read, answer."""
    client = await connect(task.url, "watcher")
    bucket = await filled(client, task)
    say_ready()
    await wait_go_async()
    started, cpu_s, keys = time.perf_counter(), time.process_time(), 0
    watcher = await bucket.watchall()
    while keys < task.keys:  # nats-py says that it has all of them, too early, where the broker is faster than it
        entry = await watcher.updates(60)  # type: ignore[no-untyped-call] # nats-py's
        keys += entry is not None
    took_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_s
    await watcher.stop()  # type: ignore[no-untyped-call] # nats-py's
    await client.close()
    answer(Watched(keys=keys, seconds=took_s, cpu_s=cpu_s))


if __name__ == "__main__":
    asyncio.run(main(read_task(WatchTask)))
