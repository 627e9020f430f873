"""protocol.md, "How rows are taken": good rows only, unknown members, numbers in other forms, rows that are there.

Every one of them is asked for in the same words over NATS (headers) and HTTP (headers or the query), and answers alike
in every format.
"""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgpack  # type: ignore[import-untyped]
import pyarrow as pa
import pytest
from foreign_program import Program
from patience import PATIENCE_S

JSON, NDJSON, CSV, MSGPACK = "application/json", "application/x-ndjson", "text/csv", "application/msgpack"
ARROW = "application/vnd.apache.arrow.stream"
KINDS = ["STREAM", "SHARED", "USER"]
REFUSED = {"USER": "kalam.user.ann.{}.rejected"}
SKIP, IGNORE, LOSSLESS = {"on_invalid": "skip"}, {"unknown": "ignore"}, {"coerce": "lossless"}
HEADERS = {
    "on_invalid": "Kalam-On-Invalid",
    "unknown": "Kalam-Unknown",
    "coerce": "Kalam-Coerce",
    "on_conflict": "Kalam-On-Conflict",
}


def arrow(rows: list[dict[str, Any]], **types: pa.DataType) -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: pa.array([row.get(name) for row in rows], types.get(name)) for name in names}
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.table(columns).schema) as writer:
        writer.write_table(pa.table(columns))
    return bytes(sink.getvalue())


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join("" if row.get(name) is None else str(row[name]) for name in names) for row in rows]
    return "\n".join([",".join(names), *lines]).encode()


ENCODERS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    JSON: lambda rows: json.dumps(rows).encode(),
    NDJSON: lambda rows: "\n".join(map(json.dumps, rows)).encode(),
    CSV: as_csv,
    MSGPACK: msgpack.packb,
    ARROW: lambda rows: arrow([{name: None if v is None else str(v) for name, v in row.items()} for row in rows]),
}

Send = Callable[..., Awaitable[tuple[int, dict[str, Any]]]]
DOORS = [
    *((door, media_type) for door in ("nats", "headers", "query") for media_type in (JSON, MSGPACK, ARROW)),
    *((door, media_type) for door in ("headers", "query") for media_type in (NDJSON, CSV)),
]


@pytest.fixture
def send(program: Program) -> Send:
    """Insert a payload at a door, asking for something; the status (200 over NATS for no error) and the answer."""

    async def send(
        door: str, table: str, media_type: str, payload: bytes, asked: dict[str, str], **more: str
    ) -> tuple[int, dict[str, Any]]:
        headers = {HEADERS[name]: word for name, word in asked.items()} if door != "query" else {}
        if door == "nats":
            kind = {"Content-Type": ARROW} if media_type == ARROW else {}
            answer = await program.insert(table, payload, headers={**headers, **kind, **more})
            return (int(answer.headers.get("Nats-Service-Error-Code", 200)), answer.json)
        query = urlencode(asked) if door == "query" else ""
        sent = {"Content-Type": media_type, "X-Kalam-User": "ann", **headers}
        return await asyncio.to_thread(post, program, table, query, payload, sent)

    return send


