from __future__ import annotations

import sys
from decimal import Decimal
from types import FrameType
from typing import Any

import pytest

from kalam.errors import InvalidValue, KalamError, SyntaxFault, Unsupported
from kalam.schema import Default, DefaultKind
from kalam.sql import parse_statement
from kalam.sql.text.statements import (
    Assignment,
    DefaultFunction,
    DefaultValue,
    Delete,
    Equality,
    Insert,
    Literal,
    OnConflict,
    Parameter,
    QueryText,
    TableRef,
    TableUse,
    Update,
)

T = TableRef(None, "t")
CALLS_PER_ROW = 40


def inserted(text: str) -> Insert:
    statement = parse_statement(text)
    assert isinstance(statement, Insert)
    return statement


def value(written: str) -> Any:
    (row,) = inserted(f"INSERT INTO t VALUES ({written})").source  # type: ignore[misc]
    (only,) = row
    return only


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1", 1),
        ("-1", -1),
        ("- 1", -1),
        ("+1", 1),
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ("0.5", 0.5),
        ("-.5", -0.5),
        ("5.", 5.0),
        ("1e3", 1000.0),
        ("52.520008", 52.520008),
        ("0.1", 0.1),
        ("0.10000000000000000555", Decimal("0.10000000000000000555")),
        ("12345678901234567.89", Decimal("12345678901234567.89")),
        ("TRUE", True),
        ("false", False),
        ("Null", None),
        ("'it''s'", "it's"),
        ("''", ""),
        ("'a,b)'", "a,b)"),
        ("'a\nb\\n'", "a\nb\\n"),
        ("E'a\\n\\t\\'b''\\u00e9\\x41\\101\\q'", "a\n\t'b'éAAq"),
        ("$$it's$$", "it's"),
        ("$q$a$$b$q$", "a$$b"),
        ("/* one */ 1 -- two\n", 1),
    ],
)
def test_a_plain_literal_is_a_value(written: str, meant: object) -> None:
    got = value(written)
    assert got == Literal(meant)
    assert type(got.value) is type(meant)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("$1", Parameter(1)),
        ("$23", Parameter(23)),
        ("DEFAULT", DefaultValue()),
        ("default", DefaultValue()),
        ("NOW()", DefaultFunction(Default(kind=DefaultKind.NOW))),
        ("current_timestamp", DefaultFunction(Default(kind=DefaultKind.NOW))),
        ("snowflake_id()", DefaultFunction(Default(kind=DefaultKind.SNOWFLAKE_ID))),
        ("UUID_V7()", DefaultFunction(Default(kind=DefaultKind.UUID_V7))),
        ("CURRENT_USER()", DefaultFunction(Default(kind=DefaultKind.CURRENT_USER))),
    ],
)
def test_parameters_and_defaults_are_values(written: str, meant: object) -> None:
    assert value(written) == meant


@pytest.mark.parametrize(
    "written",
    [
        *(
            "1 + 1",
            "-(-1)",
            "TIMESTAMP '2024-01-01'",
            "'1'::INT",
            "CAST('x' AS TEXT)",
            "X'ff'",
            "upper('a, b')",
            "now() - x",
        ),
        *("CASE WHEN TRUE THEN 1 ELSE 2 END", "[1, 2]", "'a' || 'b'", "NOT TRUE", "$1 + 1"),
    ],
)
def test_anything_else_is_an_expression_in_the_user_s_words(written: str) -> None:
    got = value(written)
    assert isinstance(got, QueryText)
    assert got.text == written
    assert got.parameters == written.count("$1")


@pytest.mark.parametrize("written", ["'a' 'b'", "1 2", "a AS b", "SELECT 1", "1;", "*, 1", "t.*", "", "1,"])
def test_what_is_no_value_is_a_syntax_error(written: str) -> None:
    with pytest.raises(SyntaxFault):
        value(written)


@pytest.mark.parametrize("written", ["1" * 401, "1e401", r"E'\x00'", r"E'\ud800'", r"E'\xff'"])
def test_a_literal_out_of_range_is_refused(written: str) -> None:
    with pytest.raises(InvalidValue):
        value(written)


