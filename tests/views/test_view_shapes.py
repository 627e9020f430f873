"""Which SELECTs are kept by their groups, by which texts, which are run again, and what no view can hold."""

from __future__ import annotations

import pytest

from kalam.sql.text.spans import read_tree
from kalam.views.shape import Grouped, Rerun, classified, refused
from kalam.views.shape.classified import AggregateKind as Kind
from kalam.views.shape.classified import Call
from kalam.views.shape.result_key import result_key, strictly_of

COLUMNS = ("a", "b", "c", "at")


def grouped(text: str) -> Grouped:
    shape = classified(text, COLUMNS)
    assert isinstance(shape, Grouped)
    return shape


def test_the_two_texts_are_the_users_own_words() -> None:
    shape = grouped(
        "SELECT a, date_bin(INTERVAL '1 minute', at) AS minute, Count(*) AS n, avg(b)+1 AS mean FROM x.y t "
        "WHERE b IS NOT NULL GROUP BY 1, date_bin(INTERVAL '1 minute', at) HAVING count(*) > 3 AND t.a <> 'x'"
    )
    assert shape.calls == (Call(Kind.COUNT_ROWS, None), Call(Kind.AVG, "b"))
    assert shape.key_places == (0, 1)
    assert shape.rows_text(with_place=True) == (
        'SELECT (a) AS "_k0", (date_bin(INTERVAL \'1 minute\', at)) AS "_k1", (b) AS "_a1", "kalam_place"\n'
        "FROM x.y t\nWHERE b IS NOT NULL"
    )
    assert shape.groups_text() == (
        'SELECT ("_k0") AS "_c0", ("_k1") AS "_c1", ("_v0") AS "_c2", ("_v1"+1) AS "_c3", '
        '("_v0" > 3 AND "_k0" <> \'x\') AS "_shown", "kalam_place" FROM "_view"."groups"'
    )
    assert shape.types_text() == (
        'SELECT "_k0", "_k1", count(*) AS "_v0", avg("_a1") AS "_v1" FROM "_view"."rows" GROUP BY "_k0", "_k1"'
    )


@pytest.mark.parametrize(
    ("text", "keys", "calls"),
    [
        ("SELECT count(*), sum(a) FROM x.y", [], [(Kind.COUNT_ROWS, None), (Kind.SUM, "a")]),
        ("SELECT a FROM x.y GROUP BY a", ["a"], []),
        ("SELECT lower(a) AS z, count(b) FROM x.y GROUP BY z", ["lower(a)"], [(Kind.COUNT, "b")]),
        ("SELECT lower(a) AS a, count(b) FROM x.y GROUP BY a", ["a"], [(Kind.COUNT, "b")]),
        ("SELECT A + 1, count(*) FROM x.y t GROUP BY (t.a+1)", ["t.a+1"], [(Kind.COUNT_ROWS, None)]),
        ("SELECT max(b) - min(b) FROM x.y GROUP BY a, c", ["a", "c"], [(Kind.MIN, "b"), (Kind.MAX, "b")]),
        ("SELECT sum(b), sum(B) + 1 FROM x.y", [], [(Kind.SUM, "b")]),
        ("SELECT count(DISTINCT b), mean(b) FROM x.y", [], [(Kind.COUNT_DISTINCT, "b"), (Kind.AVG, "b")]),
        ("SELECT bool_and(a), bool_or(b > 1) FROM x.y", [], [(Kind.ALL, "a"), (Kind.ANY, "b > 1")]),
        (
            "SELECT count(*) FILTER (WHERE a > 1), max(b) FILTER (WHERE c) FROM x.y",
            [],
            [(Kind.COUNT, "CASE WHEN a > 1 THEN TRUE END"), (Kind.MAX, "CASE WHEN c THEN b END")],
        ),
        (
            "SELECT unnest(make_array(a, a + 1)) AS w, count(*) FROM x.y GROUP BY 1",
            ["unnest(make_array(a, a + 1))"],
            [(Kind.COUNT_ROWS, None)],
        ),
    ],
)
def test_a_group_by_over_one_source_is_kept_by_its_groups(
    text: str, keys: list[str], calls: list[tuple[Kind, str | None]]
) -> None:
    shape = grouped(text)
    assert list(shape.keys) == keys
    assert list(shape.calls) == [Call(*call) for call in calls]


