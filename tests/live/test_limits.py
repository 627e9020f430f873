"""The limits on live queries, and who sees which rows, through both doors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from live_subscriber import Refused, Subscriber, ask, connected, subscribe
from patience import PATIENCE_S
from server_process import ServerProcess


async def first_message(
    http: httpx.AsyncClient, url: str, sql: str, user: str = "ada", **headers: str
) -> dict[str, Any]:
    """The first message of a live query as Server-Sent Events, or the problem object."""
    headers = {"X-Kalam-User": user, **headers}
    async with http.stream("GET", f"{url}/v1/live", params={"sql": sql}, headers=headers, timeout=PATIENCE_S) as answer:
        if answer.status_code != 200:
            return dict(json.loads(await answer.aread()))
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                return dict(json.loads(line[6:]))
    raise AssertionError("the stream ended")


async def test_no_more_live_queries_are_open_than_the_limit_also_when_they_come_at_once(
    start_kalam: Callable[..., ServerProcess],
) -> None:
    server = start_kalam(KALAM_LIVE_QUERIES_MAX="5", KALAM_LIVE_QUERIES_PER_USER_MAX="3")
    server.sql("CREATE NAMESPACE few; CREATE SHARED TABLE few.t (id BIGINT PRIMARY KEY, u TEXT)")
    sql = "SELECT * FROM few.t WHERE u LIKE 'x%'"
    async with connected(server.nats_url) as client, httpx.AsyncClient() as http:
        openings = [subscribe(client, sql, user=user) for user in ("ada", "bob", "ada", "bob", "ada", "bob") * 2]
        outcomes = await asyncio.gather(*openings, return_exceptions=True)
        lives = [outcome for outcome in outcomes if isinstance(outcome, Subscriber)]
        refusals = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
        assert len(lives) == 5
        assert len(refusals) == 7
        assert {refusal.code for refusal in refusals} == {"too_busy"}
        assert max(sum(live.user == user for live in lives) for user in ("ada", "bob")) == 3
        assert len(server.sql("SELECT * FROM system.live_queries")) == 5
        refused = await first_message(http, server.http_url, sql, user="eve")
        assert (refused["status"], refused["code"]) == (429, "too_busy")
        assert "live_queries_max" in refused["detail"]
        await lives[0].close()
        await lives[0].wait(lambda: lives[0].of("closed"))
        assert (await first_message(http, server.http_url, sql, user="eve"))["type"] == "ready"


@pytest.mark.parametrize("kind", ["SHARED", "USER", "STREAM"])
async def test_each_user_sees_over_http_what_is_his(shared_server: ServerProcess, kind: str) -> None:
    table = f"his_{kind.lower()}.t"
    key = "" if kind == "STREAM" else "PRIMARY KEY"
    shared_server.sql(f"CREATE NAMESPACE {table[:-2]}; CREATE {kind} TABLE {table} (id BIGINT {key})")
    async with connected(shared_server.nats_url) as client, httpx.AsyncClient() as http:
        for number, user in enumerate(("ada", "bob")):
            await ask(client, f"kalam.api.{user}.insert.{table}", {"id": number})
        own = {"ada": [0], "bob": [1]} if kind == "USER" else {"ada": [0, 1], "bob": [0, 1]}
        for user, ids in own.items():
            message = await first_message(http, shared_server.http_url, f"SELECT id FROM {table}", user)
            assert [row["id"] for row in message["rows"]] == ids
        table_id = (await subscribe(client, f"SELECT id FROM {table}")).answer["table_id"]
        resumed = {"Last-Event-ID": f"{table_id}-0"}
        message = await first_message(http, shared_server.http_url, f"SELECT id FROM {table}", "bob", **resumed)
        assert (message["type"], message["seq"]) == ("ready", 0)
