from __future__ import annotations

import pytest

from kalam.errors import KalamError, SyntaxFault, TooLarge, Unsupported
from kalam.sql import parse_statement
from kalam.sql.text.statements import QueryText, Select


def query(text: str) -> QueryText:
    statement = parse_statement(text)
    assert isinstance(statement, Select)
    assert statement.query.text == text
    return statement.query


def mentioned(text: str) -> list[str]:
    """The mentions as they are written; ``!`` behind one that sees deleted rows, ``'`` behind an aliased one."""
    uses = query(text).tables
    return [text[use.start : use.end] + "'" * use.aliased + "!" * use.sees_deleted for use in uses]


@pytest.mark.parametrize(
    ("text", "tables"),
    [
        ("SELECT 1", []),
        ("SELECT * FROM t", ["t"]),
        ('SELECT * FROM ns.t AS x, "Q" y JOIN NS . /* c */ T USING (a)', ["ns.t'", '"Q"\'', "NS . /* c */ T"]),
        ("SELECT * FROM (a JOIN b ON TRUE) WHERE c IN (SELECT d FROM e)", ["a", "b", "e"]),
        ("SELECT (SELECT max(x) FROM u) FROM t UNION ALL SELECT * FROM v ORDER BY 1", ["u", "t", "v"]),
        ("SELECT * FROM t, LATERAL (SELECT * FROM u WHERE u.a = t.a) l", ["t", "u"]),
        ("(SELECT * FROM a) EXCEPT (SELECT * FROM b)", ["a", "b"]),
        ("VALUES (1, (SELECT 1 FROM t))", ["t"]),
        ("SELECT * FROM generate_series(1, 3) g, range(1, 2), unnest([1, 2]) AS u(x), t", ["t"]),
        ("SELECT t.a FROM t WHERE a LIKE 'FROM u' -- , v\n AND /* FROM w */ TRUE", ["t"]),
        ("EXPLAIN SELECT * FROM t", ["t"]),
        ("EXPLAIN ANALYZE WITH c AS (SELECT * FROM t) SELECT * FROM c", ["t"]),
        ("SELECT é, 'ü' FROM t", ["t"]),
        ("SELECT 1 FROM t --\r, u\n WHERE TRUE", ["t"]),
    ],
)
def test_mentions_of_tables_are_found_where_they_stand(text: str, tables: list[str]) -> None:
    assert mentioned(text) == tables


@pytest.mark.parametrize(
    ("text", "tables"),
    [
        ('WITH c AS (SELECT * FROM t) SELECT * FROM c, C x, "C"', ["t", '"C"']),
        ("WITH t AS (SELECT * FROM t) SELECT * FROM t", ["t"]),
        ("WITH a AS (SELECT * FROM b), b AS (SELECT * FROM a) SELECT * FROM a, b", ["b"]),
        ("WITH RECURSIVE r AS (SELECT 1 UNION ALL SELECT * FROM r) SELECT * FROM r", []),
        ("WITH c AS (SELECT 1) SELECT * FROM ns.c", ["ns.c"]),
        ("SELECT * FROM (WITH c AS (SELECT 1) SELECT * FROM c) x, c", ["c"]),
        ("WITH c AS (SELECT 1) SELECT * FROM t WHERE a IN (SELECT * FROM c)", ["t"]),
        ("WITH c AS (SELECT 1) SELECT * FROM c UNION SELECT * FROM c", []),
    ],
)
def test_a_cte_hides_tables_only_in_its_scope(text: str, tables: list[str]) -> None:
    assert [mention.rstrip("'") for mention in mentioned(text)] == tables


