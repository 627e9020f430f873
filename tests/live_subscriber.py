"""A subscriber of live queries as a program in any language would be: plain NATS, and a look at every number."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from patience import PATIENCE_S


class Refused(Exception):
    """The problem object that the server answered with."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(problem["detail"])
        self.code = problem["code"]


@dataclass
class Subscriber:
    """A live query and what came of it, in order; fails at a gap in ``Kalam-Live-Seq``."""

    client: Client
    answer: dict[str, Any]
    user: str
    messages: list[dict[str, Any]] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    subscription: Any = None
    gap: str = ""

    @property
    def id(self) -> str:
        return str(self.answer["id"])

    async def take(self, msg: Msg) -> None:
        number, expected = int(msg.headers["Kalam-Live-Seq"]), len(self.messages) + 1
        if number == expected and not self.gap:
            self.messages.append(json.loads(msg.data))
        else:
            self.gap = self.gap or f"message {expected} did not come, but {number}"
        self.came.set()

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for message in self.of("snapshot") for row in message["rows"]]

    @property
    def changes(self) -> list[dict[str, Any]]:
        return [change for message in self.of("changes") for change in message["changes"]]

    async def wait(self, condition: Callable[[], object]) -> None:
        """Wait until the condition holds; it is looked at after each message."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                assert not self.gap, self.gap
                self.came.clear()
                await self.came.wait()

    async def wait_ready(self) -> None:
        await self.wait(lambda: self.of("ready"))

    async def wait_changes(self, count: int) -> list[dict[str, Any]]:
        await self.wait(lambda: len(self.changes) >= count)
        return self.changes

    async def close(self) -> dict[str, Any]:
        return await ask(self.client, f"kalam.api.{self.user}.live.{self.id}.close", {})


async def ask(client: Client, subject: str, body: Any) -> dict[str, Any]:
    """A request; raises Refused with the problem object."""
    msg = await client.request(subject, json.dumps(body).encode(), timeout=PATIENCE_S)
    answer: dict[str, Any] = json.loads(msg.data)
    if msg.headers and "Nats-Service-Error" in msg.headers:
        raise Refused(answer)
    return answer


async def subscribe(client: Client, sql: str, user: str = "ada", **options: Any) -> Subscriber:
    """Open a live query and listen to it."""
    answer = await ask(client, f"kalam.api.{user}.live", {"sql": sql, **options})
    subscriber = Subscriber(client, answer, user)
    subscriber.subscription = await client.subscribe(answer["subject"], cb=subscriber.take)
    await subscriber.wait_ready()
    return subscriber


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Client]:
    """A plain NATS client."""
    client = await nats.connect(url, error_cb=_ignore, **options)
    try:
        yield client
    finally:
        await client.close()


async def _ignore(error: Exception) -> None:
    """nats-py would print it; the caller sees what fails."""
