"""CREATE, ALTER, DESCRIBE and DROP of STREAM tables, and what is refused on them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from foreign_program import Program
from server_process import ServerProcess, SqlFailed

Connect = Callable[..., Awaitable[Program]]
Stats = Callable[[ServerProcess, str], dict[str, str]]
WaitFor = Callable[[Callable[[], Any]], Any]

NS = 1_000_000_000
COLUMNS = "(id BIGINT, who TEXT)"


async def config(program: Program, table: str) -> dict[str, Any]:
    """The JetStream configuration of a table's stream, as the broker says it."""
    answer = await program.ask(f"$JS.API.STREAM.INFO.KALAM-{table.replace('.', '-')}", b"")
    return dict(answer.json["config"])


async def state(program: Program, table: str) -> dict[str, Any]:
    answer = await program.ask(f"$JS.API.STREAM.INFO.KALAM-{table.replace('.', '-')}", b"")
    return dict(answer.json["state"])


def described(server: ServerProcess, table: str) -> dict[str, str]:
    return {name: value for _, name, value, _ in server.sql(f"DESCRIBE TABLE {table}")}


def refused(server: ServerProcess, text: str) -> SqlFailed:
    with pytest.raises(SqlFailed) as failure:
        server.sql(text)
    return failure.value


DEFAULTS = {"max_age": 0, "max_msgs": 10_000, "storage": "file", "num_replicas": 1, "discard": "old"}


@pytest.mark.parametrize(
    ("clauses", "expected"),
    [
        ("", {}),
        ("WITH (retention = '10s')", {"max_age": 10 * NS, "duplicate_window": 10 * NS}),
        ("WITH (retention = '5m')", {"max_age": 300 * NS, "duplicate_window": 120 * NS}),
        ("WITH (retention = '1h')", {"max_age": 3_600 * NS}),
        ("WITH (RETENTION = '7d')", {"max_age": 7 * 86_400 * NS}),
        ("WITH (retention = 60)", {"max_age": 60 * NS}),
        ("WITH (ttl_seconds = 60)", {"max_age": 60 * NS}),
        ("WITH (max_buffer = 1)", {"max_msgs": 1}),
        ("WITH (max_buffer = 100000000)", {"max_msgs": 100_000_000}),
        ("WITH (ephemeral = true)", {"storage": "memory"}),
        ("WITH (ephemeral = true, storage = 'file')", {"storage": "file"}),
        ("WITH (storage = 'memory')", {"storage": "memory"}),
        ("WITH (replicas = 1)", {"num_replicas": 1}),
        ("RETENTION 10s EPHEMERAL MAX_BUFFER 1000", {"max_age": 10 * NS, "max_msgs": 1_000, "storage": "memory"}),
        ("MAX_BUFFER 5 RETENTION 1h", {"max_age": 3_600 * NS, "max_msgs": 5}),
    ],
)
async def test_the_options_are_the_limits_of_the_jetstream_stream(
    program: Program, namespace: str, clauses: str, expected: dict[str, Any]
) -> None:
    program.server.sql(f"CREATE STREAM TABLE {namespace}.t {COLUMNS} {clauses}")
    found = await config(program, f"{namespace}.t")
    wanted = DEFAULTS | expected
    assert {name: found[name] for name in wanted} == wanted
    assert found["subjects"] == [f"kalam.stream.{namespace}.t"]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("retention = '0s'", ["RETENTION", "1 s"]),
        ("retention = 'soon'", ["RETENTION", "'10s'"]),
        ("retention = -5", ["RETENTION"]),
        ("max_buffer = 0", ["MAX_BUFFER", "100,000,000"]),
        ("max_buffer = 100000001", ["MAX_BUFFER", "100,000,000"]),
        ("max_buffer = 'many'", ["MAX_BUFFER"]),
        ("ephemeral = 'perhaps'", ["EPHEMERAL", "true or false"]),
        ("subject_key = 'nobody'", ["SUBJECT_KEY", "nobody"]),
        ("storage = 'tape'", ["STORAGE", "'file'", "'memory'"]),
        ("replicas = 2", ["REPLICAS", "1, 3 or 5"]),
        ("replicas = 3", ["replicas"]),
        ("format = 'xml'", ["FORMAT", "'json'", "'msgpack'"]),
        ("flush_policy = 'rows:10'", ["FLUSH_POLICY", "SHARED"]),
        ("compression = 'zstd'", ["COMPRESSION", "SHARED"]),
        ("retentoin = '10s'", ["RETENTOIN", "RETENTION"]),
        ("retention = '10s', ttl_seconds = 10", ["RETENTION", "twice"]),
    ],
)
async def test_an_option_out_of_bounds_is_named_with_what_is_allowed(
    program: Program, namespace: str, option: str, words: list[str]
) -> None:
    failure = refused(program.server, f"CREATE STREAM TABLE {namespace}.t {COLUMNS} WITH ({option})")
    assert failure.code == "invalid_option"
    assert [word for word in words if word not in str(failure.problem)] == []
    assert program.server.sql(f"SHOW TABLES IN {namespace}") == []
    answer = await program.ask(f"$JS.API.STREAM.INFO.KALAM-{namespace}-t", b"")
    assert answer.json["error"]["code"] == 404


