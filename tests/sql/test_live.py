from __future__ import annotations

import pytest
from msgspec.structs import replace

from kalam.errors import InvalidOption, KalamError, SyntaxFault, Unsupported
from kalam.sql import parse_live, parse_statement
from kalam.sql.text.statements import QueryText, Subscribe, TableRef

T = TableRef(None, "t")


def test_a_subscription_is_columns_a_table_a_where_and_options() -> None:
    text = (
        "SUBSCRIBE TO SELECT a, \"B\" FROM ns.t WHERE a > 1 AND b = 'options (' OPTIONS (last_rows = 5, FROM_SEQ = 7)"
    )
    assert parse_statement(text) == Subscribe(
        ref=TableRef("ns", "t"),
        columns=("a", "B"),
        where=QueryText("a > 1 AND b = 'options ('"),
        last_rows=5,
        from_seq=7,
    )
    assert parse_statement("SUBSCRIBE TO SELECT * FROM t") == Subscribe(ref=T, columns=None, where=None)


def test_a_live_query_is_a_bare_select() -> None:
    assert parse_live("SELECT * FROM t WHERE x;") == Subscribe(ref=T, columns=None, where=QueryText("x"))
    assert parse_live("SUBSCRIBE TO SELECT * FROM t OPTIONS (last_rows = 1)").last_rows == 1


@pytest.mark.parametrize(
    "query",
    [
        "SELECT a + 1 FROM t",
        "SELECT a AS b FROM t",
        "SELECT u.a FROM t",
        "SELECT *, a FROM t",
        "SELECT 1",
        "SELECT * FROM t x",
        "SELECT * FROM t AS x",
        "SELECT * FROM f(1)",
        "SELECT * FROM 'file.csv'",
        "SELECT * FROM t LIMIT 1",
        "SELECT a, unnest(b) FROM t",
    ],
)
def test_anything_else_of_one_row_is_refused_and_never_widened(query: str) -> None:
    with pytest.raises(Unsupported):
        parse_live(query)
    with pytest.raises(Unsupported):
        parse_statement(f"SUBSCRIBE TO {query}")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) AS n FROM t",
        "SELECT a, max(b) AS options FROM t WHERE c = 'OPTIONS (' GROUP BY a HAVING max(b) > 1",
        "SELECT DISTINCT a FROM t",
        "SELECT t.a AS a FROM t, ns.u",
        "SELECT * FROM t JOIN u USING (a)",
        "SELECT * FROM (SELECT * FROM t)",
        "SELECT * FROM t ORDER BY a LIMIT 3",
        "SELECT * FROM t WHERE a UNION SELECT * FROM u",
        "SELECT * FROM t WHERE a IN (SELECT a FROM u)",
    ],
)
def test_a_select_that_groups_or_reads_more_is_kept_as_a_whole(query: str) -> None:
    found = parse_live(query)
    assert isinstance(found, Subscribe)
    assert found.query is not None
    assert (found.query.text, found.ref, found.columns, found.where) == (query, T, None, None)
    assert parse_statement(f"SUBSCRIBE TO {query} OPTIONS (last_rows = 5)") == replace(found, last_rows=5)


@pytest.mark.parametrize(
    "query", ["INSERT INTO t VALUES (1)", "WITH c AS (SELECT 1) SELECT * FROM c", "(SELECT * FROM t)"]
)
def test_only_a_select_can_be_live(query: str) -> None:
    with pytest.raises(Unsupported):
        parse_live(query)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("(last_row = 1)", InvalidOption),
        ("(last_rows = -1)", InvalidOption),
        ("(last_rows = 1.5)", InvalidOption),
        ("(from_seq = 99999999999999999999)", InvalidOption),
        ("(last_rows = 1, last_rows = 2)", InvalidOption),
        ("()", SyntaxFault),
        ("(last_rows)", SyntaxFault),
        ("", SyntaxFault),
    ],
)
def test_a_wrong_option_is_refused(options: str, error: type[KalamError]) -> None:
    with pytest.raises(error):
        parse_statement(f"SUBSCRIBE TO SELECT * FROM t OPTIONS {options}")


@pytest.mark.parametrize("text", ["SUBSCRIBE", "SUBSCRIBE TO", "SUBSCRIBE SELECT * FROM t", "SUBSCRIBE TO * FROM t"])
def test_a_broken_subscription_is_a_syntax_error(text: str) -> None:
    with pytest.raises(SyntaxFault):
        parse_statement(text)
