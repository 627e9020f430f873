"""Many STREAM tables, large rows, and more events on the way than the broker lets wait."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from foreign_program import Program
from patience import PATIENCE_S
from server_process import ServerProcess

Connect = Callable[..., Awaitable[Program]]


async def test_a_thousand_tables_each_have_their_own_events(kalam_server: ServerProcess, connect: Connect) -> None:
    server = kalam_server
    names = [f"a.t{number}" for number in range(1_000)]
    server.sql("CREATE NAMESPACE a")
    for start in range(0, len(names), 100):
        part = names[start : start + 100]
        server.sql(";".join(f"CREATE STREAM TABLE {name} (id BIGINT)" for name in part))
    program = await connect(server)
    answers = await asyncio.gather(*(program.insert(name, {"id": n}) for n, name in enumerate(names)))
    assert {answer.body for answer in answers} == {b'{"rows":1,"seq":1}'}
    union = " UNION ALL ".join(f"SELECT id FROM {name}" for name in names[::50])
    assert server.sql(f"SELECT count(*), sum(id) FROM ({union}) AS u") == [[20, sum(range(0, 1_000, 50))]]
    server.kill()
    server.restart()
    assert server.sql("SELECT id FROM a.t999") == [[999]]
    assert server.sql("DROP NAMESPACE a CASCADE") == "namespace a dropped"
    left = json.loads((await (await connect(server)).broker.request("$JS.API.STREAM.NAMES", b"")).data)["streams"]
    assert [name for name in left if name.startswith("KALAM-a")] == []


async def test_a_row_near_max_payload_is_stored_delivered_and_read(
    start_kalam: Callable[..., ServerProcess], connect: Connect
) -> None:
    server = start_kalam(KALAM_ROW_BYTES_MAX=str(8 << 20))
    program = await connect(server)
    server.sql("CREATE NAMESPACE a; CREATE STREAM TABLE a.t (v TEXT)")
    next_event = await program.listen("kalam.stream.a.t")
    size = (8 << 20) - (5 << 10)  # the bound leaves room for headers
    for letter in "abc":
        answer = await program.insert("a.t", {"v": letter * size})
        assert answer.code is None
        assert (await next_event()).json == {"v": letter * size}
    assert server.sql("SELECT length(v), substr(v, 1, 1) FROM a.t") == [[size, letter] for letter in "abc"]


async def test_more_events_than_the_broker_lets_wait_in_one_array_are_all_stored(
    program: Program, namespace: str
) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE STREAM TABLE {table} (id BIGINT) WITH (max_buffer = 1000000)")
    answer = await program.insert(table, [{"id": number} for number in range(50_000)])
    assert answer.json == {"rows": 50_000, "seq": 50_000}
    assert program.server.sql(f"SELECT count(*), count(DISTINCT id) FROM {table}") == [[50_000, 50_000]]


async def test_more_events_than_the_broker_lets_wait_in_many_messages_are_all_stored_in_order(
    program: Program, namespace: str
) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE STREAM TABLE {table} (id BIGINT) WITH (max_buffer = 1000000)")
    subject = f"kalam.api.ann.insert.{table}"
    for number in range(30_000):
        await program.broker.publish(subject, b'{"id":%d}' % number)
    answers = await asyncio.gather(
        *(program.insert(table, [{"id": n} for n in range(start, start + 100)]) for start in range(30_000, 60_000, 100))
    )
    assert [answer.json["seq"] for answer in answers] == list(range(30_100, 60_001, 100))
    told = program.server.sql(f"SELECT id FROM {table}")
    assert [number for [number] in told] == list(range(60_000))


async def test_a_large_array_is_not_torn_apart_by_others(program: Program, namespace: str) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE STREAM TABLE {table} (id BIGINT) WITH (max_buffer = 1000000)")
    large = asyncio.create_task(program.insert(table, [{"id": number} for number in range(20_000)]))
    others = [await program.insert(table, {"id": -number}) for number in range(1, 20)]
    assert (await large).code is None
    assert {answer.code for answer in others} == {None}
    ids = [number for [number] in program.server.sql(f"SELECT id FROM {table}")]
    start = ids.index(0)
    assert ids[start : start + 20_000] == list(range(20_000))
    assert len(ids) == 20_019


async def test_subscribers_see_the_order_of_the_inserts_under_load(program: Program, namespace: str) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE STREAM TABLE {table} (id BIGINT)")
    heard: list[int] = []
    done = asyncio.Event()

    async def hear(message: object) -> None:
        heard.append(json.loads(message.data)["id"])  # type: ignore[attr-defined]
        if len(heard) == 20_000:
            done.set()

    await program.broker.subscribe(f"kalam.stream.{table}", cb=hear)
    await program.broker.flush()
    for start in range(0, 20_000, 2_000):
        batches = [[{"id": n} for n in range(begin, begin + 50)] for begin in range(start, start + 2_000, 50)]
        await asyncio.gather(*(program.insert(table, batch) for batch in batches))
    async with asyncio.timeout(PATIENCE_S):
        await done.wait()
    assert heard == list(range(20_000))
