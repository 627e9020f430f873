"""SELECT over a stream that others made: columns, virtual columns, what does not decode, and what is pushed down."""

from __future__ import annotations

import itertools
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from foreign_program import Program
from nats.js import JetStreamContext
from nats.js.api import StreamConfig
from server_process import ServerProcess, SqlFailed

_numbers = itertools.count(1)
TELEMETRY = """(line TEXT FROM TOKEN 3, machine TEXT FROM TOKEN 4, temp DOUBLE, note TEXT,
    trace TEXT FROM HEADER 'traceparent')"""


@pytest.fixture
def name() -> str:
    """A name for a stream of the test's own, which is the first token of its subjects, too."""
    return f"F{next(_numbers)}"


@pytest.fixture
def js(program: Program) -> JetStreamContext:
    return program.broker.jetstream()


async def make_stream(js: JetStreamContext, name: str, **config: Any) -> None:
    await js.add_stream(StreamConfig(**{"name": name, "subjects": [f"factory.{name}.>"]} | config))


async def publish(js: JetStreamContext, subject: str, row: Any, headers: dict[str, str] | None = None) -> int:
    payload = row if isinstance(row, bytes) else json.dumps(row).encode()
    return (await js.publish(subject, payload, headers=headers)).seq


async def telemetry(js: JetStreamContext, server: ServerProcess, namespace: str, name: str, options: str = "") -> str:
    """A table over a stream of telemetry with four messages."""
    await make_stream(js, name)
    for number, (line, machine) in enumerate([("L1", "m1"), ("L1", "m2"), ("L2", "m1"), ("L2", "m2")]):
        headers = {"traceparent": f"t{number}"} if number else None
        await publish(js, f"factory.{name}.{line}.{machine}", {"temp": 20 + number, "unknown": [1]}, headers)
    server.sql(f"CREATE STREAM TABLE {namespace}.t {TELEMETRY} OVER STREAM '{name}' {options}")
    return f"{namespace}.t"


async def test_columns_come_from_tokens_members_and_headers(
    program: Program, js: JetStreamContext, namespace: str, name: str
) -> None:
    table = await telemetry(js, program.server, namespace, name)
    assert program.server.sql(f"SELECT * FROM {table}") == [
        ["L1", "m1", 20.0, None, None],
        ["L1", "m2", 21.0, None, "t1"],
        ["L2", "m1", 22.0, None, "t2"],
        ["L2", "m2", 23.0, None, "t3"],
    ]
    await publish(js, f"factory.{name}.L3.m1", {"temp": 30, "note": "new"})
    assert program.server.sql(f"SELECT line, sum(temp) FROM {table} GROUP BY line ORDER BY line") == [
        ["L1", 41.0],
        ["L2", 45.0],
        ["L3", 30.0],
    ]
    assert program.server.sql(f"SELECT count(*) FROM {table}") == [[5]]


async def test_virtual_columns_are_shown_where_they_are_named(
    program: Program, js: JetStreamContext, namespace: str, name: str
) -> None:
    before = datetime.now(UTC)
    table = await telemetry(js, program.server, namespace, name)
    [row] = program.server.sql(f"SELECT _subject, _seq, _time, _headers, _raw, _error FROM {table} WHERE _seq = 2")
    subject, seq, at, headers, raw, error = row
    assert (subject, seq, error) == (f"factory.{name}.L1.m2", 2, None)
    assert abs((datetime.fromisoformat(at) - before).total_seconds()) < 60
    assert headers == {"traceparent": ["t1"]}
    assert msgspec.json.decode(json.dumps(raw), type=bytes) == b'{"temp": 21, "unknown": [1]}'
    [described] = program.server.results(f"SELECT * FROM {table} WHERE _seq >= 4")
    assert [column["name"] for column in described["columns"]] == ["line", "machine", "temp", "note", "trace"]
    assert described["rows"] == [["L2", "m2", 23.0, None, "t3"]]
    [named] = program.server.results(f"SELECT *, _seq FROM {table} LIMIT 1")
    assert [column["name"] for column in named["columns"]][-1] == "_seq"
    assert len(named["columns"]) == 6
    with pytest.raises(SqlFailed) as failure:
        program.server.sql(f"SELECT _key FROM {table}")
    assert failure.value.code == "column_not_found"


