"""protocol.md, "Values": each value comes in by any door and is shown alike by queries, hot and cold, and by events."""

from __future__ import annotations

import base64
import io
import json
import math
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pyarrow as pa
import pytest
from foreign_program import Program
from server_process import ServerProcess, SqlFailed

ARROW = {"Content-Type": "application/vnd.apache.arrow.stream"}
DOORS = [
    "json",
    "msgpack",
    "arrow",
    "values",
    "parameters",
    "select",
    "update",
    "scanning update",
    "update with parameters",
]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
US = timedelta(microseconds=1)
LONG = "0123456789" * 10_000
NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True)
class Sample:
    """Values of a type: each as Python has it, and as JSON has to show it."""

    type: str
    arrow: pa.DataType
    values: Sequence[tuple[Any, Any]]

    def __str__(self) -> str:
        return self.type


def same(*values: Any) -> list[tuple[Any, Any]]:
    return [(value, value) for value in values]


TIMES = [
    (EPOCH, "1970-01-01T00:00:00.000000Z"),
    (EPOCH - US, "1969-12-31T23:59:59.999999Z"),
    (EPOCH + US, "1970-01-01T00:00:00.000001Z"),
    (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000000Z"),
    (datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC), "9999-12-31T23:59:59.999999Z"),
    (datetime(1900, 2, 28, 1, 2, 3, 450_000, UTC), "1900-02-28T01:02:03.450000Z"),
]
DATES = [date(1970, 1, 1), date(1969, 12, 31), date(1, 1, 1), date(9999, 12, 31), date(2024, 2, 29)]
UUIDS = [uuid.UUID(int=0), uuid.UUID(int=(1 << 128) - 1), uuid.UUID("01890a5d-ac96-774b-bcce-b302099a8057")]
BLOBS = [b"", b"\0", bytes(range(256)), b"\xff" * 100_000]
TEXTS = [
    "",
    " ",
    "a\0b",
    "\0",
    LONG,
    "\U0001f600 ü 漢",
    "'",
    '"',
    "\\",
    "\r\n\t\x7f\x1b",
    "NaN",
    "null",
    "{}",
    "\ufeff\u202e",
]
DOCUMENTS = [True, False, 0, -1.5, "", "a\0b", [], {}, [1, [2, {"x": None}]], {"": {"ü": [None, True]}}, 2**53 + 1]
BIG = "9999999999999999999999999999.9999999999"
BIG_DECIMALS = ["1234567890123456789012345678.0123456789", BIG, "-" + BIG, "0.0000000001"]

SAMPLES = [
    Sample("BOOLEAN", pa.bool_(), same(True, False)),
    Sample("SMALLINT", pa.int16(), same(0, -(1 << 15), (1 << 15) - 1)),
    Sample("INT", pa.int32(), same(0, -(1 << 31), (1 << 31) - 1)),
    Sample("BIGINT", pa.int64(), same(0, -(1 << 63), (1 << 63) - 1, 2**53 + 1)),
    Sample("FLOAT", pa.float32(), [*same(0.0, -0.0, 0.5, 0.1), (3.4028234663852886e38, 3.4028235e38), (1e-45, 1e-45)]),
    Sample("DOUBLE", pa.float64(), same(0.0, -0.0, 0.1, 1e308, 5e-324, -1.7976931348623157e308, 1e22, 123456789.125)),
    Sample("DOUBLE", pa.float64(), [(NAN, "NaN"), (INF, "Infinity"), (-INF, "-Infinity"), (1.5, 1.5)]),
    Sample("FLOAT", pa.float32(), [(NAN, "NaN"), (INF, "Infinity"), (-INF, "-Infinity"), (-0.0, -0.0)]),
    Sample("DECIMAL(38,10)", pa.decimal128(38, 10), [(Decimal(text), text) for text in BIG_DECIMALS]),
    Sample("DECIMAL(5,2)", pa.decimal128(5, 2), [(Decimal("0.00"), "0.00"), (Decimal("-999.99"), "-999.99")]),
    Sample("DECIMAL(18,0)", pa.decimal128(18, 0), [(Decimal(10**18 - 1), "999999999999999999"), (Decimal(0), "0")]),
    Sample("TEXT", pa.string(), same(*TEXTS)),
    Sample("VARCHAR(3)", pa.string(), same("", "abc", "漢字漢")),
    Sample("BLOB", pa.binary(), [(value, base64.b64encode(value).decode()) for value in BLOBS]),
    Sample("TIMESTAMP", pa.timestamp("us", "UTC"), TIMES),
    Sample("DATE", pa.date32(), [(value, value.isoformat()) for value in DATES]),
    Sample("JSON", pa.string(), same(*DOCUMENTS)),
    Sample("UUID", pa.string(), [(value, str(value)) for value in UUIDS]),
]


