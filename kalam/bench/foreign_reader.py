"""The process that reads a stream as Kalam does, and decodes nothing."""

from __future__ import annotations

import time

from kalam.bench.raw_pull import Pulled, PullTask
from kalam.bench.task import answer, read_task, run, say_ready, wait_go_async
from kalam.foreign import Over
from kalam.outside import open_foreign
from kalam.sql.queries.scan_bounds import NO_BOUNDS


async def main(task: PullTask) -> None:
    """Prepare, read, answer."""
    async with open_foreign(task.url) as streams:
        await streams.state(Over(task.stream))
        say_ready()
        await wait_go_async()
        started, cpu_s = time.perf_counter(), time.process_time()
        read = size = 0
        async for messages in streams.read(Over(task.stream), 0, NO_BOUNDS):
            read += len(messages)
            size += sum(map(len, messages.payloads))
        took_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_s
    answer(Pulled(messages=read, bytes=size, seconds=took_s, cpu_s=cpu_s))


if __name__ == "__main__":
    run(main(read_task(PullTask)))