async def test_payloads_of_every_kind_are_read(
    program: Program, js: JetStreamContext, namespace: str, name: str
) -> None:
    server = program.server
    await make_stream(js, name)
    kinds = {
        "json": [b'{"a": 1, "b": {"c": [5, 6]}, "d": "2026-03-01T00:00:00Z"}'],
        "msgpack": [msgspec.msgpack.encode({"a": 1, "b": {"c": [5, 6]}, "d": "2026-03-01T00:00:00Z"})],
        "csv": [b"1,6,2026-03-01T00:00:00Z", b'"2","7",', b"3,,\r\n"],
        "text": [b"gr\xc3\xbcezi"],
        "raw": [b"\x00\xff"],
    }
    for kind, payloads in kinds.items():
        for payload in payloads:
            await publish(js, f"factory.{name}.{kind}", payload)

    def over(columns: str, kind: str) -> list[Any]:
        server.sql(
            f"CREATE STREAM TABLE {namespace}.{kind} ({columns}) OVER STREAM '{name}' "
            f"SUBJECT 'factory.{name}.{kind}' WITH (payload = '{kind}')"
        )
        return server.sql(f"SELECT * FROM {namespace}.{kind}")

    maps = "a BIGINT, six SMALLINT FROM PATH 'b.c[1]', d TIMESTAMP, b JSON, none TEXT FROM PATH 'b.x.y'"
    row = [1, 6, "2026-03-01T00:00:00.000000Z", {"c": [5, 6]}, None]
    assert over(maps, "json") == [row]
    assert over(maps, "msgpack") == [row]
    assert over("a BIGINT, kind TEXT FROM TOKEN 3, b DOUBLE, c TIMESTAMP", "csv") == [
        [1, "csv", 6.0, "2026-03-01T00:00:00.000000Z"],
        [2, "csv", 7.0, None],
        [3, "csv", None, None],
    ]
    assert over("said TEXT", "text") == [["grüezi"]]
    assert over("bytes BLOB", "raw") == [["AP8="]]


async def test_what_does_not_decode_is_left_out_counted_and_shown_when_asked_for(
    program: Program, js: JetStreamContext, namespace: str, name: str, stats: Callable[..., dict[str, str]]
) -> None:
    server = program.server
    await make_stream(js, name)
    payloads = [
        {"id": 1, "v": 1.5},
        {"id": 2, "v": "warm"},
        b"{broken",
        [1, 2],
        {"v": 3.5},
        {"id": None, "v": 3.5},
        {"id": 7},
        {"id": 8, "v": 8, "at": "yesterday"},
    ]
    for payload in payloads:
        await publish(js, f"factory.{name}.x", payload)
    columns = "(id BIGINT NOT NULL, v DOUBLE DEFAULT 0.5, at TIMESTAMP, what TEXT FROM TOKEN 3)"
    server.sql(f"CREATE STREAM TABLE {namespace}.skip {columns} OVER STREAM '{name}'")
    server.sql(f"CREATE STREAM TABLE {namespace}.nulls {columns} OVER STREAM '{name}' WITH (invalid = 'null')")
    assert server.sql(f"SELECT id, v FROM {namespace}.skip") == [[1, 1.5], [7, 0.5]]
    counted = stats(server, f"{namespace}.skip")
    assert counted["undecodable"] == "6"
    assert {reason: counted[f"undecodable_{reason}"] for reason in ("malformed", "not_a_map", "wrong_value")} == {
        "malformed": "1",
        "not_a_map": "1",
        "wrong_value": "2",
    }
    assert counted["undecodable_missing_value"] == "2"
    wrong = server.sql(f"SELECT _seq, what, _error FROM {namespace}.skip WHERE _error IS NOT NULL")
    assert [(seq, what) for seq, what, _ in wrong] == [(seq, "x") for seq in (2, 3, 4, 5, 6, 8)]
    assert wrong[0][2] == 'column v expects DOUBLE, found "warm"'
    assert server.sql(f"SELECT id, v, at, what FROM {namespace}.nulls") == [
        [1, 1.5, None, "x"],
        [2, None, None, "x"],
        [None, None, None, "x"],
        [None, None, None, "x"],
        [None, 3.5, None, "x"],
        [None, 3.5, None, "x"],
        [7, 0.5, None, "x"],
        [8, 8.0, None, "x"],
    ]


