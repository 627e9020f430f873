"""What DataFusion alone would answer otherwise than PostgreSQL 15, or not at all, and Kalam answers as it does."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from server_process import ServerProcess, SqlFailed

from kalam.query.postgresql import patterns
from kalam.query.postgresql.float_text import float_text
from kalam.query.postgresql.spelling import in_datafusion_words

ROWS = r"""
(1, 1.5, 10.25, 'abc', X'0001', '2026-01-02 03:04:05.678901Z', '2026-01-02', '0189c8a6-1111-7222-8333-444455556666',
 '{"a": 1, "b": {"c": "x"}, "l": [1, 2, "three"], "n": null}'),
(2, -2.5, -0.05, 'a_b', X'ff', '1969-12-31 23:59:59.5Z', '1969-12-31', NULL, '[1, 2]')
"""


@pytest.fixture(scope="module")
def server(shared_server: ServerProcess) -> ServerProcess:
    shared_server.sql(
        "CREATE NAMESPACE lab; CREATE TABLE lab.t (id INT PRIMARY KEY, x DOUBLE, p DECIMAL(10,2), s TEXT, b BLOB, "
        f"at TIMESTAMP, d DATE, u UUID, j JSON); INSERT INTO lab.t VALUES {ROWS}"
    )
    return shared_server


PATTERNS = [
    ("to_char(at, 'YYYY-MM-DD HH24:MI:SS.US')", ["2026-01-02 03:04:05.678901", "1969-12-31 23:59:59.500000"]),
    ("to_char(at, 'Mon DD, YYYY HH12:MI AM')", ["Jan 02, 2026 03:04 AM", "Dec 31, 1969 11:59 PM"]),
    ("to_char(d, 'DD/MM/YY')", ["02/01/26", "31/12/69"]),
    ("to_char(at, 'Day|FMDay|DY|dy|D|ID')", ["Friday   |Friday|FRI|fri|6|5", "Wednesday|Wednesday|WED|wed|4|3"]),
    ("to_char(at, 'FMMonth FMDDth')", ["January 2nd", "December 31st"]),
    ("to_char(at, 'IYYY-IW Q DDD WW W CC J')", ["2026-01 1 002 01 1 21 2461043", "1970-01 4 365 53 5 20 2440587"]),
    (r"""to_char(at, '"year" YYYY \Y MS FF2 SSSS TZ OF a.m. AD')""",
     ["year 2026 Y 678 67 11045 UTC +00 a.m. AD", "year 1969 Y 500 50 86399 UTC +00 p.m. AD"]),
    ("to_char(at, '%Y')", ["2026", "1969"]),
    ("to_char(NULL::timestamp, 'YYYY')", [None, None]),
]  # fmt: skip


@pytest.mark.parametrize(("expression", "shown"), PATTERNS, ids=[expression for expression, _ in PATTERNS])
def test_times_are_shown_by_patterns(server: ServerProcess, expression: str, shown: list[Any]) -> None:
    assert server.sql(f"SELECT {expression} FROM lab.t ORDER BY id") == [[text] for text in shown]


CONSTANTS = [
    ("to_timestamp('2026-01-02 03:04:05','YYYY-MM-DD HH24:MI:SS')", "2026-01-02T03:04:05Z"),
    ("to_timestamp('02 Jan 2026','DD Mon YYYY')", "2026-01-02T00:00:00Z"),
    ("to_timestamp('2/1/26 7:08 pm','DD/MM/YY HH12:MI am')", "2026-01-02T19:08:00Z"),
    ("to_timestamp('20260102030405.678901','YYYYMMDDHH24MISS.US')", "2026-01-02T03:04:05.678901Z"),
    ("to_timestamp('2026-01-02 03:04:05.5','YYYY-MM-DD HH24:MI:SS.MS')", "2026-01-02T03:04:05.500Z"),
    ("to_timestamp('2026 March','YYYY Month')", "2026-03-01T00:00:00Z"),
    ("to_timestamp('2026-032','YYYY-DDD')", "2026-02-01T00:00:00Z"),
    ("to_timestamp('2026-01-02 03:04+02','YYYY-MM-DD HH24:MITZH')", "2026-01-02T01:04:00Z"),
    ("to_timestamp(1700000000)", "2023-11-14T22:13:20Z"),
    ("to_timestamp(1700000000.5)", "2023-11-14T22:13:20.500Z"),
    ("to_timestamp(-0.25::float8)", "1969-12-31T23:59:59.750Z"),
    ("to_date('02/01/2026','DD/MM/YYYY')", "2026-01-02"),
    ("timestamptz '2026-01-02 03:04:05+02'", "2026-01-02T01:04:05Z"),
    ("timestamp '2026-01-02 03:04'", "2026-01-02T03:04:00Z"),
    ("'2026-01-02 03:04'::timestamp", "2026-01-02T03:04:00Z"),
    ("date '2026-01-31' + interval '1 month'", "2026-02-28T00:00:00Z"),
    ("date '2026-01-01' + interval '1 hour'", "2026-01-01T01:00:00Z"),
    ("interval '1 hour' + date '2026-01-01'", "2026-01-01T01:00:00Z"),
    ("date '2026-01-01' - interval '1 minute'", "2025-12-31T23:59:00Z"),
    ("extract(second FROM timestamp '2026-01-02 03:04:05.5')", 5.5),
    ("date_part('milliseconds', timestamp '2026-01-02 03:04:05.678901')", 5678.901),
    ("date_trunc('week', date '2026-01-02')", "2025-12-29T00:00:00Z"),
    ("timestamptz '2026-01-02 03:04:05Z' AT TIME ZONE 'Europe/Berlin'", "2026-01-02T04:04:05Z"),
    ("timestamp '2026-07-02 03:04:05' AT TIME ZONE 'Europe/Berlin' = timestamptz '2026-07-02 01:04:05Z'", True),
    ("round(0.5::float8)", 0.0),
    ("round(1.5::float8)", 2.0),
    ("round(-2.5::float8)", -2.0),
    ("round(2.5)", "3"),
    ("3.5::float8::int", 4),
    ("2.5::float8::int", 2),
    ("'12'::text::int", 12),
    ("1e20::float8::text", "1e+20"),
    ("1e15::float8::text", "1e+15"),
    ("100000::float8::text", "100000"),
    ("'Infinity'::float8::text", "Infinity"),
    ("mod(7, -3)", 1),
    ("mod(7.5, 2)", "1.5"),
    ("ceiling(1.2::float8)", 2.0),
    ("sign(-3)", -1.0),
    ("'0189C8A6-1111-7222-8333-444455556666'::uuid", "0189c8a6-1111-7222-8333-444455556666"),
    ("CAST('{0189c8a6111172228333444455556666}' AS UUID)", "0189c8a6-1111-7222-8333-444455556666"),
    ("uuid '0189C8A6-1111-7222-8333-444455556666'", "0189c8a6-1111-7222-8333-444455556666"),
    ("""'{"a": 1}'::json""", {"a": 1}),
    ("""CAST('[1, 2]' AS JSONB)""", [1, 2]),
    ("""'{"a": {"b": 2}}'::jsonb->'a'->'b'""", 2),
    ("NULL::uuid", None),
    ("interval '1 day' = interval '24 hours'", True),
    ("interval '36 hours' > interval '1 day'", True),
    ("interval '1 month' > interval '29 days'", True),
    ("timestamp '2026-01-02 03:04:05' - timestamp '2026-01-01 00:00:00' > interval '1 day'", True),
    ("timestamp '2026-01-02' - timestamp '2026-01-01' BETWEEN interval '23 hours' AND interval '1 day'", True),
    ("interval '1 day' < '2 days'", True),
    ("extract(second FROM interval '1 minute 2.5 seconds')", 2.5),
    ("extract(hour FROM timestamp '2026-01-03 04:05:06.5' - timestamp '2026-01-01')", 4),
    ("extract(second FROM timestamp '2026-01-01' - timestamp '2026-01-03 04:05:06.5')", -6.5),
    ("extract(epoch FROM timestamp '2026-01-03 04:05:06.5' - timestamp '2026-01-01')", 187506.5),
    ("timestamp '2026-01-01' + interval '1 minute' * 5", "2026-01-01T00:05:00Z"),
    ("timestamp '2026-01-01' + 1.5 * interval '1 month 2 days'", "2026-02-19T00:00:00Z"),
    ("timestamp '2026-01-01' - interval '1 hour' / 4", "2025-12-31T23:45:00Z"),
    ("'abcdef'::varchar(3)", "abc"),
    ("CAST(12345 AS VARCHAR(2))", "12"),
    ("'abc'::text::varchar(9)", "abc"),
    ("(1, NULL) = (1, NULL)", None),
    ("(2, NULL) <> (1, NULL)", True),
    ("(1, 2) < (1, 3)", True),
    ("(1, NULL) < (2, 1)", True),
    ("(1, NULL) IN ((1, NULL))", None),
    ("(1, 2) NOT IN ((3, 4))", True),
    (r"encode('\x00ff'::bytea, 'base64')", "AP8="),
    ("0.1::float(53)", 0.1),
    ("CAST(0.1 AS FLOAT(24)) = 0.1::real", True),
    (r"'\x00ff'::bytea = X'00ff'", True),
    (r"CAST('\x00ff' AS BYTEA) = X'00ff'", True),
]


def same(shown: Any) -> Any:
    """A value, of which times are without zeros at their ends: computed ones are shown with all digits."""
    return (
        re.sub(r"\.?0*Z$" if "." in shown else "Z$", "Z", shown) if isinstance(shown, str) and ":" in shown else shown
    )


@pytest.mark.parametrize(("expression", "value"), CONSTANTS, ids=[expression for expression, _ in CONSTANTS])
def test_an_expression_has_postgresqls_value(server: ServerProcess, expression: str, value: Any) -> None:
    for text in (f"SELECT {expression}", f"SELECT v FROM (SELECT {expression} AS v) AS q"):
        [[found]] = server.sql(text)
        assert same(found) == same(value)
        assert type(found) is type(value)


STEPS = [
    ("j->'b'->>'c'", ["x", None]),
    ("j->'l'->>-1", ["three", None]),
    ("j->'l'->0", [1, None]),
    ("j->0", [None, 1]),
    ("j->>'n'", [None, None]),
    ("j->'n' IS NULL", [False, True]),
    ("j#>>'{b,c}'", ["x", None]),
    ("t.j #> '{l,0}'", [1, None]),
    ("j->>'b'", ['{"c":"x"}', None]),
    ("(j->>'a')::int + 1", [2, None]),
    ("CASE WHEN j->>'a' = '1' THEN u END", ["0189c8a6-1111-7222-8333-444455556666", None]),
]


@pytest.mark.parametrize(("expression", "values"), STEPS, ids=[expression for expression, _ in STEPS])
def test_steps_lead_into_json(server: ServerProcess, expression: str, values: list[Any]) -> None:
    assert server.sql(f"SELECT {expression} FROM lab.t ORDER BY id") == [[value] for value in values]


def test_texts_are_collated_by_their_bytes(server: ServerProcess) -> None:
    [found] = server.sql(
        """SELECT count(*) FROM lab.t WHERE s >= 'a' COLLATE "C" AND s < 'b' COLLATE pg_catalog."C" """
    )
    assert found == [2]
    assert server.sql('SELECT s FROM lab.t ORDER BY s COLLATE "POSIX" DESC') == [["abc"], ["a_b"]]
    with pytest.raises(SqlFailed, match="Collate"):
        server.sql('SELECT s FROM lab.t ORDER BY s COLLATE "de_DE"')


SHOWN_TWICE = [
    ("id AS v, 8 AS v FROM lab.t WHERE id = 1", ["v", "v"], [1, 8]),
    ('ID AS Foo, s "Foo", 8 foo FROM lab.t WHERE id = 1', ["foo", "Foo", "foo"], [1, "abc", 8]),
    ("8 AS id, id FROM lab.t q ORDER BY q.id LIMIT 1", ["id", "id"], [8, 1]),
    ("DISTINCT id, id * 2 AS id FROM lab.t ORDER BY 1 DESC LIMIT 1", ["id", "id"], [2, 4]),
    ("one.id AS v, two.id AS v FROM lab.t AS one, lab.t AS two ORDER BY 2, 1 DESC LIMIT 1", ["v", "v"], [2, 1]),
]


@pytest.mark.parametrize(("text", "names", "row"), SHOWN_TWICE, ids=[text for text, *_ in SHOWN_TWICE])
def test_two_columns_of_a_result_may_have_one_name(
    server: ServerProcess, text: str, names: list[str], row: list[Any]
) -> None:
    [found] = server.results(f"SELECT {text}")
    assert [column["name"] for column in found["columns"]] == names
    assert found["rows"] == [row]


def test_which_of_two_columns_of_one_name_rows_are_ordered_by_is_not_guessed(server: ServerProcess) -> None:
    with pytest.raises(SqlFailed, match=r"same name"):
        server.sql("SELECT p AS x, 8 AS x FROM lab.t ORDER BY x")


CHOSEN = [
    ("CASE WHEN id = 2 THEN 0 ELSE x END FROM lab.t ORDER BY id", "DOUBLE", [1.5, 0.0]),
    ("id FROM lab.t WHERE id = 1 UNION ALL SELECT x FROM lab.t WHERE id = 1 ORDER BY 1", "DOUBLE", [1.0, 1.5]),
    (
        "* FROM (SELECT id FROM lab.t UNION SELECT p FROM lab.t) AS q ORDER BY 1 LIMIT 2",
        "DECIMAL(12,2)",
        ["-0.05", "1.00"],
    ),
]


@pytest.mark.parametrize(("text", "told", "values"), CHOSEN, ids=[text for text, *_ in CHOSEN])
def test_a_column_of_several_types_is_told_as_the_one_that_comes(
    server: ServerProcess, text: str, told: str, values: list[Any]
) -> None:
    [found] = server.results(f"SELECT {text}")
    assert [column["type"] for column in found["columns"]] == [told]
    assert [value for [value] in found["rows"]] == values


def test_an_answer_is_ordered_by_the_place_of_a_mean(server: ServerProcess) -> None:
    [found] = server.results("SELECT id, avg(x), avg(x) + id FROM lab.t GROUP BY 1 ORDER BY 3 DESC, 2")
    assert found["rows"] == [[1, 1.5, 2.5], [2, -2.5, -0.5]]
    assert "kalam_place" not in str(found["columns"])


NOTHING = [
    ("+ avg(id), 2 * + + sum(x), + max(id) - + min(id)", [1.5, -2.0, 1]),
    ("sum(ALL id), avg(ALL + x), count(ALL (s)), - sum(ALL - id)", [3, -0.5, 2, 3]),
    ("+ round(avg(x)), + extract(second FROM max(at)), + avg(p) > 5", [-0.0, 5.678901, True]),
]


@pytest.mark.parametrize(("listed", "row"), NOTHING, ids=[listed for listed, _ in NOTHING])
def test_a_plus_and_an_all_that_say_nothing_change_nothing(server: ServerProcess, listed: str, row: list[Any]) -> None:
    assert server.sql(f"SELECT {listed} FROM lab.t") == [row]


def test_a_key_of_json_may_be_a_parameter(server: ServerProcess) -> None:
    assert server.sql("SELECT j->>$1 FROM lab.t WHERE j->>$2 = $3", "a", "a", "1") == [["1"]]


PICKED = [
    (r"b = '\x0001'", [1]),
    (r"b = '\x0001'::bytea", [1]),
    (r"b IN ('\x0001', '\xff')", [1, 2]),
    ("b = 'AAE='", [1]),
    ("u = '0189C8A6-1111-7222-8333-444455556666'::uuid", [1]),
    ("u = '0189C8A6-1111-7222-8333-444455556666'", [1]),
    ("j = '[1,   2]'::jsonb", [2]),
    ("at > now() - interval '100 years' AND at < now()", [1, 2]),
    ("at AT TIME ZONE 'Europe/Berlin' < timestamp '1970-01-01 01:00'", [2]),
    ("(id, s) IN ((1, 'abc'), (2, 'x'))", [1]),
    ("now() - at < interval '1000000 days'", [1, 2]),
    ("true ORDER BY id FETCH FIRST ROW ONLY", [1]),
    ("true ORDER BY id FETCH NEXT 2 ROWS ONLY", [1, 2]),
    ("true ORDER BY id OFFSET 1 ROWS FETCH FIRST 1 ROW ONLY", [2]),
]


@pytest.mark.parametrize(("condition", "ids"), PICKED, ids=[condition for condition, _ in PICKED])
def test_a_condition_picks_what_it_picks_in_postgresql(server: ServerProcess, condition: str, ids: list[int]) -> None:
    assert server.sql(f"SELECT id FROM lab.t WHERE {condition}") == [[number] for number in ids]


def test_a_series_in_a_select_list_gives_rows(server: ServerProcess) -> None:
    assert server.sql("SELECT generate_series(1, 3)") == [[1], [2], [3]]
    assert server.sql("SELECT generate_series(1, 2) AS n FROM lab.t ORDER BY n") == [[1], [1], [2], [2]]
    assert server.sql("SELECT * FROM generate_series(1, 3)") == [[1], [2], [3]]


def test_what_is_made_of_texts_and_numbers_is_an_instant(server: ServerProcess) -> None:
    text = "SELECT now() AS a, now() - interval '1 day' AS b, '2026-01-02'::timestamptz AS c, to_timestamp(1) AS d"
    [result] = server.results(f"EXPLAIN {text}")
    assert result["row_count"]
    [result] = server.results(text)
    assert [column["type"] for column in result["columns"]] == ["TIMESTAMP"] * 4


REFUSED = [
    ("to_char(1234.5, '9,999.99EEEE')", "invalid_value"),
    ("to_char(1, 'RN')", "invalid_value"),
    ("to_char(true, '9')", "unsupported"),
    ("to_char(now(), 'RN')", None),
    ("to_timestamp('2026-13-01', 'YYYY-MM-DD')", "invalid_value"),
    ("to_timestamp('10:00', 'HH24:MI')", "invalid_value"),
    ("to_timestamp('Friday', 'IYYY')", "invalid_value"),
    ("'x'::uuid", "invalid_value"),
    ("interval '1 day' / 0", "invalid_value"),
    ("interval '1 month' * 1e300", "invalid_value"),
    ("'{'::json", "invalid_value"),
    ("'{'::json->'a'", "invalid_value"),
    ("""'{"a": 1}'::json #> 'a'""", "invalid_value"),
    (r"b = '\x0' FROM lab.t", "invalid_value"),
    ("9223372036854775807 + 1", "invalid_value"),
    ("sum(v) FROM (VALUES (9223372036854775807), (1)) AS t(v)", "invalid_value"),
]


