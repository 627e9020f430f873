"""The bare engine of a STREAM table: what comes on one subject is published on another, which JetStream captures.

An event that asks for an answer is published as a request, and answered once JetStream has acknowledged it: so the
producer learns the same of its events as it does from Kalam, that they are stored.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec
from nats.aio.msg import Msg

from kalam.bench.client import FrameClient, connect
from kalam.bench.task import answer, read_task, run, say_ready


class RelayTask(msgspec.Struct, kw_only=True):
    """Publish on ``target`` what comes on ``source``, into a stream that holds ``events``."""

    url: str
    source: str
    target: str
    events: int


class Relayed(msgspec.Struct):
    """How many events passed."""

    events: int


class Relay:
    """Passes events on, in order."""

    def __init__(self, client: FrameClient, target: str) -> None:
        self._client, self._target = client, target
        self._acks = client.new_inbox()
        self._asking: dict[str, str] = {}
        self.events = 0

    async def open(self, source: str) -> None:
        """Begin to pass on."""
        await self._client.listen(f"{self._acks}.*", self._take_ack)
        await self._client.listen(source, self._take)

    async def _take(self, message: Msg) -> None:
        self.events += 1
        if message.reply:
            ack = f"{self._acks}.{self.events}"
            self._asking[ack] = message.reply
            await self._client.publish(self._target, message.data, reply=ack)
        else:
            await self._client.publish(self._target, message.data)

    async def _take_ack(self, message: Msg) -> None:
        await self._client.publish(self._asking.pop(message.subject), message.data)


async def main(task: RelayTask) -> None:
    """Make the stream, pass events on until the bench closes our input, answer."""
    client = await connect(task.url, "relay")
    await client.jetstream().add_stream(name="BENCH", subjects=[task.target], max_msgs=task.events, allow_direct=True)
    relay = Relay(client, task.target)
    await relay.open(task.source)
    await client.flush()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    say_ready()
    await ended.wait()
    answer(Relayed(relay.events))
    await client.close()


if __name__ == "__main__":
    run(main(read_task(RelayTask)))
