"""``POST /v1/tables/{ns}/{table}/rows``: rows in bulk in five formats, batch by batch, repeatable."""

from __future__ import annotations

import base64
import http.client
import io
import itertools
import json
import struct
import urllib.error
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import msgpack
import pyarrow as pa
import pytest
from patience import PATIENCE_S
from server_process import ServerProcess

JSON, NDJSON, CSV = "application/json", "application/x-ndjson", "text/csv"
MSGPACK, ARROW = "application/msgpack", "application/vnd.apache.arrow.stream"
COLUMNS = """id BIGINT PRIMARY KEY, flag BOOLEAN, n INT, f FLOAT, d DOUBLE, price DECIMAL(10,2), t TEXT, b BLOB,
at TIMESTAMP, day DATE, doc JSON, u UUID DEFAULT '018f2b6e-7c1a-7e3d-9b1f-6a2c4d5e6f70'"""
ODD_TEXT = 'a "quote", a comma,\na line end, \\ and }] {[ ß😀'
UUID = "018f2b6e-7c1a-7e3d-9b1f-6a2c4d5e6f70"
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server(shared_server: ServerProcess) -> ServerProcess:
    shared_server.sql("CREATE NAMESPACE bulk")
    return shared_server


@pytest.fixture
def table(server: ServerProcess) -> str:
    name = f"bulk.t{next(numbers)}"
    server.sql(f"CREATE TABLE {name} ({COLUMNS})")
    return name


def post(
    server: ServerProcess, table: str, content_type: str | None, body: Any, **headers: str
) -> tuple[int, dict[str, Any]]:
    """The status and the decoded answer; an iterator is sent in pieces of its own."""
    connection = http.client.HTTPConnection(urlsplit(server.http_url).netloc, timeout=PATIENCE_S)
    try:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if content_type is not None:
            sent["Content-Type"] = content_type
        path = f"/v1/tables/{table.replace('.', '/')}/rows"
        connection.request("POST", path, body, sent, encode_chunked=not isinstance(body, bytes))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def rows_json(count: int, start: int = 1) -> list[dict[str, Any]]:
    return [{"id": number, "t": f"text {number}"} for number in range(start, start + count)]


def arrow_stream(*batches: dict[str, Any], schema: pa.Schema | None = None) -> bytes:
    tables = [pa.table(batch, schema=schema) for batch in batches]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, tables[0].schema) as writer:
        for found in tables:
            writer.write_table(found)
    return sink.getvalue().to_pybytes()


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    return ("id,t\r\n" + "".join(f'{row["id"]},"{row["t"]}"\r\n' for row in rows)).encode()


def encoded(content_type: str, rows: list[dict[str, Any]]) -> bytes:
    match content_type:
        case "application/json":
            return json.dumps(rows, indent=1).encode()
        case "application/x-ndjson":
            return "\n".join(map(json.dumps, rows)).encode()
        case "text/csv":
            return as_csv(rows)
        case "application/msgpack":
            return msgpack.packb(rows)
        case _:
            return arrow_stream({name: [row[name] for row in rows] for name in ("id", "t")})


FORMATS = [JSON, NDJSON, CSV, MSGPACK, ARROW]

VALUES: dict[str, Any] = {
    "flag": True,
    "n": -7,
    "f": 0.1,
    "d": "NaN",
    "price": "12.50",
    "t": ODD_TEXT,
    "b": base64.b64encode(b"\0\xff").decode(),
    "at": "1969-12-31T23:59:59.999999Z",
    "day": "2024-02-29",
    "doc": {"a": [1, {"b": "}]"}], "c": None},
}
SHOWN = [1, *VALUES.values(), UUID]
NULLS = [2, None, None, None, None, None, "", None, None, None, None, UUID]


def typed_body(content_type: str) -> bytes:
    """One row with a value of each type, and one with an empty text and NULLs."""
    row = {"id": 1, **VALUES}
    match content_type:
        case "text/csv":
            quoted = '"' + ODD_TEXT.replace('"', '""') + '"'
            doc = '"' + json.dumps(VALUES["doc"]).replace('"', '""') + '"'
            line = f"1,true,-7,0.1,NaN,12.50,{quoted},AP8=,1969-12-31T23:59:59.999999Z,2024-02-29,{doc}"
            return f'{",".join(row)}\n{line}\n2,,,,,,"",,,,\n'.encode()
        case "application/vnd.apache.arrow.stream":
            return arrow_stream(
                {
                    "id": pa.array([1, 2]),
                    "flag": pa.array([True, None]),
                    "n": pa.array([-7, None], pa.int8()),
                    "f": pa.array([0.1, None], pa.float32()),
                    "d": pa.array([float("nan"), None]),
                    "price": pa.array([Decimal("12.50"), None]),
                    "t": pa.array([ODD_TEXT, ""]).dictionary_encode(),
                    "b": pa.array([b"\0\xff", None]),
                    "at": pa.array([-1, None], pa.timestamp("us", "UTC")),
                    "day": pa.array([19782, None], pa.int32()).cast(pa.date32()),
                    "doc": pa.array([json.dumps(VALUES["doc"]), None], pa.large_string()),
                }
            )
        case "application/msgpack":
            packed = row | {"b": b"\0\xff", "d": float("nan"), "at": "1969-12-31T23:59:59.999999Z"}
            return b"".join(msgpack.packb(one) for one in (packed, {"id": 2, "t": ""}))
        case _:
            return encoded(content_type, [row, {"id": 2, "t": ""}])


