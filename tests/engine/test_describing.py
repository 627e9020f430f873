"""What a statement asks for and gives is said without running it."""

from __future__ import annotations

import json
import re
import urllib.request
from typing import Any

import pytest
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed

from kalam.engine.described import ANSWERS, HISTORY_FIELDS, fixed_fields
from kalam.query.results import sql_type
from kalam.sql import parse_statement
from kalam.sql.text.statements import OnAccess, OnView, Statement

COLUMNS = "id INT, u UUID, j JSON, p DECIMAL(10,2), at TIMESTAMP, d DATE, s VARCHAR(20), x DOUBLE, b BLOB, f BOOLEAN"
ALL = "INT UUID JSON DECIMAL(10,2) TIMESTAMP DATE VARCHAR(20) DOUBLE BLOB BOOLEAN TIMESTAMP BOOLEAN"


@pytest.fixture(scope="module")
def server(shared_server: ServerProcess) -> ServerProcess:
    shared_server.sql(
        f"CREATE NAMESPACE lab; CREATE TABLE lab.t ({COLUMNS}, PRIMARY KEY (id)); CREATE STREAM TABLE lab.e (a INT)"
    )
    return shared_server


def asked(server: ServerProcess, text: str, **members: Any) -> dict[str, Any]:
    """The answer to a request with more members than ``sql``."""
    body = json.dumps({"sql": text, "names": "postgresql", **members}).encode()
    request = urllib.request.Request(f"{server.http_url}/v1/sql", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            return dict(json.load(response))
    except urllib.error.HTTPError as exc:
        raise SqlFailed(exc.code, json.load(exc)) from None


def described(server: ServerProcess, text: str) -> tuple[str, str | None]:
    """The types of a statement's parameters, and of its columns."""
    found = asked(server, text, describe=True)
    columns = found["columns"]
    shown = None if columns is None else " ".join(column["type"] for column in columns)
    return " ".join(parameter["type"] for parameter in found["parameters"]), shown


@pytest.mark.parametrize(
    ("text", "parameters", "columns"),
    [
        ("SELECT * FROM lab.t WHERE id = $1", "INT", ALL),
        ("SELECT id FROM lab.t WHERE u = $1 AND j = $2 AND p > $3", "UUID JSON DECIMAL(38,10)", "INT"),
        ("SELECT s FROM lab.t WHERE at >= $1 LIMIT $2 OFFSET $3", "TIMESTAMP BIGINT BIGINT", "VARCHAR(20)"),
        ("SELECT $1", "TEXT", "TEXT"),
        ("SELECT $1::int, CAST($2 AS timestamp), $3::float", "INT TIMESTAMP DOUBLE", "INT TIMESTAMP DOUBLE"),
        ("SELECT id FROM lab.t WHERE id = ANY($1) AND id IN ($2, $3)", "INT[] INT INT", "INT"),
        ("SELECT id FROM lab.t WHERE s LIKE $1 AND d BETWEEN $2 AND $3", "TEXT DATE DATE", "INT"),
        ("SELECT id FROM lab.t WHERE $1 IN (SELECT x FROM lab.t)", "DOUBLE", "INT"),
        ("SELECT substr(s, $1), coalesce(x, $2), abs($3) FROM lab.t", "BIGINT DOUBLE BIGINT", "TEXT DOUBLE BIGINT"),
        ("SELECT CASE WHEN id = $1 THEN s ELSE $2 END FROM lab.t WHERE $3 OR f", "INT TEXT BOOLEAN", "TEXT"),
        ("SELECT at + $1, at - $2 FROM lab.t", "MONTH_DAY_NANO_INTERVAL TIMESTAMP", "TIMESTAMP DURATION[US]"),
        ("WITH q AS (SELECT id FROM lab.t WHERE s = $1) SELECT * FROM q WHERE id > $2", "VARCHAR(20) INT", "INT"),
        ("SELECT count(*) FROM lab.t WHERE EXISTS (SELECT 1 FROM lab.e WHERE a = t.id AND t.u = $1)", "UUID", "BIGINT"),
        ("EXPLAIN SELECT * FROM lab.t WHERE id = $1", "INT", "TEXT TEXT"),
        ("INSERT INTO lab.t (id, u, j, p) VALUES ($1, $2, $3, $4)", "INT UUID JSON DECIMAL(10,2)", None),
        ("INSERT INTO lab.t (id, s) VALUES ($1, $2 || 'x') RETURNING id, s", "INT TEXT", "INT VARCHAR(20)"),
        ("INSERT INTO lab.t (id, s) SELECT $1, $2", "INT VARCHAR(20)", None),
        ("INSERT INTO lab.t (id, x) VALUES ($1::BIGINT, $2::FLOAT)", "BIGINT DOUBLE", None),
        (
            "INSERT INTO lab.t (id, x) VALUES ($1, 1) ON CONFLICT (id) DO UPDATE SET x = t.x + $2, s = $3",
            "INT DOUBLE VARCHAR(20)",
            None,
        ),
        ("UPDATE lab.t SET s = $1, x = x + $2 WHERE id = $3 RETURNING *", "VARCHAR(20) DOUBLE INT", ALL),
        ("DELETE FROM lab.e WHERE a > $1 RETURNING _key, a", "INT", "TEXT INT"),
        (
            "SELECT * FROM system.tables WHERE table_name = $1",
            "TEXT",
            "TEXT TEXT TEXT BIGINT TEXT BIGINT TIMESTAMP TEXT",
        ),
        ("CREATE TABLE lab.other (id INT)", "", None),
    ],
)
def test_parameters_have_the_types_of_their_places_and_columns_those_of_the_answer(
    server: ServerProcess, text: str, parameters: str, columns: str | None
) -> None:
    assert described(server, text) == (parameters, columns)


def test_nothing_is_run(server: ServerProcess) -> None:
    before = server.sql("SELECT count(*) FROM lab.t")
    for text in ("INSERT INTO lab.t (id) VALUES (1)", "DROP TABLE lab.t", "SELECT 1 / 0", "FLUSH TABLE lab.t"):
        asked(server, text, describe=True)
    assert server.sql("SELECT count(*) FROM lab.t") == before


def test_what_is_returned_is_called_as_postgresql_calls_it(server: ServerProcess) -> None:
    text = "INSERT INTO lab.t (id, s) VALUES (77, 'x') RETURNING id + 1, upper(s), id::text, s AS named, p"
    names = ["?column?", "upper", "id", "named", "p"]
    assert [column["name"] for column in asked(server, text, describe=True)["columns"]] == names
    for statement in (text, "DELETE FROM lab.t WHERE id = 77 RETURNING id + 1, upper(s), id::text, s AS named, p"):
        [result] = asked(server, statement)["results"]
        assert [column["name"] for column in result["columns"]] == names
        assert result["rows"] == [[78, "X", "77", "x", None]]


def test_a_description_says_what_a_statement_is(server: ServerProcess) -> None:
    def told(text: str) -> list[Any]:
        found = asked(server, text, describe=True)
        return [found["kind"], found["writes"], found["many"]]

    assert told("SELECT 1") == ["SELECT", False, False]
    assert told("EXPLAIN SELECT 1") == ["EXPLAIN", False, False]
    assert told("SHOW TABLES") == ["SHOW TABLES", False, False]
    assert told("DROP TABLE lab.t") == ["DROP TABLE", True, False]
    assert told("INSERT INTO lab.t (id) VALUES ($1)") == ["INSERT", True, True]
    assert told("INSERT INTO lab.t (id) VALUES ($1 + 1)") == ["INSERT", True, False]
    assert told("INSERT INTO lab.t (id) VALUES ($1::BIGINT)") == ["INSERT", True, False]  # which is to be cast


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("SELECT * FROM lab.nothing WHERE a = $1", "table_not_found"),
        ("SELECT nope FROM lab.t WHERE id = $1", "column_not_found"),
        ("SELECT 1; SELECT 2", "unsupported"),
        ("SELEC 1", "syntax_error"),
        ("", "syntax_error"),
    ],
)
def test_what_is_wrong_is_told_as_a_run_tells_it(server: ServerProcess, text: str, code: str) -> None:
    with pytest.raises(SqlFailed) as caught:
        asked(server, text, describe=True)
    assert caught.value.code == code


