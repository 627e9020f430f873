"""EPHEMERAL: an event is stored and published only while somebody listens, and what is discarded is counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import nats
import pytest
from foreign_program import Answer, Program
from nats.aio.client import Client
from patience import PATIENCE_S
from server_process import ServerProcess

Connect = Callable[..., Awaitable[Program]]
Stats = Callable[[ServerProcess, str], dict[str, str]]

ROW = {"id": 1, "who": "ann"}
DISCARDED = {"rows": 1, "discarded": 1}


def make_table(server: ServerProcess, namespace: str, name: str = "t", options: str = "") -> str:
    server.sql(f"CREATE STREAM TABLE {namespace}.{name} (id BIGINT, who TEXT) WITH (ephemeral = true{options})")
    return f"{namespace}.{name}"


async def settle(client: Client) -> None:
    """Wait until the broker has taken what the client sent."""
    inbox = client.new_inbox()
    echo = await client.subscribe(inbox)
    await client.publish(inbox)
    await echo.next_msg(10.0)
    await echo.unsubscribe()


async def insert_until(program: Program, table: str, discarded: bool, wait_until: Any, row: Any = ROW) -> Answer:
    """Insert until the row is stored, or discarded, as soon as the answer of up to 250 ms ago has aged."""
    answers: list[Answer] = []

    async def met() -> bool:
        answers.append(await program.insert(table, row))
        assert answers[-1].code is None
        return ("discarded" in answers[-1].json) is discarded

    await wait_until(met)
    return answers[-1]


async def test_without_a_listener_the_row_is_discarded_and_the_insert_succeeds(
    program: Program, namespace: str
) -> None:
    table = make_table(program.server, namespace)
    assert (await program.insert(table, ROW)).json == DISCARDED
    told = program.server.sql(f"INSERT INTO {table} VALUES (1, 'a'), (2, 'b')")
    assert told == "2 rows inserted, 2 of them discarded because nobody listens"
    assert (await program.insert(table, [ROW] * 5)).json == {"rows": 5, "discarded": 5}
    assert program.server.sql(f"SELECT * FROM {table}") == []


@pytest.mark.parametrize("pattern", ["kalam.stream.{}", "kalam.stream.{ns}.*", "kalam.stream.>", "*.stream.{ns}.t"])
async def test_a_plain_subscription_counts(program: Program, namespace: str, pattern: str) -> None:
    table = make_table(program.server, namespace)
    subscription = await program.broker.subscribe(pattern.format(table, ns=namespace))
    await settle(program.broker)
    assert (await program.insert(table, ROW)).json == {"rows": 1, "seq": 1}
    assert json.loads((await subscription.next_msg(10)).data) == ROW
    assert program.server.sql(f"SELECT * FROM {table}") == [[1, "ann"]]


async def test_a_queue_subscription_counts(program: Program, namespace: str) -> None:
    table = make_table(program.server, namespace)
    subscription = await program.broker.subscribe(f"kalam.stream.{table}", queue="workers")
    await settle(program.broker)
    assert (await program.insert(table, ROW)).json == {"rows": 1, "seq": 1}
    assert json.loads((await subscription.next_msg(10)).data) == ROW


async def test_a_listener_of_another_table_or_namespace_never_counts(program: Program, namespace: str) -> None:
    server, other = program.server, f"{namespace}_other"
    server.sql(f"CREATE NAMESPACE {other}")
    table = make_table(server, namespace, "events")
    for subject in (f"{other}.events", f"{namespace}.even", f"{namespace}.events2", f"{namespace}.events.key"):
        await program.broker.subscribe(f"kalam.stream.{subject}")
    await program.broker.subscribe(f"kalam.shared.{table}.>")
    await settle(program.broker)
    make_table(server, other, "events")
    assert (await program.insert(table, ROW)).json == DISCARDED
    assert (await program.insert(f"{other}.events", ROW)).json == {"rows": 1, "seq": 1}


async def test_jetstream_s_capture_and_its_consumers_do_not_count(program: Program, namespace: str) -> None:
    table = make_table(program.server, namespace)
    stream = program.broker.jetstream()
    await stream.subscribe(f"kalam.stream.{table}", ordered_consumer=True)
    await stream.pull_subscribe(f"kalam.stream.{table}", durable="d")
    await settle(program.broker)
    assert (await program.insert(table, ROW)).json == DISCARDED


async def test_kalam_s_own_connections_do_not_count(program: Program, namespace: str) -> None:
    table = make_table(program.server, namespace)
    assert program.server.sql(f"SELECT count(*) FROM {table}") == [[0]]  # has read the stream
    told = program.server.sql(f"INSERT INTO {table} VALUES (1, 'ann')")
    assert told == "1 row inserted, 1 of them discarded because nobody listens"
    assert (await program.insert(table, ROW)).json == DISCARDED
    assert program.server.sql(f"SELECT count(*) FROM {table}") == [[0]]


async def test_a_listener_that_comes_or_goes_is_seen(program: Program, namespace: str, wait_until: Any) -> None:
    table = make_table(program.server, namespace)
    assert (await program.insert(table, ROW)).json == DISCARDED
    subscription = await program.broker.subscribe(f"kalam.stream.{table}")
    await insert_until(program, table, False, wait_until)
    await subscription.unsubscribe()
    await insert_until(program, table, True, wait_until)


async def test_an_answer_is_asked_again_after_250_ms(program: Program, namespace: str) -> None:
    table = make_table(program.server, namespace)
    assert (await program.insert(table, ROW)).json == DISCARDED
    await program.broker.subscribe(f"kalam.stream.{table}")
    await settle(program.broker)
    await asyncio.sleep(0.25)  # the age that the contract allows
    assert (await program.insert(table, ROW)).json == {"rows": 1, "seq": 1}


async def test_one_question_serves_a_whole_batch(start_kalam: Callable[..., ServerProcess], connect: Connect) -> None:
    server = start_kalam()
    program = await connect(server)
    server.sql("CREATE NAMESPACE a")
    table = make_table(server, "a")
    asked: list[bytes] = []

    async def note(message: Any) -> None:
        asked.append(message.data)

    # The account's own traffic to the question's subject is visible to a subscriber in it.
    await program.broker.subscribe("$SYS.DEBUG.SUBSCRIBERS", cb=note)
    await settle(program.broker)
    began = time.monotonic()
    answers = await asyncio.gather(*(program.insert(table, [ROW] * 100) for _ in range(20)))
    assert {answer.json["discarded"] for answer in answers} == {100}
    await settle(program.broker)
    assert asked  # without this the next line would hold where questions cannot be seen
    # One that finds out how this broker is asked, one, and one more for every 250 ms.
    assert len(asked) <= 2 + (time.monotonic() - began) / 0.25
    assert set(asked) == {b"kalam.stream.a.t"}


async def test_with_a_subject_key_each_key_has_its_own_listeners(program: Program, namespace: str) -> None:
    table = make_table(program.server, namespace, options=", subject_key = 'who'")
    heard = await program.broker.subscribe(f"kalam.stream.{table}.ann")
    await settle(program.broker)
    rows = [{"id": 1, "who": "bob"}, {"id": 2, "who": "ann"}, {"id": 3, "who": "cid"}, {"id": 4, "who": "ann"}]
    assert (await program.insert(table, rows)).json == {"rows": 4, "discarded": 2, "seq": 2}
    assert (await program.insert(table, rows[0])).json == DISCARDED
    assert [json.loads((await heard.next_msg(10)).data)["id"] for _ in range(2)] == [2, 4]
    assert program.server.sql(f"SELECT id FROM {table}") == [[2], [4]]


async def test_a_batch_of_more_than_sixteen_keys_is_stored_unasked(program: Program, namespace: str) -> None:
    table = make_table(program.server, namespace, options=", subject_key = 'who'")
    sixteen = [{"id": n, "who": f"u{n}"} for n in range(16)]
    assert (await program.insert(table, sixteen)).json == {"rows": 16, "discarded": 16}
    assert (await program.insert(table, [*sixteen, {"id": 16, "who": "u16"}])).json == {"rows": 17, "seq": 17}


async def test_discarded_rows_are_counted_everywhere(program: Program, namespace: str, stats: Stats) -> None:
    table = make_table(program.server, namespace)
    for count in (1, 2, 4):
        await program.insert(table, [ROW] * count)
    assert stats(program.server, table)["discarded"] == "7"
    assert stats(program.server, table)["published"] == "0"
    described = {name: value for _, name, value, _ in program.server.sql(f"DESCRIBE TABLE {table}")}
    assert (described["discarded"], described["ephemeral"]) == ("7", "true")
    assert f'kalam_stream_discarded_total{{table="{table}"}} 7.0' in program.server.metrics()


async def test_discards_are_logged_at_most_once_a_second(
    start_kalam: Callable[..., ServerProcess], connect: Connect
) -> None:
    server = start_kalam()
    program = await connect(server)
    server.sql("CREATE NAMESPACE a")
    table = make_table(server, "a")
    loop = asyncio.get_running_loop()
    began = loop.time()
    while loop.time() - began < 1.5:
        await asyncio.gather(*(program.insert(table, ROW) for _ in range(20)))
    lines = [line for line in server.log_text().splitlines() if "discarded events" in line]
    assert 1 <= len(lines) <= 1 + loop.time() - began
    assert "a.t" in lines[0]


# Outside brokers


async def test_a_client_of_another_server_of_the_cluster_counts(
    start_kalam: Callable[..., ServerProcess],
    start_nats_server: Callable[..., Any],
    connect: Connect,
    wait_until: Any,
) -> None:
    ports = free_ports(2)
    routes = [f"nats://127.0.0.1:{port}" for port in ports]
    here, there = (
        start_nats_server(
            server_name=f"s{port}", cluster={"name": "c", "host": "127.0.0.1", "port": port, "routes": routes}
        )
        for port in ports
    )
    await jetstream_ready(here.url)
    server = start_kalam(flags=[f"--nats-url={here.url}"])
    local, remote = await connect(server, here.url), await connect(server, there.url)
    server.sql("CREATE NAMESPACE a")
    table = make_table(server, "a")
    assert (await local.insert(table, ROW)).json == DISCARDED
    subscription = await remote.broker.subscribe(f"kalam.stream.{table}")
    await settle(remote.broker)
    await insert_until(local, table, False, wait_until)
    assert json.loads((await subscription.next_msg(10)).data) == ROW
    await subscription.unsubscribe()
    await insert_until(local, table, True, wait_until)


async def test_a_failing_question_stores_the_row(
    start_kalam: Callable[..., ServerProcess], start_nats_server: Callable[..., Any], connect: Connect
) -> None:
    asks_nothing = {"publish": {"deny": ["$SYS.>"]}, "subscribe": ">"}
    users = [{"user": "k", "password": "k", "permissions": asks_nothing}, {"user": "c", "password": "c"}]
    broker = start_nats_server(authorization={"users": users})
    server = start_kalam(flags=[f"--nats-url={broker.url.replace('//', '//k:k@')}"])
    program = await connect(server, broker.url, user="c", password="c")
    server.sql("CREATE NAMESPACE a")
    table = make_table(server, "a")
    assert (await program.insert(table, ROW)).json == {"rows": 1, "seq": 1}
    assert server.sql(f"SELECT * FROM {table}") == [[1, "ann"]]


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(one.getsockname()[1]) for one in sockets]


async def jetstream_ready(url: str) -> None:
    """Wait until the servers of a cluster have elected a leader for JetStream."""
    client = await nats.connect(url, allow_reconnect=False)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    reply = await client.request("$JS.API.INFO", timeout=1.0)
                    if "error" not in json.loads(reply.data):
                        return
                except nats.errors.Error:
                    pass
                await asyncio.sleep(0.05)
    finally:
        await client.close()
