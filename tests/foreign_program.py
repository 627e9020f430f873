"""A program that knows the contract alone: plain nats-py, plain HTTP, and nothing of Kalam's own code."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from nats.aio.client import Client
from patience import PATIENCE_S
from server_process import ServerProcess


@dataclass(frozen=True)
class Answer:
    """A reply or an event: its headers, its body, and for an event its subject."""

    headers: dict[str, str]
    body: bytes
    subject: str = ""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The error's code; None for a success."""
        return self.json["code"] if "Nats-Service-Error" in self.headers else None

    @property
    def detail(self) -> str:
        return str(self.json["detail"])


@dataclass(frozen=True)
class Program:
    """A client of one server."""

    server: ServerProcess
    broker: Client

    async def insert(
        self, table: str, payload: Any, *, user: str = "ann", headers: dict[str, str] | None = None
    ) -> Answer:
        """Insert into ``ns.table`` and wait for the reply; anything but bytes is sent as JSON."""
        return await self.ask(f"kalam.api.{user}.insert.{table}", payload, headers)

    async def ask(self, subject: str, payload: Any, headers: dict[str, str] | None = None) -> Answer:
        """One request and its reply."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        reply = await self.broker.request(subject, body, timeout=PATIENCE_S, headers=headers)
        return Answer(dict(reply.headers or {}), reply.data)

    async def ask_sql(self, text: str, *params: Any, user: str = "ann", namespace: str | None = None) -> Answer:
        """A request on the SQL subject, the parts of its reply put together."""
        inbox = self.broker.new_inbox()
        listening = await self.broker.subscribe(inbox)
        request = {"sql": text, "params": params, "namespace": namespace}
        await self.broker.publish(f"kalam.api.{user}.sql", json.dumps(request).encode(), reply=inbox)
        last = await listening.next_msg(PATIENCE_S)
        headers, body = dict(last.headers or {}), last.data
        while "Kalam-Part" in (last.headers or {}):
            last = await listening.next_msg(PATIENCE_S)
            body += last.data
        await listening.unsubscribe()
        return Answer(headers, body)

    async def listen(self, subject: str) -> Callable[[], Awaitable[Answer]]:
        """Subscribe; the returned function waits for the next message."""
        listening = await self.broker.subscribe(subject)
        await self.broker.flush()

        async def next_message() -> Answer:
            msg = await listening.next_msg(PATIENCE_S)
            return Answer(dict(msg.headers or {}), msg.data, msg.subject)

        return next_message

    async def post(self, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
        """``POST /v1/sql`` of raw bytes: status, headers and body."""
        return await asyncio.to_thread(self._post, body, {"Content-Type": "application/json"} | (headers or {}))

    def _post(self, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(urlsplit(self.server.http_url).netloc, timeout=PATIENCE_S)
        try:
            connection.request("POST", "/v1/sql", body, headers)
            response = connection.getresponse()
            return response.status, {name.lower(): text for name, text in response.getheaders()}, response.read()
        finally:
            connection.close()