@pytest.mark.parametrize("content_type", FORMATS)
def test_every_type_arrives_in(server, table, content_type) -> None:
    body = typed_body(content_type)
    assert post(server, table, content_type, body) == (200, {"rows": 2, "seq": 2})
    names = "id, flag, n, f, d, price, t, b, at, day, doc, u"
    assert server.sql(f"SELECT {names} FROM {table} ORDER BY id") == [SHOWN, NULLS]


def pieces(body: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.parametrize("content_type", FORMATS)
def test_a_long_body_is_streamed_in_batches_whatever_its_pieces_are(server, table, content_type) -> None:
    body = encoded(content_type, rows_json(12_345))
    assert post(server, table, content_type, pieces(body, 7_919)) == (200, {"rows": 12_345, "seq": 12_345})
    assert server.sql(f"SELECT count(*), sum(id), count(DISTINCT t) FROM {table}") == [
        [12_345, 12_345 * 12_346 // 2, 12_345]
    ]


@pytest.mark.parametrize("content_type", FORMATS)
def test_a_small_body_in_single_bytes_is_the_same(server, table, content_type) -> None:
    body = encoded(content_type, rows_json(3))
    assert post(server, table, content_type, pieces(body, 1)) == (200, {"rows": 3, "seq": 3})


@pytest.mark.parametrize(
    ("content_type", "body"),
    [(JSON, b" [ ] "), (NDJSON, b"\n \n"), (CSV, b"id,t\n"), (MSGPACK, b"\x90"), (ARROW, arrow_stream({"id": []}))],
)
def test_a_body_without_rows_stores_none(server, table, content_type, body) -> None:
    assert post(server, table, content_type, body) == (200, {"rows": 0})


@pytest.mark.parametrize("content_type", FORMATS)
def test_a_body_that_is_cut_off_is_refused(server, table, content_type) -> None:
    body = encoded(content_type, rows_json(3))
    if content_type == CSV:
        body = b'id,t\n1,"open'
    elif content_type == NDJSON:
        body = body[:-1]
    else:
        body = body[: len(body) - 20]
    status, problem = post(server, table, content_type, body)
    assert (status, problem["code"], problem["stored"]) == (400, "invalid_value", 0)
    assert server.sql(f"SELECT count(*) FROM {table}") == [[0]]


BAD = [
    (JSON, b""),
    (JSON, b"7"),
    (JSON, b'{"id": 1}'),
    (JSON, b'[{"id": 1} {"id": 2}]'),
    (JSON, b'[{"id": 1},]'),
    (JSON, b'[,{"id": 1}]'),
    (JSON, b"[1]"),
    (JSON, b'["a"]'),
    (JSON, b"[[]]"),
    (JSON, b'[{"id": 1}]]'),
    (JSON, b'[{"id": 1}] x'),
    (JSON, b'[{"id": 1]]'),
    (JSON, b'[{"id": 1}][{"id": 2}]'),
    (JSON, b'[{"id": ' + b"[" * 100_000),
    (NDJSON, b'{"id": 1},{"id": 2}'),
    (NDJSON, b'{"id": 1\n}'),
    (NDJSON, b"[]"),
    (NDJSON, b"\xff"),
    (CSV, b""),
    (CSV, b"id,id\n1,2\n"),
    (CSV, b"id,t\n1\n"),
    (CSV, b"id,t\n1,\xff\n"),
    (CSV, b"id,t\none,a\n"),
    (CSV, b"id,b\n1,no base64!\n"),
    (CSV, b"id,at\n1,2024-01-01T25:00:00\n"),
    (MSGPACK, b"\x01"),
    (MSGPACK, b"\x91\x01"),
    (MSGPACK, b"\xc1"),
    (MSGPACK, b"\x91\x81\xc1\x01"),
    (MSGPACK, msgpack.packb([{"id": 1}]) + b"\x80"),
    (MSGPACK, b"\xdd\xff\xff\xff\xff"),
    (ARROW, b"no arrow"),
    (ARROW, b""),
    (ARROW, arrow_stream({"id": ["one"]})),
    (ARROW, b"\xff\xff\xff\xff\xff\xff\xff\x7f" + b"x" * 100),
]


@pytest.mark.parametrize(("content_type", "body"), BAD, ids=[f"{kind}-{body[:24]!r}" for kind, body in BAD])
def test_what_is_no_row_is_a_problem_and_nothing_of_it_is_stored(server, table, content_type, body) -> None:
    status, problem = post(server, table, content_type, body)
    assert status in (400, 413), problem
    assert problem["code"] in ("invalid_value", "too_large", "not_null_violation"), problem
    assert problem["stored"] == 0
    assert "Traceback" not in problem["detail"]
    assert server.sql(f"SELECT count(*) FROM {table}") == [[0]]


@pytest.mark.parametrize("content_type", FORMATS)
def test_an_unknown_column_is_named(server, table, content_type) -> None:
    body = {
        JSON: b'[{"id": 1, "nope": 2}]',
        NDJSON: b'{"id": 1, "nope": 2}',
        CSV: b"id,nope\n1,2\n",
        MSGPACK: msgpack.packb([{"id": 1, "nope": 2}]),
        ARROW: arrow_stream({"id": [1], "nope": [2]}),
    }[content_type]
    status, problem = post(server, table, content_type, body)
    assert (status, problem["code"]) == (400, "column_not_found")
    assert "nope" in problem["detail"]


def test_an_error_half_way_says_what_is_stored(server, table) -> None:
    body = encoded(NDJSON, [*rows_json(10_100), {"id": 5}, *rows_json(10_000, 20_000)])
    status, problem = post(server, table, NDJSON, body)
    assert (status, problem["code"], problem["stored"]) == (409, "duplicate_key", 10_000)
    assert problem["detail"].startswith("after row 10,000 of the body: ")
    assert server.sql(f"SELECT count(*), max(id) FROM {table}") == [[10_000, 10_000]]


def test_a_row_that_is_none_is_named_by_its_number_in_the_body(server, table) -> None:
    body = encoded(NDJSON, rows_json(6_000)) + b'\n{"id":'
    status, problem = post(server, table, NDJSON, body)
    assert (status, problem["row"], problem["stored"]) == (400, 6_001, 5_000)
    assert problem["detail"].startswith("row 6,001 is not valid JSON")


@pytest.mark.parametrize("kind", ["SHARED", "STREAM"])
def test_a_body_sent_again_with_its_key_is_stored_once(server, kind) -> None:
    table = f"bulk.t{next(numbers)}"
    server.sql(f"CREATE {kind} TABLE {table} (n BIGINT)" + (" WITH (MAX_BUFFER = 100000)" if kind == "STREAM" else ""))
    body = encoded(NDJSON, [{"n": n} for n in range(12_000)])
    first = post(server, table, NDJSON, body, Idempotency_Key="one")
    assert first == (200, {"rows": 12_000, "seq": 12_000})
    assert post(server, table, NDJSON, pieces(body, 1_000), Idempotency_Key="one") == first
    assert server.sql(f"SELECT count(*) FROM {table}") == [[12_000]]
    assert post(server, table, NDJSON, body, Idempotency_Key="two")[1]["seq"] == 24_000


def test_a_body_that_failed_half_way_goes_on_where_it_stopped(server, table) -> None:
    good = [{"id": n} for n in range(12_000)]
    bad = [*good[:11_000], {"id": "eleven"}, *good[11_001:]]
    assert post(server, table, JSON, encoded(JSON, bad), Idempotency_Key="again")[1]["stored"] == 10_000
    assert post(server, table, JSON, encoded(JSON, good), Idempotency_Key="again") == (
        200,
        {"rows": 12_000, "seq": 12_000},
    )
    assert server.sql(f"SELECT count(*) FROM {table}") == [[12_000]]


@pytest.mark.parametrize("key", ["a b", "x" * 129, "\x7f"])
def test_a_key_that_is_none_is_refused(server, table, key) -> None:
    assert post(server, table, NDJSON, b'{"id": 1}', Idempotency_Key=key)[0] == 400


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_another_content_type_is_refused_and_the_known_ones_are_named(server, table, content_type) -> None:
    status, problem = post(server, table, content_type, b'{"id": 1}')
    assert (status, problem["code"]) == (400, "unsupported")
    assert all(name in problem["detail"] for name in FORMATS)


def test_a_table_that_is_not_there_is_told_before_the_body_is_read(server) -> None:
    assert post(server, "bulk.nowhere", NDJSON, b"{")[1]["code"] == "table_not_found"
    assert post(server, "nowhere.t", NDJSON, b"{")[1]["code"] == "namespace_not_found"


def test_rows_of_a_user_table_are_the_users(server) -> None:
    server.sql("CREATE USER TABLE bulk.own (id BIGINT PRIMARY KEY)")
    assert post(server, "bulk.own", CSV, b"id\n1\n2\n", X_Kalam_User="ann")[1]["rows"] == 2
    assert server.sql("SELECT count(*) FROM bulk.own", user="ann") == [[2]]
    assert server.sql("SELECT count(*) FROM bulk.own", user="bob") == [[0]]
    assert post(server, "bulk.own", CSV, b"id\n1\n", X_Kalam_User="a.b")[1]["code"] == "invalid_name"


def test_what_nobody_listens_to_is_counted_as_discarded(server) -> None:
    server.sql("CREATE STREAM TABLE bulk.quiet (n BIGINT) WITH (EPHEMERAL = true)")
    status, answer = post(server, "bulk.quiet", NDJSON, b'{"n": 1}\n{"n": 2}')
    assert (status, answer.get("discarded")) == (200, 2)


def test_a_body_over_the_bound_is_refused(start_kalam) -> None:
    server = start_kalam(KALAM_ROWS_BODY_BYTES_MAX="100000")
    server.sql("CREATE NAMESPACE n; CREATE TABLE n.t (id BIGINT PRIMARY KEY, t TEXT)")
    status, problem = post(server, "n.t", NDJSON, encoded(NDJSON, rows_json(4_000)))
    assert (status, problem["code"], problem["stored"]) == (413, "too_large", 0)
    body = b'[{"id": 1, "t": "' + b"x" * 90_000 + b'"}]'
    assert post(server, "n.t", JSON, body)[0] == 200


def test_a_row_longer_than_a_row_may_be_is_refused(server, table) -> None:
    for content_type, body in ((NDJSON, b'{"t": "' + b"x" * (9 << 20)), (CSV, b'id,t\n1,"' + b"x" * (9 << 20))):
        status, problem = post(server, table, content_type, body)
        assert (status, problem["code"], problem["row"]) == (413, "too_large", 1)
        assert "is longer than" in problem["detail"]


@pytest.mark.parametrize("last", [64, 100_000, 2**31 - 16])
def test_arrow_that_leads_outside_of_its_buffers_is_refused_and_ends_nothing(server, table, last):
    sink = io.BytesIO()
    batch = pa.record_batch([pa.array([1, 2, 3]), pa.array([b"aaaa", b"bbbb", b"cccc"])], ["id", "b"])
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    good = struct.pack("<4i", 0, 4, 8, 12)
    assert sink.getvalue().count(good) == 1
    status, answer = post(server, table, ARROW, sink.getvalue().replace(good, struct.pack("<4i", 0, 4, 8, last)))
    assert (status, answer["code"]) == (400, "invalid_value")
    assert "damaged" in answer["detail"]
    assert server.sql(f"SELECT count(*) FROM {table}") == [[0]]


def test_a_dry_run_judges_rows_and_keys_and_stores_nothing(shared_server):
    shared_server.sql("CREATE NAMESPACE trial; CREATE TABLE trial.t (id BIGINT PRIMARY KEY, n INT)")
    shared_server.sql("CREATE STREAM TABLE trial.s (id BIGINT NOT NULL)")
    shared_server.sql("INSERT INTO trial.t VALUES (1, 1); FLUSH TABLE trial.t; INSERT INTO trial.t VALUES (2, 2)")

    def judge(table: str, body: bytes) -> tuple[int, dict[str, object]]:
        url = f"{shared_server.http_url}/v1/tables/trial/{table}/rows?dry_run=true"
        request = urllib.request.Request(url, body, {"Content-Type": "application/x-ndjson"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, json.load(exc)

    assert judge("t", b'{"id": 3}\n{"id": 4, "n": 5}') == (200, {"rows": 2})
    assert judge("s", b'{"id": 3}') == (200, {"rows": 1})
    for body, code in (
        (b'{"id": 1}', "duplicate_key"),
        (b'{"id": 2}', "duplicate_key"),
        (b'{"id": 3}\n{"id": 3}', "duplicate_key"),
        (b'{"id": 3, "n": "x"}', "invalid_value"),
        (b"".join(b'{"id": %d}\n' % number for number in [*range(10, 5_100), 10]), "duplicate_key"),
    ):
        status, problem = judge("t", body)
        assert (problem["code"], status) == (code, 409 if code == "duplicate_key" else 400)
    assert judge("s", b"{}")[1]["code"] == "not_null_violation"
    assert shared_server.sql("SELECT count(*) FROM trial.t") == [[2]]
    assert shared_server.sql("SELECT count(*) FROM trial.s") == [[0]]