@pytest.mark.parametrize(("expression", "code"), REFUSED, ids=[expression for expression, _ in REFUSED])
def test_what_has_no_value_is_an_error(server: ServerProcess, expression: str, code: str | None) -> None:
    if code is None:
        assert server.sql(f"SELECT {expression}") == [["RN"]]  # letters that are no element stand for themselves
        return
    with pytest.raises(SqlFailed) as caught:
        server.sql(f"SELECT {expression}")
    assert caught.value.code == code


def test_what_is_written_into_a_column_is_made_as_in_a_query(server: ServerProcess) -> None:
    server.sql("CREATE TABLE lab.w (id INT PRIMARY KEY, at TIMESTAMP, u UUID, j JSON, b BLOB, x FLOAT(53), r FLOAT(1))")
    server.sql(
        "INSERT INTO lab.w VALUES (1, to_timestamp('02/01/2026', 'DD/MM/YYYY'), "
        r"""'0189C8A6111172228333444455556666'::uuid, '{"a": [1]}'::jsonb, '\x00ff', 0.1, 0.1)"""
    )
    server.sql("UPDATE lab.w SET j = j->'a', at = at + interval '1 day' WHERE to_char(at, 'YYYY') = '2026'")
    row = ["2026-01-03T00:00:00.000000Z", "0189c8a6-1111-7222-8333-444455556666", [1], "AP8=", 0.1, 0.1]
    assert server.sql("SELECT at, u, j, b, x, r FROM lab.w") == [row]
    shown = server.results("SELECT j->0 AS a, u::uuid AS b, '{}'::json AS c FROM lab.w")[0]["columns"]
    assert [column["type"] for column in shown] == ["JSON", "UUID", "JSON"]
    assert "x DOUBLE" in server.sql("SHOW CREATE TABLE lab.w")[0][0]


