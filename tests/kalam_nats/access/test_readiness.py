"""A server whose broker cannot ask about logins is not ready: connections stay, and nobody comes in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from kalam.server import open_server
from kalam.settings import Settings
from kalam_nats.access.broker_logins import BrokerLogins


async def test_without_the_connection_for_logins_a_server_is_not_ready(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[[Callable[[], object]], Awaitable[None]]
) -> None:
    opened: list[BrokerLogins] = []
    begin = BrokerLogins.begin

    async def begun(logins: BrokerLogins, *parts: Any) -> None:
        opened.append(logins)
        await begin(logins, *parts)

    monkeypatch.setattr(BrokerLogins, "begin", begun)
    settings = Settings(data_dir=data_dir, http_port=0, nats_port=0, auth="on")
    async with open_server(settings) as running, httpx.AsyncClient(base_url=running.http_url) as http:
        assert (await http.get("/readyz")).status_code == 200
        [logins] = opened
        with monkeypatch.context() as patch:
            patch.setattr(logins._connection, "_connect", never)  # noqa: SLF001 - this one is cut off alone
            await logins._connection._discard()  # noqa: SLF001
            answer = await http.get("/readyz")
            assert answer.status_code == 503
            assert answer.json()["checks"] == [{"name": "logins", "ok": False, "detail": ""}]
            assert {check.name: check.ok for check in await running.engine.health()}["nats"]

        async def ready() -> bool:
            return (await http.get("/readyz")).status_code == 200

        await wait_until(ready)


async def never(*_: object) -> None:
    raise OSError("cut off")


async def test_where_nobody_logs_in_nothing_is_said_of_logins(data_dir: Path) -> None:
    async with open_server(Settings(data_dir=data_dir, http_port=0, nats_port=0)) as running:
        assert "logins" not in [check.name for check in await running.engine.health()]