def kinds() -> list[type[Any]]:
    """The statements that show something, and those that answer with a table of what they did."""
    words = ("Show", "Describe", "Flush", "Compact", "Check")
    every = [*Statement.__args__, *OnAccess.__subclasses__(), *OnView.__subclasses__()]
    return sorted((kind for kind in every if kind.__name__.startswith(words)), key=lambda kind: str(kind.__name__))


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_what_a_statement_shows_has_columns_that_are_known_before(kind: type[Any]) -> None:
    assert kind in ANSWERS


SHOWING = """
    SHOW NAMESPACES; SHOW TABLES; SHOW TABLES IN system; DESCRIBE TABLE lab.t; DESCRIBE TABLE lab.t HISTORY
    SHOW COLUMNS FROM lab.t
    SHOW STATS FOR TABLE lab.t; SHOW CREATE TABLE lab.t; SHOW STREAMS; SHOW JOBS; SHOW QUERIES; SHOW LIVE QUERIES
    SHOW LAKE; SHOW VIEWS
    FLUSH TABLE lab.t; FLUSH ALL TABLES; COMPACT TABLE lab.t; CHECK TABLE lab.t; SHOW USERS; SHOW ROLES
    SHOW GRANTS; SHOW POLICIES; SHOW TOKENS; SHOW SESSIONS
"""


@pytest.mark.parametrize("text", [text.strip() for text in re.split(r"[;\n]", SHOWING) if text.strip()])
def test_what_a_statement_shows_has_the_columns_that_were_told(server: ServerProcess, text: str) -> None:
    fields = fixed_fields(parse_statement(text))
    assert fields is not None
    told = [{"name": field.name, "type": sql_type(field)} for field in fields]
    assert server.results(text)[-1]["columns"] == told
    assert asked(server, text, describe=True)["columns"] == told
    assert "HISTORY" not in text or [field["name"] for field in told] == [name for name, _ in HISTORY_FIELDS]
