"""Where the pinned DataFusion gives a wrong answer, and what Kalam answers instead.

To be run whenever the pin of DataFusion moves: ``test_datafusion_alone_is_still_wrong`` fails for what was mended
there, so that the rewrite can go; a new wrong answer is added as one more line. The right answers are DuckDB's and
PostgreSQL's.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from datafusion import SessionConfig, SessionContext

from kalam.errors import Unsupported
from kalam.query.exact.rewrite import ExactQueries, exact_config


def table(rows: list[tuple[Any, Any, Any]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [(), (), ()]
    kinds = pa.int32(), pa.int32(), pa.string()
    return pa.table({n: pa.array(c, k) for n, c, k in zip(("id", "g", "s"), columns, kinds, strict=True)})


TABLES = {
    "ta": table([(1, 1, "a"), (2, 2, "b"), (None, 3, "c"), (4, None, "d"), (3, 1, None)]),
    "tb": table([(1, 1, "a"), (None, 2, None), (3, 3, "b"), (4, 1, "x")]),
    "te": table([]),
}
# A query, its right rows, and what DataFusion 55.0 answers by itself: other rows, or that it cannot plan this.
KNOWN = [
    # apache/datafusion#25347: NOT IN forgets NULL where the sub-query is correlated
    ("SELECT id FROM ta WHERE 3 NOT IN (SELECT id FROM tb WHERE tb.g = ta.g)", [(1,), (3,), (4,)]),
    ("SELECT id FROM ta WHERE id NOT IN (SELECT id FROM tb WHERE tb.g = ta.g)", [(3,), (4,)]),
    # #25336: with another comparison than equality
    ("SELECT id FROM ta WHERE id NOT IN (SELECT id FROM tb WHERE tb.g < ta.g)", [(1,), (2,), (3,), (4,)]),
    # #25480: with the equality that IN itself means
    ("SELECT id FROM ta WHERE id NOT IN (SELECT id FROM tb WHERE tb.id = ta.id)", [(2,), (None,)]),
    # #25473: what is looked for is NULL
    ("SELECT id FROM ta WHERE NULL NOT IN (SELECT id FROM tb)", []),
    ("SELECT id FROM ta WHERE CAST(NULL AS INT) NOT IN (SELECT g FROM tb)", []),
    # #8241: beside OR
    ("SELECT g FROM ta WHERE id NOT IN (SELECT id FROM tb) OR g = 3", [(3,)]),
    ("SELECT g FROM ta WHERE NOT (id IN (SELECT id FROM tb)) OR g = 3", [(3,)]),
    ("SELECT g FROM ta WHERE NOT (id IN (SELECT id FROM tb) AND g < 5) OR g = 3", [(3,)]),
    # where the value itself counts
    ("SELECT g FROM ta WHERE (id IN (SELECT id FROM tb)) IS NULL", [(2,), (3,)]),
    ("SELECT g FROM ta WHERE CASE WHEN id NOT IN (SELECT id FROM tb) THEN TRUE ELSE FALSE END", []),
    ("SELECT count(*) FROM ta WHERE id NOT IN (SELECT id FROM tb) OR g IS NULL", [(1,)]),
    # two sub-queries whose columns have one name
    (
        "SELECT id FROM ta WHERE id IN (SELECT max(id) FROM tb GROUP BY g) OR id IN (SELECT min(id) FROM te)",
        [(3,), (4,)],
    ),
    # a row of values is no value to look for
    ("SELECT g FROM ta WHERE (id, s) IN (SELECT id, s FROM tb)", [(1,)]),
    ("SELECT g FROM ta WHERE ROW(g, id + 1) IN (SELECT g, id FROM tb)", [(1,)]),
    # sums, products and dates wrap (#17539); a DECIMAL of 38 digits as well
    ("SELECT sum(v) FROM (VALUES (9223372036854775807), (1)) AS q(v)", None),
    ("SELECT v + 1 FROM (VALUES (9223372036854775807)) AS q(v)", None),
    ("SELECT v + 9223372036854775807 FROM (VALUES (DATE '2024-01-31')) AS q(v)", None),
    (
        "SELECT sum(v) FROM (SELECT CAST(9e37 AS DECIMAL(38,0)) AS v FROM tb) q",
        None,
    ),
    # a DOUBLE beside a DECIMAL becomes a DECIMAL
    ("SELECT v = 1.5 FROM (VALUES (CAST('1e30' AS DOUBLE))) AS q(v)", [(False,)]),
    # NaN is the greatest number
    ("SELECT max(v) > 9 FROM (VALUES (1, 'NaN'::double), (1, '1'::double)) AS q(g, v) GROUP BY g", [(True,)]),
    # the least of nothing but infinities, within groups
    (
        "SELECT min(v) = 'Infinity'::double FROM (VALUES (1, 'Infinity'::double), (1, NULL)) AS q(g, v) GROUP BY g",
        [(True,)],
    ),
    (
        "SELECT max(v) = '-Infinity'::double FROM (VALUES (1, '-Infinity'::double), (1, NULL)) AS q(g, v) GROUP BY g",
        [(True,)],
    ),
    # a quotient is cut
    ("SELECT 2 / 3.0 > 0.66666", [(True,)]),
    # ^ is a power
    ("SELECT 2 ^ 3 = 8", [(True,)]),
    # a CAST to an integer rounds
    ("SELECT CAST(2.5 AS INT)", [(3,)]),
]
REFUSED = [
    "SELECT g FROM ta WHERE (id, g) IN (SELECT id, g FROM tb WHERE tb.s = ta.s)",
    "SELECT (id, g) IN (SELECT id, g FROM tb) FROM ta",
    "SELECT g FROM ta GROUP BY g HAVING (g, count(*)) IN (SELECT id, g FROM tb)",
    "SELECT ta.g FROM ta JOIN tb ON (ta.id, ta.g) IN (SELECT id, g FROM tb)",
    "SELECT g FROM ta WHERE id NOT IN (SELECT max(id) FROM tb WHERE tb.g = ta.g)",
    "SELECT g FROM ta WHERE (id IN (SELECT max(id) FROM tb WHERE tb.g = ta.g)) IS NULL",
]


@pytest.fixture(scope="module")
def context() -> SessionContext:
    ctx = SessionContext(exact_config(SessionConfig().with_target_partitions(2)))
    for name, rows in TABLES.items():
        ctx.from_arrow(rows, name=name)
    return ctx


Ask = Callable[[str], Any]


@pytest.fixture(scope="module")
def ask(context: SessionContext) -> Ask:
    queries = ExactQueries(context)
    return lambda text: rows_of(lambda: queries.plan(text, {}, [rows.schema for rows in TABLES.values()]))


def rows_of(plan: Callable[[], Any]) -> list[tuple[Any, ...]] | None:
    """The rows in some order; None for an error."""
    try:
        found = plan().to_arrow_table()
    except Unsupported:
        raise
    except Exception:  # noqa: BLE001 - DataFusion raises plain Exceptions
        return None
    return ordered(zip(*(column.to_pylist() for column in found.columns), strict=True))


def ordered(rows: Any) -> list[tuple[Any, ...]]:
    return sorted(rows, key=repr)


@pytest.mark.parametrize(("text", "right"), KNOWN)
def test_a_known_wrong_answer_is_not_given(ask: Ask, text: str, right: list[Any] | None) -> None:
    assert ask(text) == (right if right is None else ordered(right))


@pytest.mark.parametrize(("text", "right"), KNOWN)
def test_datafusion_alone_is_still_wrong(context: SessionContext, text: str, right: list[Any] | None) -> None:
    assert rows_of(lambda: context.sql(text)) != (right if right is None else ordered(right))


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_mended_is_refused(ask: Ask, text: str) -> None:
    with pytest.raises(Unsupported):
        ask(text)


@pytest.mark.parametrize(
    "condition", ["{} OR g = 3", "NOT ({}) OR g = 3", "CASE WHEN {} THEN g = 1 ELSE g = 2 END", "({}) IS NULL"]
)
@pytest.mark.parametrize("word", ["IN", "NOT IN"])
def test_no_row_is_compared_with_each_of_a_sub_query(context: SessionContext, word: str, condition: str) -> None:
    text = f"SELECT g FROM ta WHERE {condition.format(f'id {word} (SELECT id FROM tb)')}"
    plan = ExactQueries(context).plan(text, {}, [rows.schema for rows in TABLES.values()])
    assert "NestedLoopJoin" not in plan.execution_plan().display_indent()


SUB_QUERIES = [
    "SELECT id FROM tb",
    "SELECT id FROM tb WHERE id IS NOT NULL",
    "SELECT id FROM tb WHERE tb.g = ta.g",
    "SELECT id FROM tb WHERE tb.g < ta.g",
    "SELECT id FROM tb WHERE tb.g = ta.g OR tb.s = ta.s",
    "SELECT DISTINCT id FROM tb WHERE tb.g = ta.g AND tb.s = ta.s",
    "SELECT id FROM te",
    "SELECT max(id) FROM tb GROUP BY g",
    "SELECT id FROM tb ORDER BY g LIMIT 2",
    "SELECT id FROM tb UNION ALL SELECT g FROM tb",
    "SELECT g FROM tb WHERE id IN (SELECT id FROM ta WHERE id NOT IN (SELECT g FROM tb))",
]
SOUGHT = ["3", "id", "NULL"]
CONDITIONS = [
    "{}",
    "NOT ({})",
    "{} AND g < 3",
    "{} OR g = 3",
    "NOT ({} OR g = 3)",
    "NOT ({} AND g = 1) AND id > 0",
    "({}) IS NULL",
    "({}) IS NOT TRUE",
    "CASE WHEN {} THEN g = 1 ELSE g = 2 END",
    "g IN (SELECT g FROM tb) OR {}",
    "({}) = (g = 1)",
]


@pytest.mark.parametrize("sub_query", SUB_QUERIES)
def test_in_means_the_same_as_in_duckdb(ask: Ask, sub_query: str) -> None:
    other = duckdb.connect()
    for name, rows in TABLES.items():
        other.register(name, rows)
    given = 0
    for sought, word, condition in itertools.product(SOUGHT, ("IN", "NOT IN"), CONDITIONS):
        text = f"SELECT g, id FROM ta WHERE {condition.format(f'{sought} {word} ({sub_query})')}"
        found = ask(text)
        given += found is not None
        assert found in (None, ordered(other.execute(text).fetchall())), text
    assert given > 0.8 * len(SOUGHT) * 2 * len(CONDITIONS)


@pytest.mark.parametrize(
    "sub_query",
    [
        "SELECT id, g FROM tb",
        "SELECT DISTINCT id, g FROM tb AS inside WHERE g IS NOT NULL AND id IS NOT NULL",
        "SELECT id, g FROM te",
        "SELECT max(id), g FROM tb GROUP BY g",
        "SELECT id, g FROM tb UNION ALL SELECT NULL, NULL",
        "SELECT * FROM (SELECT g, id FROM ta) q",
    ],
)
def test_in_of_a_row_means_the_same_as_its_comparisons(ask: Ask, sub_query: str) -> None:
    """DuckDB is asked for the comparisons one by one: its own IN takes a row with a NULL for one value."""
    other = duckdb.connect()
    for name, rows in TABLES.items():
        other.register(name, rows)
    listed = other.execute(sub_query).fetchall()
    for sought, word, condition in itertools.product(("id, g", "g, 1"), ("IN", "NOT IN"), CONDITIONS):
        left, right = sought.split(", ")
        equal = [f"({left} = {a or 'NULL'} AND {right} = {b or 'NULL'})" for a, b in listed]
        same = f"{'NOT' if word == 'NOT IN' else ''} ({' OR '.join(equal) or 'FALSE'})"
        text = f"SELECT g, id FROM ta WHERE {condition.format(f'({sought}) {word} ({sub_query})')}"
        compared = f"SELECT g, id FROM ta WHERE {condition.format(same)}"
        assert ask(text) == ordered(other.execute(compared).fetchall()), text


def test_a_row_is_looked_for_among_rows_of_as_many_values(ask: Ask) -> None:
    assert ask("SELECT g FROM ta WHERE (id, g) IN (SELECT id FROM te WHERE FALSE)") is None


def test_random_queries_mean_the_same_as_in_duckdb() -> None:
    chance = random.Random(5)
    values = [None, -2, -1, 0, 1, 2, 3]
    rows = {
        name: pa.table({column: pa.array(chance.choices(values, k=size), pa.int64()) for column in "abc"})
        for name, size in (("t", 9), ("u", 5))
    }
    ctx, other = SessionContext(exact_config(SessionConfig().with_target_partitions(2))), duckdb.connect()
    for name, data in rows.items():
        ctx.from_arrow(data, name=name)
        other.register(name, data)
    queries = ExactQueries(ctx)
    same = 0
    for _ in range(120):
        text = random_query(chance)
        found = rows_of(lambda text=text: queries.plan(text, {}, [data.schema for data in rows.values()]))
        assert found in (None, ordered(other.execute(text).fetchall())), text
        same += found is not None
    assert same > 95


def random_query(chance: random.Random) -> str:
    condition = random_condition(chance, 2)
    match chance.randrange(4):
        case 0:
            return f"SELECT a, b + 1, c * a FROM t WHERE {condition}"
        case 1:
            return f"SELECT b, count(*), sum(a + c), max(c), min(a * 2) FROM t WHERE {condition} GROUP BY b"
        case 2:
            return f"SELECT t.a, u.b - 1 FROM t LEFT JOIN u ON t.a = u.a AND u.c + 1 > t.b WHERE {condition}"
        case _:
            return f"SELECT DISTINCT a - b FROM t WHERE {condition} UNION ALL SELECT sum(c) FROM u"


def random_condition(chance: random.Random, depth: int) -> str:
    column = chance.choice(["t.a", "t.b", "t.c"])
    if depth and chance.random() < 0.5:
        word = chance.choice(["AND", "OR"])
        inner = f"({random_condition(chance, depth - 1)}) {word} ({random_condition(chance, depth - 1)})"
        return f"NOT ({inner})" if chance.random() < 0.3 else inner
    match chance.randrange(6):
        case 0:
            correlated = chance.choice(["", " WHERE u.b = t.b", " WHERE u.b < t.c", " WHERE u.a = t.a"])
            return f"{column} {chance.choice(['IN', 'NOT IN'])} (SELECT u.c FROM u{correlated})"
        case 1:
            return f"{chance.choice(['EXISTS', 'NOT EXISTS'])} (SELECT 1 FROM u WHERE u.a = {column})"
        case 2:
            return f"{column} {chance.choice(['IN', 'NOT IN'])} (1, {chance.choice(['2', 'NULL'])})"
        case 3:
            return f"{column} IS {chance.choice(['', 'NOT '])}NULL"
        case 4:
            return f"{column} + 1 > {chance.choice(['t.a', 't.b', '0'])}"
        case _:
            return f"{column} = {chance.choice(['t.a', 't.b', '1'])}"
