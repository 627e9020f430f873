"""What is refused of a table over a stream of others, and that nothing of it is ever changed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from foreign_program import Program
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StreamConfig
from server_process import ServerProcess, SqlFailed

_numbers = itertools.count(1)


@pytest.fixture
async def name(program: Program) -> str:
    """A stream with three messages."""
    name = f"R{next(_numbers)}"
    js = program.broker.jetstream()
    await js.add_stream(StreamConfig(name=name, subjects=[f"r.{name}.*"]))
    for number in range(1, 4):
        await js.publish(f"r.{name}.a", json.dumps({"id": number, "who": "ann"}).encode())
    return name


@pytest.fixture
def table(program: Program, namespace: str, name: str) -> str:
    create = f"CREATE STREAM TABLE {namespace}.t (id BIGINT, who TEXT, what TEXT FROM TOKEN 3) OVER STREAM '{name}'"
    assert program.server.sql(create) == f"STREAM table {namespace}.t over the stream {name} created"
    return f"{namespace}.t"


def refused(server: ServerProcess, text: str) -> SqlFailed:
    with pytest.raises(SqlFailed) as failure:
        server.sql(text)
    return failure.value


async def state(js: JetStreamContext, name: str) -> tuple[Any, ...]:
    info = await js.stream_info(name)
    return info.config.as_dict(), info.state.messages, info.state.first_seq, info.state.last_seq


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO {} VALUES (1, 'x', 'y')",
        "INSERT INTO {} (nothing) VALUES (1)",
        "INSERT INTO {} (id) SELECT 1 WHERE 1 = 0",
        "UPDATE {} SET who = 'bob'",
        "DELETE FROM {}",
        "DELETE FROM {} WHERE id = 1 RETURNING id",
        "FLUSH TABLE {}",
        "COMPACT TABLE {}",
        "CHECK TABLE {}",
        "ALTER TABLE {} SET (retention = '1h')",
        "ALTER TABLE {} SET (max_buffer = 5)",
        "ALTER TABLE {} RENAME COLUMN who TO whom",
    ],
)
async def test_it_is_read_only(program: Program, table: str, name: str, statement: str) -> None:
    before = await state(program.broker.jetstream(), name)
    assert refused(program.server, statement.format(table)).code == "unsupported"
    assert await state(program.broker.jetstream(), name) == before


async def test_rows_sent_to_it_are_refused_at_every_door(program: Program, table: str) -> None:
    for row in ({"id": 4}, {"no": "column"}, [{"id": 4}, {"id": 5}]):
        answer = await program.insert(table, row)
        assert answer.code == "unsupported"
        assert "never changed" in answer.detail
    assert program.server.sql(f"SELECT count(*) FROM {table}") == [[3]]


@pytest.mark.parametrize(
    ("columns", "behind", "code"),
    [
        ("id BIGINT PRIMARY KEY", "", "unsupported"),
        ("id BIGINT", "WITH (retention = '1h')", "unsupported"),
        ("id BIGINT", "WITH (max_buffer = 1)", "unsupported"),
        ("id BIGINT", "WITH (flush_policy = 'rows:1')", "invalid_option"),
        ("id BIGINT", "WITH (payload = 'xml')", "invalid_option"),
        ("id BIGINT", "WITH (payload = 'text')", "invalid_option"),
        ("a TEXT, b TEXT", "WITH (payload = 'text')", "invalid_option"),
        ("a TEXT", "WITH (payload = 'raw')", "invalid_option"),
        ("a TEXT FROM PATH 'x'", "WITH (payload = 'csv')", "invalid_option"),
        ("a BLOB FROM TOKEN 1", "", "unsupported"),
        ("a TEXT FROM TOKEN 0", "", "syntax_error"),
        ("a TEXT FROM PATH '[0]'", "", "invalid_value"),
        ("a TEXT FROM HEADER 'a:b'", "", "invalid_value"),
        ("a TEXT DEFAULT CURRENT_USER()", "", "unsupported"),
        ("a TEXT", "SUBJECT 'r..x'", "invalid_value"),
        ("a TEXT", "DOMAIN 'nowhere'", "not_found"),
        ("_seq BIGINT", "", "invalid_name"),
    ],
)
async def test_what_cannot_be_read_so_is_not_created(
    program: Program, namespace: str, name: str, columns: str, behind: str, code: str
) -> None:
    failure = refused(program.server, f"CREATE STREAM TABLE {namespace}.t ({columns}) OVER STREAM '{name}' {behind}")
    assert failure.code == code
    assert program.server.sql(f"SHOW TABLES IN {namespace}") == []


async def test_from_and_over_belong_to_stream_tables(program: Program, namespace: str, name: str) -> None:
    for text in (
        f"CREATE TABLE {namespace}.t (id BIGINT) OVER STREAM '{name}'",
        f"CREATE USER TABLE {namespace}.t (id BIGINT) OVER STREAM '{name}'",
        f"CREATE STREAM TABLE {namespace}.t (id BIGINT FROM TOKEN 1)",
        f"CREATE TABLE {namespace}.t (id BIGINT FROM HEADER 'x')",
        f"CREATE TABLE {namespace}.t (id BIGINT) OVER BUCKET 'b'",
    ):
        assert refused(program.server, text).code == "unsupported"
    program.server.sql(f"CREATE TABLE {namespace}.own (id BIGINT)")
    failure = refused(program.server, f"ALTER TABLE {namespace}.own ADD COLUMN a TEXT FROM TOKEN 1")
    assert failure.code == "unsupported"


async def test_streams_that_kalam_made_are_not_adopted(program: Program, namespace: str) -> None:
    program.server.sql(f"CREATE STREAM TABLE {namespace}.own (id BIGINT)")
    for name in (f"KALAM-{namespace}-own", "KALAM-CHANGES"):
        failure = refused(program.server, f"CREATE STREAM TABLE {namespace}.t (id BIGINT) OVER STREAM '{name}'")
        assert failure.code == "unsupported"
    names = [row[0] for row in program.server.sql("SHOW STREAMS")]
    assert not [name for name in names if name.startswith("KALAM-")]


async def test_a_stream_that_is_not_there_is_not_found_and_heals(
    program: Program, namespace: str, table: str, name: str
) -> None:
    js = program.broker.jetstream()
    failure = refused(program.server, f"CREATE STREAM TABLE {namespace}.u (id BIGINT) OVER STREAM '{name}x'")
    assert failure.code == "not_found"
    assert name in failure.problem["hint"]
    assert program.server.sql(f"SELECT count(*) FROM {table}") == [[3]]
    await js.delete_stream(name)
    assert refused(program.server, f"SELECT * FROM {table}").code == "not_found"
    assert dict(program.server.sql(f"SHOW STATS FOR TABLE {table}"))["unreadable"].startswith("not_found")
    await js.add_stream(StreamConfig(name=name, subjects=[f"r.{name}.*"]))
    assert program.server.sql(f"SELECT count(*) FROM {table}") == [[0]]
    await js.publish(f"r.{name}.a", b'{"id": 9}')
    assert program.server.sql(f"SELECT id FROM {table}") == [[9]]


async def test_a_drop_leaves_the_stream_as_it_is(program: Program, table: str, name: str) -> None:
    before = await state(program.broker.jetstream(), name)
    assert program.server.sql(f"SELECT count(*) FROM {table}") == [[3]]
    program.server.sql(f"DROP STREAM TABLE {table}")
    assert await state(program.broker.jetstream(), name) == before
    assert (await program.broker.jetstream().consumers_info(name)) == []
    assert refused(program.server, f"SELECT * FROM {table}").code == "table_not_found"


async def test_show_create_makes_the_same_table_again(program: Program, namespace: str, name: str) -> None:
    server = program.server
    server.sql(
        f"""CREATE STREAM TABLE {namespace}.t (id BIGINT NOT NULL, who TEXT DEFAULT 'nobody', "order" TEXT FROM TOKEN 3,
        deep DOUBLE FROM PATH 'a["b.c"][2].d', h TEXT FROM HEADER 'it''s')
        OVER STREAM '{name}' SUBJECT 'r.*.a' WITH (invalid = 'null')"""
    )
    [[text]] = server.sql(f"SHOW CREATE TABLE {namespace}.t")
    described = [row[:3] for row in server.sql(f"DESCRIBE TABLE {namespace}.t") if row[0] in ("column", "option")]
    server.sql(f"DROP TABLE {namespace}.t")
    server.sql(text)
    again = [row[:3] for row in server.sql(f"DESCRIBE TABLE {namespace}.t") if row[0] in ("column", "option")]
    assert again == described
    assert server.sql(f"SHOW CREATE TABLE {namespace}.t") == [[text]]


async def test_columns_are_added_and_dropped_over_the_whole_past(program: Program, table: str) -> None:
    server = program.server
    assert server.sql(f"SELECT * FROM {table} WHERE id = 1") == [[1, "ann", "a"]]
    server.sql(f"ALTER TABLE {table} ADD COLUMN root TEXT FROM TOKEN 1")
    server.sql(f"ALTER TABLE {table} ADD COLUMN same TEXT FROM PATH 'who'")
    server.sql(f"ALTER TABLE {table} DROP COLUMN who")
    assert server.sql(f"SELECT * FROM {table} WHERE id = 1") == [[1, "a", "r", "ann"]]


@pytest.mark.parametrize("retention", [RetentionPolicy.WORK_QUEUE, RetentionPolicy.INTEREST])
async def test_streams_that_a_consumer_would_change_are_read_unseen(
    program: Program, namespace: str, retention: RetentionPolicy, connect: Callable[..., Awaitable[Program]]
) -> None:
    js, name = program.broker.jetstream(), f"Q{next(_numbers)}"
    config = StreamConfig(name=name, subjects=[f"q.{name}.*"], retention=retention, allow_direct=False)
    await js.add_stream(config)
    worker = await js.pull_subscribe("", "worker", stream=name)
    create = f"CREATE STREAM TABLE {namespace}.t (id BIGINT, what TEXT FROM TOKEN 3) OVER STREAM '{name}'"
    failure = refused(program.server, create)
    assert failure.code == "unsupported"
    assert "--allow-direct" in failure.problem["hint"]
    config.allow_direct = True
    await js.update_stream(config)
    for number in range(1, 6):
        headers = {"h": "x"} if number % 2 else None
        await js.publish(f"q.{name}.{'ab'[number % 2]}", json.dumps({"id": number}).encode(), headers=headers)
    program.server.sql(create)
    table = f"{namespace}.t"
    assert program.server.sql(f"SELECT id FROM {table}") == [[1], [2], [3], [4], [5]]
    assert program.server.sql(f"SELECT id, _headers FROM {table} WHERE what = 'b'") == [
        [number, {"h": ["x"]}] for number in (1, 3, 5)
    ]
    assert [consumer.name for consumer in await js.consumers_info(name)] == ["worker"]
    for message in await worker.fetch(2):
        await message.ack_sync()
    assert program.server.sql(f"SELECT id FROM {table}") == [[3], [4], [5]]
    assert len(await worker.fetch(3)) == 3


async def test_at_the_limit_of_consumers_it_is_read_all_the_same(program: Program, namespace: str) -> None:
    js, name = program.broker.jetstream(), f"L{next(_numbers)}"
    await js.add_stream(StreamConfig(name=name, subjects=[f"l.{name}"], max_consumers=1, allow_direct=True))
    await js.pull_subscribe("", "one", stream=name)
    await js.publish(f"l.{name}", b'{"id": 1}')
    program.server.sql(f"CREATE STREAM TABLE {namespace}.t (id BIGINT) OVER STREAM '{name}'")
    assert program.server.sql(f"SELECT id FROM {namespace}.t") == [[1]]
