"""The process that listens with many connections and counts messages where they arrive, on the socket.

A client library for each of twenty subscribers would take from the machine what is measured. So a connection is a
socket that looks for the heads of messages, and knows of the protocol no more than how to subscribe and to answer a
ping. Nothing in the rows of a bench looks like either.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from typing import Final, cast
from urllib.parse import urlsplit

import msgspec

from kalam.bench.task import answer, read_task, run, say_ready

PROGRESS_EVENTS: Final = 1_000
CONNECTED_S: Final = 30.0
CONNECTING_AT_ONCE: Final = 100
SPARE_FILES: Final = 100


class ListenersTask(msgspec.Struct, kw_only=True):
    """Listen with ``connections`` connections to ``subjects`` until each has heard ``expected`` messages.

    ``{connection}`` in a subject becomes the connection's number. On ``progress`` is reported what all have heard. With
    nothing expected it listens until the bench closes its input.
    """

    url: str
    connections: int
    subjects: list[str]
    expected: int = 0
    progress: str = ""


class Heard(msgspec.Struct, kw_only=True):
    """How many messages each connection heard, and when the last came; the clock is ``perf_counter_ns``.

    ``lost`` connections were cut off.
    """

    counts: list[int]
    last_ns: int
    lost: int


class Pattern:
    """Counts some bytes in what comes in pieces, also where a piece ends within them."""

    def __init__(self, pattern: bytes) -> None:
        self._pattern, self._reach = pattern, len(pattern) - 1
        self._tail = b""

    def count(self, piece: bytes) -> int:
        """How often the pattern ends in this piece."""
        seam = self._tail + piece[: self._reach]
        self._tail = (self._tail + piece[-self._reach :])[-self._reach :]
        return piece.count(self._pattern) + seam.count(self._pattern)


class Listener(asyncio.Protocol):
    """One connection."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        self._crowd, self._number = crowd, number
        self._heads, self._pings, self._pongs = Pattern(b"MSG "), Pattern(b"PING\r\n"), Pattern(b"PONG\r\n")
        self._transport: asyncio.Transport | None = None
        self._subscribed = asyncio.Event()
        self.heard = 0
        self.lost = False

    async def connect(self) -> None:
        """Connect, and wait until the subscriptions are made."""
        address = urlsplit(self._crowd.task.url)
        await asyncio.get_running_loop().create_connection(lambda: self, str(address.hostname), address.port or 0)
        await self._subscribed.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Subscribe; the answer to our ping proves that it was understood."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        subjects = [subject.replace("{connection}", str(self._number)) for subject in self._crowd.task.subjects]
        subscriptions = "".join(f"SUB {subject} {sid}\r\n" for sid, subject in enumerate(subjects, 1))
        self.write(f'CONNECT {{"verbose":false,"name":"kalam bench listener"}}\r\n{subscriptions}PING\r\n'.encode())

    def data_received(self, data: bytes) -> None:
        """Count."""
        if self._pings.count(data):
            self.write(b"PONG\r\n")
        if not self._subscribed.is_set() and self._pongs.count(data):
            self._subscribed.set()
        if heads := self._heads.count(data):
            before, self.heard = self.heard, self.heard + heads
            self._crowd.note(before, self.heard)

    def connection_lost(self, exc: Exception | None) -> None:
        """The broker cut us off: what it had for us is lost, and that is for the bench to say."""
        self.lost = True
        self._crowd.done.set()

    def write(self, commands: bytes) -> None:
        """Send whole commands."""
        assert self._transport is not None
        self._transport.write(commands)


class Crowd:
    """All connections."""

    def __init__(self, task: ListenersTask) -> None:
        self.task = task
        self.done = asyncio.Event()
        self._listeners = [Listener(self, number) for number in range(task.connections)]
        self._last_ns = 0
        self._reported = 0

    async def connect(self) -> None:
        """Connect and subscribe, some at once."""
        for start in range(0, len(self._listeners), CONNECTING_AT_ONCE):
            async with asyncio.timeout(CONNECTED_S), asyncio.TaskGroup() as group:
                for listener in self._listeners[start : start + CONNECTING_AT_ONCE]:
                    group.create_task(listener.connect())

    def note(self, before: int, heard: int) -> None:
        """A connection has heard more; the slowest one's count is what holds the producer back."""
        if before // PROGRESS_EVENTS == heard // PROGRESS_EVENTS and heard < self.task.expected:
            return
        slowest = min(listener.heard for listener in self._listeners)
        if self.task.progress and slowest // PROGRESS_EVENTS > self._reported // PROGRESS_EVENTS:
            self._reported = slowest
            self._listeners[0].write(f"PUB {self.task.progress} {len(str(slowest))}\r\n{slowest}\r\n".encode())
        if slowest >= self.task.expected > 0:
            self._last_ns = self._last_ns or time.perf_counter_ns()
            self.done.set()

    def heard(self) -> Heard:
        """What came so far."""
        return Heard(
            counts=[listener.heard for listener in self._listeners],
            last_ns=self._last_ns or time.perf_counter_ns(),
            lost=sum(listener.lost for listener in self._listeners),
        )


async def main(task: ListenersTask) -> None:
    """Connect, count until all have everything or the bench does not want to wait any more, answer."""
    _allow_files(task.connections + SPARE_FILES)
    crowd = Crowd(task)
    await crowd.connect()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), crowd.done.set)
    say_ready()
    await crowd.done.wait()
    answer(crowd.heard())


def _allow_files(count: int) -> None:
    """A process may usually open 1,024 files, and more if it asks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (count if hard == resource.RLIM_INFINITY else min(count, hard), hard)
        )


if __name__ == "__main__":
    run(main(read_task(ListenersTask)))