def test_a_stream_table_takes_no_primary_key(shared_server: ServerProcess, namespace: str) -> None:
    failure = refused(shared_server, f"CREATE STREAM TABLE {namespace}.t (id BIGINT PRIMARY KEY)")
    assert failure.code == "unsupported"


async def test_a_subject_key_is_the_last_token_of_the_subject(program: Program, namespace: str) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE STREAM TABLE {table} {COLUMNS} WITH (subject_key = 'who')")
    assert (await config(program, table))["subjects"] == [f"kalam.stream.{table}.*"]
    assert described(program.server, table)["subject"] == f"kalam.stream.{table}.*"
    next_event = await program.listen(f"kalam.stream.{table}.>")
    for who, token in (("ann", "ann"), (None, "-"), ("a b", "=YSBi"), ("", "-"), ("-", "=LQ")):
        await program.insert(table, {"id": 1, "who": who})
        assert (await next_event()).subject == f"kalam.stream.{table}.{token}"


async def test_describe_and_show_stats_tell_all_of_a_table(program: Program, namespace: str, stats: Stats) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE STREAM TABLE {table} {COLUMNS} WITH (retention = '10s')")
    await program.insert(table, [{"id": number} for number in range(3)])
    assert (await program.insert(table, {"id": "x"})).code == "invalid_value"
    held = await state(program, table)
    for told in (described(program.server, table), stats(program.server, table)):
        expected = {
            "buffered_rows": "3",
            "buffered_bytes": str(held["bytes"]),
            "published": "3",
            "discarded": "0",
            "evicted": "0",
            "rejected": "1",
            "undecodable": "0",
            "subject": f"kalam.stream.{table}",
            "jetstream_stream": f"KALAM-{namespace}-t",
        }
        assert {name: told[name] for name in expected} == expected
        assert told["oldest_event"].endswith("Z")
        assert told["oldest_event"] <= told["newest_event"]
        assert "Parquet" in told["cold_rows"]
    options = described(program.server, table)
    assert {name: options[name] for name in ("retention", "max_buffer", "ephemeral", "storage", "kind")} == {
        "retention": "10 seconds",
        "max_buffer": "10000 rows",
        "ephemeral": "false",
        "storage": "file",
        "kind": "STREAM",
    }


