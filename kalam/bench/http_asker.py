"""The process that reads single rows by key over HTTP, on some connections that stay open."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Final, cast
from urllib.parse import urlsplit

import msgspec

from kalam.bench.asker import Asked
from kalam.bench.rows import scatter
from kalam.bench.task import answer, read_task, run, say_ready, wait_done, wait_go_async

EXPECTED: Final = b'"row_count":1,'


class HttpAskerTask(msgspec.Struct, kw_only=True):
    """Read the rows of ``requests`` of the keys 0 … ``keys - 1`` of a table."""

    url: str
    table: str
    keys: int
    requests: int
    connections: int


def requests(task: HttpAskerTask) -> Iterator[bytes]:
    """The requests as they go over the wire."""
    host = urlsplit(task.url).netloc
    head = f"POST /v1/sql HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: "
    text = f"SELECT * FROM {task.table} WHERE id = $1"  # noqa: S608 - our own table
    for number in range(task.requests):
        body = json.dumps({"sql": text, "params": [scatter(number) % task.keys]})
        yield f"{head}{len(body)}\r\n\r\n{body}".encode()


class Connection(asyncio.Protocol):
    """One connection: each answer lets the next request go."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._received = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def send(self) -> None:
        """Send the next request, if one is left."""
        following = next(self._reads.left, None)
        if following is not None and self._transport is not None:
            self._transport.write(following)

    def data_received(self, data: bytes) -> None:
        """Take what came; a whole answer is judged."""
        self._received += data
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self._received[:head_end].lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(self._received) - head_end - 4 >= length:
            self._reads.note(self._received)
            self._received = b""
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell it where an answer was still to come."""
        self._reads.end("the server closed the connection")


class Reads:
    """What is left to ask, and what was answered."""

    def __init__(self, task: HttpAskerTask) -> None:
        self.left = iter(list(requests(task)))
        self.answered = 0
        self.problem = ""
        self.done = asyncio.Event()
        self._requests = task.requests

    def note(self, response: bytes) -> None:
        """Count an answer."""
        if not response.startswith(b"HTTP/1.1 200 ") or EXPECTED not in response:
            self.end(response[:500].decode(errors="replace"))
        self.answered += 1
        if self.answered == self._requests:
            self.done.set()

    def end(self, problem: str) -> None:
        """Give up, unless everything is answered."""
        if not self.done.is_set():
            self.problem = problem
            self.done.set()


async def main(task: HttpAskerTask) -> None:
    """Prepare, ask, answer."""
    reads, address, loop = Reads(task), urlsplit(task.url), asyncio.get_running_loop()
    assert address.hostname is not None
    assert address.port is not None
    opened = [
        await loop.create_connection(lambda: Connection(reads), address.hostname, address.port)
        for _ in range(task.connections)
    ]
    say_ready()
    await wait_go_async()
    started = time.perf_counter()
    for _, connection in opened:
        connection.send()
    stalled = await wait_done(reads.done, lambda: reads.answered)
    seconds = time.perf_counter() - started
    answer(Asked(requests=reads.answered, seconds=seconds, problem=reads.problem or stalled))


if __name__ == "__main__":
    run(main(read_task(HttpAskerTask)))
