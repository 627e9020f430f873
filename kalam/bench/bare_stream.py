"""The process that makes a stream of JetStream, for events that are published into it by hand."""

from __future__ import annotations

import msgspec

from kalam.bench.client import connect
from kalam.bench.task import read_task, run, say_ready


class StreamTask(msgspec.Struct, kw_only=True):
    """Make the stream ``name`` of ``subject``, which holds ``events``."""

    url: str
    name: str
    subject: str
    events: int


async def main(task: StreamTask) -> None:
    """Make it."""
    client = await connect(task.url, "stream")
    await client.jetstream().add_stream(
        name=task.name, subjects=[task.subject], max_msgs=task.events, allow_direct=True
    )
    await client.close()
    say_ready()


if __name__ == "__main__":
    run(main(read_task(StreamTask)))
