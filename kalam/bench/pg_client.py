"""A client of PostgreSQL's protocol that does as little as can be done: a socket, messages out, and messages in.

It is the same for a Kalam and a PostgreSQL. A driver would take from the machine more than what is measured.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

VERSION: Final = 3 << 16
READ_BYTES: Final = 1 << 20
SYNC: Final = b"S\0\0\0\x04"
COPY_DONE: Final = b"c\0\0\0\x04"
_LENGTH: Final = struct.Struct(">I")


class Refused(Exception):
    """What the server said instead."""


class PgClient:
    """One connection, logged in without a password. Use it as a context manager."""

    def __init__(self, url: str, user: str) -> None:
        address = urlsplit(url)
        assert address.hostname is not None
        self._socket = socket.create_connection((address.hostname, address.port or 5432))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unread = b""
        self.first_row_at = 0.0
        startup = _LENGTH.pack(VERSION) + f"user\0{user}\0database\0postgres\0\0".encode()
        self._socket.sendall(_LENGTH.pack(len(startup) + 4) + startup)
        self.until_ready()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """The socket, for who waits for several."""
        return self._socket.fileno()

    def send(self, data: bytes) -> None:
        """Send messages."""
        self._socket.sendall(data)

    def run(self, text: str) -> str:
        """Carry statements out, and what the last one's tag is; raises Refused."""
        self.send(query(text))
        return self.until_ready()[1]

    def until_ready(self) -> tuple[int, str]:
        """How many rows come until the server waits for the next query, and the last tag; raises Refused.

        When the first came is kept in ``first_row_at``, by ``perf_counter``.
        """
        rows, tag, problem = 0, "", ""
        for batch in self.pieces():
            place, end, ready = 0, len(batch), False
            while place < end:  # one turn a row: no call that can be spared
                kind = batch[place]
                size = 1 + int.from_bytes(batch[place + 1 : place + 5])
                if kind == 68:  # D
                    if not rows:
                        self.first_row_at = time.perf_counter()
                    rows += 1
                elif kind == 67:  # C
                    tag = batch[place + 5 : place + size - 1].decode()
                elif kind == 69:  # E
                    problem = problem or batch[place + 5 : place + size].replace(b"\0", b" ").decode(errors="replace")
                elif kind == 90:  # Z
                    ready = True
                place += size
            if ready:
                break
        if problem:
            raise Refused(problem)
        return rows, tag

    def until(self, kind: bytes) -> None:
        """Read up to a message of a kind that nothing follows unasked; raises Refused."""
        for batch in self.pieces():
            if batch[:1] == b"E":
                raise Refused(batch.replace(b"\0", b" ").decode(errors="replace"))
            if batch[:1] == kind:
                return

    def pieces(self) -> Iterator[bytes]:
        """What comes, in pieces of whole messages; raises Refused where the server hangs up."""
        while True:
            end = _whole(self._unread)
            if end:
                found, self._unread = self._unread[:end], self._unread[end:]
                yield found
            else:
                data = self._socket.recv(READ_BYTES)
                if not data:
                    raise Refused("the server hung up")
                self._unread += data


def _whole(data: bytes) -> int:
    """Where the last whole message ends."""
    place, end = 0, len(data)
    while place + 5 <= end:
        size = 1 + int.from_bytes(data[place + 1 : place + 5])
        if place + size > end:
            break
        place += size
    return place


def query(text: str) -> bytes:
    """Query: statements by the simple protocol."""
    return _message(b"Q", text.encode() + b"\0")


def parse(name: str, text: str) -> bytes:
    """Parse: a statement under a name; the types of its parameters are left to the server."""
    return _message(b"P", name.encode() + b"\0" + text.encode() + b"\0\0\0")


def bind(name: str, values: Sequence[bytes], *, binary: bool = False) -> bytes:
    """Bind: parameters as text; ``binary`` is what comes back."""
    cells = b"".join(_LENGTH.pack(len(value)) + value for value in values)
    head = b"\0" + name.encode() + b"\0\0\0" + struct.pack(">H", len(values))
    return _message(b"B", head + cells + struct.pack(">HH", 1, binary))


def execute(*, described: bool = False) -> bytes:
    """Execute what was bound, to its end; ``described``: with the question what its columns are, as drivers have it."""
    asked = _message(b"E", b"\0\0\0\0\0")
    return _message(b"D", b"P\0") + asked if described else asked


def copy_data(data: bytes) -> bytes:
    """CopyData."""
    return _message(b"d", data)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + _LENGTH.pack(len(body) + 4) + body
