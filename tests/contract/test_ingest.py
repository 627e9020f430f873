"""protocol.md, "Requests": inserts over NATS, as a program in any language sends them."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pyarrow as pa
import pytest
from foreign_program import Program
from server_process import ServerProcess

KINDS = ["STREAM", "SHARED", "USER"]
ARROW = {"Content-Type": "application/vnd.apache.arrow.stream"}


def make_table(program: Program, namespace: str, kind: str, columns: str = "k BIGINT NOT NULL, v TEXT") -> str:
    if kind != "STREAM":
        columns = columns.replace("NOT NULL", "PRIMARY KEY", 1)
    program.server.sql(f"CREATE {kind} TABLE {namespace}.t ({columns})")
    return f"{namespace}.t"


def stored(program: Program, table: str, user: str = "ann") -> list[Any]:
    return program.server.sql(f"SELECT k, v FROM {table} ORDER BY k", user=user)


def arrow_stream(**columns: list[Any]) -> bytes:
    table, sink = pa.table(columns), io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


@pytest.mark.parametrize("kind", KINDS)
async def test_the_ack_of_a_row_says_how_many_and_the_last_seq(program: Program, namespace: str, kind: str) -> None:
    table = make_table(program, namespace, kind)
    first = await program.insert(table, {"k": 1, "v": "a"})
    second = await program.insert(table, [{"k": 2}, {"k": 3, "v": "c"}])
    assert (first.headers, first.json) == ({}, {"rows": 1, "seq": 1})
    assert (second.headers, second.json) == ({}, {"rows": 2, "seq": 3})
    assert stored(program, table) == [[1, "a"], [2, None], [3, "c"]]


@pytest.mark.parametrize("kind", KINDS)
async def test_json_msgpack_and_arrow_are_told_apart(program: Program, namespace: str, kind: str) -> None:
    table = make_table(program, namespace, kind)
    packed = msgpack.packb({"k": 1, "v": "a"}), msgpack.packb([{"k": k, "v": str(k)} for k in range(2, 20)])
    answers = [await program.insert(table, payload) for payload in packed]
    answers.append(await program.insert(table, b' \r\n\t [{"k": 20}]'))
    answers.append(await program.insert(table, arrow_stream(k=[21, 22], v=["x", None]), headers=ARROW))
    assert [answer.json for answer in answers] == [
        {"rows": 1, "seq": 1},
        {"rows": 18, "seq": 19},
        {"rows": 1, "seq": 20},
        {"rows": 2, "seq": 22},
    ]
    assert [row[0] for row in stored(program, table)] == list(range(1, 23))


async def test_every_width_of_msgpack_is_read(program: Program, namespace: str) -> None:
    table = make_table(program, namespace, "SHARED")
    row32 = b"\xdf\x00\x00\x00\x01\xa1k\x01"
    rows16 = b"\xdc\x00\x01\x81\xa1k\x02"
    rows32 = b"\xdd\x00\x00\x00\x01\xde\x00\x01\xa1k\xd3\x00\x00\x00\x00\x00\x00\x00\x03"
    for payload in (row32, rows16, rows32):
        assert (await program.insert(table, payload)).json["rows"] == 1
    assert [row[0] for row in stored(program, table)] == [1, 2, 3]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("empty", [b"[]", b"\x90", arrow_stream(k=pa.array([], pa.int64()))])
async def test_an_empty_array_is_answered_with_no_rows(
    program: Program, namespace: str, kind: str, empty: bytes
) -> None:
    table = make_table(program, namespace, kind)
    answer = await program.insert(table, empty, headers=None if len(empty) < 3 else ARROW)
    assert (answer.headers, answer.json) == ({}, {"rows": 0})


async def test_each_user_of_a_user_table_counts_his_own_seq(program: Program, namespace: str) -> None:
    table = make_table(program, namespace, "USER")
    assert (await program.insert(table, [{"k": 1}, {"k": 2}])).json["seq"] == 2
    assert (await program.insert(table, {"k": 1}, user="bob")).json["seq"] == 1
    assert stored(program, table, "bob") == [[1, None]]


async def test_an_error_has_the_headers_of_a_nats_service_and_the_problem_of_http(
    program: Program, namespace: str
) -> None:
    table = make_table(program, namespace, "SHARED")
    answer = await program.insert(table, {"k": "x"})
    assert answer.headers == {"Nats-Service-Error": answer.detail, "Nats-Service-Error-Code": "400"}
    assert answer.json == {
        "type": "urn:kalam:error:invalid_value",
        "title": "Invalid value",
        "status": 400,
        "detail": answer.detail,
        "code": "invalid_value",
    }
    assert all(word in answer.detail for word in ("row 1", "column k", "BIGINT", "str"))
    missing = await program.insert(f"{namespace}.nowhere", {"k": 1})
    assert (missing.code, missing.headers["Nats-Service-Error-Code"]) == ("table_not_found", "404")


@pytest.mark.parametrize("kind", KINDS)
async def test_one_bad_row_refuses_the_whole_array(program: Program, namespace: str, kind: str) -> None:
    table = make_table(program, namespace, kind)
    rows: list[dict[str, Any]] = [{"k": k} for k in range(100)]
    rows[70] = {"k": 70, "v": 5}
    answer = await program.insert(table, rows)
    assert (answer.code, "row 71" in answer.detail) == ("invalid_value", True)
    assert stored(program, table) == []
    assert (await program.insert(table, {"k": 1})).json == {"rows": 1, "seq": 1}


@pytest.mark.parametrize("kind", KINDS)
async def test_messages_of_one_sender_are_stored_in_their_order(program: Program, namespace: str, kind: str) -> None:
    table = make_table(program, namespace, kind)
    subject = f"kalam.api.ann.insert.{table}"
    for k in range(0, 500, 2):
        await program.broker.publish(subject, json.dumps([{"k": k}, {"k": k + 1}]).encode())
    assert (await program.insert(table, {"k": 500})).json == {"rows": 1, "seq": 501}
    told = program.server.sql(f"SELECT k FROM {table}" + ("" if kind == "STREAM" else " ORDER BY k"), user="ann")
    assert told == [[k] for k in range(501)]


async def test_a_burst_of_single_rows_is_answered_one_by_one(program: Program, namespace: str) -> None:
    table = make_table(program, namespace, "SHARED")
    answers = await asyncio.gather(*(program.insert(table, {"k": k if k % 10 else "bad"}) for k in range(300)))
    assert [answer.code for answer in answers] == [None if k % 10 else "invalid_value" for k in range(300)]
    good = [answer.json for answer in answers if answer.code is None]
    assert [answer["rows"] for answer in good] == [1] * 270
    assert sorted(answer["seq"] for answer in good) == list(range(1, 271))


# Fire and forget


REFUSED = {
    "STREAM": "kalam.event.rejected.{}",
    "SHARED": "kalam.event.rejected.{}",
    "USER": "kalam.user.ann.{}.rejected",
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refused_message_without_reply_is_published_with_its_reason(
    program: Program, namespace: str, kind: str
) -> None:
    table = make_table(program, namespace, kind)
    refused = await program.listen(REFUSED[kind].format(table))
    payload = b'{"k": "no number", "v": "\xc3\xa9"}'
    await program.broker.publish(f"kalam.api.ann.insert.{table}", payload)
    msg = await refused()
    assert (msg.body, set(msg.headers)) == (payload, {"Kalam-Error-Code", "Kalam-Error"})
    assert msg.headers["Kalam-Error-Code"] == "invalid_value"
    assert "column k expects BIGINT" in msg.headers["Kalam-Error"]


async def test_a_message_to_no_table_is_published_as_refused(program: Program, namespace: str) -> None:
    refused = await program.listen(f"kalam.event.rejected.{namespace}.nowhere")
    await program.broker.publish(f"kalam.api.ann.insert.{namespace}.nowhere", b'{"k": 1}')
    assert (await refused()).headers["Kalam-Error-Code"] == "table_not_found"


async def test_a_message_of_an_impossible_user_is_published_as_refused(program: Program, namespace: str) -> None:
    refused = await program.listen(f"kalam.event.rejected.{namespace}.t")
    await program.broker.publish(f"kalam.api.a!b.insert.{namespace}.t", b'{"k": 1}')
    assert (await refused()).headers["Kalam-Error-Code"] == "invalid_name"


async def test_a_refused_payload_that_no_longer_fits_is_cut_and_marked(program: Program, namespace: str) -> None:
    table = make_table(program, namespace, "SHARED")
    refused = await program.listen(f"kalam.event.rejected.{table}")
    payload = b'{"k": "' + b"x" * (program.broker.max_payload - 9) + b'"}'
    await program.broker.publish(f"kalam.api.ann.insert.{table}", payload)
    msg = await refused()
    assert msg.headers["Kalam-Truncated"]
    assert len(msg.body) < len(payload)
    assert payload.startswith(msg.body)


async def test_a_stored_message_without_reply_is_told_to_nobody(program: Program, namespace: str) -> None:
    table = make_table(program, namespace, "SHARED")
    subscription = await program.broker.subscribe(f"kalam.event.rejected.{namespace}.>")
    await program.broker.publish(f"kalam.api.ann.insert.{table}", b'{"k": 1}')
    assert (await program.insert(table, {"k": 2})).json["seq"] == 2
    await program.broker.flush()
    assert subscription.pending_msgs == 0


# Nats-Msg-Id


def named(msg_id: str) -> dict[str, str]:
    return {"Nats-Msg-Id": msg_id}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_repeat_answers_as_the_first_and_stores_nothing(program: Program, namespace: str, kind: str) -> None:
    table = make_table(program, namespace, kind)
    first = await program.insert(table, [{"k": 1}, {"k": 2}], headers=named("a"))
    await program.insert(table, {"k": 3}, headers=named("b"))
    again = await program.insert(table, [{"k": 1}, {"k": 2}], headers=named("a"))
    assert (first.headers, first.json) == ({}, {"rows": 2, "seq": 2})
    assert again == first
    assert stored(program, table) == [[1, None], [2, None], [3, None]]


@pytest.mark.parametrize("kind", KINDS)
async def test_repeats_while_the_first_is_in_flight_wait_for_it(program: Program, namespace: str, kind: str) -> None:
    table = make_table(program, namespace, kind)
    answers = await asyncio.gather(*(program.insert(table, {"k": 1}, headers=named("a")) for _ in range(50)))
    assert {answer.body for answer in answers} == {answers[0].body}
    assert answers[0].json == {"rows": 1, "seq": 1}
    assert stored(program, table) == [[1, None]]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refused_insert_is_not_remembered(program: Program, namespace: str, kind: str) -> None:
    table = make_table(program, namespace, kind)
    assert (await program.insert(table, {"k": "bad"}, headers=named("a"))).code == "invalid_value"
    assert (await program.insert(table, {"k": 1}, headers=named("a"))).json == {"rows": 1, "seq": 1}
    assert stored(program, table) == [[1, None]]


async def test_a_duplicate_key_is_not_remembered(program: Program, namespace: str) -> None:
    table = make_table(program, namespace, "SHARED")
    await program.insert(table, {"k": 1})
    assert (await program.insert(table, {"k": 1}, headers=named("a"))).code == "duplicate_key"
    program.server.sql(f"DELETE FROM {table}")
    assert (await program.insert(table, {"k": 1}, headers=named("a"))).json["rows"] == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_an_id_counts_for_one_user_and_table(program: Program, namespace: str, kind: str) -> None:
    table = make_table(program, namespace, kind)
    program.server.sql(f"CREATE SHARED TABLE {namespace}.other (k BIGINT PRIMARY KEY)")
    await program.insert(table, {"k": 1}, headers=named("a"))
    other_user = await program.insert(table, {"k": 2}, user="bob", headers=named("a"))
    other_table = await program.insert(f"{namespace}.other", {"k": 1}, headers=named("a"))
    assert [other_user.json["rows"], other_table.json["rows"]] == [1, 1]
    assert stored(program, table, "bob")[-1] == [2, None]


async def test_a_dropped_table_takes_its_ids_with_it(program: Program, namespace: str) -> None:
    table = make_table(program, namespace, "SHARED")
    await program.insert(table, {"k": 1}, headers=named("a"))
    program.server.sql(f"DROP TABLE {table}")
    make_table(program, namespace, "SHARED")
    assert (await program.insert(table, {"k": 1}, headers=named("a"))).json == {"rows": 1, "seq": 1}
    assert stored(program, table) == [[1, None]]


async def test_ids_survive_a_kill(
    start_kalam: Callable[..., ServerProcess], connect: Callable[[ServerProcess], Awaitable[Program]]
) -> None:
    server = start_kalam()
    program = await connect(server)
    server.sql("CREATE NAMESPACE a")
    for kind in KINDS:
        server.sql(f"CREATE {kind} TABLE a.{kind.lower()} (k BIGINT)")
    first = [await program.insert(f"a.{kind.lower()}", [{"k": 1}, {"k": 2}], headers=named("a")) for kind in KINDS]
    server.kill()
    server.restart()
    program = await connect(server)
    again = [await program.insert(f"a.{kind.lower()}", [{"k": 1}, {"k": 2}], headers=named("a")) for kind in KINDS]
    assert again == first
    for kind in KINDS:
        assert server.sql(f"SELECT count(*) FROM a.{kind.lower()}", user="ann") == [[2]]


# Large messages


async def test_several_arrays_as_large_as_a_message_are_stored(program: Program, namespace: str) -> None:
    table = make_table(program, namespace, "SHARED")
    assert program.broker.max_payload == 8 << 20
    arrays = [json.dumps([{"k": 8_000 * n + k, "v": "x" * 900} for k in range(8_000)]).encode() for n in range(5)]
    answers = await asyncio.gather(*(program.insert(table, array) for array in arrays))
    assert sorted(answer.json["seq"] for answer in answers) == [8_000 * n for n in range(1, 6)]


@pytest.mark.parametrize("kind", ["STREAM", "SHARED"])
@pytest.mark.parametrize("asked", [{}, {"Kalam-On-Invalid": "skip"}])
async def test_what_comes_behind_a_long_message_is_stored_behind_it(
    program: Program, namespace: str, kind: str, asked: dict[str, str]
) -> None:
    table = make_table(program, namespace, kind)
    long = json.dumps([{"k": k, "v": "x" * 300} for k in range(8_000)]).encode()
    answers = [asyncio.ensure_future(program.insert(table, long, headers=asked))]
    for k in range(8_000, 8_030):
        await program.broker.flush()
        user, headers = ("ann", "bob")[k % 2], asked if k % 3 else None
        answers.append(asyncio.ensure_future(program.insert(table, {"k": k}, user=user, headers=headers)))
        await asyncio.sleep(0)
    first, *others = [answer.json["seq"] for answer in await asyncio.gather(*answers)]
    assert (first, sorted(others)) == (8_000, list(range(8_001, 8_031)))
    assert [others[user::2] for user in (0, 1)] == [sorted(others[user::2]) for user in (0, 1)]
    assert [row[0] for row in stored(program, table)] == list(range(8_030))


async def test_a_long_message_that_is_wrong_says_where_and_holds_nothing_up(program: Program, namespace: str) -> None:
    table = make_table(program, namespace, "SHARED")
    rows = [{"k": k, "v": "x" * 300} for k in range(4_000)]
    rows[3_210] |= {"k": "no number"}
    wrong, right = await asyncio.gather(program.insert(table, rows), program.insert(table, {"k": 1}))
    assert (wrong.json["code"], "row 3211" in wrong.json["detail"]) == ("invalid_value", True), wrong.json
    assert right.json == {"rows": 1, "seq": 1}


async def test_a_message_may_be_as_large_as_the_broker_allows(program: Program, namespace: str) -> None:
    table = make_table(program, namespace, "SHARED")
    row = b'[{"k": 1}]'
    assert (await program.insert(table, row + b" " * (program.broker.max_payload - len(row)))).json["rows"] == 1