@pytest.mark.parametrize(
    ("text", "tables"),
    [
        ("SELECT * FROM t WHERE _deleted", ["t!"]),
        ("SELECT * FROM t WHERE a = 1 AND NOT t._DELETED", ["t!"]),
        ('SELECT * FROM t WHERE "_deleted" = TRUE', ["t!"]),
        ("SELECT * FROM ns.t WHERE ns.t._deleted", ["ns.t!"]),
        ("SELECT * FROM a, b WHERE _deleted", ["a!", "b!"]),
        ("SELECT * FROM a x JOIN b y USING (k) WHERE y._deleted", ["a'", "b'!"]),
        ("SELECT * FROM (a) AS x WHERE x._deleted", ["a!"]),
        ("SELECT * FROM (a JOIN b USING (k)) x WHERE x._deleted", ["a!", "b!"]),
        ("SELECT _deleted FROM t ORDER BY _deleted", ["t"]),
        ("SELECT * FROM a JOIN b ON a._deleted", ["a", "b"]),
        ("SELECT count(*) FILTER (WHERE _deleted) FROM t", ["t"]),
        ("SELECT a FROM t GROUP BY a HAVING bool_or(_deleted)", ["t"]),
        ("SELECT * FROM t WHERE a = '_deleted'", ["t"]),
        ("SELECT * FROM (SELECT * FROM t) s WHERE s._deleted", ["t"]),
        ("SELECT * FROM (SELECT * FROM t WHERE _deleted) s, u", ["t!", "u"]),
        ("WITH c AS (SELECT * FROM t) SELECT * FROM c, u WHERE c._deleted", ["t", "u"]),
        ("SELECT * FROM t WHERE EXISTS (SELECT 1 FROM u WHERE _deleted)", ["t", "u!"]),
        ("SELECT * FROM t WHERE EXISTS (SELECT 1 FROM u WHERE t._deleted)", ["t!", "u"]),
        ("SELECT * FROM t WHERE a IN (SELECT _deleted FROM u)", ["t", "u"]),
        ("SELECT * FROM t WHERE _deleted UNION SELECT * FROM t", ["t!", "t"]),
    ],
)
def test_deleted_rows_show_where_the_where_of_the_same_select_names_them(text: str, tables: list[str]) -> None:
    assert mentioned(text) == tables


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("SELECT * FROM s", True),
        ("SELECT a, upper(b) AS c FROM ns.s x WHERE a > $1 LIMIT 3 OFFSET 1", True),
        ("SELECT 1", False),
        ("SELECT * FROM s ORDER BY a", False),
        ("SELECT a FROM s GROUP BY a", False),
        ("SELECT DISTINCT a FROM s", False),
        ("SELECT count(*) FROM s", False),
        ("SELECT 1 + approx_median(a) FROM s", False),
        ("SELECT row_number() OVER () FROM s", False),
        ("SELECT * FROM s, s t", False),
        ("SELECT * FROM s JOIN t USING (a)", False),
        ("SELECT * FROM s, generate_series(1, 2)", False),
        ("SELECT * FROM s UNION ALL SELECT * FROM s", False),
        ("SELECT * FROM s WHERE a IN (SELECT 1)", False),
        ("SELECT * FROM (SELECT * FROM s) t", False),
        ("WITH c AS (SELECT 1) SELECT * FROM s", False),
        ("EXPLAIN SELECT * FROM s", False),
    ],
)
def test_plain_is_one_select_over_one_table(text: str, plain: bool) -> None:
    assert query(text).plain is plain


@pytest.mark.parametrize(
    ("text", "highest"),
    [("SELECT $1", 1), ("SELECT $2 + $10", 10), ("SELECT '$3', \"$4\", $$ $5 $$ -- $6", 0), ("EXPLAIN SELECT $7", 7)],
)
def test_the_highest_parameter_is_known(text: str, highest: int) -> None:
    statement = parse_statement(text)
    assert isinstance(statement, Select)
    assert statement.query.parameters == highest


def test_a_key_that_is_named_is_known() -> None:
    assert query("SELECT s._key FROM s").names_key
    assert query("SELECT 1 FROM s JOIN r USING (_KEY)").names_key
    assert not query("SELECT '_key' FROM s").names_key


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM 'file.csv'",
        'SELECT * FROM "dir/file.parquet"',
        "SELECT * FROM read_csv('x')",
        "SELECT * FROM ns.f(1)",
        "SELECT * FROM t FOR UPDATE",
        "SELECT * FROM (SELECT * FROM t FOR SHARE) x",
        "SELECT * INTO x FROM t",
        "WITH a AS (SELECT 1) INSERT INTO t SELECT 1",
        "WITH a AS (DELETE FROM t RETURNING *) SELECT * FROM a",
        "EXPLAIN INSERT INTO t VALUES (1)",
        "EXPLAIN VERBOSE SELECT 1",
        "EXPLAIN EXPLAIN SELECT 1",
        "EXPLAIN",
    ],
)
def test_what_is_no_plain_reading_is_refused(text: str) -> None:
    with pytest.raises(Unsupported) as caught:
        parse_statement(text)
    assert caught.value.fields["line"] == 1


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("SELECT * FROM", (1, 14)),
        ("SELECT\n  * FROM t WHERE )", (2, 18)),
        ("SELECT 1 +", (1, 11)),
        ("SELECT a b c FROM t", (1, 12)),
        ("SELECT * FROM a.b.c", (1, 15)),
        ("SELECT $x", (1, 8)),
        ("SELECT ?", (1, 1)),
        ("SELECT :name", (1, 1)),
        ("(1)", (1, 1)),
        ("SELECT 1; SELECT 2", (1, 11)),
        ("SELECT (1", None),
        ("SELECT * FROM t |> SELECT a", None),
    ],
)
def test_a_broken_query_is_a_syntax_error_with_its_place(text: str, place: tuple[int, int] | None) -> None:
    with pytest.raises(SyntaxFault) as caught:
        parse_statement(text)
    found = (caught.value.fields["line"], caught.value.fields["column"])
    assert place is None or found == place


