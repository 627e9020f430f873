"""The names of columns that have none of their own, as PostgreSQL 17 gives them."""

from __future__ import annotations

import pytest

from kalam.sql import parse
from kalam.sql.queries.inner_names import with_inner_names
from kalam.sql.queries.select_names import list_places, postgresql_names, select_lists
from kalam.sql.text.lexer import StatementText
from kalam.sql.text.statements import QueryText, Select


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("SELECT 1", ["?column?"]),
        ("SELECT count(*), sum(v) FROM t", ["count", "sum"]),
        ("SELECT max(a), max(b) FROM t", ["max", "max"]),
        ("SELECT a, b AS c, t.d, (e) FROM t", [None, None, None, None]),
        ("SELECT *, Count(*) OVER (PARTITION BY a) FROM t", [None, None, "count"]),
        ("SELECT 1, *, 'x' FROM t", ["?column?", None, None, "?column?"]),
        ("SELECT count(*) FILTER (WHERE a > 1), count(*) + 1 FROM t", ["count", "?column?"]),
        ("SELECT a + 1, -a, NOT b, a || 'x', lower(a) = upper(b) FROM t", ["?column?"] * 5),
        ('SELECT CAST(a AS TEXT), A::BIGINT, "A"::INT FROM t', ["a", "a", "A"]),
        ("SELECT '1'::integer, '1'::bigint, 1::real, CAST('1' AS NUMERIC)", ["int4", "int8", "float4", "numeric"]),
        ("SELECT 'a'::bytea, 'a'::varchar, '2026-01-01'::timestamp", ["bytea", "varchar", "timestamp"]),
        (
            "SELECT CASE WHEN a THEN 1 END, EXISTS (SELECT 1), (SELECT max(x) AS top FROM u) FROM t",
            ["case", "exists", "top"],
        ),
        (
            "SELECT date_trunc('hour', at), coalesce(a, b), extract(year FROM at) FROM t",
            ["date_trunc", "coalesce", "extract"],
        ),
        ("WITH x AS (SELECT 1 AS one) SELECT count(*) FROM x", ["count"]),
        ("SELECT count(*) FROM t UNION ALL SELECT 2", ["count"]),
        ("SELECT DISTINCT lower(a) FROM t ORDER BY 1", ["lower"]),
        ("SELECT current_date", ["current_date"]),
        ("VALUES (1, 2)", [None, None]),
        ("EXPLAIN SELECT count(*) FROM t", [None, None]),
        ("explain -- why\n analyze SELECT count(*), max(a) FROM t", [None, None]),
    ],
)
def test_names_are_those_of_postgresql(text: str, shown: list[str | None]) -> None:
    (statement,) = parse(text)
    assert isinstance(statement, Select)
    given = [f"own_{place}" for place in range(len(shown))]
    expected = [own if name is None else name for own, name in zip(given, shown, strict=True)]
    assert postgresql_names(statement.query.text, given) == expected


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("SELECT * FROM (SELECT count(*)) q", 'SELECT * FROM (SELECT count(*) AS "count") q'),
        (
            "SELECT * FROM (SELECT 1, a, b AS c, max(d) e) q",
            'SELECT * FROM (SELECT 1 AS "?column?", a, b AS c, max(d) e) q',
        ),
        ("WITH q AS (SELECT DISTINCT lower(a) FROM t) SELECT 2 FROM q", None),
        ("SELECT * FROM (SELECT max(a), max(b) FROM t) q", "same"),
        ("SELECT * FROM (SELECT abs(a) FROM t ORDER BY abs) q", "same"),
        ("SELECT a IN (SELECT max(a) FROM t), (SELECT 1) FROM t", "same"),
        ("SELECT * FROM (SELECT (SELECT 1) FROM t) q", "same"),
        ("SELECT * FROM (SELECT sum(x FROM t) q", "same"),
        ("SELECT ') FROM (SELECT 1' AS a -- FROM (SELECT 2)", "same"),
    ],
)
def test_columns_of_sub_queries_get_postgresql_s_names(text: str, written: str | None) -> None:
    expected = {None: text.replace("lower(a)", 'lower(a) AS "lower"'), "same": text}.get(written, written)
    assert with_inner_names(QueryText(text)).text == expected


def test_every_list_of_a_text_is_found_in_one_pass() -> None:
    text = (
        "WITH a AS (SELECT x[1], f(y, 2) FROM t) SELECT 1, (SELECT ALL 2, 3 FROM a) IS DISTINCT FROM 4, 5 "
        "FROM a, (SELECT 6) b UNION SELECT 7"
    )
    found = [
        (each.is_relation, [text[start:end] for start, end in each.places])
        for each in select_lists(StatementText(text))
    ]
    outer = ["1", "(SELECT ALL 2, 3 FROM a) IS DISTINCT FROM 4", "5"]
    assert found == [(True, ["x[1]", "f(y, 2)"]), (False, ["2", "3"]), (True, ["6"]), (False, outer)]
    assert [text[start:end] for start, end in list_places(StatementText(text))] == outer
