"""The process whose connections log in, one after the other or all at once; each is a bare socket."""

from __future__ import annotations

import asyncio
import json
import time
from urllib.parse import urlsplit

import msgspec

from kalam.bench.task import answer, read_task, run, say_ready, wait_go_async

LOGIN_S = 60.0


class ComersTask(msgspec.Struct, kw_only=True):
    """Log in ``count`` times, as ``users`` in turn; ``at_once`` on connections that are there already."""

    url: str
    users: list[str]
    password: str
    count: int
    at_once: bool


class Came(msgspec.Struct, kw_only=True):
    """The milliseconds that each took who was let in."""

    login_ms: list[float]


class Comer:
    """A connection on which nobody has logged in yet."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def connected(cls, url: str) -> Comer:
        """One that has heard who the server is."""
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        await reader.readline()
        return cls(reader, writer)

    async def log_in(self, user: str, password: str) -> float | None:
        """How many milliseconds it took; None where the server did not let it in."""
        told = json.dumps({"user": user, "pass": password, "verbose": False, "pedantic": False})
        started = time.perf_counter()
        self._writer.write(f"CONNECT {told}\r\nPING\r\n".encode())
        while (line := await self._reader.readline()).startswith((b"INFO", b"PING")):  # which it may send meanwhile
            pass
        return (time.perf_counter() - started) * 1e3 if line.startswith(b"PONG") else None

    def close(self) -> None:
        """Leave."""
        self._writer.close()


async def main(task: ComersTask) -> None:
    """Prepare, log in, answer."""
    users = [task.users[number % len(task.users)] for number in range(task.count)]
    comers = [await Comer.connected(task.url) for _ in users]
    if not task.at_once:
        await comers[0].log_in(users[0], task.password)  # which is hashed, and then remembered
        comers = [await Comer.connected(task.url) for _ in users]
    say_ready()
    await wait_go_async()
    logins = [comer.log_in(user, task.password) for comer, user in zip(comers, users, strict=True)]
    async with asyncio.timeout(LOGIN_S):
        came = await asyncio.gather(*logins) if task.at_once else [await login for login in logins]
    answer(Came(login_ms=[took for took in came if took is not None]))
    for comer in comers:
        comer.close()


if __name__ == "__main__":
    run(main(read_task(ComersTask)))