@pytest.mark.parametrize(
    "text",
    [
        "SELECT " + "(" * 1_000 + "1" + ")" * 1_000,
        "SELECT " + "(" * 100_000,
        "SELECT " + "f(" * 500 + "1" + ")" * 500,
        "SELECT " + "array[" * 40 + "1" + "]" * 40,
        "SELECT " + "date(" * 40 + "1" + ")" * 40,
        "SELECT a" + "[1]" * 2_000,
        "SELECT a" + "::INT" * 2_000,
        "SELECT " + " + ".join(["1"] * 2_000),
        "SELECT * FROM t WHERE " + " OR ".join(["a = 1"] * 2_000),
        "DELETE FROM t WHERE " + "NOT " * 5_000 + "TRUE",
        "UPDATE t SET a = " + "-" * 1 + "(" * 3_000,
        "INSERT INTO t VALUES (" + "(" * 3_000,
        "SELECT 1" + " UNION ALL SELECT 1" * 2_000,
        "SELECT * FROM t" + ", t" * 2_000,
        "SELECT " + ", ".join(["(SELECT 1)"] * 2_000),
        "SELECT " + "CASE WHEN TRUE THEN " * 2_000,
    ],
)
def test_no_nesting_is_deep_enough_to_do_harm(text: str) -> None:
    with pytest.raises(SyntaxFault):
        parse_statement(text)


def test_a_query_has_a_bounded_size() -> None:
    with pytest.raises(TooLarge):
        parse_statement(f"SELECT * FROM t WHERE a IN ({','.join(['1'] * 600_000)})")
    assert query("SELECT '" + "x" * 2_000_000 + "'").tables == ()


@pytest.mark.parametrize(
    "word",
    [
        *(
            "COPY t TO 'x'",
            "SET a = 1",
            "TRUNCATE t, u",
            "BEGIN",
            "COMMIT",
            "ROLLBACK",
            "CREATE VIEW v WITH (a = 1) AS SELECT 1",
            "PRAGMA x",
        ),
        *(
            "CREATE EXTERNAL TABLE t (a INT)",
            "CREATE INDEX i ON t (a)",
            "CREATE FUNCTION f() RETURN 1",
            "VACUUM",
            "ANALYZE",
        ),
        *(
            "CREATE OR REPLACE TABLE t (a INT)",
            "CREATE TEMP VIEW t AS SELECT 1",
            "CREATE TEMPORARY TABLE t (a INT) WITH (x = 1)",
            "CREATE TABLE t AS DELETE FROM u",
            "DENY a TO b",
        ),
        *("EXECUTE p", "PREPARE p AS SELECT 1", "DEALLOCATE p", "CALL f()", "LOAD x"),
        *(
            "REPLACE INTO t VALUES (1)",
            "TABLE t",
            "FROM t",
            "ALTER VIEW v AS SELECT 1",
            "SHOW ALL",
            "KILL 5",
        ),
    ],
)
def test_other_statements_are_refused_and_say_what_there_is(word: str) -> None:
    with pytest.raises(Unsupported) as caught:
        parse_statement(word)
    assert len(caught.value.detail) > len(word)


def test_an_unknown_statement_is_a_syntax_error_with_a_hint() -> None:
    with pytest.raises(SyntaxFault, match="begins no statement") as caught:
        parse_statement("SELCT 1")
    assert caught.value.fields["hint"] == "did you mean SELECT?"


def test_every_error_is_one_of_kalam_s() -> None:
    with pytest.raises(KalamError):
        parse_statement("🙂")