def test_an_insert_has_rows_columns_conflict_and_returning() -> None:
    statement = inserted(
        "INSERT INTO ns.t (A, \"b\") VALUES (1, 'x'), (2, $1) "
        "ON CONFLICT (a) DO UPDATE SET b = excluded.b || t.b, c = $2 RETURNING *, a + 1 AS next"
    )
    assert statement == Insert(
        ref=TableRef("ns", "t"),
        columns=("a", "b"),
        source=((Literal(1), Literal("x")), (Literal(2), Parameter(1))),
        on_conflict=OnConflict(
            ("a",),
            (
                Assignment("b", QueryText("excluded.b || t.b")),
                Assignment("c", QueryText("$2", parameters=2, constant=Parameter(2))),
            ),
        ),
        returning=QueryText("*, a + 1 AS next"),
    )


def test_a_conflict_can_be_ignored() -> None:
    assert inserted("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING").on_conflict == OnConflict(None, ())
    assert inserted("INSERT INTO t VALUES (1) ON CONFLICT (a) DO NOTHING").on_conflict == OnConflict(("a",), ())
    assert inserted("INSERT INTO t VALUES (1) ON CONFLICT (B, a) DO NOTHING").on_conflict == OnConflict(("b", "a"), ())


@pytest.mark.parametrize(
    "query", ["SELECT * FROM u", "(SELECT * FROM u)", "WITH u AS (SELECT 1) SELECT * FROM u JOIN v ON conflict = 1"]
)
def test_the_rows_can_come_from_a_query(query: str) -> None:
    statement = inserted(f"INSERT INTO t {query} ON CONFLICT (a) DO NOTHING RETURNING a")
    assert isinstance(statement.source, QueryText)
    assert statement.source.text == query
    assert [use.ref.table for use in statement.source.tables] == ["u" if "WITH" not in query else "v"]
    assert statement.on_conflict is not None
    assert statement.returning == QueryText("a")


def test_rows_must_be_of_one_length() -> None:
    with pytest.raises(InvalidValue, match="row 3 has 1 values, expected 2"):
        parse_statement("INSERT INTO t VALUES (1, 2), (3, 4), (5)")
    with pytest.raises(InvalidValue, match="row 1 has 2 values, expected 1"):
        parse_statement("INSERT INTO t (a) VALUES (1, 2)")


def test_a_long_values_list_is_read_with_few_calls() -> None:
    rows = ", ".join(f"({n}, 'name {n}', {n}.5, TRUE, NULL)" for n in range(2_000))
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event.endswith("call")

    sys.setprofile(count)
    try:
        statement = inserted(f"INSERT INTO t VALUES {rows}")
    finally:
        sys.setprofile(None)
    assert len(statement.source) == 2_000  # type: ignore[arg-type]
    assert calls < 2_000 * CALLS_PER_ROW, calls


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("INSERT OVERWRITE t VALUES (1)", Unsupported),
        ("INSERT OR REPLACE INTO t VALUES (1)", Unsupported),
        ("INSERT INTO t DEFAULT VALUES", Unsupported),
        ("INSERT INTO t AS x VALUES (1)", Unsupported),
        ("INSERT INTO 'file.csv' VALUES (1)", Unsupported),
        ("INSERT INTO t VALUES (1) ON CONFLICT () DO NOTHING", SyntaxFault),
        ("INSERT INTO t VALUES (1) ON CONFLICT ON CONSTRAINT x DO NOTHING", Unsupported),
        ("INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET b = 1 WHERE c", Unsupported),
        ("INSERT INTO t (a, a) VALUES (1, 2)", InvalidValue),
        ("INSERT INTO t VALUES (1) RETURNING a FROM t", SyntaxFault),
        ("INSERT INTO t VALUES (1) RETURNING", SyntaxFault),
        ("INSERT INTO t VALUES (1) ON CONFLICT", SyntaxFault),
        ("INSERT INTO t VALUES (1) LIMIT 1", SyntaxFault),
        ("INSERT INTO t VALUES 1", SyntaxFault),
        ("INSERT INTO t VALUES (1", SyntaxFault),
        ("INSERT INTO t VALUES (1),", SyntaxFault),
        ("INSERT INTO t VALEUS (1)", SyntaxFault),
        ("INSERT INTO t", SyntaxFault),
        ("INSERT t VALUES (1)", SyntaxFault),
    ],
)
def test_another_insert_is_refused(text: str, error: type[KalamError]) -> None:
    with pytest.raises(error):
        parse_statement(text)


