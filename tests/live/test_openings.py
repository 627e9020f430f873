"""Live queries that are opened at the same time, and where a resume finds what is hot no more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from live_subscriber import Refused, ask, connected, subscribe
from patience import PATIENCE_S
from server_process import ServerProcess


async def test_live_queries_with_one_where_that_are_opened_together_end_one_by_one(
    shared_server: ServerProcess,
) -> None:
    shared_server.sql("CREATE NAMESPACE twins; CREATE SHARED TABLE twins.t (id BIGINT PRIMARY KEY, u TEXT)")
    async with connected(shared_server.nats_url) as client:
        sql = "SELECT id FROM twins.t WHERE u LIKE 'x%'"
        lives = await asyncio.gather(*(subscribe(client, sql, last_rows=0) for _ in range(8)))
        for number, live in enumerate(lives):
            shared_server.sql(f"INSERT INTO twins.t VALUES ({number}, 'x')")
            for other in lives[number:]:
                changes = await other.wait_changes(number + 1)
                assert [change["row"]["id"] for change in changes] == list(range(number + 1))
            assert await live.close() == {"closed": True}
            await live.wait(lambda live=live: live.of("closed"))  # type: ignore[misc]
    shared_server.sql("DROP TABLE twins.t")


@pytest.mark.parametrize("kind", ["SHARED", "STREAM"])
async def test_an_opening_that_is_refused_takes_no_other_with_it(shared_server: ServerProcess, kind: str) -> None:
    name = f"others_{kind.lower()}"
    key = "" if kind == "STREAM" else "PRIMARY KEY"
    shared_server.sql(f"CREATE NAMESPACE {name}; CREATE {kind} TABLE {name}.t (id BIGINT {key}, u TEXT)")
    async with connected(shared_server.nats_url) as client:
        for round_number in range(4):
            wheres = [f"u >= '{round_number}{n}'" for n in range(3)] + ["nothing = 1", "id + 0"] * 3
            openings = (subscribe(client, f"SELECT id FROM {name}.t WHERE {where}", last_rows=0) for where in wheres)
            outcomes = await asyncio.gather(*openings, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes[3:]] == [Refused] * 6
            await ask(client, f"kalam.api.ada.insert.{name}.t", {"id": round_number, "u": "z"})
            for live in outcomes[:3]:
                assert not isinstance(live, BaseException), live
                [change] = await live.wait_changes(1)
                assert change["row"] == {"id": round_number}
                await live.close()


async def test_a_where_on_the_time_of_the_last_change_knows_the_former_one(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE times; CREATE SHARED TABLE times.t (id BIGINT PRIMARY KEY, v INT)")
    shared_server.sql("INSERT INTO times.t VALUES (1, 1), (2, 2)")
    before = {row[0]: row[1] for row in shared_server.sql("SELECT id, _updated FROM times.t")}
    [[now]] = shared_server.sql("SELECT now()")
    async with connected(shared_server.nats_url) as client:
        early = f"SELECT * FROM times.t WHERE _updated < TIMESTAMP '{now}'"
        live = await subscribe(client, early)
        assert sorted(row["id"] for row in live.rows) == [1, 2]
        shared_server.sql("UPDATE times.t SET v = 9 WHERE id = 1; DELETE FROM times.t WHERE v = 2")
        shared_server.sql("UPDATE times.t SET v = 10 WHERE id = 1")
        changes = await live.wait_changes(2)
        assert [(c["op"], c["seq"], c["row"]["id"], c["row"]["_updated"]) for c in changes] == [
            ("delete", 3, 1, before[1]),
            ("delete", 4, 2, before[2]),
        ]
        again = await subscribe(client, early, from_seq=2)
        assert await again.wait_changes(2) == changes
        shared_server.sql("FLUSH TABLE times.t")
        with pytest.raises(Refused) as refusal:
            await subscribe(client, early, from_seq=2)
        assert refusal.value.code == "cursor_expired"


async def test_a_resume_of_large_rows_comes_in_messages_that_fit(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE wide; CREATE SHARED TABLE wide.t (id BIGINT PRIMARY KEY, filler TEXT)")
    shared_server.sql("INSERT INTO wide.t SELECT value, repeat('x', 50000) FROM range(0, 300)")
    async with connected(shared_server.nats_url) as client:
        for _ in ("hot", "cold"):
            live = await subscribe(client, "SELECT * FROM wide.t", from_seq=0)
            assert [change["row"]["id"] for change in await live.wait_changes(300)] == list(range(300))
            await live.close()
            shared_server.sql("FLUSH TABLE wide.t")


async def test_what_is_flushed_and_not_yet_told_is_there_for_a_resume(
    start_kalam: Callable[..., ServerProcess], nats_server: Any
) -> None:
    server = start_kalam(flags=(f"--nats-url={nats_server.url}",))
    server.sql("CREATE NAMESPACE untold; CREATE SHARED TABLE untold.t (id BIGINT PRIMARY KEY, v INT)")
    nats_server.stop()
    server.sql("INSERT INTO untold.t VALUES (1, 1), (2, 2)")
    server.sql("UPDATE untold.t SET v = 3 WHERE id = 1; FLUSH TABLE untold.t; INSERT INTO untold.t VALUES (3, 3)")
    expected = [("insert", 2), ("update", 3), ("insert", 4)]
    found: list[tuple[str, int]] = []
    parameters = {"sql": "SELECT * FROM untold.t", "from_seq": "1"}
    async with (
        asyncio.timeout(PATIENCE_S),
        httpx.AsyncClient() as http,
        http.stream("GET", f"{server.http_url}/v1/live", params=parameters, timeout=PATIENCE_S) as answer,
    ):
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                found += [(change["op"], change["seq"]) for change in json.loads(line[6:]).get("changes", ())]
            if len(found) == len(expected):
                break
    assert found == expected


async def test_a_server_that_logs_everything_opens_live_queries_at_once(
    start_kalam: Callable[..., ServerProcess],
) -> None:
    server = start_kalam(KALAM_LOG_LEVEL="debug")
    server.sql("CREATE NAMESPACE logged; CREATE SHARED TABLE logged.t (id BIGINT PRIMARY KEY, u TEXT)")
    async with connected(server.nats_url) as client:
        wheres = ("u LIKE 'x%'", "id % 2 = 0", "u > 'a' OR id < 0")
        await asyncio.gather(*(subscribe(client, f"SELECT * FROM logged.t WHERE {where}") for where in wheres * 4))
    assert len(server.sql("SHOW LIVE QUERIES")) > 0
