"""What no program should send: every door answers with an error and its code, stores nothing, and goes on serving."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pyarrow as pa
import pytest
from foreign_program import Answer, Program
from server_process import ServerProcess, SqlFailed

COLUMNS = "k BIGINT PRIMARY KEY, s SMALLINT, i INT NOT NULL DEFAULT 0, n TEXT NOT NULL, b BOOLEAN, d DOUBLE, f FLOAT, "
COLUMNS += "m DECIMAL(5,2), x BLOB, at TIMESTAMP, day DATE, j JSON, u UUID, short VARCHAR(3)"
DEEP = 100_000


@pytest.fixture
async def table(program: Program, namespace: str) -> AsyncIterator[str]:
    """A table with one row, which has to be the only one at the end, on a server that has to be well then."""
    name = f"{namespace}.t"
    program.server.sql(f"CREATE TABLE {name} ({COLUMNS})")
    await program.insert(name, {"k": 1, "n": "first"})
    yield name
    assert program.broker.is_connected
    assert program.server.sql(f"SELECT k, n FROM {name}") == [[1, "first"]]
    assert (await program.insert(name, {"k": 2, "n": "last"})).json == {"rows": 1, "seq": 2}
    assert program.server.sql(f"SELECT count(*) FROM {name}") == [[2]]


def good(**values: Any) -> dict[str, Any]:
    return {"k": 7, "n": "x"} | values


# The door of inserts


NO_ROWS = {
    "nothing": b"",
    "blanks": b"   ",
    "a NUL": b"\0",
    "an open object": b"{",
    "an open array": b"[",
    "a cut object": b'{"k": 7, "n": "x"',
    "too much": b'{"k": 7, "n": "x"}}',
    "two objects": b'{"k": 7, "n": "x"} {"k": 8, "n": "x"}',
    "single quotes": b"{'k': 7}",
    "bare NaN": b'{"k": 7, "n": NaN}',
    "bare NaN in a number": b'{"k": 7, "d": NaN, "n": "x"}',
    "null": b"null",
    "a number": b"7",
    "a text": b'"text"',
    "an array of numbers": b"[7]",
    "an array of null": b"[null]",
    "an array of arrays": b"[[]]",
    "null behind a row": b'[{"k": 7, "n": "x"}, null]',
    "a byte that is no UTF-8": b'{"k": 7, "n": "\xff"}',
    "an overlong NUL": b'{"k": 7, "n": "\xc0\x80"}',
    "a surrogate in UTF-8": b'{"k": 7, "n": "\xed\xa0\x80"}',
    "half a surrogate pair": b'{"k": 7, "n": "\\ud800"}',
    "a turned surrogate pair": b'{"k": 7, "n": "\\udc00\\ud800"}',
    "a bare newline in a text": b'{"k": 7, "n": "a\nb"}',
    "deep open arrays": b"[" * DEEP,
    "a deep document": b'{"k": 7, "n": "x", "j": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "a deep object": b'{"k": 7, "n": "x", "j": ' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
    "a deep value of another type": b'{"k": 7, "n": "x", "s": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "cut msgpack": b"\x82\xa1k\x07",
    "too much msgpack": b"\x82\xa1k\x07\xa1n\xa1x\xff",
    "msgpack text that is no UTF-8": b"\x82\xa1k\x07\xa1n\xa1\xff",
    "a msgpack array of 2^32 rows that are not there": b"\xdd\xff\xff\xff\xff",
    "a msgpack map of 2^32 members that are not there": b"\xdf\xff\xff\xff\xff",
    "a msgpack text of 4 GiB that is not there": b"\x82\xa1k\x07\xa1n\xdb\xff\xff\xff\xff",
    "deep msgpack": b"\x91" * DEEP + b"\xc0",
    "a deep msgpack document": b"\x83\xa1k\x07\xa1n\xa1x\xa1j" + b"\x91" * DEEP + b"\xc0",
    "the byte that msgpack does not use": b"\xc1",
    "a msgpack key that is no text": b"\x82\x01\x07\xa1n\xa1x",
    "an unknown msgpack extension": b"\x83\xa1k\x07\xa1n\xa1x\xa1j\xd4\x05\x00",
    "NaN in a JSON value": b"\x83\xa1k\x07\xa1n\xa1x\xa1j\xcb\x7f\xf8\0\0\0\0\0\0",
}


async def test_a_payload_that_is_no_row_is_refused(program: Program, table: str) -> None:
    answers = {note: await program.insert(table, payload) for note, payload in NO_ROWS.items()}
    told = {note: (answer.code, answer.headers.get("Nats-Service-Error-Code")) for note, answer in answers.items()}
    assert told == dict.fromkeys(NO_ROWS, ("invalid_value", "400"))


@pytest.mark.parametrize("last", [64, 100_000, 2**31 - 16])
async def test_arrow_that_leads_outside_of_its_buffers_is_refused(program: Program, table: str, last: int) -> None:
    sink = io.BytesIO()
    batch = pa.record_batch([pa.array([b"aaaa", b"bbbb", b"cccc"])], ["blob"])
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    payload = sink.getvalue().replace(struct.pack("<4i", 0, 4, 8, 12), struct.pack("<4i", 0, 4, 8, last))
    headers = {"Content-Type": "application/vnd.apache.arrow.stream"}
    answer = await program.insert(table, payload, headers=headers)
    assert answer.code == "invalid_value"
    assert "damaged" in answer.detail


async def test_a_payload_that_is_no_arrow_stream_is_refused(program: Program, table: str) -> None:
    for payload in (b"", b"\0" * 100, b"[]", b"ARROW1\0\0", b"\xff\xff\xff\xff\xff\xff\xff\x7f"):
        answer = await program.insert(table, payload, headers={"Content-Type": "application/vnd.apache.arrow.stream"})
        assert answer.code == "invalid_value", payload


WRONG: dict[str, Sequence[Any]] = {
    "k": (1.5, "7", True, [7], {"a": 7}, 1 << 63, -(1 << 63) - 1, 10**400),
    "s": (32768, -32769, 1e3, "1"),
    "i": (1 << 31, -(1 << 31) - 1, ""),
    "n": (7, True, ["x"], {}, 1.5),
    "b": (0, 1, "true", "yes"),
    "d": ("1.5", "nan", "inf", True, []),
    "f": (1e39, -1e39, "x"),
    "m": ("1000", 1000, "-999.995", "NaN", "x", "", True, "1e400", [1]),
    "x": ("%%%", "AAE", 7, ["AAE="]),
    "at": ("yesterday", "2026-01-01", "2026-13-01T00:00:00Z", "2026-01-01T25:00:00", 1e300, 1 << 60),
    "day": ("2026-02-30", "01.02.2026", 7, "2026-01-01T00:00:00Z"),
    "u": ("x", 7, "01890a5d-ac96-774b-bcce-b302099a805", ""),
    "short": ("four", "漢字漢字"),
}


async def test_a_value_of_the_wrong_type_is_refused_by_row_column_and_type(program: Program, table: str) -> None:
    types = {part.split()[0]: part.split()[1] for part in COLUMNS.replace(",2)", ";2)").split(", ")}
    for column, value in ((column, value) for column, values in WRONG.items() for value in values):
        payloads = [json.dumps([good(), good(**{"k": 8, column: value})]).encode()]
        if not isinstance(value, int) or -(1 << 63) <= value < 1 << 64:
            payloads.append(msgpack.packb([good(), good(**{"k": 8, column: value})]))
        for payload in payloads:
            answer = await program.insert(table, payload)
            assert answer.code == "invalid_value", (column, value)
            for word in ("row 2", f"column {column} ", types[column].replace(";", ",")):
                assert word in answer.detail


async def test_a_number_too_large_for_a_double_is_refused(program: Program, table: str) -> None:
    answer = await program.insert(table, b'{"k": 7, "n": "x", "d": 1e400}')
    assert answer.code == "invalid_value"


MISSHAPEN = [
    ({"k": 7}, "not_null_violation", "column n"),
    ({"k": 7, "n": None}, "not_null_violation", "column n"),
    ({"n": "x"}, "not_null_violation", "column k"),
    ({"k": None, "n": "x"}, "not_null_violation", "column k"),
    (good(i=None), "not_null_violation", "column i"),
    ({}, "not_null_violation", "column"),
    (good(nope=1), "column_not_found", "'nope'"),
    (good(K=1), "column_not_found", "'K'"),
    (good(**{"": 1}), "column_not_found", "''"),
    (good(**{"a.b": 1}), "column_not_found", "'a.b'"),
    (good(**{"x`y": 1}), "column_not_found", "x`y"),
    (good(**{"n" * 10_000: 1}), "column_not_found", "nnnn"),
    (good(_updated="2026-01-01T00:00:00Z"), "invalid_value", "_updated"),
    (good(_deleted=True), "invalid_value", "_deleted"),
    (good(_row_id=1), "invalid_value", "_row_id"),
    (good(_key="x"), "invalid_value", "_key"),
    (good(_seq=1), "column_not_found", "_seq"),
]


async def test_missing_and_unknown_columns_are_refused_by_name(program: Program, table: str) -> None:
    for row, code, word in MISSHAPEN:
        for payload in (json.dumps(row).encode(), msgpack.packb([row])):
            answer = await program.insert(table, payload)
            assert answer.code == code, (row, answer.detail)
            assert word in answer.detail
            assert "row 1" in answer.detail
            assert len(answer.detail) < 2_000


async def test_a_column_that_comes_twice_in_a_row_is_no_crash(program: Program, table: str) -> None:
    answer = await program.insert(table, b'{"k": 1, "k": 1, "n": "a", "n": "b"}')
    assert answer.code == "duplicate_key"  # the last value counts, as in JSON everywhere


async def test_a_duplicate_key_is_refused_in_a_batch_and_against_hot_and_cold_rows(
    program: Program, table: str
) -> None:
    twice = await program.insert(table, [{"k": 7, "n": "x"}, {"k": 8, "n": "x"}, {"k": 7, "n": "y"}])
    hot = await program.insert(table, [{"k": 9, "n": "x"}, {"k": 1, "n": "x"}])
    program.server.sql(f"FLUSH TABLE {table}")
    cold = await program.insert(table, [{"k": 9, "n": "x"}, {"k": 1, "n": "x"}])
    for answer, key in ((twice, "7"), (hot, "1"), (cold, "1")):
        assert (answer.code, answer.headers["Nats-Service-Error-Code"]) == ("duplicate_key", "409")
        assert key in answer.detail
    for text in (f"INSERT INTO {table} (k, n) VALUES (1, 'x')", f"INSERT INTO {table} (k, n) SELECT 1, 'x'"):
        assert (await program.ask_sql(text)).code == "duplicate_key"


NOWHERE = [
    ("{ns}.nowhere", "table_not_found"),
    ("nowhere.t", "namespace_not_found"),
    ("{ns}.T", "table_not_found"),
    ("system.tables", "namespace_not_found"),
    ("{ns}.t'", "table_not_found"),
    ("{ns}.%00", "table_not_found"),
    ("{ns}.$SYS", "table_not_found"),
    ("{ns}./etc/passwd", "table_not_found"),
    ("{ns}.\u202e\U0001f600", "table_not_found"),
    ("{ns}." + "t" * 64, "invalid_name"),
    ("{ns}." + "t" * 2_000, "invalid_name"),
]


async def test_an_insert_into_no_table_is_refused(program: Program, table: str, namespace: str) -> None:
    told = {place: (await program.insert(place.format(ns=namespace), good())).code for place, _ in NOWHERE}
    assert told == dict(NOWHERE)


HOSTILE_USERS = ["a b", "a'b", 'a"b', "a\\b", "a/b", "a%b", "ü", "\U0001f600", "a;b", "$SYS", "a" * 65, "a" * 1_000]


async def test_a_user_id_that_is_none_is_refused_at_every_door(program: Program, table: str) -> None:
    for user in HOSTILE_USERS:
        if " " not in user:
            assert (await program.insert(table, good(), user=user)).code == "invalid_name", user
            assert (await program.ask_sql("SELECT 1", user=user)).code == "invalid_name", user
        if user.isascii():
            status, _, body = await program.post(b'{"sql": "SELECT 1"}', {"X-Kalam-User": user})
            assert (status, json.loads(body)["code"]) == (400, "invalid_name"), user


async def test_a_path_and_a_wildcard_are_no_user(program: Program, table: str) -> None:
    for user in ("..", "../../etc", "*", ">"):
        status, _, body = await program.post(b'{"sql": "SELECT 1"}', {"X-Kalam-User": user})
        assert (status, json.loads(body)["code"]) == (400, "invalid_name")


@pytest.mark.parametrize(
    "subject", ["kalam.api.*.insert.{t}", "kalam.api.>", "kalam.api.*.sql", "kalam.api.ann.insert.*.*"]
)
async def test_a_subject_with_wildcards_reaches_no_table(program: Program, table: str, subject: str) -> None:
    inbox = await program.broker.subscribe(program.broker.new_inbox())
    await program.broker.publish(subject.format(t=table), json.dumps(good()).encode(), reply=inbox.subject)
    msg = await inbox.next_msg(20)
    assert "503" in str(msg.headers) or json.loads(msg.data)["code"] == "invalid_name"


async def test_a_bad_header_is_no_reason_to_stumble(program: Program, table: str) -> None:
    for headers in ({"Nats-Msg-Id": ""}, {"Nats-Msg-Id": "x" * 3_000}, {"Content-Type": "text/html"}, {"a": "é"}):
        answer = await program.insert(table, {"k": 1, "n": "again"}, headers=headers)
        assert answer.code in ("duplicate_key", "invalid_value"), answer


# The doors of SQL


async def refused(program: Program, text: str, *params: Any) -> Answer:
    """The error of a text over NATS, after a look that HTTP answers with the same one."""
    answer = await program.ask_sql(text, *params)
    status, headers, body = await program.post(json.dumps({"sql": text, "params": params}).encode())
    problem = json.loads(body)
    assert answer.code is not None, answer.body[:500]
    assert (headers["content-type"], problem["status"]) == ("application/problem+json", status)
    assert (problem["code"], problem["detail"]) == (answer.code, answer.detail)
    assert answer.headers["Nats-Service-Error-Code"] == str(status)
    assert status != 500, problem
    assert "Traceback" not in answer.detail
    return answer


FOREIGN = [
    "COPY {t} TO '/tmp/stolen.csv'",
    "COPY (SELECT 1) TO '/tmp/stolen.parquet' STORED AS PARQUET",
    "COPY {t} FROM '/etc/passwd'",
    "CREATE EXTERNAL TABLE e (l TEXT) STORED AS CSV LOCATION '/etc/passwd'",
    "CREATE VIEW {n}.v AS SELECT 1",
    "CREATE TABLE {n}.c AS SELECT 1",
    "CREATE OR REPLACE TABLE {t} (a INT)",
    "CREATE EXTENSION s",
    "CREATE DATABASE d",
    "CREATE FUNCTION f() RETURNS INT RETURN 1",
    "CREATE INDEX i ON {t} (k)",
    "DROP VIEW {t}",
    "DROP SEQUENCE {n}",
    "SET datafusion.catalog.information_schema = true",
    "SET TIME ZONE 'UTC'",
    "RESET ALL",
    "SHOW ALL",
    "SHOW datafusion.execution.batch_size",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE p",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "GRANT ALL ON {t} TO bob",
    "VACUUM",
    "ATTACH '/etc/passwd' AS p",
    "PRAGMA table_info('x')",
    "MERGE INTO {t} AS a USING {t} AS b ON true WHEN MATCHED AND a.n > 1 THEN DELETE",
    "EXPLAIN INSERT INTO {t} (k, n) VALUES (7, 'x')",
    "EXPLAIN ANALYZE DELETE FROM {t}",
    "WITH x AS (DELETE FROM {t} RETURNING *) SELECT * FROM x",
    "SELECT * INTO {n}.copy FROM {t}",
    "SELECT * FROM '/etc/passwd'",
    'SELECT * FROM "/etc/passwd"',
    "SELECT * FROM read_parquet('/etc/passwd')",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM parquet_metadata('/etc/passwd')",
    "SELECT * FROM metadata_cache()",
    "SELECT * FROM (SELECT * FROM '/etc/passwd')",
    "SELECT (SELECT count(*) FROM '/etc/passwd')",
    "SELECT * FROM {t} WHERE k IN (SELECT 1 FROM '/etc/passwd')",
    "WITH x AS (SELECT * FROM '/etc/passwd') SELECT * FROM x",
    "INSERT INTO {t} (k, n) SELECT 7, * FROM '/etc/passwd'",
    "UPDATE {t} SET n = (SELECT 'x' FROM '/etc/passwd')",
    "DELETE FROM {t} WHERE k IN (SELECT 1 FROM '/etc/passwd')",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM information_schema.df_settings",
    "SELECT * FROM datafusion.public.t",
    "SELECT * FROM datafusion.information_schema.tables",
    "SELECT * FROM system.secrets",
    "SELECT * FROM kalam.t",
    "INSERT INTO system.tables (namespace) VALUES ('x')",
    "UPDATE system.tables SET namespace = 'x'",
    "DELETE FROM system.jobs",
    "DROP TABLE system.jobs",
    "CREATE TABLE system.t (a INT)",
    "CREATE NAMESPACE system",
    "CREATE NAMESPACE information_schema",
    "CREATE NAMESPACE kalam",
    "LOAD 'x'",
    "CALL f()",
    "DO $$ x $$",
    "EXPORT DATABASE 'x'",
    "INSTALL httpfs",
    "LISTEN x",
    "UNLOAD ('SELECT 1') TO 's3://x'",
]


async def test_a_statement_that_is_not_kalams_is_refused(program: Program, table: str, namespace: str) -> None:
    codes = {"unsupported", "syntax_error", "table_not_found", "namespace_not_found", "invalid_name", "not_found"}
    told = {text: await refused(program, text.format(t=table, n=namespace)) for text in FOREIGN}
    assert {text: answer.detail for text, answer in told.items() if answer.code not in codes} == {}


BAD_NAMES = [
    "A",
    "1a",
    "a-b",
    "a.b",
    "a b",
    "",
    "é",
    "a" * 64,
    "a" * 10_000,
    "../etc",
    "a/b",
    "a*",
    "a>",
    "a'b",
    'a""b',
]
BAD_NAMES += ["_a", "a\0b"]


async def test_a_name_that_breaks_the_rule_cannot_be_created(program: Program, table: str, namespace: str) -> None:
    for name in BAD_NAMES:
        texts = [f'CREATE NAMESPACE "{name}"', f'CREATE TABLE {namespace}."{name}" (a INT)']
        texts.append(f'CREATE TABLE {namespace}.x ("{name}" INT)')
        for text in texts:
            answer = await refused(program, text)
            assert answer.code == ("invalid_name" if name not in ("", "a\0b") else answer.code), (
                text[:80],
                answer.detail,
            )
            assert answer.code in ("invalid_name", "syntax_error")
            assert len(answer.detail) < 1_000


WRONG_STATEMENTS = [
    ("", "syntax_error"),
    (" ;; ; ", "syntax_error"),
    ("-- only a comment", "syntax_error"),
    ("SELEC 1", "syntax_error"),
    ("SELECT FROM WHERE", "syntax_error"),
    ("SELECT 'open", "syntax_error"),
    ('SELECT "open', "syntax_error"),
    ("SELECT /* open", "syntax_error"),
    ("SELECT $x$open", "syntax_error"),
    ("SELECT (1", "syntax_error"),
    ("SELECT 1)", "syntax_error"),
    ("\0", "syntax_error"),
    ("\ufeffSELEC", "syntax_error"),
    ("SELECT * FROM {t} WHERE", "syntax_error"),
    ("INSERT INTO {t} VALUES", "syntax_error"),
    ("INSERT INTO {t} (k, n) VALUES (7)", "invalid_value"),
    ("INSERT INTO {t} (k, n) VALUES (7, 'x', 1)", "invalid_value"),
    ("INSERT INTO {t} (k, k, n) VALUES (7, 8, 'x')", "invalid_value"),
    ("INSERT INTO {t} (k, n, nope) VALUES (7, 'x', 1)", "column_not_found"),
    ("INSERT INTO {t} (k, n, _updated) VALUES (7, 'x', NOW())", "invalid_value"),
    ("INSERT INTO {t} (k) VALUES (7)", "not_null_violation"),
    ("INSERT INTO {t} (k, n) VALUES (7, NULL)", "not_null_violation"),
    ("INSERT INTO {t} (k, n) VALUES ('seven', 'x')", "invalid_value"),
    ("INSERT INTO {t} (k, n) VALUES (9223372036854775808, 'x')", "invalid_value"),
    ("INSERT INTO {t} (k, n, s) VALUES (7, 'x', 32768)", "invalid_value"),
    ("INSERT INTO {t} (k, n, s) SELECT 7, 'x', 32768", "invalid_value"),
    ("INSERT INTO {t} (k, n) SELECT 7", "invalid_value"),
    ("INSERT INTO {t} (k, n) SELECT 7, NULL", "not_null_violation"),
    ("INSERT INTO {t} (k, n, m) VALUES (7, 'x', 1000)", "invalid_value"),
    ("INSERT INTO {t} (k, n, j) VALUES (7, 'x', 'not json')", "invalid_value"),
    ("INSERT INTO {t} (k, n) VALUES ($1, 'x')", "invalid_value"),
    ("INSERT INTO {n}.nowhere VALUES (1)", "table_not_found"),
    ("INSERT INTO nowhere.t VALUES (1)", "namespace_not_found"),
    ("INSERT INTO t VALUES (1)", "namespace_not_found"),
    ("UPDATE {t} SET nope = 1", "column_not_found"),
    ("UPDATE {t} SET _deleted = true", "invalid_value"),
    ("UPDATE {t} SET _updated = NOW()", "invalid_value"),
    ("UPDATE {t} SET n = NULL", "not_null_violation"),
    ("UPDATE {t} SET k = NULL", "not_null_violation"),
    ("UPDATE {t} SET s = 32768", "invalid_value"),
    ("UPDATE {t} SET s = 'x'", "invalid_value"),
    ("UPDATE {t} SET n = 'a', n = 'b'", "invalid_value"),
    ("UPDATE {t} SET n = $1", "invalid_value"),
    ("UPDATE {t} SET n = 'x' WHERE nope = 1", "column_not_found"),
    ("DELETE FROM {t} WHERE nope = 1", "column_not_found"),
    ("DELETE FROM {t} WHERE k", "invalid_value"),
    ("DELETE FROM {n}.nowhere", "table_not_found"),
    ("SELECT nope FROM {t}", "column_not_found"),
    ("SELECT * FROM {n}.nowhere", "table_not_found"),
    ("SELECT * FROM nowhere.t", "namespace_not_found"),
    ("SELECT * FROM t", "namespace_not_found"),
    ("SELECT no_such_function(1)", "unsupported"),
    ("SELECT $1", "invalid_value"),
    ("SELECT $0", "invalid_value"),
    ("SELECT $99999999999999999999", "syntax_error"),
    ("SELECT CAST('x' AS INT)", "invalid_value"),
    ("SELECT 1 / 0", "invalid_value"),
    ("FLUSH TABLE {n}.nowhere", "table_not_found"),
    ("FLUSH ALL TABLES IN nowhere", "namespace_not_found"),
    ("DESCRIBE TABLE {n}.nowhere", "table_not_found"),
    ("DROP TABLE {n}.nowhere", "table_not_found"),
    ("DROP NAMESPACE nowhere", "namespace_not_found"),
    ("DROP NAMESPACE {n}", "table_in_use"),
    ("CREATE NAMESPACE {n}", "already_exists"),
    ("CREATE TABLE {t} (a INT)", "already_exists"),
    ("CREATE TABLE nowhere.t (a INT)", "namespace_not_found"),
    ("CREATE TABLE {n}.x ()", "syntax_error"),
    ("CREATE TABLE {n}.x (a NOTYPE)", "unsupported"),
    ("CREATE TABLE {n}.x (a INT, a INT)", "invalid_name"),
    ("CREATE TABLE {n}.x (_updated INT)", "invalid_name"),
    ("CREATE TABLE {n}.x (a INT) WITH (nope = 1)", "invalid_option"),
    ("CREATE TABLE {n}.x (a INT) WITH (retention = '10s')", "invalid_option"),
    ("CREATE STREAM TABLE {n}.x (a INT) WITH (max_buffer = 0)", "invalid_option"),
    ("CREATE STREAM TABLE {n}.x (a INT) WITH (flush_policy = 'rows:1')", "invalid_option"),
    ("CREATE STREAM TABLE {n}.x (a INT PRIMARY KEY)", "unsupported"),
    ("CREATE TABLE {n}.x (a INT) WITH (location = '/etc')", "invalid_option"),
    ("CREATE TABLE {n}.x (a INT) WITH (location = '../../etc')", "invalid_option"),
    ("CREATE TABLE {n}.x (a INT) WITH (location = 'file:///etc')", "invalid_option"),
    ("CREATE TABLE {n}.x (a DOUBLE PRIMARY KEY)", "unsupported"),
    ("CREATE TABLE {n}.x (a INT PRIMARY KEY, b INT PRIMARY KEY)", "unsupported"),
    ("CREATE TABLE {n}.x (a DECIMAL(39,0))", "unsupported"),
    ("CREATE TABLE {n}.x (a DECIMAL(5,6))", "unsupported"),
    ("USE nowhere", "namespace_not_found"),
    ("SHOW TABLES IN nowhere", "namespace_not_found"),
]


async def test_a_wrong_statement_is_refused_with_its_code(program: Program, table: str, namespace: str) -> None:
    told = {text: await refused(program, text.format(t=table, n=namespace)) for text, _ in WRONG_STATEMENTS}
    assert {text: answer.code for text, answer in told.items()} == dict(WRONG_STATEMENTS)


DEEP_STATEMENTS = [
    "SELECT " + "(" * 9_000 + "1" + ")" * 9_000,
    "SELECT " + "-" * 9_000 + "1",
    "SELECT " + "NOT " * 9_000 + "true",
    "SELECT 1" + " + 1" * 9_000,
    "SELECT true" + " AND true" * 9_000,
    "SELECT " + "CASE WHEN true THEN " * 3_000 + "1" + " END" * 3_000,
    "SELECT * FROM " + "(SELECT * FROM " * 3_000 + "x.y" + ")" * 3_000,
    "SELECT 1" + " UNION ALL SELECT 1" * 3_000,
    "SELECT " + "[" * 9_000 + "]" * 9_000,
    "INSERT INTO {t} (k, n) VALUES " + "(" * 9_000,
    "INSERT INTO {t} (k, n) VALUES (7, " + "(" * 9_000 + "'x'" + ")" * 9_000 + ")",
    "UPDATE {t} SET n = " + "(" * 9_000 + "'x'" + ")" * 9_000,
    "DELETE FROM {t} WHERE " + "(" * 9_000 + "true" + ")" * 9_000,
    "CREATE TABLE n.t (a INT DEFAULT " + "(" * 9_000 + "1" + ")" * 9_000 + ")",
    "/*" * 9_000 + "*/" * 9_000,
]


async def test_a_deep_statement_is_refused(program: Program, table: str) -> None:
    codes = {"syntax_error", "unsupported", "invalid_value", "too_large"}
    for text in DEEP_STATEMENTS:
        answer = await refused(program, text.replace("{t}", table))
        assert answer.code in codes, (text[:40], answer.detail)


async def test_a_document_as_a_parameter_is_read_once_and_never_as_sql(program: Program, table: str) -> None:
    text = "'; DROP TABLE x; --"
    assert program.server.sql("SELECT $1 AS v", text) == [[text]]
    assert program.server.sql(f"SELECT count(*) FROM {table} WHERE n = $1", "' OR 1 = 1 --") == [[0]]
    assert program.server.sql(f"SELECT $1 AS v, k FROM {table}", "$1") == [["$1", 1]]
    for value in (1 << 63, -(1 << 63) - 1, 10**300):
        assert (await refused(program, "SELECT $1", value)).code == "invalid_value"


async def test_odd_texts_are_texts(program: Program, table: str) -> None:
    for value in ("a\0b", "\U0001f600", "x" * 100_000, "", "\x7f", "\u202e"):
        assert program.server.sql("SELECT $1 AS v", value) == [[value]]
        assert program.server.sql(f"SELECT '{value}' AS v") == [[value]]
        assert program.server.sql(f"SELECT count(*) FROM {table} WHERE n = '{value}'") == [[0]]


HTTP_BODIES = [b"", b"{", b"[]", b"null", b"7", b"\xff", b'{"sql": 7}', b'{"sql": null}', b"{}", b"[" * DEEP]
HTTP_BODIES += [b'{"sql": "SELECT 1", "params": 7}', b'{"sql": "SELECT 1", "namespace": 7}', b'{"sql": "\xff"}']
HTTP_BODIES += [b'{"sql": "SELECT \'\\ud800\'"}', b'{"sql": "SELECT 1", "nope": 1}', b'{"params": []}', b"\x80"]
HTTP_BODIES += [b'{"sql": "SELECT $1", "params": [' + b"[" * DEEP + b"]" * DEEP + b"]}"]


async def test_a_body_that_is_no_request_is_refused_by_both_doors(program: Program, table: str) -> None:
    for body in HTTP_BODIES:
        status, _, problem = await program.post(body)
        assert (status, json.loads(problem)["code"] in ("syntax_error", "invalid_value")) == (400, True), body[:80]
        answer = await program.ask("kalam.api.ann.sql", body)
        assert answer.code in ("syntax_error", "invalid_value"), body[:80]


async def test_a_body_of_another_kind_or_size_is_refused(program: Program, table: str) -> None:
    status, _, body = await program.post(b'{"sql": "SELECT 1"}', {"Content-Type": "text/plain"})
    assert (status, json.loads(body)["code"]) == (400, "unsupported")
    text = "SELECT 1 -- " + "x" * (8 << 20)
    status, _, body = await program.post(json.dumps({"sql": text}).encode())
    assert (status, json.loads(body)["code"]) == (413, "too_large")
    status, _, body = await program.post(b'{"sql": "SELECT 1"}', {"Host": "evil.example"})
    assert (status // 100, "results" in json.loads(body)) == (4, False)


async def test_a_result_over_the_bound_of_the_json_format_is_refused(program: Program, table: str) -> None:
    answer = await refused(program, "SELECT * FROM generate_series(1, 100001)")
    assert (answer.code, "result_rows_max" in answer.detail) == ("too_large", True)
    assert len(program.server.sql("SELECT * FROM generate_series(1, 100000)")) == 100_000


async def test_a_wrong_statement_in_the_middle_changes_nothing_more(program: Program, table: str) -> None:
    with pytest.raises(SqlFailed) as failed:
        program.server.sql(f"SELECT 1; INSERT INTO {table} (k, n) VALUES (1, 'x'); DELETE FROM {table}")
    assert (failed.value.code, failed.value.problem["statement"]) == ("duplicate_key", 2)


async def test_a_request_without_reply_is_no_reason_to_stumble(
    program: Program, table: str, shared_server: ServerProcess
) -> None:
    for body in (b"", b"{", b'{"sql": "SELEC"}', b'{"sql": "SELECT 1"}'):
        await program.broker.publish("kalam.api.ann.sql", body)
    for reply in ("no.one.listens", "a" * 500):
        await program.broker.publish(f"kalam.api.ann.insert.{table}", b"{", reply=reply)
    assert shared_server.sql("SELECT 1") == [[1]]