@pytest.mark.parametrize(
    ("text", "rows", "groups"),
    [
        ("SELECT a, count(*), Max(B) FROM x.y GROUP BY 1", {"_k0": "a", "_a1": "b"}, ["_k0", "_v0", "_v1"]),
        ('SELECT sum("b") AS total, y.a FROM x.y GROUP BY y.a', {"_k0": "a", "_a0": "b"}, ["_v0", "_k0"]),
        ('SELECT "user", count(*) FROM x.y GROUP BY "user"', {"_k0": "user"}, ["_k0", "_v0"]),
        ("SELECT user, count(*) FROM x.y GROUP BY user", None, ["_k0", "_v0"]),
        ("SELECT count(*) FROM x.y", None, ["_v0"]),
        ("SELECT a, count(*) FROM x.y WHERE b > 1 GROUP BY a", None, ["_k0", "_v0"]),
        ("SELECT a, sum(b + 1) FROM x.y GROUP BY a", None, ["_k0", "_v0"]),
        ("SELECT a, sum(b) FILTER (WHERE b > 1) FROM x.y GROUP BY a", None, ["_k0", "_v0"]),
        ("SELECT a, sum(b) * 2 FROM x.y GROUP BY a", {"_k0": "a", "_a0": "b"}, None),
        ("SELECT a, sum(b) FROM x.y GROUP BY a HAVING sum(b) > 1", {"_k0": "a", "_a0": "b"}, None),
    ],
)
def test_columns_that_are_only_copied_are_told_from_others(
    text: str, rows: dict[str, str] | None, groups: list[str] | None
) -> None:
    shape = classified(text, (*COLUMNS, "user"))
    assert isinstance(shape, Grouped)
    assert shape.copied_rows == rows
    assert shape.copied_groups == groups


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("SELECT a, median(b) FROM x.y GROUP BY a", "median(b)"),
        ("SELECT sum(DISTINCT b) FROM x.y", "sum(DISTINCT b)"),
        ("SELECT count(DISTINCT a, b) FROM x.y", "count(DISTINCT a, b)"),
        ("SELECT a, b, count(*) FROM x.y GROUP BY a", "b, which the GROUP BY does not have"),
        ("SELECT count(*) FROM x.y JOIN x.z ON TRUE", "a join"),
        ("SELECT count(*) FROM x.y, x.z", "a join"),
        ("SELECT DISTINCT a FROM x.y", "DISTINCT"),
        ("SELECT a, count(*) FROM x.y GROUP BY a ORDER BY a LIMIT 3", "LIMIT"),
        ("SELECT a, count(*) FROM x.y GROUP BY a ORDER BY a", "ORDER BY"),
        ("SELECT a, count(*) FROM x.y GROUP BY ROLLUP (a)", "GROUP BY ALL, ROLLUP, CUBE or GROUPING SETS"),
        ("SELECT a, sum((SELECT 1)) FROM x.y GROUP BY a", "a sub-query"),
        ("SELECT a FROM x.y WHERE a IN (SELECT a FROM x.z) GROUP BY a", "a sub-query"),
        ("SELECT count(*) FROM (SELECT a FROM x.y) t", "a FROM of something else than one table"),
        ("WITH t AS (SELECT 1) SELECT count(*) FROM x.y", "WITH"),
        ("SELECT count(*) FROM x.y UNION ALL SELECT 1", "UNION, INTERSECT or EXCEPT"),
        ("SELECT a, rank() OVER (ORDER BY a) FROM x.y", "a window function"),
        ("SELECT a + 1 FROM x.y", "a, which the GROUP BY does not have"),
    ],
)
def test_what_is_run_again_says_why(text: str, reason: str) -> None:
    assert classified(text, COLUMNS) == Rerun(reason)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("SELECT a FROM x.y LIMIT 3", "LIMIT or OFFSET without ORDER BY"),
        ("SELECT a FROM (SELECT a FROM x.y LIMIT 1) t", "LIMIT or OFFSET without ORDER BY"),
        ("SELECT a FROM x.y UNION ALL SELECT a FROM x.z LIMIT 1", "LIMIT or OFFSET without ORDER BY"),
        ("SELECT DISTINCT ON (a) a, b FROM x.y", "DISTINCT ON without ORDER BY"),
        ("SELECT array_agg(a) FROM x.y", "array_agg() without ORDER BY"),
        ("SELECT string_agg(a, ',') FROM x.y", "string_agg() without ORDER BY"),
        ("SELECT row_number() OVER (PARTITION BY a) FROM x.y", "without ORDER BY in its OVER"),
        ("SELECT a FROM x.y OFFSET 3", "LIMIT or OFFSET without ORDER BY"),
        ("SELECT a FROM x.y TABLESAMPLE BERNOULLI (10)", "TABLESAMPLE"),
    ],
)
def test_what_goes_by_an_order_that_is_not_said_is_refused_by_name(text: str, found: str) -> None:
    told = refused(read_tree(text).root)
    assert told is not None
    assert found in told