async def test_drop_removes_the_stream_and_the_same_name_again_is_empty(
    program: Program, namespace: str, stats: Stats
) -> None:
    table = f"{namespace}.t"
    for _ in range(2):
        program.server.sql(f"CREATE STREAM TABLE {table} {COLUMNS}")
        assert program.server.sql(f"SELECT * FROM {table}") == []
        assert stats(program.server, table)["published"] == "0"
        assert (await program.insert(table, [{"id": 1}, {"id": 2}])).json == {"rows": 2, "seq": 2}
        assert program.server.sql(f"SELECT count(*) FROM {table}") == [[2]]
        assert program.server.sql(f"DROP STREAM TABLE {table}") == f"STREAM table {table} dropped"
        answer = await program.ask(f"$JS.API.STREAM.INFO.KALAM-{namespace}-t", b"")
        assert answer.json["error"]["code"] == 404
        assert (await program.insert(table, {"id": 1})).code == "table_not_found"
    assert refused(program.server, f"SELECT * FROM {table}").code == "table_not_found"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("UPDATE {t} SET id = 2", "event"),
        ("FLUSH TABLE {t}", "Parquet"),
        ("ALTER TABLE {t} ADD COLUMN c TEXT", "columns"),
        ("ALTER TABLE {t} DROP COLUMN who", "columns"),
        ("ALTER TABLE {t} RENAME COLUMN who TO whom", "columns"),
        ("ALTER TABLE {t} SET (storage = 'memory')", "STORAGE"),
    ],
)
async def test_what_a_stream_table_cannot_do_is_refused_with_a_reason(
    program: Program, namespace: str, text: str, word: str
) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE STREAM TABLE {table} {COLUMNS}")
    await program.insert(table, {"id": 1, "who": "ann"})
    failure = refused(program.server, text.format(t=table))
    assert (failure.code, word in str(failure)) == ("unsupported", True)
    assert program.server.sql(f"SELECT * FROM {table}") == [[1, "ann"]]


async def test_no_parquet_file_ever_appears(kalam_server: ServerProcess, connect: Connect) -> None:
    server = kalam_server
    server.sql(
        f"CREATE NAMESPACE a; CREATE STREAM TABLE a.t {COLUMNS};"
        f"CREATE SHARED TABLE a.s {COLUMNS} WITH (flush_policy = 'rows:10'); INSERT INTO a.s VALUES (1, 'ann')"
    )
    program = await connect(server)
    await program.insert("a.t", [{"id": number} for number in range(10_000)])
    flushed = server.sql("FLUSH ALL TABLES")
    assert [row[1] for row in flushed] == ["a.s"]
    assert server.sql("SELECT count(*) FROM system.segments WHERE table_name = 't'") == [[0]]
    server.stop()
    server.restart()
    files = [file.relative_to(server.data_dir) for file in server.data_dir.rglob("*.parquet")]
    assert len(files) == 1
    assert server.sql("SELECT count(*) FROM a.t") == [[10_000]]


# ALTER TABLE … SET


async def test_alter_changes_the_stream_in_place(program: Program, namespace: str) -> None:
    server, table = program.server, f"{namespace}.t"
    server.sql(f"CREATE STREAM TABLE {table} {COLUMNS}")
    await program.insert(table, [{"id": number} for number in range(100)])
    created = (await config(program, table))["metadata"]
    message = server.sql(f"ALTER TABLE {table} SET (retention = '1h', max_buffer = 200)")
    assert (table in message, "schema version 2" in message) == (True, True)
    found = await config(program, table)
    assert (found["max_age"], found["max_msgs"]) == (3_600 * NS, 200)
    assert found["metadata"]["kalam-table-id"] == created["kalam-table-id"]
    assert server.sql(f"SELECT count(*), min(id) FROM {table}") == [[100, 0]]
    assert (await program.insert(table, {"id": 100})).json == {"rows": 1, "seq": 101}
    told = described(server, table)
    assert (told["retention"], told["max_buffer"]) == ("3600 seconds", "200 rows")
    assert (told["schema_version"], told["published"]) == ("2", "101")


