"""A server with authentication in this process, whose tables get policies."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import nats
import nats.aio.client
import pytest
from patience import PATIENCE_S

from kalam.server import Running, open_server
from kalam.settings import Settings

PASSWORD = "a right good password"


class Refused(Exception):
    """An answer that is no 200."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(f"{status} {problem.get('code')}: {problem.get('detail')}")
        self.code, self.detail, self.problem = str(problem.get("code")), str(problem.get("detail")), problem


class PolicyServer:
    """Asks a running server as any of its users."""

    def __init__(self, running: Running, client: httpx.AsyncClient) -> None:
        self.running, self.client = running, client

    def headers(self, user: str) -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()}

    async def result(self, user: str, sql: str, *params: Any) -> dict[str, Any]:
        answer = await self.client.post(
            f"{self.running.http_url}/v1/sql", json={"sql": sql, "params": params}, headers=self.headers(user)
        )
        if answer.status_code != 200:
            raise Refused(answer.status_code, answer.json())
        return dict(answer.json()["results"][-1])

    async def rows(self, user: str, sql: str, *params: Any) -> list[list[Any]]:
        return list((await self.result(user, sql, *params)).get("rows", []))

    async def code(self, user: str, sql: str, *params: Any) -> str:
        try:
            await self.result(user, sql, *params)
        except Refused as exc:
            return exc.code
        return "ok"

    async def users(self, *names: str) -> None:
        for name in names:
            await self.result("admin", f"CREATE USER {name} PASSWORD $1", PASSWORD)

    async def secure(self, table: str, *, on: bool = True) -> None:
        await self.result("admin", f"ALTER TABLE {table} {'ENABLE' if on else 'DISABLE'} ROW LEVEL SECURITY")

    async def policy(
        self,
        table: str,
        using: str | None = None,
        *,
        name: str = "p",
        check: str | None = None,
        command: str = "ALL",
        to: str = "PUBLIC",
    ) -> None:
        """CREATE POLICY, or another one in its place."""
        expressions = "" if using is None else f" USING ({using})"
        if check is not None:
            expressions += f" WITH CHECK ({check})"
        await self.result("admin", f"DROP POLICY IF EXISTS {name} ON {table}")
        await self.result("admin", f"CREATE POLICY {name} ON {table} FOR {command} TO {to}{expressions}")

    async def connect(self, user: str, **options: Any) -> nats.aio.client.Client:
        return await nats.connect(
            self.running.nats_url,
            user=user,
            password=PASSWORD,
            inbox_prefix=f"_INBOX.{user}",
            allow_reconnect=False,
            **options,
        )


@asynccontextmanager
async def policy_server(folder: Path, **settings: Any) -> AsyncIterator[PolicyServer]:
    """A server whose administrator is ``admin``."""
    wanted = Settings(data_dir=folder / "data", auth="on", http_port=0, nats_port=0, **settings)
    async with AsyncExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:  # no later than the start, or other tests' servers have it too
            patch.setenv("KALAM_ADMIN_PASSWORD", PASSWORD)
            running = await stack.enter_async_context(open_server(wanted))
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=PATIENCE_S))
        yield PolicyServer(running, client)
