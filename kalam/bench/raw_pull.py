"""The process that reads a stream as barely as it can be read: a socket, a consumer that pulls, and a parser of MSG.

It keeps what a reader has to keep, the subject, the reply subject with its numbers, the headers and the payload of each
message, a pull at a time, and asks for the next pull before it is done with the last.
"""

from __future__ import annotations

import json
import socket
import time
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from kalam.bench.task import answer, read_task, say_ready, wait_go

PULL_MESSAGES: Final = 10_000
READ_BYTES: Final = 256 << 10
INBOX: Final = "_INBOX.bench"
NANOSECONDS: Final = 1_000_000_000


class PullTask(msgspec.Struct, kw_only=True):
    """Read a stream that holds ``messages``."""

    url: str
    stream: str
    messages: int


class Pulled(msgspec.Struct, kw_only=True):
    """How many messages and bytes of payload were read, in how long, and with how much of this process's CPU time."""

    messages: int
    bytes: int
    seconds: float
    cpu_s: float


class RawPull:
    """One connection, and what has come of the pull that is open."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        assert address.hostname is not None
        self._socket = socket.create_connection((address.hostname, address.port or 4222))
        self._unread = b""
        self.subjects: list[bytes] = []
        self.replies: list[bytes] = []
        self.headers: list[bytes] = []
        self.payloads: list[bytes] = []
        self._send(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n')
        self._send(f"SUB {INBOX}.* 1\r\n".encode())

    def ask(self, subject: str, body: Any) -> dict[str, Any]:
        """The answer to a request."""
        self._publish(subject, f"{INBOX}.0", body)
        while not self.payloads:
            self._read()
        [told] = self.take()
        return dict(json.loads(told))

    def take(self) -> list[bytes]:
        """The payloads of what has come, and begin anew."""
        payloads = self.payloads
        self.subjects, self.replies, self.headers, self.payloads = [], [], [], []
        return payloads

    def pull(self, subject: str, count: int) -> None:
        """Ask for messages."""
        self._publish(subject, f"{INBOX}.1", {"batch": count, "no_wait": True})

    def wait(self, count: int) -> None:
        """Read until so many messages have come."""
        while len(self.payloads) < count:
            self._read()

    def _publish(self, subject: str, reply: str, body: Any) -> None:
        payload = json.dumps(body).encode()
        self._send(f"PUB {subject} {reply} {len(payload)}\r\n".encode() + payload + b"\r\n")

    def _send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def _read(self) -> None:
        part = self._socket.recv(READ_BYTES)
        if not part:
            raise ConnectionError("the broker closed the connection")
        data = self._unread + part
        place, size = 0, len(data)
        while (end := data.find(b"\r\n", place)) >= 0:
            words = data[place:end].split()
            if words[0] not in (b"MSG", b"HMSG"):
                if words[0] == b"PING":
                    self._send(b"PONG\r\n")
                place = end + 2
                continue
            following = end + 4 + int(words[-1])
            if following > size:
                break
            begin = end + 2 + (int(words[-2]) if words[0] == b"HMSG" else 0)
            self.subjects.append(words[1])
            self.replies.append(words[3])
            self.headers.append(data[end + 2 : begin])
            self.payloads.append(data[begin : following - 2])
            place = following
        self._unread = data[place:]


def main(task: PullTask) -> None:
    """Prepare, read, answer."""
    link = RawPull(task.url)
    config = {
        "ack_policy": "none",
        "deliver_policy": "all",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": 60 * NANOSECONDS,
        "name": "bare",
    }
    link.ask(f"$JS.API.CONSUMER.CREATE.{task.stream}.bare", {"stream_name": task.stream, "config": config})
    say_ready()
    wait_go()
    started, cpu_s = time.perf_counter(), time.process_time()
    api, left, read, size = f"$JS.API.CONSUMER.MSG.NEXT.{task.stream}.bare", task.messages, 0, 0
    count = min(left, PULL_MESSAGES)
    link.pull(api, count)
    while count:
        link.wait(count)
        left -= count
        following = min(left, PULL_MESSAGES)
        if following:
            link.pull(api, following)
        payloads = link.take()
        read += len(payloads)
        size += sum(map(len, payloads))
        count = following
    took_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_s
    link.ask(f"$JS.API.CONSUMER.DELETE.{task.stream}.bare", {})
    answer(Pulled(messages=read, bytes=size, seconds=took_s, cpu_s=cpu_s))


if __name__ == "__main__":
    main(read_task(PullTask))