def post(program: Program, table: str, query: str, payload: bytes, headers: dict[str, str]) -> Any:
    connection = http.client.HTTPConnection(urlsplit(program.server.http_url).netloc, timeout=PATIENCE_S)
    try:
        connection.request("POST", f"/v1/tables/{table.replace('.', '/')}/rows?{query}", payload, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def create(program: Program, namespace: str, kind: str = "SHARED", columns: str = "n INT, t TEXT") -> str:
    key = "k BIGINT NOT NULL" if kind == "STREAM" else "k BIGINT PRIMARY KEY"
    program.server.sql(f"CREATE {kind} TABLE {namespace}.t ({key}, {columns})")
    return f"{namespace}.t"


def rows(program: Program, table: str, names: str = "k, n, t") -> list[Any]:
    return program.server.sql(f"SELECT {names} FROM {table} ORDER BY k", user="ann")


@pytest.mark.parametrize(("door", "media_type"), DOORS)
async def test_the_good_rows_are_stored_and_the_bad_ones_are_told(
    program: Program, namespace: str, send: Send, door: str, media_type: str
) -> None:
    table = create(program, namespace)
    sent = [{"k": k, "n": "x" if k in (3, 7) else k, "t": "é"} for k in range(1, 11)]
    status, answer = await send(door, table, media_type, ENCODERS[media_type](sent), SKIP)
    if media_type in (JSON, NDJSON, MSGPACK):
        assert {key: answer[key] for key in ("rows", "seq", "refused")} == {"rows": 8, "seq": 8, "refused": 2}
    assert (status, answer["rows"], answer["refused"]) == (200, 8, 2)
    assert [(error["row"], error["code"]) for error in answer["errors"]] == [(3, "invalid_value"), (7, "invalid_value")]
    assert all(error["detail"].startswith("column n expects INT, found ") for error in answer["errors"])
    assert "x" in answer["errors"][0]["detail"].rpartition("found ")[2]
    assert [row[0] for row in rows(program, table)] == [1, 2, 4, 5, 6, 8, 9, 10]


@pytest.mark.parametrize("door", ["nats", "headers", "query"])
async def test_an_element_that_is_no_object_is_refused_alone(
    program: Program, namespace: str, send: Send, door: str
) -> None:
    table = create(program, namespace)
    payload = b'[5, {"k":1}, "a,]", [1, {"k": 9}], {"k":2, "n": "x"}, null , {"k":3,"t":"[,]"}, [], true]'
    refused = await program.listen(f"kalam.event.rejected.{table}")
    status, answer = await send(door, table, JSON, payload, SKIP)
    assert (status, answer["rows"], answer["refused"]) == (200, 2, 7)
    assert [error["row"] for error in answer["errors"]] == [1, 3, 4, 5, 6, 8, 9]
    assert {error["code"] for error in answer["errors"]} == {"invalid_value"}
    published = {(await refused()).body for _ in answer["errors"]}
    assert {b"5", b'"a,]"', b'[1, {"k": 9}]', b'{"k":2, "n": "x"}', b"null", b"[]", b"true"} == published
    assert [row[0] for row in rows(program, table)] == [1, 3]
    status, answer = await send(door, table, JSON, payload.replace(b'"k":1', b'"k":7'), {})
    assert (status, answer["code"]) == (400, "invalid_value")
    for malformed in (
        b'[{"k":5} {"k":6}]',
        b'[{"k":5},]',
        b'[{"k":5} 5]',
        b'[{"k":5}.5]',
        b'[,{"k":5}]',
        b"[[}]",
        b"[5",
    ):
        status, answer = await send(door, table, JSON, malformed, SKIP)
        assert (status, answer["code"]) == (400, "invalid_value"), malformed
    assert [row[0] for row in rows(program, table)] == [1, 3]


@pytest.mark.parametrize("door", ["nats", "query"])
@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_table_takes_good_rows_only(
    program: Program, namespace: str, send: Send, kind: str, door: str
) -> None:
    table = create(program, namespace, kind)
    refused = await program.listen(REFUSED.get(kind, "kalam.event.rejected.{}").format(table))
    payload = b'[{"k":1},{"k":2,"n":2147483648},{"k":null},{"k":4,"nope":1}]'
    status, answer = await send(door, table, JSON, payload, SKIP)
    assert (status, answer["rows"], answer["refused"]) == (200, 1, 3)
    codes = ["invalid_value", "not_null_violation", "column_not_found"]
    assert [(error["row"], error["code"]) for error in answer["errors"]] == list(zip((2, 3, 4), codes, strict=True))
    published = [await refused() for _ in codes]
    assert [(msg.body, msg.headers["Kalam-Error-Code"]) for msg in published] == [
        (b'{"k":2,"n":2147483648}', codes[0]),
        (b'{"k":null}', codes[1]),
        (b'{"k":4,"nope":1}', codes[2]),
    ]
    assert rows(program, table) == [[1, None, None]]


@pytest.mark.parametrize("door", ["nats", "query"])
@pytest.mark.parametrize("kind", KINDS)
async def test_where_nothing_is_wrong_nothing_is_refused(
    program: Program, namespace: str, send: Send, kind: str, door: str
) -> None:
    table = create(program, namespace, kind)
    answer = await send(door, table, JSON, b'[{"k":1},{"k":2}]', SKIP)
    assert answer == (200, {"rows": 2, "seq": 2, "refused": 0, "errors": []})
    assert (await send(door, table, JSON, b"[]", SKIP))[1] == {"rows": 0, "refused": 0, "errors": []}


@pytest.mark.parametrize("door", ["nats", "query"])
@pytest.mark.parametrize("kind", KINDS)
async def test_all_rows_may_be_refused(program: Program, namespace: str, send: Send, kind: str, door: str) -> None:
    table = create(program, namespace, kind)
    refused = await program.listen(REFUSED.get(kind, "kalam.event.rejected.{}").format(table))
    payload = json.dumps([{"k": "x"}] * 250).encode()
    status, answer = await send(door, table, JSON, payload, SKIP)
    assert (status, answer["rows"], answer["refused"], len(answer["errors"])) == (200, 0, 250, 100)
    assert [error["row"] for error in answer["errors"]] == list(range(1, 101))
    assert {(await refused()).body for _ in range(250)} == {b'{"k": "x"}'}
    assert rows(program, table) == []


@pytest.mark.parametrize("door", ["nats", "query"])
@pytest.mark.parametrize("media_type", [JSON, MSGPACK, ARROW])
async def test_a_taken_key_is_refused_alone(
    program: Program, namespace: str, send: Send, door: str, media_type: str
) -> None:
    table = create(program, namespace)
    program.server.sql(f"INSERT INTO {table} (k, t) VALUES (2, 'hot'), (3, 'cold'); FLUSH TABLE {table}")
    program.server.sql(f"UPDATE {table} SET n = 1 WHERE k = 2")
    payload = ENCODERS[media_type]([{"k": k} for k in (1, 2, 3, 4, 4)])
    status, answer = await send(door, table, media_type, payload, SKIP)
    assert (status, answer["rows"], answer["refused"]) == (200, 2, 3)
    assert [(error["row"], error["code"]) for error in answer["errors"]] == [
        (place, "duplicate_key") for place in (2, 3, 5)
    ]
    assert rows(program, table) == [[1, None, None], [2, 1, "hot"], [3, None, "cold"], [4, None, None]]


async def test_a_repeat_is_answered_as_the_first_was_and_stores_nothing(program: Program, namespace: str) -> None:
    for kind in KINDS:
        program.server.sql(f"CREATE NAMESPACE IF NOT EXISTS {namespace}{kind.lower()}")
        table = create(program, namespace + kind.lower(), kind)
        headers = {"Kalam-On-Invalid": "skip", "Nats-Msg-Id": "once"}
        answers = [await program.insert(table, [{"k": 1}, {"k": "x"}], headers=headers) for _ in range(2)]
        assert answers[0].json == answers[1].json
        assert (answers[0].json["rows"], answers[0].json["refused"]) == (1, 1)
        assert rows(program, table, "k") == [[1]]


@pytest.mark.parametrize("door", ["nats", "headers", "query"])
async def test_an_empty_word_asks_for_nothing(program: Program, namespace: str, send: Send, door: str) -> None:
    table = create(program, namespace)
    asked = dict.fromkeys(HEADERS, "")
    status, answer = await send(door, table, JSON, b'[{"k": 1}, {"k": "x"}]', asked)
    assert (status, answer["code"]) == (400, "invalid_value")
    status, answer = await send(door, table, JSON, b'[{"k": 1}]', asked)
    assert (status, answer["rows"], "refused" in answer) == (200, 1, False)


async def test_many_taken_keys_are_refused_alone_while_others_insert(program: Program, namespace: str) -> None:
    table = create(program, namespace)
    batches = [[{"k": k} for k in range(start, 4_000, 3)] for start in (0, 1, 2, 0, 1, 2)]
    headers = {"Kalam-On-Invalid": "skip"}
    answers = await asyncio.gather(*(program.insert(table, batch, headers=headers) for batch in batches))
    assert sum(answer.json["rows"] for answer in answers) == 4_000
    assert sum(answer.json["refused"] for answer in answers) == 4_000
    assert rows(program, table, "k") == [[k] for k in range(4_000)]


@pytest.mark.parametrize("media_type", [JSON, NDJSON, CSV])
async def test_what_is_no_row_of_a_long_body_is_refused_alone_with_its_number(
    program: Program, namespace: str, send: Send, media_type: str
) -> None:
    table = create(program, namespace)
    lines = [json.dumps({"k": k, "t": "x" * 40}) for k in range(7_000)]
    if media_type == CSV:
        lines = [f"{k},{'x' * 40}" for k in range(7_000)]
    for k in (10, 4_998, 5_000, 6_999):
        lines[k] = f"{k}" if media_type != CSV else f"{k},a,b"
    body = "\n".join(["k,t", *lines] if media_type == CSV else lines)
    if media_type == JSON:
        body = f"[{','.join(lines)}]"
    status, answer = await send("query", table, media_type, body.encode(), SKIP)
    assert (status, answer["rows"], answer["refused"]) == (200, 6_996, 4)
    assert [error["row"] for error in answer["errors"]] == [11, 4_999, 5_001, 7_000]


@pytest.mark.parametrize("media_type", [CSV, NDJSON])
async def test_a_line_that_is_no_row_is_refused_alone_with_its_number(
    program: Program, namespace: str, send: Send, media_type: str
) -> None:
    table = create(program, namespace)
    refused = await program.listen(f"kalam.event.rejected.{table}")
    lines = [f"{k},{k}" for k in range(1, 9)] if media_type == CSV else [f'{{"k":{k}}}' for k in range(1, 9)]
    lines[1] = lines[4] = "5,6,7" if media_type == CSV else '{"k": 5'
    lines[6] = "x,y" if media_type == CSV else '{"k": "x"}'
    head = ["k,n"] if media_type == CSV else []
    status, answer = await send("query", table, media_type, "\n".join([*head, *lines]).encode(), SKIP)
    assert (status, answer["rows"], answer["refused"]) == (200, 5, 3)
    assert [error["row"] for error in answer["errors"]] == [2, 5, 7]
    assert sorted([(await refused()).body for _ in range(2)]) == [lines[1].encode()] * 2
    assert [row[0] for row in rows(program, table)] == [1, 3, 4, 6, 8]


async def test_rows_are_numbered_over_all_batches_of_a_body(program: Program, namespace: str, send: Send) -> None:
    table = create(program, namespace)
    bad = {2, 4_999, 5_000, 5_001, 11_000}
    sent = [{"k": k, "n": "x" if k in bad else 1} for k in range(1, 12_001)]
    for media_type in (NDJSON, ARROW):
        program.server.sql(f"DELETE FROM {table}", user="ann")
        _, answer = await send("query", table, media_type, ENCODERS[media_type](sent), SKIP)
        assert (answer["rows"], answer["refused"]) == (12_000 - len(bad), len(bad))
        assert [error["row"] for error in answer["errors"]] == sorted(bad)


async def test_a_trial_tells_the_same_and_stores_nothing(program: Program, namespace: str, send: Send) -> None:
    table = create(program, namespace)
    program.server.sql(f"INSERT INTO {table} (k) VALUES (2)")
    payload = b'{"k":1}\n{"k":2}\n{"k":"x"}\nno\n{"k":1}'
    _, answer = await send("query", table, NDJSON, payload, SKIP | {"dry_run": "true"})
    assert (answer["rows"], answer["refused"]) == (1, 4)
    codes = ["duplicate_key", "invalid_value", "invalid_value", "duplicate_key"]
    assert [(error["row"], error["code"]) for error in answer["errors"]] == list(zip((2, 3, 4, 5), codes, strict=True))
    assert rows(program, table, "k") == [[2]]


@pytest.mark.parametrize(("door", "media_type"), DOORS)
async def test_members_that_no_column_names_are_dropped(
    program: Program, namespace: str, send: Send, door: str, media_type: str
) -> None:
    table = create(program, namespace)
    payload = ENCODERS[media_type]([{"k": 1, "extra": 7, "n": 2}, {"k": 2, "extra": 8, "n": 3}])
    status, answer = await send(door, table, media_type, payload, {})
    assert (status, answer["code"]) == (400, "column_not_found")
    assert await send(door, table, media_type, payload, IGNORE) == (200, {"rows": 2, "seq": 2})
    assert rows(program, table) == [[1, 2, None], [2, 3, None]]


@pytest.mark.parametrize("media_type", [JSON, MSGPACK, ARROW])
async def test_what_the_server_keeps_itself_is_not_dropped_but_refused(
    program: Program, namespace: str, send: Send, media_type: str
) -> None:
    table = create(program, namespace)
    for name in ("_deleted", "_updated", "_row_id"):
        payload = ENCODERS[media_type]([{"k": 1, name: None}])
        status, answer = await send("nats", table, media_type, payload, IGNORE)
        assert (status, answer["code"]) == (400, "invalid_value")
        assert name in answer["detail"]


LOSSLESS_VALUES = ["5.0", '"5"', "5e0", '"5.0"', '" 5 "', "50e-1"]
LOSSY_VALUES = ["5.5", '"x"', '""', "true", "[5]", "5.0000000000000001", "9223372036854775808.0", '"1_0"', '"NaN"']


@pytest.mark.parametrize("door", ["nats", "headers", "query"])
async def test_numbers_in_another_form_fit_where_nothing_is_lost(
    program: Program, namespace: str, send: Send, door: str
) -> None:
    table = create(program, namespace, columns="n BIGINT, t TEXT, d DOUBLE")
    for place, text in enumerate(LOSSLESS_VALUES):
        payload = f'[{{"k": {place}, "n": {text}, "d": "0.25"}}]'.encode()
        status, answer = await send(door, table, JSON, payload, {})
        assert (status, answer["code"]) == (400, "invalid_value"), text
        assert await send(door, table, JSON, payload, LOSSLESS) == (200, {"rows": 1, "seq": place + 1}), text
    assert rows(program, table, "n, d") == [[5, 0.25]] * len(LOSSLESS_VALUES)
    for text in LOSSY_VALUES:
        status, answer = await send(door, table, JSON, f'[{{"k": 99, "n": {text}}}]'.encode(), LOSSLESS)
        assert (status, answer["code"]) == (400, "invalid_value"), text
        assert "column n expects BIGINT, found" in answer["detail"]


async def test_digits_beyond_a_float_are_kept_and_a_key_may_be_text(program: Program, namespace: str) -> None:
    table = create(program, namespace)
    headers = {"Kalam-Coerce": "lossless"}
    answer = await program.insert(table, b'[{"k": 9007199254740993.0}, {"k": "-9223372036854775808"}]', headers=headers)
    assert answer.json["rows"] == 2
    assert rows(program, table, "k") == [[-(2**63)], [9007199254740993]]
    for bad in (b'[{"k": null}]', b'[{"n": 1}]'):
        assert (await program.insert(table, bad, headers=headers)).code == "not_null_violation"


async def test_msgpack_and_arrow_are_coerced_alike(program: Program, namespace: str, send: Send) -> None:
    table = create(program, namespace)
    packed = msgpack.packb([{"k": 1.0, "n": "7"}, {"k": "2", "n": 8.0}])
    assert (await send("nats", table, MSGPACK, packed, LOSSLESS))[1]["rows"] == 2
    stream = arrow([{"k": "3.0", "n": "9"}, {"k": "4", "n": None}])
    assert (await send("nats", table, ARROW, stream, {}))[1]["code"] == "invalid_value"
    assert (await send("nats", table, ARROW, stream, LOSSLESS))[1]["rows"] == 2
    assert (await send("query", table, CSV, b"k,n\n5.0,10.0\n", LOSSLESS))[1]["rows"] == 1
    assert rows(program, table, "k, n") == [[1, 7], [2, 8], [3, 9], [4, None], [5, 10]]
    for bad in (msgpack.packb([{"k": 1.5}]), msgpack.packb([{"k": float("nan")}])):
        assert (await send("nats", table, MSGPACK, bad, LOSSLESS))[1]["code"] == "invalid_value"


@pytest.mark.parametrize("door", ["nats", "headers", "query"])
async def test_all_may_be_asked_for_at_once(program: Program, namespace: str, send: Send, door: str) -> None:
    table = create(program, namespace)
    payload = b'[{"k": "1", "x": 1}, {"k": 1.5}, {"k": 2.0, "n": "3"}]'
    _, answer = await send(door, table, JSON, payload, SKIP | IGNORE | LOSSLESS)
    assert (answer["rows"], answer["refused"], answer["errors"][0]["row"]) == (2, 1, 2)
    assert rows(program, table) == [[1, None, None], [2, 3, None]]


@pytest.mark.parametrize("door", ["nats", "headers", "query"])
@pytest.mark.parametrize("name", HEADERS)
async def test_another_word_is_refused_with_those_that_there_are(
    program: Program, namespace: str, send: Send, door: str, name: str
) -> None:
    table = create(program, namespace)
    status, answer = await send(door, table, JSON, b'{"k": 1}' if door == "nats" else b'[{"k": 1}]', {name: "perhaps"})
    assert (status, answer["code"]) == (400, "invalid_value")
    assert HEADERS[name] in answer["detail"]
    assert "'perhaps'" in answer["detail"]
    assert rows(program, table) == []


async def test_single_rows_that_ask_are_answered_each_for_itself(program: Program, namespace: str) -> None:
    for kind in ("STREAM", "SHARED"):
        program.server.sql(f"CREATE NAMESPACE IF NOT EXISTS {namespace}{kind.lower()}")
        table = create(program, namespace + kind.lower(), kind)
        asked = [None, {"Kalam-On-Invalid": "skip"}, {"Kalam-Unknown": "ignore"}, {"Kalam-Coerce": "lossless"}]
        sent = [
            ({"k": k, "n": "x" if k % 4 == 1 else k, "z": 1} if k % 4 == 2 else {"k": k, "n": "x" if k % 4 == 1 else k})
            for k in range(40)
        ]
        answers = await asyncio.gather(
            *(program.insert(table, row, headers=asked[k % 4]) for k, row in enumerate(sent))
        )
        assert [answer.json["rows"] for answer in answers] == [0 if k % 4 == 1 else 1 for k in range(40)]
        assert [answer.json.get("refused") for answer in answers] == [1 if k % 4 == 1 else None for k in range(40)]
        assert [row[0] for row in rows(program, table)] == [k for k in range(40) if k % 4 != 1]


@pytest.mark.parametrize("door", ["nats", "headers", "query"])
@pytest.mark.parametrize("kind", ["SHARED", "USER"])
async def test_rows_that_are_there_are_left_as_they_are(
    program: Program, namespace: str, send: Send, kind: str, door: str
) -> None:
    table = create(program, namespace, kind)
    await program.insert(table, [{"k": 1, "n": 1, "t": "a"}, {"k": 2, "n": 2, "t": "b"}])
    program.server.sql(f"FLUSH TABLE {table}")
    payload = b'[{"k": 2, "n": 20}, {"k": 3, "n": 30}, {"k": 3, "n": 31}]'
    answer = await send(door, table, JSON, payload, {"on_conflict": "nothing"})
    assert answer == (200, {"rows": 1, "seq": 3, "skipped": 2})
    assert rows(program, table) == [[1, 1, "a"], [2, 2, "b"], [3, 30, None]]
    assert await send(door, table, JSON, payload, {"on_conflict": "nothing"}) == (200, {"rows": 0, "skipped": 3})


@pytest.mark.parametrize(("door", "media_type"), DOORS)
async def test_rows_that_are_there_get_the_columns_that_are_sent(
    program: Program, namespace: str, send: Send, door: str, media_type: str
) -> None:
    table = create(program, namespace, columns="n INT, t TEXT, d INT DEFAULT 7")
    await program.insert(table, [{"k": 1, "n": 1, "t": "a", "d": 1}, {"k": 2, "n": 2, "t": "b", "d": 2}])
    program.server.sql(f"FLUSH TABLE {table}")
    payload = ENCODERS[media_type]([{"k": 2, "n": 20}, {"k": 3, "n": None}])
    status, answer = await send(door, table, media_type, payload, {"on_conflict": "update"})
    assert (status, answer) == (200, {"rows": 2, "seq": 4, "updated": 1})
    assert rows(program, table, "k, n, t, d") == [[1, 1, "a", 1], [2, 20, "b", 2], [3, None, None, 7]]


async def test_each_row_sets_what_it_names_and_the_last_of_a_key_counts(program: Program, namespace: str) -> None:
    table = create(program, namespace, columns="n INT, t TEXT")
    await program.insert(table, [{"k": 1, "n": 1, "t": "a"}, {"k": 2, "n": 2, "t": "b"}])
    sent = [{"k": 1, "n": 5}, {"k": 2, "t": None}, {"k": 1, "t": "z"}, {"k": 3, "n": 3}, {"k": 3, "t": "new"}]
    answer = await program.insert(table, sent, headers={"Kalam-On-Conflict": "update"})
    assert answer.json == {"rows": 3, "seq": 5, "updated": 2}
    assert rows(program, table) == [[1, 5, "z"], [2, 2, None], [3, 3, "new"]]


async def test_merged_rows_may_be_refused_alone_and_are_stored_once(program: Program, namespace: str) -> None:
    table = create(program, namespace)
    await program.insert(table, {"k": 1, "n": 1, "t": "a"})
    headers = {"Kalam-On-Conflict": "update", "Kalam-On-Invalid": "skip", "Nats-Msg-Id": "m"}
    sent = [{"k": 1, "n": 2}, {"k": 1, "n": "x"}, {"k": 2}]
    first = await program.insert(table, sent, headers=headers)
    assert first.json["errors"][0]["row"] == 2
    assert {**first.json, "errors": []} == {"rows": 2, "seq": 3, "updated": 1, "refused": 1, "errors": []}
    await program.insert(table, {"k": 1, "n": 9}, headers={"Kalam-On-Conflict": "update"})
    assert (await program.insert(table, sent, headers=headers)).json == first.json
    assert rows(program, table) == [[1, 9, "a"], [2, None, None]]


async def test_many_merges_of_the_same_rows_give_a_serial_result(program: Program, namespace: str) -> None:
    table = create(program, namespace)
    headers = {"Kalam-On-Conflict": "update"}
    sent = [[{"k": k, "n": number} for k in range(200)] for number in range(20)]
    answers = await asyncio.gather(*(program.insert(table, batch, headers=headers) for batch in sent))
    assert [answer.json["rows"] for answer in answers] == [200] * 20
    assert sum(answer.json["updated"] for answer in answers) == 19 * 200
    found = rows(program, table, "k, n")
    assert [row[0] for row in found] == list(range(200))
    assert len({row[1] for row in found}) == 1


async def test_a_table_without_a_key_merges_nothing(program: Program, namespace: str, send: Send) -> None:
    program.server.sql(f"CREATE STREAM TABLE {namespace}.s (k INT); CREATE TABLE {namespace}.r (k INT)")
    for table in (f"{namespace}.s", f"{namespace}.r"):
        for door in ("nats", "query"):
            status, answer = await send(door, table, JSON, b'[{"k": 1}]', {"on_conflict": "update"})
            assert (status, answer["code"]) == (400, "unsupported")


@pytest.mark.parametrize(("door", "media_type"), DOORS)
async def test_a_timestamp_without_a_zone_means_utc(
    program: Program, namespace: str, send: Send, door: str, media_type: str
) -> None:
    table = create(program, namespace, columns="at TIMESTAMP")
    texts = ["2024-03-31T02:30:00", "2024-03-31 02:30:00.5", "2024-03-31T04:30:00+02:00", "2024-03-31T02:30:00Z"]
    payload = ENCODERS[media_type]([{"k": k, "at": text} for k, text in enumerate(texts)])
    assert (await send(door, table, media_type, payload, {}))[0] == 200
    moment = "2024-03-31T02:30:00.000000Z"
    assert rows(program, table, "at") == [[moment], ["2024-03-31T02:30:00.500000Z"], [moment], [moment]]
