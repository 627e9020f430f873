"""Columns of sub-queries that have no name of their own are called as PostgreSQL calls them."""

from __future__ import annotations

import psycopg
import pytest
from beside_postgres import real_postgres

ROWS = "(VALUES (1, 'a'), (2, 'a'), (3, 'b')) AS t (v, g)"
ASKED: list[tuple[str, list[str] | None, list[tuple[object, ...]]]] = [
    (f"SELECT count FROM (SELECT count(*) FROM {ROWS}) q", ["count"], [(3,)]),
    (
        f"SELECT q.g, q.sum FROM (SELECT g, sum(v) FROM {ROWS} GROUP BY g) q ORDER BY 1",
        ["g", "sum"],
        [("a", 3), ("b", 3)],
    ),
    (f"SELECT max + 1 AS m FROM (SELECT max(v) FROM {ROWS} HAVING max(v) > 2 ORDER BY max(v)) q", ["m"], [(4,)]),
    (f"WITH q AS (SELECT g, count(*) FROM {ROWS} GROUP BY g) SELECT g FROM q WHERE count = 1", ["g"], [("b",)]),
    (f"SELECT max FROM (SELECT max(count) FROM (SELECT count(*) FROM {ROWS} GROUP BY g) a) b", ["max"], [(2,)]),
    ("SELECT upper FROM (SELECT upper('x') UNION ALL SELECT 'y') q ORDER BY 1", ["upper"], [("X",), ("y",)]),
    ('SELECT "?column?" + 1 AS n FROM (SELECT 1) q', ["n"], [(2,)]),
    ("SELECT * FROM (SELECT 1, 'x'::text) q", ["?column?", "text"], [(1, "x")]),
    (
        f"SELECT a.max, b.max FROM (SELECT max(v) FROM {ROWS}) a CROSS JOIN (SELECT max(g) FROM {ROWS}) b",
        ["max", "max"],
        [(3, "b")],
    ),
    # A name that something else in the sub-query has: what it says stays what it means.
    (
        f"SELECT * FROM (SELECT lower(i.lower) FROM (SELECT g AS lower FROM {ROWS}) i GROUP BY i.lower) q ORDER BY 1",
        None,
        [("a",), ("b",)],
    ),
    (
        f"SELECT * FROM (SELECT abs(v) FROM (SELECT v, 1 - v AS abs FROM {ROWS}) i ORDER BY i.abs LIMIT 1) q",
        None,
        [(3,)],
    ),
]


@pytest.mark.parametrize(("text", "names", "rows"), ASKED)
def test_they_may_be_named(pg_url: str, text: str, names: list[str] | None, rows: list[tuple[object, ...]]) -> None:
    with psycopg.connect(pg_url, autocommit=True) as connection:
        assert answered(connection, text, names is not None) == (names, rows)


def test_postgresql_says_the_same() -> None:
    with real_postgres() as connection:
        for text, names, rows in ASKED:
            assert answered(connection, text, names is not None) == (names, rows)


def test_a_table_and_a_view_may_be_made_of_them(pg_url: str) -> None:
    with psycopg.connect(pg_url, autocommit=True) as connection:
        connection.execute("CREATE NAMESPACE inner_names")
        connection.execute(f"CREATE TABLE inner_names.t AS SELECT count AS n FROM (SELECT count(*) FROM {ROWS}) q")
        connection.execute("CREATE VIEW inner_names.v AS SELECT sum AS n FROM (SELECT sum(n) FROM inner_names.t) q")
        connection.execute("INSERT INTO inner_names.t SELECT max + 1 FROM (SELECT max(n) FROM inner_names.t) q")
        assert connection.execute("SELECT n FROM inner_names.t ORDER BY n").fetchall() == [(3,), (4,)]
        assert connection.execute("SELECT n FROM inner_names.v").fetchall() == [(7,)]
        found = connection.execute("SELECT count FROM (SELECT count(*) FROM inner_names.t WHERE n > %s) q", (3,))
        assert found.fetchall() == [(1,)]
        with pytest.raises(psycopg.errors.UndefinedColumn, match="nothing"):
            connection.execute("SELECT nothing FROM (SELECT count(*) FROM inner_names.t) q")


def answered(
    connection: psycopg.Connection, text: str, named: bool
) -> tuple[list[str] | None, list[tuple[object, ...]]]:
    """The names of the columns where they count, and the rows."""
    cursor = connection.execute(text)
    assert cursor.description is not None
    return [column.name for column in cursor.description] if named else None, cursor.fetchall()
