"""A client of PostgreSQL's protocol that sends what it likes, and what a server said to it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from patience import PATIENCE_S
from server_process import ServerProcess

STARTUP = struct.pack(">i", 196608) + b"user\0admin\0database\0kalam\0\0"


class Raw:
    """A client that sends what it likes."""

    def __init__(self, server: ServerProcess, *, greet: bool = True) -> None:
        host, port = str(server.announcement["pg_url"]).removeprefix("postgresql://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
        self.rest = b""
        if greet:
            self.socket.sendall(struct.pack(">i", len(STARTUP) + 4) + STARTUP)
            self.key = next(body for kind, body in self.until(b"Z") if kind == b"K")

    def send(self, kind: bytes, body: bytes = b"") -> None:
        self.socket.sendall(kind + struct.pack(">i", len(body) + 4) + body)

    def messages(self) -> Iterator[tuple[bytes, bytes]]:
        while True:
            while len(self.rest) < 5 or len(self.rest) < 1 + struct.unpack(">i", self.rest[1:5])[0]:
                data = self.socket.recv(65_536)
                if not data:
                    return
                self.rest += data
            size = 1 + struct.unpack(">i", self.rest[1:5])[0]
            found, self.rest = self.rest[:size], self.rest[size:]
            yield found[:1], found[5:]

    def until(self, kind: bytes) -> list[tuple[bytes, bytes]]:
        """The messages up to one of a kind, or all up to the end."""
        found = []
        for message in self.messages():
            found.append(message)
            if message[0] == kind:
                break
        return found

    def query(self, text: str) -> list[tuple[bytes, bytes]]:
        self.send(b"Q", text.encode() + b"\0")
        return self.until(b"Z")

    def ends(self) -> bool:
        try:
            return all(kind in (b"E", b"N", b"A") for kind, _ in self.until(b"?")) or True
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.socket.close()


def kinds(messages: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(kind for kind, _ in messages)


def code(messages: list[tuple[bytes, bytes]]) -> str:
    body = next(body for kind, body in messages if kind == b"E")
    return next(part[1:].decode() for part in body.split(b"\0") if part.startswith(b"C"))