@pytest.mark.parametrize(
    "text",
    [
        "SELECT a FROM x.y ORDER BY a LIMIT 3",
        "SELECT a FROM x.y UNION ALL SELECT a FROM x.z ORDER BY 1 LIMIT 1",
        "SELECT DISTINCT ON (a) a, b FROM x.y ORDER BY a, b",
        "SELECT array_agg(a ORDER BY b), first_value(a ORDER BY b) FROM x.y",
        "SELECT row_number() OVER (ORDER BY a), sum(b) OVER () FROM x.y",
        "SELECT a.updated, b FROM x.y JOIN x.z ON a = b",
    ],
)
def test_what_says_its_order_is_not_refused(text: str) -> None:
    assert refused(read_tree(text).root) is None


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("SELECT a, median(b) AS m FROM x.y GROUP BY a", (0,)),
        ("SELECT median(b) AS m, c, lower(a) AS low FROM x.y GROUP BY low, 2", (2, 1)),
        ("SELECT median(b) AS m FROM x.y GROUP BY a", None),
        ("SELECT median(b) AS m FROM x.y", ()),
        ("SELECT count(*) AS n FROM x.y JOIN x.z ON TRUE", ()),
        ("SELECT DISTINCT a, b FROM x.y JOIN x.z ON TRUE", (0, 1)),
        ("SELECT b, a FROM x.y ORDER BY b LIMIT 3", (1,)),
        ("SELECT b, a, rank() OVER (ORDER BY b) AS r FROM x.y", (1,)),
        ("SELECT b FROM x.y ORDER BY b LIMIT 3", None),
        ("SELECT a FROM x.y JOIN x.z ON TRUE", None),
        ("SELECT a FROM (SELECT b AS a FROM x.y) t ORDER BY a LIMIT 1", None),
        ("SELECT a FROM x.y UNION ALL SELECT a FROM x.y", None),
    ],
)
def test_the_key_of_a_result_is_what_its_text_says_is_unique(text: str, places: tuple[int, ...] | None) -> None:
    assert result_key(text, ["a"], COLUMNS) == places


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("a", "a"),
        ("(t.A)", "a"),
        ("date_bin(INTERVAL '1 minute', at)", "at"),
        ("date_trunc('hour', at)", "at"),
        ("date_bin(INTERVAL '1 minute', nullif(at, b))", None),
        ("nullif(a, 1)", None),
        ("a + 1", None),
    ],
)
def test_an_expression_that_is_null_exactly_where_a_column_is_tells_which(text: str, column: str | None) -> None:
    assert strictly_of(text) == column
