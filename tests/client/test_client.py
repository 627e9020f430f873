"""The Python client against a real server and broker."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from nats.aio.msg import Msg
from patience import PATIENCE_S
from server_process import ServerProcess

import kalam.client
from kalam.client import Change, Kalam, LiveRows
from kalam.errors import DuplicateKey, InvalidValue, TableNotFound, Unsupported


@pytest.fixture
async def k(shared_server: ServerProcess) -> AsyncIterator[Kalam]:
    async with kalam.client.connect(shared_server.nats_url, user="ada") as k:
        yield k


async def make(k: Kalam, name: str, columns: str = "id BIGINT PRIMARY KEY, v DOUBLE") -> str:
    await k.sql(f"CREATE NAMESPACE {name}; CREATE SHARED TABLE {name}.t ({columns})")
    return f"{name}.t"


async def take(live: LiveRows, count: int) -> list[Change]:
    async with asyncio.timeout(PATIENCE_S):
        return [await anext(live) for _ in range(count)]


@dataclasses.dataclass
class Reading:
    id: int
    v: float


async def test_rows_of_every_kind_are_inserted(k: Kalam) -> None:
    table = await make(k, "kinds")
    assert await k.insert(table, {"id": 1, "v": float("nan")}) == 1
    assert await k.insert(table, [{"id": 2, "v": 2.0}, {"id": 3}]) == 2
    assert await k.insert(table, Reading(4, 4.0)) == 1
    assert await k.insert(table, (Reading(n, n) for n in (5, 6))) == 2
    assert await k.insert(table, pa.table({"id": [7, 8], "v": [7.0, 8.0]})) == 2
    assert await k.insert(table, pd.DataFrame({"id": [9], "v": [9.5]})) == 1
    answer = await k.sql(f"SELECT * FROM {table} ORDER BY id")
    assert [row["v"] for row in answer.rows] == ["NaN", 2.0, None, 4.0, 5.0, 6.0, 7.0, 8.0, 9.5]


async def test_every_type_comes_back_as_arrow(k: Kalam) -> None:
    table = await make(
        k, "types", "id BIGINT PRIMARY KEY, at TIMESTAMP, price DECIMAL(10,2), raw BLOB, doc JSON, day DATE, ok BOOLEAN"
    )
    at = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    row = {
        "id": 1,
        "at": at,
        "price": Decimal("1.50"),
        "raw": b"\x00\xff",
        "doc": {"a": [1]},
        "day": at.date(),
        "ok": True,
    }
    await k.insert(table, row)
    answer = await k.sql(f"SELECT id, at, price, raw, doc, day, ok FROM {table} WHERE id = $1", [1])
    [found] = answer.arrow().to_pylist()
    assert found == {**row, "doc": '{"a":[1]}'}


async def test_calls_share_messages_and_each_has_its_own_answer(k: Kalam) -> None:
    table = await make(k, "shared")
    outcomes = await asyncio.gather(
        *(k.insert(table, {"id": n % 90, "v": n}) for n in range(100)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [int] * 90 + [DuplicateKey] * 10
    bad = await asyncio.gather(k.insert(table, {"id": 200}), k.insert(table, {"id": "x"}), return_exceptions=True)
    assert bad[0] == 1
    assert isinstance(bad[1], InvalidValue)


async def test_many_rows_go_in_bounded_messages(k: Kalam) -> None:
    table = await make(k, "many")
    assert await k.insert(table, [{"id": n, "v": n} for n in range(25_000)]) == 25_000
    answer = await k.sql(f"SELECT count(*) AS n FROM {table}")
    assert answer.rows == [{"n": 25_000}]


async def test_an_answer_in_parts_is_joined(k: Kalam) -> None:
    answer = await k.sql("SELECT value, repeat('x', 200) AS filler FROM range(0, 60000)")
    assert answer.row_count == len(answer.values) == 60_000


async def test_errors_are_those_of_the_server(k: Kalam) -> None:
    await k.sql("CREATE NAMESPACE errors")
    with pytest.raises(TableNotFound):
        await k.insert("errors.t", {"id": 1})
    with pytest.raises(Unsupported):
        await anext(k.live("SELECT id + 1 FROM nowhere.t"))
    with pytest.raises(InvalidValue):
        await k.insert("no table", {})


async def test_a_live_query_gives_rows_changes_and_the_result(k: Kalam) -> None:
    table = await make(k, "followed")
    await k.insert(table, [{"id": 1, "v": 1.0}, {"id": 2, "v": 2.0}])
    async with k.live(f"SELECT id, v FROM {table} WHERE v >= 1", key="id") as live:
        assert {change.op for change in await take(live, 2)} == {"snapshot"}
        await k.sql(f"UPDATE {table} SET v = 0 WHERE id = 1; INSERT INTO {table} VALUES (3, 3)")
        assert await take(live, 2) == [
            Change("delete", 3, {"id": 1, "v": 1.0}),
            Change("insert", 4, {"id": 3, "v": 3.0}),
        ]
        assert live.rows == [{"id": 2, "v": 2.0}, {"id": 3, "v": 3.0}]
        token = live.token
    await k.sql(f"DELETE FROM {table} WHERE id = 3")
    async with k.live(f"SELECT id, v FROM {table} WHERE v >= 1", token=token) as again:
        assert await take(again, 1) == [Change("delete", 5, {"id": 3, "v": 3.0})]


async def test_the_result_is_kept_by_several_columns_where_they_tell_rows_apart(k: Kalam) -> None:
    table = await make(k, "several", "a TEXT, b BIGINT, v DOUBLE, PRIMARY KEY (a, b)")
    await k.insert(table, [{"a": "x", "b": 1, "v": 1.0}, {"a": "x", "b": 2, "v": 2.0}, {"a": "y", "b": 1, "v": 3.0}])
    async with k.live(f"SELECT a, b, v FROM {table}", key=("a", "b")) as live:
        await take(live, 3)
        await k.sql(f"UPDATE {table} SET v = 9 WHERE a = 'x' AND b = 2; DELETE FROM {table} WHERE a = 'y' AND b = 1")
        await take(live, 2)
        assert live.rows == [{"a": "x", "b": 1, "v": 1.0}, {"a": "x", "b": 2, "v": 9.0}]


@pytest.mark.parametrize("turns", range(5))
async def test_a_live_query_is_given_up_though_a_message_comes_at_that_moment(k: Kalam, turns: int) -> None:
    table = await make(k, f"given_up_{turns}")
    await k.insert(table, {"id": 1, "v": 1.0})
    async with k.live(f"SELECT id FROM {table}") as live:
        await take(live, 1)
        waiting = asyncio.create_task(anext(live))
        subscription = live._subscription  # noqa: SLF001 - what comes from the broker is put down there
        while not subscription._pending_next_msgs_calls:  # noqa: ASYNC110, SLF001
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        message = Msg(_client=subscription._conn, subject="s", data=b'{"type": "heartbeat"}')  # noqa: SLF001
        subscription._pending_queue.put_nowait(message)  # noqa: SLF001
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(waiting, PATIENCE_S)


async def test_a_resume_that_is_not_possible_begins_anew_and_says_so(k: Kalam) -> None:
    table = await make(k, "anew")
    await k.insert(table, {"id": 1, "v": 1.0})
    async with k.live(f"SELECT id FROM {table}", from_seq=0, table_id=99_999) as live:
        assert await take(live, 2) == [Change("reset"), Change("snapshot", None, {"id": 1})]


async def test_a_killed_live_query_says_so(k: Kalam) -> None:
    table = await make(k, "killed")
    live = k.live(f"SELECT id FROM {table}")
    following = asyncio.create_task(take(live, 1))
    async with asyncio.timeout(PATIENCE_S):
        while not (  # noqa: ASYNC110 - the server tells nobody
            own := [row for row in (await k.sql("SHOW LIVE QUERIES")).rows if table in row["sql"]]
        ):
            await asyncio.sleep(0.01)
    await k.sql(f"KILL LIVE QUERY '{own[0]['id']}'")
    with pytest.raises(kalam.client.LiveClosed, match="killed"):
        await following


async def test_inserts_and_live_queries_outlive_a_killed_server(start_kalam: Callable[..., ServerProcess]) -> None:
    server = start_kalam(flags=("--nats-port=0",))
    port = server.nats_url.rpartition(":")[2]
    server.flags = (f"--nats-port={port}",)
    async with kalam.client.connect(server.nats_url, user="ada") as k:
        table = await make(k, "survives")
        seen: list[int] = []

        async def follow() -> None:
            async with k.live(f"SELECT id FROM {table}") as live:
                async for change in live:
                    assert change.op in ("insert", "snapshot"), change
                    assert change.row is not None
                    seen.append(change.row["id"])

        async def pour() -> None:
            for number in range(300):
                await k.insert(table, {"id": number, "v": 1.0})

        following, pouring = asyncio.create_task(follow()), asyncio.create_task(pour())
        for goal in (30, 120):
            await until(lambda goal=goal: len(seen) >= goal or pouring.done())  # type: ignore[misc]
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.restart)
        await asyncio.wait_for(pouring, 60)
        await until(lambda: len(seen) >= 300)
        following.cancel()
        assert sorted(seen) == list(range(300))


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - the conditions are of many kinds
            await asyncio.sleep(0.01)


async def test_a_restart_of_an_outside_broker_loses_nothing(
    start_nats_server: Callable[..., Any], start_kalam: Callable[..., ServerProcess]
) -> None:
    broker = start_nats_server()
    server = start_kalam(flags=(f"--nats-url={broker.url}",))
    async with kalam.client.connect(broker.url, user="ada") as k:
        table = await make(k, "outside")
        await asyncio.to_thread(server.sql, "CREATE USER TABLE outside.p (id BIGINT PRIMARY KEY)", user="ada")
        live, private = k.live(f"SELECT id FROM {table}"), k.live("SELECT id FROM outside.p")
        seen: list[int] = []

        async def follow(live: LiveRows) -> None:
            async for change in live:
                assert change.row is not None
                seen.append(change.row["id"])

        tasks = [asyncio.create_task(follow(one)) for one in (live, private)]
        for start in (0, 50):
            for number in range(start, start + 50):
                await k.insert(table, {"id": number, "v": 0.0})
                await k.insert("outside.p", {"id": 1_000 + number})
            if start == 0:
                await until(lambda: len(seen) >= 100)  # both are open: what is not yet is not opened again
                await asyncio.to_thread(broker.stop)
                await asyncio.to_thread(broker.start)
        await until(lambda: len(seen) >= 200)
        for task in tasks:
            task.cancel()
        assert sorted(seen) == [*range(100), *range(1_000, 1_100)]
