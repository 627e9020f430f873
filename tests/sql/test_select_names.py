"""The names of columns that have none of their own, as PostgreSQL 17 gives them."""

from __future__ import annotations

import pytest

from kalam.sql import parse
from kalam.sql.queries.select_names import postgresql_names
from kalam.sql.text.statements import Select


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