def as_json(sample: Sample, value: Any, shown: Any) -> Any:
    return shown


def as_msgpack(sample: Sample, value: Any, shown: Any) -> Any:
    if isinstance(value, datetime):
        us = (value - EPOCH) // US
        return msgpack.Timestamp(us // 1_000_000, us % 1_000_000 * 1_000)
    return value if isinstance(value, float | bytes) else shown


def as_arrow(sample: Sample, value: Any, shown: Any) -> Any:
    if sample.type == "JSON":
        return None if value is None else json.dumps(value)
    return str(value) if isinstance(value, uuid.UUID) else value


def as_literal(sample: Sample, value: Any, shown: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, Decimal):
        return str(value)
    if sample.type == "JSON":
        shown = json.dumps(value, ensure_ascii=False)
    if isinstance(shown, bool):
        return str(shown).upper()
    return "'" + shown.replace("'", "''") + "'" if isinstance(shown, str) else repr(shown)


def as_parameter(sample: Sample, value: Any, shown: Any) -> Any:
    return json.dumps(value) if sample.type == "JSON" else shown


async def insert(program: Program, table: str, door: str, sample: Sample, *, first: int = 0) -> None:
    """Insert the values of a sample, then NULL, with keys from ``first``."""
    pairs = [*sample.values, (None, None)]
    keys = range(first, first + len(pairs))
    if door == "select":
        program.server.sql(f"CREATE TABLE {table}0 (k BIGINT PRIMARY KEY, v {sample.type})")
        await insert(program, f"{table}0", "json", sample, first=first)
        program.server.sql(f"INSERT INTO {table} SELECT k, v FROM {table}0")
        return
    if "update" in door:
        for key, pair in zip(keys, pairs, strict=True):
            value, params = as_literal(sample, *pair), []
            if value == "-0.0":  # in an expression it is a DECIMAL, which has no negative zero
                value = "-0e0"
            if door == "update with parameters":
                value, params = "$1", [as_parameter(sample, *pair)]
            where = f"k + 0 = {key}" if door == "scanning update" else f"k = {key}"
            text = f"INSERT INTO {table} (k) VALUES ({key}); UPDATE {table} SET v = {value} WHERE {where}"
            program.server.sql(text, *params, user="ann")
        return
    if door in ("values", "parameters"):
        of = as_literal if door == "values" else as_parameter
        given = [of(sample, *pair) for pair in pairs]
        marks = given if door == "values" else [f"${number}" for number in range(1, len(pairs) + 1)]
        rows = ", ".join(f"({key}, {mark})" for key, mark in zip(keys, marks, strict=True))
        params = [] if door == "values" else given
        program.server.sql(f"INSERT INTO {table} (k, v) VALUES {rows}", *params, user="ann")
        return
    convert = {"json": as_json, "msgpack": as_msgpack, "arrow": as_arrow}[door]
    values = [convert(sample, *pair) for pair in pairs]
    if door == "arrow":
        payload, headers = arrow_stream(keys, values, sample.arrow), ARROW
    else:
        pack = msgpack.packb if door == "msgpack" else lambda rows: json.dumps(rows).encode()
        payload, headers = pack([{"k": key, "v": value} for key, value in zip(keys, values, strict=True)]), {}
    answer = await program.insert(table, payload, headers=headers)
    assert answer.code is None, answer.detail


def arrow_stream(keys: Sequence[int], values: Sequence[Any], kind: pa.DataType) -> bytes:
    table, sink = pa.table({"k": pa.array(keys, pa.int64()), "v": pa.array(values, kind)}), io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def exact(values: Iterable[Any]) -> str:
    """Values as text that tells 0.0 from -0.0, 1 from 1.0 and true from 1."""
    return json.dumps(list(values))


def shown_values(program: Program, table: str) -> str:
    return exact(row[0] for row in program.server.sql(f"SELECT v FROM {table} ORDER BY k", user="ann")).replace(
        "'", "'"
    )


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("sample", SAMPLES, ids=str)
async def test_a_value_is_shown_alike_hot_and_cold_whatever_its_door(
    program: Program, namespace: str, sample: Sample, door: str
) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE TABLE {table} (k BIGINT PRIMARY KEY, v {sample.type})")
    await insert(program, table, door, sample)
    expected = exact([*(shown for _, shown in sample.values), None])
    assert shown_values(program, table) == expected
    program.server.sql(f"FLUSH TABLE {table}")
    assert shown_values(program, table) == expected


@pytest.mark.parametrize("count", [2, 3_000])
@pytest.mark.parametrize("door", ["msgpack", "arrow"])
@pytest.mark.parametrize("sql_type", ["DOUBLE", "FLOAT"])
async def test_a_nan_with_a_sign_is_any_other_nan(
    program: Program, namespace: str, door: str, sql_type: str, count: int
) -> None:
    table, arrow = f"{namespace}.t", pa.float64() if sql_type == "DOUBLE" else pa.float32()
    signed = math.copysign(NAN, -1.0)  # as processors make it of 0 / 0
    program.server.sql(f"CREATE TABLE {table} (k BIGINT PRIMARY KEY, v {sql_type})")
    await insert(program, table, door, Sample(sql_type, arrow, [(signed, "NaN"), (NAN, "NaN")] * (count // 2)))
    for _ in range(2):
        assert program.server.sql(f"SELECT v, count(*) FROM {table} GROUP BY v ORDER BY v") == [
            ["NaN", count],
            [None, 1],
        ]
        assert program.server.sql(f"SELECT count(*) FROM {table} WHERE v > 5 AND v = 'NaN'") == [[count]]
        program.server.sql(f"FLUSH TABLE {table}")


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
async def test_an_event_shows_a_value_as_a_query_does(program: Program, namespace: str, sample: Sample) -> None:
    expected = exact([*(shown for _, shown in sample.values), None])
    for kind, subject in (("STREAM", "kalam.stream.{}"), ("SHARED", "kalam.shared.{}.insert")):
        table = f"{namespace}.{kind.lower()}"
        key = "PRIMARY KEY" if kind == "SHARED" else "NOT NULL"
        program.server.sql(f"CREATE {kind} TABLE {table} (k BIGINT {key}, v {sample.type})")
        next_event = await program.listen(subject.format(table))
        await insert(program, table, "json", sample)
        events: list[dict[str, Any]] = []
        while len(events) <= len(sample.values):
            event = (await next_event()).json
            events += [event] if kind == "STREAM" else event["rows"]
        assert exact(event["v"] for event in events) == expected
        assert shown_values(program, table) == expected
        columns = [column["name"] for column in program.server.results(f"SELECT * FROM {table}")[0]["columns"]]
        [first] = program.server.sql(f"SELECT * FROM {table} WHERE k = 0")
        assert exact(events[0].items()) == exact(zip(columns, first, strict=True))


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
async def test_a_msgpack_event_has_timestamps_and_bytes_of_its_own(
    program: Program, namespace: str, sample: Sample
) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE STREAM TABLE {table} (k BIGINT, v {sample.type}) WITH (format = 'msgpack')")
    next_event = await program.listen(f"kalam.stream.{table}")
    await insert(program, table, "json", sample)
    for value, shown in sample.values:
        event = msgpack.unpackb((await next_event()).body, timestamp=3)
        if sample.type in ("TIMESTAMP", "BLOB"):
            assert event["v"] == value
        elif sample.type == "FLOAT":
            assert exact([event["v"]]) == exact(pa.array([value], pa.float32()).to_pylist())
        elif sample.type == "DOUBLE":
            assert exact([event["v"]]) == exact([value])
        else:
            assert exact([event["v"]]) == exact([shown])
    assert msgpack.unpackb((await next_event()).body) == {"k": len(sample.values), "v": None}
    expected = exact([*(shown for _, shown in sample.values), None])
    assert shown_values(program, table) == expected


@pytest.mark.parametrize(
    ("type_name", "accepted", "shown"),
    [
        ("TIMESTAMP", 0, "1970-01-01T00:00:00.000000Z"),
        ("TIMESTAMP", -1, "1969-12-31T23:59:59.999000Z"),
        ("TIMESTAMP", 1_700_000_000_123, "2023-11-14T22:13:20.123000Z"),
        ("TIMESTAMP", "2026-01-01T02:00:00+02:00", "2026-01-01T00:00:00.000000Z"),
        ("TIMESTAMP", "2026-01-01T00:00:00.5Z", "2026-01-01T00:00:00.500000Z"),
        ("DECIMAL(10,2)", 1.5, "1.50"),
        ("DECIMAL(10,2)", 3, "3.00"),
        ("DECIMAL(10,2)", "1e3", "1000.00"),
        ("DECIMAL(10,2)", "2.345", "2.35"),
        ("DECIMAL(38,0)", 12345678901234567, "12345678901234567"),
        ("DOUBLE", 1, 1.0),
        ("DOUBLE", "-Infinity", "-Infinity"),
        ("FLOAT", 0.1, 0.1),
        ("FLOAT", 16777217, 16777216.0),
        ("BLOB", "AAE=", "AAE="),
        ("UUID", "01890A5D-AC96-774B-BCCE-B302099A8057", "01890a5d-ac96-774b-bcce-b302099a8057"),
        ("JSON", {"a": None}, {"a": None}),
    ],
)
async def test_what_is_accepted_for_a_type(
    program: Program, namespace: str, type_name: str, accepted: Any, shown: Any
) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE TABLE {table} (k INT PRIMARY KEY, v {type_name})")
    for k, payload in enumerate((json.dumps({"k": 0, "v": accepted}).encode(), msgpack.packb({"k": 1, "v": accepted}))):
        answer = await program.insert(table, payload)
        assert answer.code is None, (k, answer.detail)
    assert program.server.sql(f"SELECT v FROM {table}") == [[shown], [shown]]


@pytest.mark.parametrize("number", [BIG, f"-{BIG}", "0.1", "1e-10", "12345678901234567890"])
async def test_a_decimal_keeps_every_digit_of_a_bare_number(program: Program, namespace: str, number: str) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE TABLE {table} (k INT PRIMARY KEY, v DECIMAL(38,10))")
    assert (await program.insert(table, f'{{"k": 1, "v": {number}}}'.encode())).code is None
    program.server.sql(f"INSERT INTO {table} VALUES (2, {number}), (3, 0)")
    program.server.sql(f"UPDATE {table} SET v = {number} WHERE k = 3")
    program.server.sql(f"INSERT INTO {table} VALUES (4, 0) ON CONFLICT (k) DO NOTHING")
    program.server.sql(f"INSERT INTO {table} VALUES (4, 1) ON CONFLICT (k) DO UPDATE SET v = {number}")
    program.server.sql(f"INSERT INTO {table} VALUES (5, 0); UPDATE {table} SET v = v + {number} WHERE k + 0 = 5")
    assert program.server.sql(f"SELECT v FROM {table} ORDER BY k") == [[f"{Decimal(number):.10f}"]] * 5


async def test_a_decimal_is_reckoned_with_to_the_last_digit(program: Program, namespace: str) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE TABLE {table} (k INT PRIMARY KEY, v DECIMAL(38,10))")
    program.server.sql(f"INSERT INTO {table} VALUES (1, 1234567890123456.0000000001)")
    for change in ("v + 0.1", "v - .05 /* 0.5 */", "v * 2.0", "v + CAST($1 AS DECIMAL(38,10))"):
        params = ("0.0000000001",) if "$" in change else ()
        program.server.sql(f"UPDATE {table} SET v = {change} WHERE k = 1", *params)
    assert program.server.sql(f"SELECT v FROM {table}") == [["2469135780246912.1000000003"]]


async def test_a_blob_is_base64_text_in_msgpack_too(program: Program, namespace: str) -> None:
    program.server.sql(f"CREATE TABLE {namespace}.t (k INT PRIMARY KEY, v BLOB)")
    for k, value in enumerate((b"\0\1", "AAE=")):
        assert (await program.insert(f"{namespace}.t", msgpack.packb({"k": k, "v": value}))).code is None
    assert program.server.sql(f"SELECT v FROM {namespace}.t") == [["AAE="], ["AAE="]]


async def test_every_column_may_be_null_and_is_there_in_the_event(program: Program, namespace: str) -> None:
    table = f"{namespace}.t"
    columns = ", ".join(f"c{number} {sample.type}" for number, sample in enumerate(SAMPLES))
    for kind in ("STREAM", "USER"):
        program.server.sql(f"CREATE {kind} TABLE {table}{kind.lower()} (k INT, {columns})")
    nulls = {f"c{number}": None for number in range(len(SAMPLES))}
    next_event = await program.listen(f"kalam.stream.{table}stream")
    await program.insert(f"{table}stream", {"k": 1})
    await program.insert(f"{table}user", [{"k": 1}, {"k": 2} | nulls])
    assert (await next_event()).json == {"k": 1} | nulls
    for _ in ("hot", "cold"):
        rows = program.server.sql(f"SELECT {', '.join(nulls)} FROM {table}user", user="ann")
        assert rows == [[None] * len(SAMPLES)] * 2
        program.server.sql(f"FLUSH TABLE {table}user")


RESULTS: list[tuple[str, Any]] = [
    ("[1, NULL]", [1, None]),
    ("[CAST('NaN' AS DOUBLE), CAST('-Infinity' AS DOUBLE)]", ["NaN", "-Infinity"]),
    ("{a: 1, b: {c: 'x'}}", {"a": 1, "b": {"c": "x"}}),
    ("[CAST(1.5 AS DECIMAL(5,2))]", ["1.50"]),
    ("['ab'::BYTEA]", ["YWI="]),
    ("[DATE '2026-01-02']", ["2026-01-02"]),
    ("to_timestamp_nanos(1234567)", "1970-01-01T00:00:00.001234Z"),
    ("[to_timestamp_nanos(-1000)]", ["1969-12-31T23:59:59.999999Z"]),
    ("to_timestamp_seconds(5)", "1970-01-01T00:00:05.000000Z"),
    ("arrow_cast(0, 'Timestamp(Second, Some(\"+05:00\"))')", "1970-01-01T00:00:00.000000Z"),
    ("18446744073709551615", (1 << 64) - 1),
    ("NULL", None),
    ("CAST('Infinity' AS DOUBLE)", "Infinity"),
]


def test_values_that_only_queries_have_are_shown_by_the_same_rules(shared_server: ServerProcess) -> None:
    shown = {text: shared_server.sql(f"SELECT {text} AS v")[0][0] for text, _ in RESULTS}
    assert shown == dict(RESULTS)


async def test_now_is_a_timestamp_everywhere(program: Program, namespace: str) -> None:
    table, sql = f"{namespace}.t", program.server.sql
    sql(f"CREATE TABLE {table} (k INT PRIMARY KEY, at TIMESTAMP, day DATE)")
    before = datetime.now(UTC)
    sql(f"INSERT INTO {table} VALUES (1, NOW(), NOW()), (2, now() + interval '0 days', current_date)")
    sql(f"INSERT INTO {table} SELECT 3, now(), current_date; INSERT INTO {table} (k) VALUES (4), (5)")
    for where in ("k = 4", "k + 0 = 5"):
        sql(f"UPDATE {table} SET at = now(), day = now() WHERE {where}")
    [[now, cut]] = sql("SELECT now() AS now, date_trunc('day', now()) AS cut")
    after = datetime.now(UTC)
    shown = [*(row[0] for row in sql(f"SELECT at FROM {table}")), now]
    assert all(before <= datetime.fromisoformat(text) <= after for text in shown)
    assert {row[0] for row in sql(f"SELECT day FROM {table}")} <= {str(before.date()), str(after.date())}
    assert cut.endswith("T00:00:00.000000Z")


def test_a_value_that_json_cannot_show_is_an_error(shared_server: ServerProcess) -> None:
    with pytest.raises(SqlFailed) as refused:
        shared_server.sql("SELECT make_date(20000, 1, 1) AS v")
    assert (refused.value.code, "column v" in str(refused.value)) == ("invalid_value", True)


# Defaults


async def test_a_missing_column_takes_its_default(program: Program, namespace: str) -> None:
    table = f"{namespace}.t"
    program.server.sql(
        f"CREATE USER TABLE {table} (id BIGINT DEFAULT SNOWFLAKE_ID() PRIMARY KEY, at TIMESTAMP DEFAULT NOW(), "
        "u UUID DEFAULT UUID_V7(), t TEXT DEFAULT UUID_V7(), who TEXT NOT NULL DEFAULT CURRENT_USER(), "
        "n INT DEFAULT -7, d DECIMAL(5,2) DEFAULT 1.5, s TEXT DEFAULT 'it''s', b BOOLEAN DEFAULT TRUE, "
        f"day DATE DEFAULT '2026-01-02', big DECIMAL(38,10) DEFAULT {BIG}, "
        "j JSON DEFAULT '{\"a\": 1}', bl BLOB DEFAULT 'AAE=', x TEXT)"
    )
    before = datetime.now(UTC)
    assert (await program.insert(table, [{}, {}, {"n": None}])).json["rows"] == 3
    assert (await program.insert(table, msgpack.packb({"x": "y"}))).json["rows"] == 1
    program.server.sql(f"INSERT INTO {table} (x) VALUES ('y')", user="ann")
    program.server.sql(f"INSERT INTO {table} (id, x, n) VALUES (DEFAULT, 'y', DEFAULT)", user="ann")
    after = datetime.now(UTC)
    rows = program.server.sql(
        f"SELECT id, at, u, t, who, n, d, s, b, day, big, j, bl FROM {table} ORDER BY id", user="ann"
    )
    assert len({row[0] for row in rows}) == len({row[2] for row in rows}) == len({row[3] for row in rows}) == 6
    assert all(before <= datetime.fromisoformat(row[1]) <= after for row in rows)
    assert {uuid.UUID(row[2]).version for row in rows} == {uuid.UUID(row[3]).version for row in rows} == {7}
    constant = ["ann", -7, "1.50", "it's", True, "2026-01-02", BIG, {"a": 1}, "AAE="]
    assert [row[4:] for row in rows] == [constant] * 2 + [[*constant[:1], None, *constant[2:]]] + [constant] * 3


async def test_a_table_without_a_key_gets_growing_row_ids(program: Program, namespace: str) -> None:
    program.server.sql(f"CREATE TABLE {namespace}.t (v INT)")
    next_event = await program.listen(f"kalam.shared.{namespace}.t.insert")
    await program.insert(f"{namespace}.t", [{"v": v} for v in range(100)])
    rows = program.server.sql(f"SELECT * FROM {namespace}.t ORDER BY _row_id")
    assert [row[0] for row in rows] == list(range(100))
    assert all(isinstance(row[1], int) for row in rows)
    assert list((await next_event()).json["rows"][0]) == ["v", "_row_id", "_updated", "_deleted"]


async def test_a_default_of_the_wrong_type_is_refused_at_the_create(program: Program, namespace: str) -> None:
    for column in (
        "v INT DEFAULT 'x'",
        "v INT DEFAULT SNOWFLAKE_ID()",
        "v BOOLEAN DEFAULT NOW()",
        "v SMALLINT DEFAULT 99999",
    ):
        answer = await program.ask_sql(f"CREATE TABLE {namespace}.t ({column})")
        assert answer.code == "invalid_value", column