async def test_a_smaller_max_buffer_evicts_at_once(program: Program, namespace: str, stats: Stats) -> None:
    server, table = program.server, f"{namespace}.t"
    server.sql(f"CREATE STREAM TABLE {table} {COLUMNS}")
    await program.insert(table, [{"id": number} for number in range(100)])
    assert server.sql(f"SELECT count(*) FROM {table}") == [[100]]
    server.sql(f"ALTER TABLE {table} SET (max_buffer = 30)")
    assert server.sql(f"SELECT count(*), min(id) FROM {table}") == [[30, 70]]
    assert (await state(program, table))["messages"] == 30
    await program.insert(table, {"id": 100})
    assert server.sql(f"SELECT count(*), min(id) FROM {table}") == [[30, 71]]


async def test_a_shorter_retention_evicts_and_its_duplicate_window_follows(
    program: Program, namespace: str, wait_for: WaitFor, stats: Stats
) -> None:
    server, table = program.server, f"{namespace}.t"
    server.sql(f"CREATE STREAM TABLE {table} {COLUMNS} WITH (retention = '1h')")
    await program.insert(table, [{"id": number} for number in range(10)])
    server.sql(f"ALTER TABLE {table} SET (ttl_seconds = 1)")
    found = await config(program, table)
    assert (found["max_age"], found["duplicate_window"]) == (NS, NS)
    wait_for(lambda: server.sql(f"SELECT count(*) FROM {table}") == [[0]])
    wait_for(lambda: stats(server, table)["evicted_ttl"] == "10")
    server.sql(f"ALTER TABLE {table} SET (retention = '1h')")
    found = await config(program, table)
    assert (found["max_age"], found["duplicate_window"]) == (3_600 * NS, 120 * NS)
    await program.insert(table, {"id": 1})
    await asyncio.sleep(1.5)  # past the former retention
    assert server.sql(f"SELECT count(*) FROM {table}") == [[1]]


async def test_ephemeral_and_format_can_be_altered(program: Program, namespace: str) -> None:
    server, table = program.server, f"{namespace}.t"
    server.sql(f"CREATE STREAM TABLE {table} {COLUMNS}")
    await program.insert(table, {"id": 1, "who": "ann"})
    server.sql(f"ALTER TABLE {table} SET (format = 'msgpack')")
    next_event = await program.listen(f"kalam.stream.{table}")
    await program.insert(table, {"id": 2, "who": "bob"})
    assert (await next_event()).body == b"\x82\xa2id\x02\xa3who\xa3bob"
    assert server.sql(f"SELECT * FROM {table}") == [[1, "ann"], [2, "bob"]]
    server.sql(f"CREATE STREAM TABLE {namespace}.alone {COLUMNS}")
    server.sql(f"ALTER TABLE {namespace}.alone SET (ephemeral = true)")
    assert (await program.insert(f"{namespace}.alone", {"id": 1})).json == {"rows": 1, "discarded": 1}
    server.sql(f"ALTER TABLE {namespace}.alone SET (ephemeral = false)")
    assert (await program.insert(f"{namespace}.alone", {"id": 1})).json == {"rows": 1, "seq": 1}


async def test_a_subject_key_set_later_counts_for_new_events(program: Program, namespace: str) -> None:
    server, table = program.server, f"{namespace}.t"
    server.sql(f"CREATE STREAM TABLE {table} {COLUMNS}")
    await program.insert(table, {"id": 1, "who": "ann"})
    server.sql(f"ALTER TABLE {table} SET (subject_key = 'who')")
    next_event = await program.listen(f"kalam.stream.{table}.bob")
    assert (await program.insert(table, {"id": 2, "who": "bob"})).json == {"rows": 1, "seq": 2}
    assert (await next_event()).json == {"id": 2, "who": "bob"}
    assert server.sql(f"SELECT id FROM {table}") == [[1], [2]]


