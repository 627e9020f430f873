"""SELECT over a STREAM table: the window is what the broker holds, in the order of the inserts."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from foreign_program import Program
from server_process import ServerProcess, SqlFailed

Connect = Callable[..., Awaitable[Program]]
WaitFor = Callable[[Callable[[], Any]], Any]


def make_table(server: ServerProcess, namespace: str, options: str = "", name: str = "t") -> str:
    server.sql(f"CREATE STREAM TABLE {namespace}.{name} (id BIGINT, who TEXT)" + (options and f" WITH ({options})"))
    return f"{namespace}.{name}"


def rows(start: int, stop: int) -> list[dict[str, Any]]:
    return [{"id": number, "who": f"u{number % 7}"} for number in range(start, stop)]


async def fill(program: Program, table: str, count: int, *, at_once: int = 5_000) -> None:
    for start in range(0, count, 4 * at_once):
        parts = [rows(begin, begin + at_once) for begin in range(start, min(start + 4 * at_once, count), at_once)]
        answers = await asyncio.gather(*(program.insert(table, part) for part in parts))
        assert all(answer.code is None for answer in answers)


async def test_a_row_past_its_retention_is_invisible_at_once(program: Program, namespace: str) -> None:
    table = make_table(program.server, namespace, "retention = '3s'")
    before = time.time()
    await program.insert(table, rows(0, 100))
    after = time.time()
    while True:
        asked = time.time()
        visible = program.server.sql(f"SELECT id FROM {table}")
        if not visible:
            break
        assert asked < after + 3
    assert time.time() > before + 3
    await program.insert(table, rows(100, 101))
    assert program.server.sql(f"SELECT id FROM {table}") == [[100]]


async def test_max_buffer_is_exact_under_load(program: Program, namespace: str) -> None:
    table = make_table(program.server, namespace, "max_buffer = 100")
    await program.insert(table, rows(0, 100))
    writing = asyncio.create_task(fill(program, table, 40_000, at_once=500))
    queries = 0
    while not writing.done():
        answer = await program.ask_sql(f"SELECT count(*), max(id) - min(id), count(DISTINCT id) FROM {table}")
        [[count, span, distinct]] = answer.json["results"][-1]["rows"]
        assert (count, distinct, span) == (100, 100, 99)
        queries += 1
    await writing
    assert queries > 3
    assert program.server.sql(f"SELECT min(id), max(id), count(*) FROM {table}") == [[39_900, 39_999, 100]]


async def test_a_first_query_under_load_is_exact_too(program: Program, namespace: str) -> None:
    tables = [make_table(program.server, namespace, "max_buffer = 1000", f"t{number}") for number in range(8)]
    for table in tables:
        await program.insert(table, rows(0, 1_000))
    writing = [asyncio.create_task(fill(program, table, 20_000, at_once=500)) for table in tables]
    for table in tables:
        answer = await program.ask_sql(f"SELECT count(*), max(id) - min(id) FROM {table}")
        assert answer.json["results"][-1]["rows"] == [[1_000, 999]]
    await asyncio.gather(*writing)


async def test_what_was_acknowledged_is_read(program: Program, namespace: str) -> None:
    table = make_table(program.server, namespace)
    for number in range(40):
        await program.insert(table, rows(number, number + 1))
        assert program.server.sql(f"SELECT count(*), max(id) FROM {table}") == [[number + 1, number]]


async def test_a_stream_joins_with_other_tables(program: Program, namespace: str) -> None:
    server = program.server
    table = make_table(server, namespace)
    server.sql(
        f"CREATE SHARED TABLE {namespace}.people (who TEXT PRIMARY KEY, name TEXT);"
        f"CREATE USER TABLE {namespace}.liked (id BIGINT PRIMARY KEY);"
        f"CREATE STREAM TABLE {namespace}.other (id BIGINT);"
        f"INSERT INTO {namespace}.people VALUES ('u1', 'Una'), ('u2', 'Due');"
        f"INSERT INTO {namespace}.liked VALUES (1), (2); INSERT INTO {namespace}.other VALUES (2), (3)"
    )
    await program.insert(table, rows(0, 10))
    joined = server.sql(
        f"SELECT t.id, p.name, o.id FROM {table} t JOIN {namespace}.people p ON t.who = p.who "
        f"JOIN {namespace}.liked l ON l.id = t.id LEFT JOIN {namespace}.other o ON o.id = t.id ORDER BY t.id"
    )
    assert joined == [[1, "Una", None], [2, "Due", 2]]


@pytest.mark.parametrize("rest", ["", " LIMIT 50", " WHERE id % 3 = 0", " WHERE id % 3 = 0 LIMIT 20 OFFSET 5"])
async def test_without_order_by_rows_come_in_the_order_of_their_inserts(
    program: Program, namespace: str, rest: str
) -> None:
    table = make_table(program.server, namespace)
    ids = [(number * 7_919) % 10_000 for number in range(10_000)]
    for start in range(0, 10_000, 2_500):
        await program.insert(table, [{"id": number} for number in ids[start : start + 2_500]])
        program.server.sql(f"SELECT count(*) FROM {table}")  # so the window comes in several pieces
    expected = [number for number in ids if "WHERE" not in rest or number % 3 == 0]
    offset = 5 if "OFFSET" in rest else 0
    limit = int(rest.split("LIMIT ")[1].split()[0]) if "LIMIT" in rest else len(expected)
    told = [number for [number] in program.server.sql(f"SELECT id FROM {table}{rest}")]
    assert told == expected[offset : offset + limit]


async def test_keys_are_unique_within_a_millisecond_and_say_when(program: Program, namespace: str) -> None:
    table = make_table(program.server, namespace)
    await program.insert(table, rows(0, 5_000))
    keys = [key for [key] in program.server.sql(f"SELECT _key FROM {table}")]
    assert len(set(keys)) == 5_000
    moments = [tuple(map(int, key.split(":"))) for key in keys]
    assert moments == sorted(moments)
    assert len({moment for moment, _ in moments}) < 5_000
    again = [key for [key] in program.server.sql(f"SELECT _key FROM {table}")]
    assert again == keys


async def test_the_key_is_read_by_name_and_never_by_a_star(program: Program, namespace: str) -> None:
    table = make_table(program.server, namespace)
    await program.insert(table, rows(0, 3))
    [result] = program.server.results(f"SELECT * FROM {table}")
    assert [column["name"] for column in result["columns"]] == ["id", "who"]
    [[key]] = program.server.sql(f"SELECT _key FROM {table} WHERE id = 1")
    assert program.server.sql(f"SELECT id FROM {table} WHERE _key = $1", key) == [[1]]
    with pytest.raises(SqlFailed) as refused:
        program.server.sql(f"INSERT INTO {table} (_key) VALUES ('1:1')")
    assert refused.value.code == "invalid_value"
    assert (await program.insert(table, {"id": 1, "_key": "1:1"})).code == "invalid_value"


async def test_after_a_restart_the_window_is_loaded_again(kalam_server: ServerProcess, connect: Connect) -> None:
    server = kalam_server
    server.sql("CREATE NAMESPACE a")
    table = make_table(server, "a", "max_buffer = 50000")
    await fill(await connect(server), table, 30_000)
    before = server.sql(f"SELECT id, _key FROM {table}")
    server.kill()
    server.restart()
    assert server.sql(f"SELECT id, _key FROM {table}") == before
    await (await connect(server)).insert(table, rows(30_000, 30_001))
    assert server.sql(f"SELECT count(*), max(id) FROM {table}") == [[30_001, 30_000]]


async def test_two_hundred_thousand_rows_are_read_and_read_again(program: Program, namespace: str) -> None:
    table = make_table(program.server, namespace, "max_buffer = 200000")
    await fill(program, table, 210_000)
    for _ in range(2):
        assert program.server.sql(f"SELECT count(*), min(id), max(id), count(DISTINCT id) FROM {table}") == [
            [200_000, 10_000, 209_999, 200_000]
        ]


async def test_a_window_over_its_bound_is_too_large(
    start_kalam: Callable[..., ServerProcess], connect: Connect
) -> None:
    server = start_kalam(KALAM_STREAM_WINDOW_BYTES_MAX=str(2 << 20))
    program = await connect(server)
    server.sql("CREATE NAMESPACE a")
    table = make_table(server, "a", "max_buffer = 100000")
    small = make_table(server, "a", name="small")
    await program.insert(table, [{"who": "x" * 1_000}] * 4_000)
    await program.insert(small, rows(0, 10))
    for _ in range(2):
        with pytest.raises(SqlFailed) as refused:
            server.sql(f"SELECT count(*) FROM {table}")
        assert (refused.value.code, "stream_window_bytes_max" in str(refused.value)) == ("too_large", True)
    assert server.sql(f"SELECT count(*) FROM {small}") == [[10]]
    server.sql(f"DROP TABLE {table}")


async def test_the_window_used_longest_ago_is_let_go_of_when_all_are_too_large(
    start_kalam: Callable[..., ServerProcess], connect: Connect
) -> None:
    server = start_kalam(KALAM_STREAM_WINDOWS_BYTES_MAX=str(3 << 20))
    program = await connect(server)
    server.sql("CREATE NAMESPACE a")
    loaded: list[str] = []

    async def note(message: Any) -> None:
        loaded.append(message.subject.split(".")[5].removeprefix("KALAM-a-"))

    await program.broker.subscribe("$JS.EVENT.ADVISORY.CONSUMER.CREATED.>", cb=note)
    for name in ("one", "two", "small"):
        count = 10 if name == "small" else 2_000
        table = make_table(server, "a", "max_buffer = 100000", name=name)
        await program.insert(table, [{"who": "x" * 1_000}] * count)
    for name in ("small", "one", "small", "two", "small", "two", "one"):
        assert server.sql(f"SELECT count(*) FROM a.{name}") == [[10 if name == "small" else 2_000]]
    await program.broker.flush()
    assert loaded == ["small", "one", "two", "one"]


async def test_a_long_life_of_a_small_buffer_stays_within_the_bound(
    start_kalam: Callable[..., ServerProcess], connect: Connect
) -> None:
    server = start_kalam(KALAM_STREAM_WINDOW_BYTES_MAX=str(1 << 20))
    program = await connect(server)
    server.sql("CREATE NAMESPACE a")
    table = make_table(server, "a", "max_buffer = 100")
    for _ in range(60):  # 3 MB pass a window of 1 MB
        await program.insert(table, [{"id": 1, "who": "x" * 1_000}] * 50)
        server.sql(f"SELECT count(*) FROM {table}")
    assert server.sql(f"SELECT count(*) FROM {table}") == [[100]]


async def test_deleted_rows_are_gone_for_every_reader(program: Program, namespace: str) -> None:
    server = program.server
    table = make_table(server, namespace)
    await program.insert(table, rows(0, 100))
    assert server.sql(f"DELETE FROM {table} WHERE id >= 90") == "10 events deleted"
    assert server.sql(f"DELETE FROM {table} WHERE id < 10") == "10 events deleted"
    assert server.sql(f"DELETE FROM {table} WHERE id BETWEEN 40 AND 49 OR id = 10") == "11 events deleted"
    expected = [[number] for number in range(11, 90) if not 40 <= number < 50]
    assert server.sql(f"SELECT id FROM {table}") == expected
    consumer = await program.broker.jetstream().subscribe(f"kalam.stream.{table}", ordered_consumer=True)
    left = [json.loads((await consumer.next_msg(10)).data)["id"] for _ in expected]
    assert left == [number for [number] in expected]
    assert server.sql(f"DELETE FROM {table}") == f"{len(expected)} events deleted"
    assert server.sql(f"SELECT count(*) FROM {table}") == [[0]]
    assert (await program.insert(table, rows(0, 1))).json == {"rows": 1, "seq": 101}
    assert server.sql(f"SELECT * FROM {table}") == [[0, "u0"]]


async def test_events_that_somebody_removes_behind_kalam_s_back_are_gone(program: Program, namespace: str) -> None:
    table = make_table(program.server, namespace)
    stream = f"KALAM-{table.replace('.', '-')}"
    await program.insert(table, rows(0, 10))
    assert program.server.sql(f"SELECT count(*) FROM {table}") == [[10]]
    await program.broker.jetstream().delete_msg(stream, 5)
    assert program.server.sql(f"SELECT id FROM {table} WHERE id BETWEEN 3 AND 5") == [[3], [5]]
    await program.broker.jetstream().purge_stream(stream)
    assert program.server.sql(f"SELECT id FROM {table}") == []


async def test_a_table_that_nobody_queries_has_no_consumer(program: Program, namespace: str) -> None:
    table = make_table(program.server, namespace)
    await program.insert(table, rows(0, 10))
    info = await program.broker.jetstream().stream_info(f"KALAM-{table.replace('.', '-')}")
    assert info.state.consumer_count == 0