async def test_notes_of_the_broker_are_no_rows(
    program: Program, js: JetStreamContext, namespace: str, name: str
) -> None:
    await make_stream(js, name)
    await publish(js, f"factory.{name}.a", {"id": 1})
    await publish(js, f"factory.{name}.a", b"", {"Nats-Marker-Reason": "MaxAge"})
    program.server.sql(f"CREATE STREAM TABLE {namespace}.t (id BIGINT) OVER STREAM '{name}'")
    assert program.server.sql(f"SELECT id, _seq FROM {namespace}.t WHERE id = 1 OR _error IS NOT NULL") == [[1, 1]]


@pytest.mark.parametrize(
    ("where", "seqs"),
    [
        ("_seq > 7", [8, 9, 10]),
        ("_seq BETWEEN 2 AND 4", [2, 3, 4]),
        ("_seq = 5", [5]),
        ("a = 'x' AND _seq <= 4", [1, 3]),
        ("a = 'y' AND b = 's'", [10]),
        ("a = 'x.y'", []),
        ("a = 'x' AND a = 'y'", []),
        ("_seq > 7 OR _seq = 1", [1, 8, 9, 10]),
        ("_time > now() - INTERVAL '1 hour' AND _seq > 9", [10]),
        ("_time > now() + INTERVAL '1 hour'", []),
        ("_time < '2000-01-01T00:00:00Z'", []),
        ("_time >= '2000-01-01T00:00:00Z' AND _seq > 8", [9, 10]),
        ("NOT (_seq > 2)", [1, 2]),
    ],
)
async def test_a_query_with_bounds_answers_what_the_whole_window_would(
    program: Program, js: JetStreamContext, namespace: str, name: str, where: str, seqs: list[int]
) -> None:
    await make_stream(js, name)
    for number in range(1, 11):
        subject = f"factory.{name}.{'x' if number % 2 else 'y'}" + (".s" if number > 8 else "")
        await publish(js, subject, {"id": number})
    columns = "(a TEXT FROM TOKEN 3, b TEXT FROM TOKEN 4, id BIGINT)"
    program.server.sql(f"CREATE STREAM TABLE {namespace}.t {columns} OVER STREAM '{name}'")
    asked = f"SELECT id, _seq FROM {namespace}.t WHERE {where} ORDER BY 1"
    assert program.server.sql(asked) == [[seq, seq] for seq in seqs]
    assert program.server.sql(f"SELECT count(*) FROM {namespace}.t") == [[10]]  # and now the whole window is there
    assert program.server.sql(asked) == [[seq, seq] for seq in seqs]


async def test_a_bound_reads_no_more_than_it_lets_in(
    program: Program, js: JetStreamContext, namespace: str, name: str, connect: Callable[..., Awaitable[Program]]
) -> None:
    table = await telemetry(js, program.server, namespace, name)
    asked: list[dict[str, Any]] = []

    async def note(message: Any) -> None:
        asked.append(json.loads(message.data)["config"])

    await program.broker.subscribe(f"$JS.API.CONSUMER.CREATE.{name}.>", cb=note)
    await program.broker.flush()
    rows = program.server.sql(f"SELECT temp FROM {table} WHERE line = 'L2' AND machine = 'm1' AND _seq > 1")
    assert rows == [[22.0]]
    await program.broker.flush()
    [config] = asked
    assert (config["filter_subject"], config["opt_start_seq"]) == ("*.*.L2.m1", 2)
    assert (config["ack_policy"], config["mem_storage"], config["num_replicas"]) == ("none", True, 1)
