"""Reads by key are answered without a plan, and say the same as the planned query."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest
from server_process import ServerProcess, SqlFailed

from kalam.errors import SyntaxFault
from kalam.query.results import answer_json, rows_result
from kalam.query.row_answer import RowAnswer
from kalam.rows.types import TIMESTAMP_ARROW
from kalam.schema import TypeName
from kalam.sql import parse_statement, split
from kalam.sql.parsed import ParsedTexts
from kalam.sql.text.statements import Equality, Literal, Parameter, PointQuery, Select


def point_of(text: str) -> PointQuery | None:
    statement = parse_statement(split(text)[0])
    assert isinstance(statement, Select)
    return statement.query.point


def test_a_point_query_is_plain_columns_and_one_equality() -> None:
    point = point_of("SELECT a, t.b AS c FROM n.t WHERE id = $2")
    assert point is not None
    assert point.columns == (("a", "a"), ("b", "c"))
    assert point.where == (Equality("id", None, Parameter(2)),)
    everything = point_of("SELECT * FROM n.t x WHERE 'k' = x.id")
    assert everything is not None
    assert (everything.columns, everything.where[0].value) == ((), Literal("k"))


@pytest.mark.parametrize(
    "text",
    [
        "SELECT a + 1 FROM t WHERE id = 1",
        "SELECT a FROM t WHERE id = 1 LIMIT 1",
        "SELECT a FROM t WHERE id = 1 OR id = 2",
        "SELECT a FROM t WHERE id = 1.0",
        "SELECT a FROM t WHERE other.id = 1",
        "SELECT a, a FROM t WHERE id = 1",
        "SELECT a FROM t",
        "SELECT DISTINCT a FROM t WHERE id = 1",
        "SELECT count(*) FROM t WHERE id = 1",
        "SELECT a FROM t, u WHERE id = 1",
        "SELECT * EXCEPT (a) FROM t WHERE id = 1",
        "EXPLAIN SELECT a FROM t WHERE id = 1",
    ],
)
def test_everything_else_is_planned(text: str) -> None:
    assert point_of(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM n.t WHERE id = 5",
        "select a, b AS c\nfrom t x where x.id=5 ; ",
        "SELECT a FROM n.t WHERE id = 'it''s' ;",
        "SELECT a FROM n.t WHERE id = ''",
        "SELECT * FROM s WHERE _key = '1:2'",
        'SELECT "A" FROM n.t WHERE "Id" = 999999999999999999',
        "SELECT a FROM n.t -- WHERE id = 5",
        "SELECT a FROM n.t /* x */ WHERE id = 5",
        "SELECT a + 1 FROM n.t WHERE id = 5",
        "SELECT a FROM n.t WHERE x AND id = 5",
        "SELECT a FROM n.t WHERE id = 5 + 1",
        "SELECT a FROM n.t WHERE id >= 5",
        "SELECT '1' FROM n.t WHERE id = 5",
        "SELECT $1 FROM n.t WHERE id = 5",
        "SELECT a FROM n.t WHERE id = '\\'",
    ],
)
def test_a_text_with_its_key_in_it_is_read_as_itself(text: str) -> None:
    texts = ParsedTexts()
    for changed in (text.replace("5", "7"), text):  # as one that comes first, and as one like an earlier one
        [only] = split(changed)
        assert texts.parse(changed).statement(0) == parse_statement(only)
        query = texts.known_query(changed)
        assert query is None or query == parse_statement(only).query


def test_a_text_that_is_wrong_is_told_of_as_it_was_sent() -> None:
    text, texts = "SELECT a FORM n.t WHERE id = 5", ParsedTexts()
    with pytest.raises(SyntaxFault) as expected:
        parse_statement(split(text)[0])
    for _ in range(2):
        with pytest.raises(SyntaxFault) as found:
            texts.parse(text).statement(0)
        assert found.value.problem() == expected.value.problem()


def test_texts_that_differ_in_their_key_take_one_place() -> None:
    texts = ParsedTexts()
    before = texts.parse("SELECT 1")
    for number in range(2_000):
        texts.parse(f"SELECT a FROM n.t WHERE id = {number}")
    assert texts.known_query("SELECT a FROM n.t WHERE id = 5") is not None
    assert texts.known_query("SELECT b FROM n.t WHERE id = 5") is None
    assert texts.parse("SELECT 1") is before


TYPES = "b BOOLEAN, s SMALLINT, f FLOAT, d DOUBLE, n DECIMAL(10,2), x BLOB, t TIMESTAMP, y DATE, j JSON, u UUID"
VALUES = (
    "TRUE, -3, 0.1, 1e300, 12.50, X'00FF', '1960-01-01T00:00:00.000001Z', '2020-02-29', '{\"a\": [1]}', "
    "'00000000-0000-0000-0000-00000000000a'"
)


@pytest.mark.parametrize("state", ["hot", "cold", "updated"])
def test_a_read_by_key_says_what_the_planned_query_says(shared_server: ServerProcess, state: str) -> None:
    sql = shared_server.sql
    sql(f"CREATE NAMESPACE IF NOT EXISTS p; CREATE TABLE p.{state} (id TEXT PRIMARY KEY, {TYPES})")
    sql(f"INSERT INTO p.{state} VALUES ('a', {VALUES}), ('gone', {VALUES})")
    if state != "hot":
        sql(f"FLUSH TABLE p.{state}")
    if state == "updated":
        sql(f"UPDATE p.{state} SET s = 7 WHERE id = 'a'; FLUSH TABLE p.{state}")
    sql(f"DELETE FROM p.{state} WHERE id = 'gone'")
    for columns in ("*", "id, s AS other, t, j, _updated, _deleted"):
        [planned] = shared_server.results(f"SELECT {columns} FROM p.{state} WHERE id = 'a' AND TRUE")
        for _ in range(2):  # the second time the text is known, and a hot row is written without Arrow
            [looked_up] = shared_server.results(f"SELECT {columns} FROM p.{state} WHERE id = $1", "a")
            assert looked_up == planned
    for _ in range(2):
        assert sql(f"SELECT * FROM p.{state} WHERE id = 'gone'") == []
        assert sql(f"SELECT * FROM p.{state} WHERE id = 'never'") == []
    with pytest.raises(SqlFailed) as failed:
        sql(f"SELECT nothing FROM p.{state} WHERE id = 'a'")
    assert failed.value.code == "column_not_found"


def test_a_read_by_key_sees_only_the_users_own_row(shared_server: ServerProcess) -> None:
    sql = shared_server.sql
    sql("CREATE NAMESPACE q; CREATE USER TABLE q.u (id INT PRIMARY KEY, v TEXT)")
    sql("INSERT INTO q.u VALUES (1, 'ann')", user="ann")
    assert sql("SELECT v FROM q.u WHERE id = 1", user="ann") == [["ann"]]
    assert sql("SELECT v FROM q.u WHERE id = 1", user="bob") == []


def test_one_text_means_the_same_each_time_it_is_sent(shared_server: ServerProcess) -> None:
    sql = shared_server.sql
    sql("CREATE NAMESPACE r; CREATE TABLE r.t (id INT PRIMARY KEY)")
    for number in range(3):
        sql("INSERT INTO r.t VALUES ($1)", number)
    text = "SELECT id FROM r.t WHERE id = 2; SELECT nothing FROM r.t"
    for _ in range(2):
        with pytest.raises(SqlFailed) as failed:
            sql(text)
        assert (failed.value.code, failed.value.problem["statement"]) == ("column_not_found", 2)
        assert failed.value.problem["results"][0]["rows"] == [[2]]
    sql("DROP TABLE r.t")
    with pytest.raises(SqlFailed) as failed:
        sql(text)
    assert failed.value.code == "table_not_found"


WHOLE_SECOND = datetime(2020, 1, 1, tzinfo=UTC)
COLUMNS = {
    "b": (pa.bool_(), TypeName.BOOLEAN, [True, None]),
    "i": (pa.int64(), TypeName.BIGINT, [(1 << 63) - 1, -(1 << 63)]),
    "f": (pa.float32(), TypeName.FLOAT, [0.10000000149011612, math.nan]),
    "d": (pa.float64(), TypeName.DOUBLE, [-0.0, -math.inf]),
    "n": (pa.decimal128(10, 2), TypeName.DECIMAL, [Decimal("12.50"), Decimal("0.00")]),
    "s": (pa.string(), TypeName.TEXT, ['é"\x00', ""]),
    "x": (pa.binary(), TypeName.BLOB, [b"\x00\xff", b""]),
    "t": (TIMESTAMP_ARROW, TypeName.TIMESTAMP, [WHOLE_SECOND, WHOLE_SECOND.replace(year=1, microsecond=10)]),
    "y": (pa.date32(), TypeName.DATE, [date(1, 1, 1), None]),
    "u": (pa.string(), TypeName.UUID, ["00000000-0000-0000-0000-00000000000a", None]),
}


@pytest.mark.parametrize("place", [0, 1, None])
def test_a_row_is_written_as_a_table_of_one_row_is(place: int | None) -> None:
    kept = slice(0, 0) if place is None else slice(place, place + 1)
    arrays = [pa.array(values[kept], kind) for kind, _, values in COLUMNS.values()]
    result = rows_result(pa.table(arrays, names=list(COLUMNS)))
    answer = RowAnswer(result.columns, [name for _, name, _ in COLUMNS.values()])
    values = None if place is None else [values[place] for _, _, values in COLUMNS.values()]
    assert answer.write(values, 0.1234) == answer_json([result], 0.1234)
