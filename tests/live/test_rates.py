"""Every kind of live query while rows come at a rate: each change is accounted for, once and in order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from live_subscriber import PATIENCE_S, Subscriber, ask, connected, subscribe
from nats.aio.client import Client
from server_process import ServerProcess

ROUNDS, ROUND_ROWS, ROUND_S = 10, 200, 0.2
"""Rows come for two seconds, many times as long as the pause between two looks at a stream."""
TOTAL = ROUNDS * ROUND_ROWS
TABLES = {
    "plain": "CREATE STREAM TABLE {} (id BIGINT, g TEXT)",
    "short": "CREATE STREAM TABLE {} (id BIGINT, g TEXT) RETENTION '1s'",
    "small": "CREATE STREAM TABLE {} (id BIGINT, g TEXT) MAX_BUFFER 10",
    "passing": "CREATE STREAM TABLE {} (id BIGINT, g TEXT) EPHEMERAL MAX_BUFFER 50",
    "keyed": "CREATE STREAM TABLE {} (id BIGINT, g TEXT) WITH (subject_key = 'g', max_buffer = 100)",
    "shared": "CREATE SHARED TABLE {} (id BIGINT PRIMARY KEY, g TEXT) FLUSH POLICY ROWS 300",
    "mine": "CREATE USER TABLE {} (id BIGINT PRIMARY KEY, g TEXT) FLUSH POLICY ROWS 300",
}
WHERES = {
    "": lambda n: True,
    " WHERE g = 'g1'": lambda n: n % 4 == 1,
    " WHERE id % 2 = 0 AND g <> 'g2'": lambda n: n % 4 == 0,
}


@asynccontextmanager
async def events_over_http(url: str, sql: str) -> AsyncIterator[list[dict[str, Any]]]:
    """The messages of a live query that is read as Server-Sent Events, as they come."""
    messages: list[dict[str, Any]] = []
    ready = asyncio.Event()

    async def read() -> None:
        headers = {"X-Kalam-User": "ada"}
        async with (
            httpx.AsyncClient(timeout=PATIENCE_S) as http,
            http.stream("GET", f"{url}/v1/live", params={"sql": sql, "last_rows": "0"}, headers=headers) as answer,
        ):
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    messages.append(json.loads(line.removeprefix("data: ")))
                    ready.set()

    task = asyncio.create_task(read())
    try:
        await ready.wait()
        yield messages
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def insert_at_a_rate(client: Client, table: str, send: Callable[[int], Awaitable[None]] | None = None) -> None:
    """Insert ``TOTAL`` rows, many at once and in messages of one row, of some and of many."""

    async def insert(first: int, count: int, headers: dict[str, str] | None = None) -> None:
        rows = [{"id": n, "g": f"g{n % 4}"} for n in range(first, first + count)]
        body = json.dumps(rows if count > 1 else rows[0]).encode()
        reply = await client.request(f"kalam.api.ada.insert.{table}", body, timeout=PATIENCE_S, headers=headers)
        assert json.loads(reply.data)["rows"] == count, reply.data

    for number in range(ROUNDS):
        first = number * ROUND_ROWS
        inserts = [insert(first + n, 1) for n in range(100)]
        inserts += [insert(first + n, 10) for n in range(100, 150, 10)]
        # Every event of one with an id asks for an ack, so that others that came later may have theirs before.
        inserts += [insert(first + 150, 1, {"Nats-Msg-Id": f"{number}"}), insert(first + 151, 49)]
        await asyncio.gather(*inserts, asyncio.sleep(ROUND_S))


def ids(changes: list[dict[str, Any]]) -> list[int]:
    seqs = [change["seq"] for change in changes]
    assert seqs == sorted(set(seqs)), "out of order, or twice"
    assert {change["op"] for change in changes} <= {"insert"}
    return [change["row"]["id"] for change in changes]


def check(live: Subscriber, wanted: set[int]) -> None:
    assert live.of("resync") == []
    told = ids(live.changes)
    assert len(told) == len(set(told))
    assert set(told) == wanted


@pytest.mark.parametrize("kind", TABLES)
async def test_each_change_is_told_once_and_in_order(shared_server: ServerProcess, kind: str) -> None:
    table = f"rate_{kind}.t"
    shared_server.sql(f"CREATE NAMESPACE rate_{kind}; {TABLES[kind].format(table)}")
    async with connected(shared_server.nats_url) as client, connected(shared_server.nats_url) as reader:
        lives = [(await subscribe(reader, f"SELECT id FROM {table}{where}"), where) for where in WHERES]
        async with events_over_http(shared_server.http_url, f"SELECT id FROM {table}") as over_http:
            inserting = asyncio.create_task(insert_at_a_rate(client, table))
            first = lives[0][0]
            await first.wait(lambda: len(first.changes) >= TOTAL // 4)
            late = await subscribe(reader, f"SELECT id FROM {table}")
            later = await subscribe(reader, f"SELECT id FROM {table}", last_rows=0)
            await inserting
            for live, where in lives:
                wanted = {n for n in range(TOTAL) if WHERES[where](n)}
                await live.wait(lambda live=live, wanted=wanted: len(live.changes) >= len(wanted))  # type: ignore[misc]
                check(live, wanted)
            newest = first.changes[-1]["seq"]
            for live in (late, later):
                await live.wait(lambda live=live: live.changes and live.changes[-1]["seq"] == newest)  # type: ignore[misc]
                behind = [change["row"]["id"] for change in first.changes if change["seq"] > live.of("ready")[0]["seq"]]
                assert live.of("resync") == []
                assert ids(live.changes) == behind
            async with asyncio.timeout(PATIENCE_S):
                while sum(len(m.get("changes", ())) for m in over_http) < TOTAL:  # noqa: ASYNC110 - a count, not a moment
                    await asyncio.sleep(0.01)
            told = ids([change for message in over_http for change in message.get("changes", ())])
            assert told == ids(first.changes)
            assert {message["type"] for message in over_http} <= {"ready", "changes", "heartbeat"}


async def test_what_others_publish_between_is_told_once_and_in_order_too(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE others; CREATE STREAM TABLE others.t (id BIGINT, g TEXT)")
    async with connected(shared_server.nats_url) as client, connected(shared_server.nats_url) as other:
        live = await subscribe(client, "SELECT id FROM others.t")

        async def publish() -> None:
            for n in range(TOTAL, 2 * TOTAL):
                await other.publish("kalam.stream.others.t", json.dumps({"id": n, "g": "x"}).encode())
                if n % 20 == 0:
                    await other.flush()
                    await asyncio.sleep(0.02)
            await other.flush()

        await asyncio.gather(insert_at_a_rate(client, "others.t"), publish())
        await live.wait(lambda: len(live.changes) >= 2 * TOTAL)
        check(live, set(range(2 * TOTAL)))
        jetstream = other.jetstream()
        last = (await jetstream.stream_info("KALAM-others-t")).state.last_seq
        assert [change["seq"] for change in live.changes] == list(range(1, last + 1))


async def test_a_key_that_only_the_stream_tells_is_select_s(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE withkey; CREATE STREAM TABLE withkey.t (id BIGINT, g TEXT)")
    async with connected(shared_server.nats_url) as client:
        plain = await subscribe(client, "SELECT id FROM withkey.t")
        live = await subscribe(client, "SELECT id, _key FROM withkey.t")
        await insert_at_a_rate(client, "withkey.t")
        await live.wait(lambda: len(live.changes) >= TOTAL)
        await plain.wait(lambda: len(plain.changes) >= TOTAL)
        for each in (live, plain):
            check(each, set(range(TOTAL)))
        shown = [[change["row"]["id"], change["row"]["_key"]] for change in live.changes]
        assert shown == shared_server.sql("SELECT id, _key FROM withkey.t")


async def test_evictions_cost_only_those_that_name_the_key_and_they_are_told(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE evicted; CREATE STREAM TABLE evicted.t (id BIGINT) MAX_BUFFER 5")
    async with connected(shared_server.nats_url) as client:
        plain = await subscribe(client, "SELECT id FROM evicted.t")
        live = await subscribe(client, "SELECT id, _key FROM evicted.t")
        for first in range(0, 1_000, 100):
            rows = [{"id": n} for n in range(first, first + 100)]
            await ask(client, "kalam.api.ada.insert.evicted.t", rows)
        await plain.wait(lambda: len(plain.changes) >= 1_000)
        check(plain, set(range(1_000)))
        await live.wait(lambda: live.of("resync"))
        told = ids(live.changes)
        assert len(told) == len(set(told))
        assert all(change["row"]["_key"].endswith(f":{change['seq']}") for change in live.changes)


async def test_events_of_others_that_went_before_they_were_read_are_one_resync(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE burst; CREATE STREAM TABLE burst.t (id BIGINT) MAX_BUFFER 5")
    async with connected(shared_server.nats_url) as client:
        live = await subscribe(client, "SELECT id FROM burst.t")
        for n in range(1_000):
            await client.publish("kalam.stream.burst.t", json.dumps({"id": n}).encode())
        await client.flush()
        await live.wait(lambda: live.of("resync"))
        await live.wait(lambda: live.changes and live.changes[-1]["row"]["id"] == 999)
        told = ids(live.changes)
        assert len(told) == len(set(told))
        kinds = [message["type"] for message in live.messages]
        lost_upto = live.of("resync")[-1]["seq"]
        after = [
            m["changes"] for m in live.messages[len(kinds) - kinds[::-1].index("resync") :] if m["type"] == "changes"
        ]
        assert min(change["seq"] for changes in after for change in changes) == lost_upto + 1
        await ask(client, "kalam.api.ada.insert.burst.t", {"id": 1_000})
        await live.wait(lambda: live.changes[-1]["row"]["id"] == 1_000)