@pytest.mark.parametrize("option", ["max_buffer = 0", "retention = 'x'", "replicas = 3", "flush_policy = 'rows:1'"])
async def test_an_alter_that_is_refused_changes_nothing(program: Program, namespace: str, option: str) -> None:
    server, table = program.server, f"{namespace}.t"
    server.sql(f"CREATE STREAM TABLE {table} {COLUMNS}")
    before = await config(program, table)
    assert refused(server, f"ALTER TABLE {table} SET ({option})").code == "invalid_option"
    assert await config(program, table) == before
    assert described(server, table)["schema_version"] == "1"


async def test_alter_while_inserts_run_loses_none(program: Program, namespace: str) -> None:
    server, table = program.server, f"{namespace}.t"
    server.sql(f"CREATE STREAM TABLE {table} {COLUMNS} WITH (max_buffer = 100000)")

    async def insert() -> None:
        for start in range(0, 10_000, 100):
            answer = await program.insert(table, [{"id": number} for number in range(start, start + 100)])
            assert answer.json["seq"] == start + 100

    writing = asyncio.create_task(insert())
    for hours in range(1, 11):
        await program.ask_sql(f"ALTER TABLE {table} SET (retention = '{hours}h', max_buffer = {100_000 + hours})")
    await writing
    assert server.sql(f"SELECT count(*) FROM {table}") == [[10_000]]
    assert described(server, table)["schema_version"] == "11"


async def test_an_alter_survives_a_kill(kalam_server: ServerProcess, connect: Connect) -> None:
    server = kalam_server
    server.sql(f"CREATE NAMESPACE a; CREATE STREAM TABLE a.t {COLUMNS}")
    program = await connect(server)
    await program.insert("a.t", [{"id": number} for number in range(10)])
    server.sql("ALTER TABLE a.t SET (max_buffer = 5, retention = '1h')")
    server.kill()
    server.restart()
    program = await connect(server)
    found = await config(program, "a.t")
    assert (found["max_msgs"], found["max_age"]) == (5, 3_600 * NS)
    assert described(server, "a.t")["max_buffer"] == "5 rows"
    assert server.sql("SELECT id FROM a.t") == [[number] for number in range(5, 10)]


async def test_limits_that_somebody_changed_are_set_right_at_the_start(
    kalam_server: ServerProcess, connect: Connect
) -> None:
    server = kalam_server
    server.sql(f"CREATE NAMESPACE a; CREATE STREAM TABLE a.t {COLUMNS}")
    program = await connect(server)
    await program.insert("a.t", {"id": 1})
    found = await config(program, "a.t")
    answer = await program.ask("$JS.API.STREAM.UPDATE.KALAM-a-t", found | {"max_msgs": 3})
    assert "error" not in answer.json
    server.stop()
    server.restart()
    assert (await config(await connect(server), "a.t"))["max_msgs"] == 10_000
    assert server.sql("SELECT id FROM a.t") == [[1]]


async def test_streams_without_their_table_are_left_alone_and_named(
    kalam_server: ServerProcess, connect: Connect
) -> None:
    server = kalam_server
    server.sql(f"CREATE NAMESPACE a; CREATE STREAM TABLE a.t {COLUMNS}")
    program = await connect(server)
    found = await config(program, "a.t")
    for number in range(300):  # more than the broker lists on one page
        name = f"KALAM-a-old{number}"
        left = {"name": name, "subjects": [f"kalam.stream.a.old{number}"]}
        left |= {"metadata": found["metadata"] | {"kalam-table-id": "999999"}} if number else {"metadata": {}}
        answer = await program.ask(f"$JS.API.STREAM.CREATE.{name}", found | left)
        assert "error" not in answer.json
    server.stop()
    server.restart()
    names = (await (await connect(server)).ask("$JS.API.STREAM.NAMES", {})).json["streams"]
    assert {f"KALAM-a-old{number}" for number in range(300)} | {"KALAM-a-t"} <= set(names)
    assert 'kalam_unclaimed{kind="stream"} 299.0' in server.metrics()  # the first is not marked as Kalam's
    assert "KALAM-a-old1" in server.log_text()
