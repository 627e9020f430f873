"""``SIMILAR TO`` says what PostgreSQL 15 says, or refuses what it would read otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from beside_postgres import real_postgres
from server_process import ServerProcess, SqlFailed

TEXTS = ("abc", "", "a", "a.c", "a%c", "a_b", "aabbb", "x\ny", "^a$", "a\\b", "(a)", "[a]", "é", "ab]", "NULL", "a{2}b")
PATTERNS = (
    *("'abc'", "'a'", "'%'", "''", "'_'", "'(a|b)%'", "'%(b|d)%'", "'a.c'", "'a_c'", "'a*b+'", "'a{2}b{3}'", "'a?'"),
    *(
        "'^a$'",
        "'[a-c]+'",
        "'[^a-c]%'",
        "'[%_]'",
        "'_[%_]_'",
        "'a\\_b'",
        "'a\\%c'",
        "'\\(a\\)'",
        "'\\[a\\]'",
        "'a\\\\b'",
    ),
    *("'x_y'", "'a#%c' ESCAPE '#'", "'a\\b' ESCAPE ''", "'a##_b' ESCAPE '#'", "'(a|)(b|c)*'", "'[a].'", "'[.]c'"),
    *(
        "NULL",
        "'a' ESCAPE NULL",
        "'a' || '%'",
        "'|a'",
        "'(a|b)|%c'",
        "'((a)(b))c'",
        "'ab[]]'",
        "'.'",
        "'[a[]+'",
    ),
)


@pytest.fixture(scope="module")
def server(shared_server: ServerProcess) -> ServerProcess:
    values = ", ".join(f"({place}, {quoted(text)})" for place, text in enumerate(TEXTS))
    shared_server.sql(
        "CREATE NAMESPACE alike; CREATE TABLE alike.t (id INT PRIMARY KEY, s TEXT);"
        f"INSERT INTO alike.t VALUES {values}, (99, NULL)"
    )
    return shared_server


@pytest.fixture(scope="module")
def real() -> Iterator[psycopg.Connection]:
    with real_postgres() as connection:
        connection.execute("CREATE TABLE t (id INT PRIMARY KEY, s TEXT)")
        for place, text in enumerate(TEXTS):
            connection.execute("INSERT INTO t VALUES (%s, %s)", (place, text))
        connection.execute("INSERT INTO t VALUES (99, NULL)")
        yield connection


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def answered(server: ServerProcess, shown: str) -> list[list[Any]]:
    return server.sql(f"SELECT id, {shown} FROM alike.t ORDER BY id")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_matches_what_it_matches_in_postgresql(
    server: ServerProcess, real: psycopg.Connection, pattern: str
) -> None:
    for negated in ("", "NOT "):
        shown = f"s {negated}SIMILAR TO {pattern}"
        expected = [list(row) for row in real.execute(f"SELECT id, {shown} FROM t ORDER BY id".encode())]
        assert answered(server, shown) == expected


def test_it_stands_in_conditions_and_takes_parameters(server: ServerProcess) -> None:
    picked = "SELECT id FROM alike.t WHERE NOT s SIMILAR TO $1 AND s || 'x' SIMILAR TO 'a%x' /* NOT this */ ORDER BY id"
    assert server.sql(picked, "a(b|_)%") == [[2]]
    counted = "SELECT s SIMILAR TO /* NOT */ '(a|b)%' AS a, count(*) FROM alike.t GROUP BY 1 ORDER BY 1 NULLS LAST"
    assert server.sql(counted) == [[False, 7], [True, 9], [None, 1]]
    assert server.sql("SELECT (SELECT max(s) FROM alike.t WHERE s SIMILAR TO 'a_') IS NULL") == [[True]]
    values = "('ab', 'a_'), ('ab', 'b_'), (NULL, 'a'), ('a', NULL), ('c', '(c)')"
    assert server.sql(f"SELECT v SIMILAR TO p FROM (VALUES {values}) AS q(v, p)") == [
        [True],
        [False],
        [None],
        [None],
        [True],
    ]


REFUSED = [
    ("'a' SIMILAR TO 'a' ESCAPE 'xy'", "invalid_value"),
    ("'a' SIMILAR TO '(a'", "invalid_value"),
    ("'a' SIMILAR TO '*a'", "invalid_value"),
    ("'1' SIMILAR TO '\\d'", "invalid_value"),
    ("'a' SIMILAR TO '[[:alpha:]]'", "invalid_value"),
    ("'a' SIMILAR TO 'a\\'", "invalid_value"),
    ("7 SIMILAR TO '7'", "unsupported"),
]


@pytest.mark.parametrize(("expression", "code"), REFUSED)
def test_what_would_mean_something_else_is_refused(server: ServerProcess, expression: str, code: str) -> None:
    with pytest.raises(SqlFailed) as caught:
        server.sql(f"SELECT {expression}")
    assert caught.value.code == code