def test_a_decimal_that_becomes_a_double_is_the_nearest_one(server: ServerProcess) -> None:
    server.sql("CREATE TABLE lab.f (id INT PRIMARY KEY, d DOUBLE, f FLOAT, p DECIMAL(38,10))")
    texts = ["1.9", "4.35", "0.3", "-0.0000000001", "1234567890123456789012345678.0123456789"]
    server.sql("INSERT INTO lab.f (id) VALUES (0), (1), (2), (3), (4)")
    for number, text in enumerate(texts):
        server.sql(f"UPDATE lab.f SET d = {text}, f = {text}, p = {text} WHERE id = {number}")
    server.sql("INSERT INTO lab.f SELECT id + 10, p, p, p FROM lab.f")
    found = server.sql("SELECT d, f = CAST(d AS FLOAT) FROM lab.f ORDER BY id")
    assert found == [[float(text), True] for text in texts * 2]
    assert server.sql("SELECT count(*) FROM lab.f WHERE d = 1.9 AND f = 1.9") == [[2]]


@pytest.mark.parametrize(
    "text", ["SELECT a - 1, 'a->b', uuid, json FROM t WHERE uuid = '1'", "SELECT x -> x + 1", "SELECT 1"]
)
def test_a_text_with_nothing_of_the_kind_stays_as_it_is(text: str) -> None:
    assert in_datafusion_words(text) == text


