"""Every bound is an error with its code, and what is within it goes through, whatever the broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from foreign_program import Program
from server_process import ServerProcess, SqlFailed

Start = Callable[..., ServerProcess]
Connect = Callable[[ServerProcess], Awaitable[Program]]
KINDS = ["STREAM", "SHARED", "USER"]


def code_of(server: ServerProcess, text: str, *params: Any) -> str:
    with pytest.raises(SqlFailed) as refused:
        server.sql(text, *params, user="ann")
    return str(refused.value.code)


def outcome(server: ServerProcess, text: str, *params: Any) -> str | None:
    """The code of the error that a statement ends in; None for none."""
    try:
        server.sql(text, *params, user="ann")
    except SqlFailed as refused:
        return str(refused.code)
    return None


async def test_the_bounds_of_rows_hold_at_every_door(start_kalam: Start, connect: Connect) -> None:
    server = start_kalam(KALAM_BATCH_ROWS_MAX="10", KALAM_ROW_BYTES_MAX="2048", KALAM_STATEMENT_ROWS_MAX="20")
    program = await connect(server)
    server.sql("CREATE NAMESPACE a")
    long = "x" * 2048
    for kind in KINDS:
        table = f"a.{kind.lower()}"
        server.sql(f"CREATE {kind} TABLE {table} (k BIGINT, v TEXT)")
        over = await program.insert(table, [{"k": k} for k in range(11)])
        assert (over.code, "batch_rows_max" in over.detail) == ("too_large", True)
        assert (await program.insert(table, [{"k": k} for k in range(10)])).json["rows"] == 10
        large = await program.insert(table, [{"k": 1}, {"k": 2, "v": long}])
        assert (large.code, "row 2" in large.detail) == ("too_large", True)
        assert code_of(server, f"INSERT INTO {table} VALUES (1, '{long}')") == "too_large"
        assert code_of(server, f"INSERT INTO {table} SELECT 1, repeat('x', 2048)") == "too_large"
        assert code_of(server, f"INSERT INTO {table} SELECT value, 'x' FROM generate_series(1, 21)") == "too_large"
        assert server.sql(f"SELECT count(*) FROM {table}", user="ann") == [[10]]
    assert code_of(server, "UPDATE a.shared SET v = $1", long) == "too_large"
    server.sql("INSERT INTO a.shared SELECT value, 'x' FROM generate_series(1, 20)")
    for text in ("UPDATE a.shared SET v = 'y'", "DELETE FROM a.shared"):  # which only in memory are bounded
        assert code_of(server, f"{text} RETURNING k") == "too_large"
        assert server.sql(text).startswith("30 rows")


@pytest.mark.parametrize("kind", ["SHARED", "USER"])
async def test_what_a_broker_with_small_messages_cannot_carry_is_refused(
    start_kalam: Start, connect: Connect, start_nats_server: Callable[..., Any], kind: str
) -> None:
    server = start_kalam(flags=("--nats-url", start_nats_server(max_payload=65_536).url))
    program = await connect(server)
    server.sql(
        f"CREATE NAMESPACE a; CREATE {kind} TABLE a.t (k INT PRIMARY KEY, v TEXT); CREATE STREAM TABLE a.s (v TEXT)"
    )
    changes = await program.listen("kalam.shared.a.t.*" if kind == "SHARED" else "kalam.user.ann.a.t.*")
    codes: list[str | None] = []
    for size in range(59_000, 67_000, 500):
        text = "x" * size
        codes.append(outcome(server, "INSERT INTO a.t VALUES ($1, $2)", size, text))
        if codes[-1] is None:
            assert (await changes()).json["rows"][0]["v"] == text
        assert outcome(server, "INSERT INTO a.s VALUES ($1)", text) in (None, "too_large")
    stored = codes.count(None)
    assert 0 < stored < len(codes)
    assert codes == [None] * stored + ["too_large"] * (len(codes) - stored)
    server.sql("INSERT INTO a.t VALUES (1, 'small')", user="ann")
    assert (await changes()).json["seq"] == stored + 1


async def test_a_server_with_too_much_in_flight_says_so_and_loses_nothing(start_kalam: Start, connect: Connect) -> None:
    server = start_kalam(KALAM_INSERT_ROWS_INFLIGHT_MAX="1000")
    program = await connect(server)
    server.sql("CREATE NAMESPACE a; CREATE TABLE a.t (k INT PRIMARY KEY)")
    arrays = [[{"k": 500 * n + k} for k in range(500)] for n in range(100)]
    answers = await asyncio.gather(*(program.insert("a.t", array) for array in arrays))
    assert {answer.code for answer in answers} <= {None, "too_busy"}
    assert {answer.headers.get("Nats-Service-Error-Code") for answer in answers} <= {None, "429"}
    acknowledged = [n for n, answer in enumerate(answers) if answer.code is None]
    assert server.sql("SELECT DISTINCT k / 500 AS n FROM a.t ORDER BY n") == [[n] for n in acknowledged]
    assert (await program.insert("a.t", {"k": -1})).json == {"rows": 1, "seq": 500 * len(acknowledged) + 1}


async def test_queries_that_end_at_their_time_limit_do_not_keep_the_others_waiting(start_kalam: Start) -> None:
    server = start_kalam(KALAM_QUERY_TIME_S="4")
    server.sql("CREATE NAMESPACE a; CREATE TABLE a.t (k INT); INSERT INTO a.t VALUES (1)")
    numbers = "generate_series(1, 1000000)"
    endless = f"SELECT count(*) FROM {numbers} a JOIN {numbers} b ON a.value + b.value > $1"
    for codes in await asyncio.gather(*(asyncio.to_thread(outcome, server, endless, 5) for _ in range(3))):
        assert codes == "timeout"
    assert server.sql("SELECT k, count(*) AS n FROM a.t GROUP BY k") == [[1, 1]]
    assert server.stop() == 0


async def test_what_is_no_row_in_a_stream_is_skipped_and_counted(program: Program, namespace: str) -> None:
    table = f"{namespace}.s"
    program.server.sql(f"CREATE STREAM TABLE {table} (k INT NOT NULL, v TEXT)")
    jetstream = program.broker.jetstream()
    await program.insert(table, {"k": 1})
    for payload in (
        b"",
        b"garbage",
        b"[]",
        b"\xff\x00",
        b'{"k": "x"}',
        b'{"v": "no k"}',
        json.dumps({"k": 2}).encode(),
    ):
        await jetstream.publish(f"kalam.stream.{table}", payload)
    await program.insert(table, {"k": 3})
    assert [row[0] for row in program.server.sql(f"SELECT k FROM {table}")] == [1, 2, 3]
    stats = dict(program.server.sql(f"SHOW STATS FOR TABLE {table}"))
    assert stats["undecodable"] == "6"
