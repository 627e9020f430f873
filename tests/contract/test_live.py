"""Live queries as protocol.md has them, through plain NATS."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from live_subscriber import Refused, ask, connected, subscribe
from nats.aio.client import Client
from server_process import ServerProcess, SqlFailed

WaitUntil = Callable[[Callable[[], Any]], Awaitable[None]]


@pytest.fixture
async def client(shared_server: ServerProcess) -> AsyncIterator[Client]:
    async with connected(shared_server.nats_url) as client:
        yield client


def make(
    server: ServerProcess, name: str, definition: str = "SHARED TABLE {} (id BIGINT PRIMARY KEY, u TEXT, v DOUBLE)"
) -> str:
    server.sql(f"CREATE NAMESPACE {name}; CREATE {definition.format(f'{name}.t')}")
    return f"{name}.t"


def listed(server: ServerProcess) -> dict[str, list[Any]]:
    return {row[0]: row for row in server.sql("SELECT * FROM system.live_queries")}


async def test_a_live_query_begins_with_the_rows_that_match(shared_server: ServerProcess, client: Client) -> None:
    table = make(shared_server, "begins")
    shared_server.sql(f"INSERT INTO {table} VALUES (1, 'x', 1), (2, 'y', 2), (3, 'x', 3)")
    live = await subscribe(client, f"SELECT id, u FROM {table} WHERE u = 'x'")
    assert sorted(row["id"] for row in live.rows) == [1, 3]
    assert live.answer["subject"] == f"kalam.live.ada.{live.id}"
    assert live.answer["columns"] == [{"name": "id", "type": "BIGINT"}, {"name": "u", "type": "TEXT"}]
    assert live.of("ready") == [{"type": "ready", "seq": 3, "table_id": live.answer["table_id"]}]


async def test_last_rows_are_those_that_changed_last(shared_server: ServerProcess, client: Client) -> None:
    table = make(shared_server, "newest")
    shared_server.sql(f"INSERT INTO {table} VALUES (1, 'x', 1), (2, 'x', 2), (3, 'x', 3); FLUSH TABLE {table}")
    shared_server.sql(f"UPDATE {table} SET v = 9 WHERE id = 1")
    live = await subscribe(client, f"SELECT id FROM {table}", last_rows=2)
    assert [row["id"] for row in live.rows] == [3, 1]
    assert (await subscribe(client, f"SELECT id FROM {table}", last_rows=0)).rows == []


async def test_rows_enter_and_leave_the_result(shared_server: ServerProcess, client: Client) -> None:
    table = make(shared_server, "enter")
    shared_server.sql(f"INSERT INTO {table} VALUES (1, 'x', 1), (2, 'y', 2)")
    by_pin = await subscribe(client, f"SELECT id, v FROM {table} WHERE u = 'x'", last_rows=0)
    by_judge = await subscribe(client, f"SELECT id, v FROM {table} WHERE u LIKE 'x%'", last_rows=0)
    shared_server.sql(
        f"UPDATE {table} SET u = 'x' WHERE id = 2; UPDATE {table} SET v = 5 WHERE id = 2;"
        f"UPDATE {table} SET u = 'z', v = 7 WHERE id = 2; DELETE FROM {table} WHERE id = 1;"
        f"INSERT INTO {table} VALUES (4, 'x', NULL)"
    )
    expected = [
        {"op": "insert", "seq": 3, "row": {"id": 2, "v": 2.0}},
        {"op": "update", "seq": 4, "row": {"id": 2, "v": 5.0}, "old": {"v": 2.0}},
        {"op": "delete", "seq": 5, "row": {"id": 2, "v": 5.0}},
        {"op": "delete", "seq": 6, "row": {"id": 1, "v": 1.0}},
        {"op": "insert", "seq": 7, "row": {"id": 4, "v": None}},
    ]
    assert await by_pin.wait_changes(5) == expected
    assert await by_judge.wait_changes(5) == expected


async def test_an_update_that_changes_no_selected_column_is_not_sent(
    shared_server: ServerProcess, client: Client
) -> None:
    table = make(shared_server, "unshown")
    shared_server.sql(f"INSERT INTO {table} VALUES (1, 'x', 1)")
    live = await subscribe(client, f"SELECT id, u FROM {table}", last_rows=0)
    shared_server.sql(f"UPDATE {table} SET v = 2; UPDATE {table} SET u = 'y', v = 3")
    assert await live.wait_changes(1) == [{"op": "update", "seq": 3, "row": {"id": 1, "u": "y"}, "old": {"u": "x"}}]


async def test_system_columns_are_shown_and_are_not_in_old(shared_server: ServerProcess, client: Client) -> None:
    table = make(shared_server, "stamped")
    shared_server.sql(f"INSERT INTO {table} VALUES (1, 'x', 1)")
    live = await subscribe(client, f"SELECT * FROM {table}")
    [before] = live.rows
    shared_server.sql(f"UPDATE {table} SET u = 'y'")
    [change] = await live.wait_changes(1)
    assert change["old"] == {"u": "x"}
    assert change["row"]["_updated"] > before["_updated"]
    assert change["row"]["_deleted"] is False


async def test_a_resume_has_every_change_since_deletes_included(shared_server: ServerProcess, client: Client) -> None:
    table = make(shared_server, "resumed")
    shared_server.sql(f"INSERT INTO {table} VALUES (1, 'x', 1), (2, 'x', 2)")
    live = await subscribe(client, f"SELECT * FROM {table} WHERE u = 'x'")
    shared_server.sql(f"DELETE FROM {table} WHERE id = 1; UPDATE {table} SET v = 3 WHERE id = 2")
    shared_server.sql(f"UPDATE {table} SET u = 'y' WHERE id = 2; INSERT INTO {table} VALUES (5, 'x', 5)")
    seen = await live.wait_changes(4)
    for moment in ("hot", "cold"):
        if moment == "cold":
            shared_server.sql(f"FLUSH TABLE {table}")
        again = await subscribe(
            client, f"SELECT * FROM {table} WHERE u = 'x'", from_seq=2, table_id=live.answer["table_id"]
        )
        found = await again.wait_changes(4)
        assert [(c["op"], c["seq"], c["row"]["id"]) for c in found] == [
            (c["op"], c["seq"], c["row"]["id"]) for c in seen
        ]
        assert [c.get("old") for c in found] == [c.get("old") for c in seen]
        assert again.rows == []
    partly = await subscribe(client, f"SELECT * FROM {table} WHERE u = 'x'", from_seq=4)
    assert [c["seq"] for c in await partly.wait_changes(2)] == [5, 6]


async def test_a_resume_in_the_future_or_of_another_table_is_refused(
    shared_server: ServerProcess, client: Client
) -> None:
    table = make(shared_server, "expired")
    with pytest.raises(Refused) as future:
        await subscribe(client, f"SELECT * FROM {table}", from_seq=5)
    with pytest.raises(Refused) as other:
        await subscribe(client, f"SELECT * FROM {table}", from_seq=0, table_id=99_999)
    assert future.value.code == other.value.code == "cursor_expired"


async def test_a_stream_table_delivers_inserts_of_everybody(shared_server: ServerProcess, client: Client) -> None:
    table = make(shared_server, "streamed", "STREAM TABLE {} (u TEXT, v BIGINT)")
    await ask(client, f"kalam.api.ada.insert.{table}", [{"u": "x", "v": 1}, {"u": "y", "v": 2}])
    live = await subscribe(client, f"SELECT v FROM {table} WHERE u = 'x'")
    keyed = await subscribe(client, f"SELECT v, _key FROM {table}", last_rows=0)
    assert live.rows == [{"v": 1}]
    await client.publish(f"kalam.stream.{table}", b'{"u": "x", "v": 3}')
    await client.publish(f"kalam.stream.{table}", b"no row at all")
    await ask(client, f"kalam.api.ada.insert.{table}", [{"u": "x", "v": 4}, {"u": "x", "v": 5}])
    shared_server.sql(f"DELETE FROM {table} WHERE v = 4")
    changes = await live.wait_changes(3)
    assert [(c["op"], c["seq"], c["row"]["v"]) for c in changes] == [
        ("insert", 3, 3),
        ("insert", 5, 4),
        ("insert", 6, 5),
    ]
    assert [c["row"]["_key"].split(":")[1] for c in await keyed.wait_changes(3)] == ["3", "5", "6"]
    again = await subscribe(client, f"SELECT v FROM {table} WHERE u = 'x'", from_seq=3)
    assert [c["seq"] for c in await again.wait_changes(1)] == [6]


async def test_a_user_table_delivers_only_the_users_rows(shared_server: ServerProcess, client: Client) -> None:
    table = make(shared_server, "private", "USER TABLE {} (id BIGINT PRIMARY KEY, v BIGINT)")
    shared_server.sql(f"INSERT INTO {table} VALUES (1, 1)", user="ada")
    shared_server.sql(f"INSERT INTO {table} VALUES (2, 2)", user="bob")
    ada = await subscribe(client, f"SELECT * FROM {table}", user="ada")
    bob = await subscribe(client, f"SELECT * FROM {table} WHERE v > 0", user="bob")
    shared_server.sql(f"INSERT INTO {table} VALUES (3, 3)", user="ada")
    shared_server.sql(f"INSERT INTO {table} VALUES (4, 4)", user="bob")
    assert [c["row"]["id"] for c in await ada.wait_changes(1)] == [3]
    assert [c["row"]["id"] for c in await bob.wait_changes(1)] == [4]
    assert [row["id"] for row in ada.rows + bob.rows] == [1, 2]
    replayed = await subscribe(client, f"SELECT * FROM {table}", user="bob", from_seq=0)
    assert [c["row"]["id"] for c in await replayed.wait_changes(2)] == [2, 4]
    with pytest.raises(Refused) as refusal:
        await ask(client, f"kalam.api.bob.live.{ada.id}.close", {})
    assert refusal.value.code == "not_found"


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT count(*) FROM refused.t", "unsupported"),
        ("SELECT * FROM refused.t LIMIT 1", "unsupported"),
        ("SELECT * FROM refused.t WHERE id IN (SELECT id FROM refused.t LIMIT 1)", "unsupported"),
        ("SELECT nothing FROM refused.t", "column_not_found"),
        ("SELECT * FROM refused.t WHERE nothing = 1", "column_not_found"),
        ("SELECT * FROM refused.t WHERE _seq > 1", "column_not_found"),
        ("SELECT * FROM refused.t WHERE id", "invalid_value"),
        ("SELECT * FROM refused.nothing", "table_not_found"),
        ("SELECT * FROM", "syntax_error"),
    ],
)
async def test_what_is_no_live_query_is_refused(
    shared_server: ServerProcess, client: Client, sql: str, code: str
) -> None:
    shared_server.sql(
        "CREATE NAMESPACE IF NOT EXISTS refused; CREATE TABLE IF NOT EXISTS refused.t (id BIGINT PRIMARY KEY, u TEXT)"
    )
    with pytest.raises(Refused) as refusal:
        await subscribe(client, sql)
    assert refusal.value.code == code


async def test_msgpack_is_an_option(shared_server: ServerProcess, client: Client) -> None:
    import msgpack

    table = make(shared_server, "packed")
    answer = await ask(client, "kalam.api.ada.live", {"sql": f"SELECT id FROM {table}", "format": "msgpack"})
    subscription = await client.subscribe(answer["subject"])
    assert msgpack.unpackb((await subscription.next_msg(5)).data)["type"] == "ready"
    shared_server.sql(f"INSERT INTO {table} VALUES (1, 'x', 1), (2, 'x', 1)")
    body = msgpack.unpackb((await subscription.next_msg(5)).data)
    assert body == {
        "type": "changes",
        "changes": [{"op": "insert", "seq": 1, "row": {"id": 1}}, {"op": "insert", "seq": 2, "row": {"id": 2}}],
    }


async def test_a_live_query_ends_after_its_last_subscriber(
    shared_server: ServerProcess, client: Client, wait_until: WaitUntil
) -> None:
    table = make(shared_server, "gone")
    live = await subscribe(client, f"SELECT * FROM {table}")
    unheard = await ask(client, "kalam.api.ada.live", {"sql": f"SELECT * FROM {table}"})
    await live.subscription.unsubscribe()
    await wait_until(lambda: not {live.id, unheard["id"]} & listed(shared_server).keys())


async def test_close_kill_and_a_drop_that_is_refused(shared_server: ServerProcess, client: Client) -> None:
    table = make(shared_server, "ended")
    closed, killed = [await subscribe(client, f"SELECT * FROM {table}") for _ in range(2)]
    with pytest.raises(SqlFailed) as refusal:
        shared_server.sql(f"DROP TABLE {table}")
    assert refusal.value.code == "table_in_use"
    assert closed.id in str(refusal.value)
    assert await closed.close() == {"closed": True}
    shared_server.sql(f"KILL LIVE QUERY '{killed.id}'")
    await closed.wait(lambda: closed.of("closed"))
    await killed.wait(lambda: killed.of("closed"))
    assert killed.of("closed") == [{"type": "closed", "reason": "killed"}]
    shared_server.sql(f"DROP TABLE {table}")
    with pytest.raises(SqlFailed) as missing:
        shared_server.sql(f"KILL LIVE QUERY '{killed.id}'")
    assert missing.value.code == "not_found"


async def test_subscribe_answers_with_a_subject(shared_server: ServerProcess, client: Client) -> None:
    table = make(shared_server, "spoken")
    shared_server.sql(f"INSERT INTO {table} VALUES (1, 'x', 1), (2, 'y', 2)")
    text = f"SUBSCRIBE TO SELECT id FROM {table} WHERE u = $1 OPTIONS (last_rows = 5)"
    [[query_id, subject, _]] = shared_server.sql(text, "x")
    subscription = await client.subscribe(subject)
    assert json.loads((await subscription.next_msg(5)).data) == {"type": "snapshot", "rows": [{"id": 1}]}
    assert json.loads((await subscription.next_msg(5)).data)["type"] == "ready"
    assert [row[0] for row in shared_server.sql("SHOW LIVE QUERIES") if row[2] == table] == [query_id]


async def test_system_live_queries_says_what_is_open(shared_server: ServerProcess, client: Client) -> None:
    table = make(shared_server, "counted")
    live = await subscribe(client, f"SELECT id FROM {table} WHERE u = 'x'", last_rows=3)
    shared_server.sql(f"INSERT INTO {table} VALUES (1, 'x', 1), (2, 'y', 2), (3, 'x', 2)")
    await live.wait_changes(2)
    row = listed(shared_server)[live.id]
    assert row[1:5] == ["ada", table, f"SELECT id FROM {table} WHERE u = 'x'", '{"last_rows":3,"format":"json"}']
    assert row[6:] == [2, 0, 0, 3, None]


async def test_heartbeats_tell_how_far_the_changes_have_come(shared_server: ServerProcess, client: Client) -> None:
    table = make(shared_server, "beats")
    live = await subscribe(client, f"SELECT id FROM {table} WHERE u = 'x'")
    shared_server.sql(f"INSERT INTO {table} VALUES (1, 'other', 1)")
    await live.wait(lambda: live.of("heartbeat"))
    assert live.of("heartbeat")[0] == {"type": "heartbeat", "seq": 1, "table_id": live.answer["table_id"]}


async def test_a_where_that_fails_on_a_row_ends_its_live_query_and_no_other(
    shared_server: ServerProcess, client: Client
) -> None:
    table = make(shared_server, "dividing")
    failing = await subscribe(client, f"SELECT id FROM {table} WHERE 1 / id > 0")
    sound = await subscribe(client, f"SELECT id FROM {table} WHERE id + 1 > 0")
    shared_server.sql(f"INSERT INTO {table} VALUES (0, 'x', 1)")
    await failing.wait(lambda: failing.of("closed"))
    assert failing.of("closed")[0]["reason"].startswith("the WHERE failed: ")
    assert [c["row"]["id"] for c in await sound.wait_changes(1)] == [0]


async def test_a_thousand_live_queries_leave_nothing_behind(
    shared_server: ServerProcess, client: Client, wait_until: WaitUntil
) -> None:
    table = make(shared_server, "thousand")
    before = len(listed(shared_server))
    subs = await asyncio.gather(
        *(subscribe(client, f"SELECT * FROM {table} WHERE id = {n}", last_rows=0) for n in range(1_000))
    )
    shared_server.sql(f"INSERT INTO {table} SELECT value, 'x', 1 FROM range(0, 1000)")
    for number, live in enumerate(subs):
        assert [c["row"]["id"] for c in await live.wait_changes(1)] == [number]
    for live in subs:
        await live.close()
    await wait_until(lambda: len(listed(shared_server)) <= before)
    shared_server.sql(f"DROP TABLE {table}")