@pytest.mark.parametrize("column", ["_updated", "_deleted", "_seq", "_row_id", "_key", '"_deleted"'])
def test_nobody_writes_a_system_column(column: str) -> None:
    for text in (
        f"UPDATE t SET {column} = 1",
        f"INSERT INTO t ({column}) VALUES (1)",
        f"INSERT INTO t VALUES (1) ON CONFLICT DO UPDATE SET {column} = 1",
    ):
        with pytest.raises(InvalidValue, match="nobody writes it"):
            parse_statement(text)


def test_an_update_has_assignments_where_and_returning() -> None:
    text = (
        "UPDATE ns.t AS x SET a = x.a + 1, b = 'q,r' WHERE a IS DISTINCT FROM (SELECT 1 FROM u) RETURNING a, b -- end"
    )
    assert parse_statement(text) == Update(
        ref=TableRef("ns", "t"),
        alias="x",
        assignments=(
            Assignment("a", QueryText("x.a + 1")),
            Assignment("b", QueryText("'q,r'", constant=Literal("q,r"))),
        ),
        where=QueryText(
            "a IS DISTINCT FROM (SELECT 1 FROM u)",
            tables=(TableUse(TableRef(None, "u"), 34, 35, aliased=False, sees_deleted=False),),
        ),
        returning=QueryText("a, b"),
    )


def test_a_change_may_read_other_tables() -> None:
    sources = QueryText("u AS x JOIN (SELECT a FROM v) y ON x.a = y.a")
    text = f"UPDATE t SET a = x.a FROM {sources.text} WHERE t.b = y.a RETURNING a"
    read = parse_statement(text)
    assert isinstance(read, Update)
    assert read.sources is not None
    assert (read.sources.text, [use.ref.table for use in read.sources.tables]) == (sources.text, ["u", "v"])
    assert [sources.text[use.start : use.end] for use in read.sources.tables] == ["u", "v"]
    read = parse_statement("DELETE FROM t USING ns.u WHERE u.a = t.a")
    assert isinstance(read, Delete)
    assert read.sources == QueryText("ns.u", tables=(TableUse(TableRef("ns", "u"), 0, 4, False, False),))


def test_a_delete_has_where_and_returning() -> None:
    assert parse_statement("DELETE FROM t") == Delete(ref=T, where=None)
    assert parse_statement("DELETE FROM t x WHERE x.a = $2 RETURNING *") == Delete(
        ref=T,
        alias="x",
        where=QueryText("x.a = $2", parameters=2, equalities=(Equality("a", "x", Parameter(2)),)),
        returning=QueryText("*"),
    )
    key = parse_statement("DELETE FROM t WHERE _KEY = '1:2'")
    assert isinstance(key, Delete)
    assert key.where is not None
    assert key.where.names_key


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("UPDATE t SET a = 1 FROM", SyntaxFault),
        ("UPDATE t SET a = 1 FROM u LIMIT 1", SyntaxFault),
        ("UPDATE t SET (a, b) = (1, 2)", Unsupported),
        ("UPDATE t SET a = DEFAULT", Unsupported),
        ("UPDATE t SET t.a = 1", Unsupported),
        ("UPDATE t SET a = 1, a = 2", InvalidValue),
        ("UPDATE t SET a = SELECT 1", SyntaxFault),
        ("UPDATE t SET a = 1 WHERE", SyntaxFault),
        ("UPDATE t SET a = 1 WHERE a = 1 GROUP BY a", SyntaxFault),
        ("UPDATE t SET a = 1 b = 2", SyntaxFault),
        ("UPDATE t SET a", SyntaxFault),
        ("UPDATE t", SyntaxFault),
        ("DELETE FROM t USING u ORDER BY a", SyntaxFault),
        ("DELETE FROM t WHERE (a = 1)) OR (TRUE", SyntaxFault),
        ("DELETE FROM t WHERE a = 1, b = 2", SyntaxFault),
        ("DELETE FROM t LIMIT 1", SyntaxFault),
        ("DELETE t", SyntaxFault),
    ],
)
def test_another_update_or_delete_is_refused(text: str, error: type[KalamError]) -> None:
    with pytest.raises(error):
        parse_statement(text)
