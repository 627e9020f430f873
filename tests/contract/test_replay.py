"""A replay of a STREAM table's events, as a plain client asks for it; and live queries that begin at a time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from live_subscriber import Refused, Subscriber, ask, connected, subscribe
from nats.aio.client import Client
from patience import PATIENCE_S
from server_process import ServerProcess


@pytest.fixture
async def client(shared_server: ServerProcess) -> AsyncIterator[Client]:
    async with connected(shared_server.nats_url) as client:
        yield client


async def replay(client: Client, table: str, **options: Any) -> Subscriber:
    """Open a replay and listen to it."""
    answer = await ask(client, "kalam.api.ada.replay", {"table": table, **options})
    assert answer["subject"] == f"kalam.live.ada.{answer['id']}"
    subscriber = Subscriber(client, answer, "ada")
    subscriber.subscription = await client.subscribe(answer["subject"], cb=subscriber.take)
    await subscriber.wait_ready()
    return subscriber


def make(server: ServerProcess, namespace: str, options: str = "SUBJECT_KEY = 'who'") -> str:
    server.sql(f"CREATE STREAM TABLE {namespace}.t (id BIGINT, who TEXT) WITH ({options})")
    return f"{namespace}.t"


def insert(server: ServerProcess, table: str, *rows: tuple[int, str | None]) -> None:
    for row in rows:
        server.sql(f"INSERT INTO {table} VALUES ($1, $2)", *row)


def ids(subscriber: Subscriber) -> list[int]:
    return [change["row"]["id"] for change in subscriber.changes]


async def test_events_come_from_a_sequence_on_that_one_included_and_then_as_they_happen(
    shared_server: ServerProcess, client: Client, namespace: str
) -> None:
    table = make(shared_server, namespace)
    insert(shared_server, table, *((number, "ann") for number in range(1, 6)))
    replayed = await replay(client, table, from_seq=3)
    await replayed.wait_changes(3)
    insert(shared_server, table, (6, "bob"))
    await replayed.wait_changes(4)
    assert replayed.changes[0] == {"op": "insert", "seq": 3, "row": {"id": 3, "who": "ann"}}
    assert [change["seq"] for change in replayed.changes] == [3, 4, 5, 6]
    assert await replayed.close() == {"closed": True}


async def test_events_come_of_the_keys_that_are_named_alone(
    shared_server: ServerProcess, client: Client, namespace: str
) -> None:
    table = make(shared_server, namespace)
    insert(shared_server, table, (1, "ann"), (2, "bob"), (3, "o'neil"), (4, None), (5, "ann"))
    replayed = await replay(client, table, from_seq=1, keys=["ann", "o'neil"])
    await replayed.wait_changes(3)
    insert(shared_server, table, (6, "bob"), (7, "ann"))
    await replayed.wait_changes(4)
    assert ids(replayed) == [1, 3, 5, 7]


async def test_the_last_event_of_each_key_comes_and_then_as_they_happen(
    shared_server: ServerProcess, client: Client, namespace: str
) -> None:
    table = make(shared_server, namespace)
    insert(shared_server, table, (1, "ann"), (2, "bob"), (3, "ann"), (4, None), (5, "bob"), (6, "cy"))
    last = await replay(client, table, last_per_key=True)
    await last.wait_changes(4)
    of_two = await replay(client, table, last_per_key=True, keys=["ann", "cy"])
    await of_two.wait_changes(2)
    insert(shared_server, table, (7, "ann"))
    await last.wait_changes(5)
    await of_two.wait_changes(3)
    assert ids(last) == [3, 4, 5, 6, 7]
    assert ids(of_two) == [3, 6, 7]


async def test_of_an_empty_table_nothing_comes_before_something_happens(
    shared_server: ServerProcess, client: Client, namespace: str
) -> None:
    table = make(shared_server, namespace)
    begun = [
        await replay(client, table, **begin)
        for begin in ({"from_seq": 1}, {"last_per_key": True}, {"from_time": "1970-01-01T00:00:00Z"})
    ]
    insert(shared_server, table, (1, "ann"))
    for each in begun:
        await each.wait_changes(1)
        assert ids(each) == [1]


async def test_events_come_from_a_time_on_at_each_door(
    shared_server: ServerProcess, client: Client, namespace: str
) -> None:
    table = make(shared_server, namespace, "MAX_BUFFER = 100")
    insert(shared_server, table, (1, "ann"), (2, "bob"))
    await asyncio.sleep(0.01)  # so that the next event has a later time
    [[moment]] = shared_server.sql("SELECT now()")
    await asyncio.sleep(0.01)
    insert(shared_server, table, (3, "ann"))
    replayed = await replay(client, table, from_time=moment)
    live = await subscribe(client, f"SELECT id FROM {table}", from_time=moment)
    await subscribe(client, f"SELECT id FROM {table}", from_time="2999-01-01T00:00:00+01:00")
    for each in (replayed, live):
        await each.wait_changes(1)
    answer = shared_server.results(f"SUBSCRIBE TO SELECT id FROM {table} OPTIONS (from_time = '{moment}')")[-1]
    by_sql = Subscriber(client, {"id": answer["rows"][0][0]}, "admin")
    await client.subscribe(answer["rows"][0][1], cb=by_sql.take)
    await by_sql.wait_changes(1)
    insert(shared_server, table, (4, "ann"))
    for each in (replayed, live, by_sql):
        await each.wait_changes(2)
        assert ids(each) == [3, 4]
    asked = {"sql": f"SELECT id FROM {table}", "from_time": moment}
    async with (
        httpx.AsyncClient(timeout=PATIENCE_S) as http,
        http.stream("GET", f"{shared_server.http_url}/v1/live", params=asked) as events,
    ):
        async for line in events.aiter_lines():
            if line.startswith("data: ") and '"changes"' in line:
                assert [change["row"]["id"] for change in json.loads(line[6:])["changes"]] == [3, 4]
                break


async def test_events_that_are_not_kept_any_more_are_a_cursor_that_expired(
    shared_server: ServerProcess, client: Client, namespace: str
) -> None:
    table = make(shared_server, namespace)
    insert(shared_server, table, *((number, "ann") for number in range(1, 6)))
    shared_server.sql(f"DELETE FROM {table} WHERE id <= 2")
    with pytest.raises(Refused) as caught:
        await replay(client, table, from_seq=9)
    assert caught.value.code == "cursor_expired"
    everything = await replay(client, table, from_time="1970-01-01T00:00:00Z")
    await everything.wait_changes(3)
    assert ids(everything) == [3, 4, 5]


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({}, "invalid_value"),
        ({"from_seq": 1, "last_per_key": True}, "invalid_value"),
        ({"from_seq": 1, "from_time": "2026-01-01T00:00:00Z"}, "invalid_value"),
        ({"from_seq": 0}, "invalid_value"),
        ({"from_seq": -1}, "invalid_value"),
        ({"from_seq": "1"}, "invalid_value"),
        ({"from_time": "yesterday"}, "invalid_value"),
        ({"from_time": "9999-12-31T23:59:59-23:00"}, "invalid_value"),
        ({"from_seq": 1, "keys": []}, "invalid_value"),
        ({"from_seq": 1, "keys": [1.5]}, "invalid_value"),
        ({"from_seq": 1, "keys": ["a"] * 1_001}, "invalid_value"),
        ({"from_seq": 1, "unknown": 1}, "invalid_value"),
        ({"table": "t; DROP TABLE t", "from_seq": 1}, "invalid_value"),
        ({"table": "{}.missing", "from_seq": 1}, "table_not_found"),
        ({"table": "missing.t", "from_seq": 1}, "namespace_not_found"),
        ({"table": "{}.stored", "from_seq": 1}, "unsupported"),
        ({"table": "{}.stored", "last_per_key": True}, "unsupported"),
        ({"table": "{}.plain", "last_per_key": True}, "invalid_option"),
        ({"table": "{}.plain", "from_seq": 1, "keys": ["a"]}, "invalid_option"),
        ({"from_seq": 1, "table_id": 999_999}, "cursor_expired"),
    ],
)
async def test_what_is_no_replay_is_refused(
    shared_server: ServerProcess, client: Client, namespace: str, asked: dict[str, Any], code: str
) -> None:
    table = make(shared_server, namespace)
    shared_server.sql(
        f"CREATE SHARED TABLE {namespace}.stored (id BIGINT PRIMARY KEY);"
        f"CREATE STREAM TABLE {namespace}.plain (id BIGINT)"
    )
    body = {"table": table} | asked
    body["table"] = body["table"].replace("{}", namespace)
    with pytest.raises(Refused) as caught:
        await ask(client, "kalam.api.ada.replay", body)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ("from_time = 5", "syntax_error"),
        ("from_time = 'noon'", "invalid_option"),
        ("from_time = '2026-01-01', from_seq = 1", "invalid_option"),
        ("from_time = '2026-01-01', from_time = '2026-01-01'", "invalid_option"),
    ],
)
async def test_an_option_that_is_no_time_is_refused(
    shared_server: ServerProcess, client: Client, namespace: str, options: str, code: str
) -> None:
    table = make(shared_server, namespace)
    with pytest.raises(Refused) as caught:
        await ask(client, "kalam.api.ada.live", {"sql": f"SUBSCRIBE TO SELECT * FROM {table} OPTIONS ({options})"})
    assert caught.value.code == code


async def test_changes_of_other_tables_have_no_time_to_begin_at(
    shared_server: ServerProcess, client: Client, namespace: str
) -> None:
    shared_server.sql(f"CREATE SHARED TABLE {namespace}.s (id BIGINT PRIMARY KEY)")
    with pytest.raises(Refused) as caught:
        await subscribe(client, f"SELECT * FROM {namespace}.s", from_time="2026-01-01T00:00:00Z")
    assert caught.value.code == "unsupported"