def test_times_written_all_at_once_are_those_written_one_by_one() -> None:
    first, last = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC)
    before, leap = datetime(1969, 12, 31, 23, 59, 59, 500_000, UTC), datetime(2024, 12, 31, 12, 0, 5, 1, UTC)
    times = [first, last, None, before, leap]
    for pattern in ("YYYY-MM-DD HH24:MI:SS", 'Mon Dy DDD 100% HH12:MI IYYY-IW ID HH TZ OF "YYYY"'):
        written = patterns.shown(pa.array(times, pa.timestamp("us", "UTC")), pa.array([pattern] * len(times)))
        assert written.to_pylist() == [time and patterns.show(time, pattern) for time in times]
    mixed = patterns.shown(pa.array([leap] * 3, pa.timestamp("us", "UTC")), pa.array(["YYYY", "MM", None]))
    assert mixed.to_pylist() == ["2024", "12", None]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0.0, "0"), (-0.0, "-0"), (1.0, "1"), (0.1, "0.1"), (0.0001, "0.0001"), (0.00001, "1e-05")),
        *((123456789012345.0, "123456789012345"), (1234567890123456.0, "1.234567890123456e+15"), (1e300, "1e+300")),
        *((-2.5e-10, "-2.5e-10"), (float("nan"), "NaN"), (float("-inf"), "-Infinity")),
    ],
    ids=str,
)
def test_a_double_is_written_as_postgresql_writes_it(value: float, text: str) -> None:
    assert float_text(value) == text
