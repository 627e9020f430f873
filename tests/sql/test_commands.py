from __future__ import annotations

import pytest

from kalam.errors import KalamError, SyntaxFault, Unsupported
from kalam.sql import parse, parse_statement
from kalam.sql.text.statements import (
    CheckTable,
    CompactTable,
    DescribeTable,
    FlushAllTables,
    FlushTable,
    KillJob,
    KillLiveQuery,
    KillQuery,
    ShowCreateTable,
    ShowJobs,
    ShowLiveQueries,
    ShowNamespaces,
    ShowQueries,
    ShowStats,
    ShowTables,
    Statement,
    TableRef,
    Use,
)

T, NT = TableRef(None, "t"), TableRef("n", "t")


@pytest.mark.parametrize(
    ("text", "statement"),
    [
        ("SHOW NAMESPACES", ShowNamespaces()),
        ("SHOW TABLES", ShowTables(None)),
        ("SHOW TABLES FROM n", ShowTables("n")),
        ("show tables in N", ShowTables("n")),
        ("SHOW JOBS", ShowJobs()),
        ("SHOW LIVE QUERIES", ShowLiveQueries()),
        ("SHOW QUERIES", ShowQueries()),
        ("KILL QUERY 'it''s'", KillQuery("it's")),
        ("SHOW STATS FOR TABLE n.t", ShowStats(NT)),
        ("SHOW CREATE TABLE t", ShowCreateTable(T)),
        ("DESCRIBE TABLE n.t", DescribeTable(NT, history=False)),
        ("DESC t HISTORY", DescribeTable(T, history=True)),
        ("DESCRIBE t", DescribeTable(T, history=False)),
        ("USE n", Use("n")),
        ("FLUSH TABLE n.t", FlushTable(NT)),
        ("STORAGE FLUSH TABLE t", FlushTable(T)),
        ("FLUSH ALL TABLES", FlushAllTables(None)),
        ("STORAGE FLUSH ALL TABLES IN n", FlushAllTables("n")),
        ("COMPACT TABLE t", CompactTable(T)),
        ("CHECK TABLE n.t", CheckTable(NT)),
        ("KILL JOB 'F-1'", KillJob("F-1")),
        ("KILL LIVE QUERY 'it''s'", KillLiveQuery("it's")),
        ('DESCRIBE TABLE "Odd".t', DescribeTable(TableRef("Odd", "t"), history=False)),
    ],
)
def test_commands(text: str, statement: Statement) -> None:
    assert parse_statement(text) == statement


def test_a_request_is_a_list_of_statements() -> None:
    assert parse("USE n; SHOW JOBS;") == [Use("n"), ShowJobs()]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("SHOW", Unsupported),
        ("SHOW TABLES FROM", SyntaxFault),
        ("SHOW STATS", Unsupported),
        ("DESCRIBE", SyntaxFault),
        ("DESCRIBE a.b.c", SyntaxFault),
        ("DESCRIBE SELECT 1", SyntaxFault),
        ("USE", SyntaxFault),
        ("USE a.b", SyntaxFault),
        ("FLUSH", SyntaxFault),
        ("FLUSH t", SyntaxFault),
        ("FLUSH ALL", SyntaxFault),
        ("COMPACT t", SyntaxFault),
        ("KILL JOB x", SyntaxFault),
        ("KILL JOB 'a' 'b'", SyntaxFault),
        ("DROP TABLE t RESTRICT", SyntaxFault),
        ("DROP TABLE", SyntaxFault),
        ("DROP TABLE 't'", Unsupported),
    ],
)
def test_a_broken_command_is_refused(text: str, error: type[KalamError]) -> None:
    with pytest.raises(error):
        parse_statement(text)


@pytest.mark.parametrize("text", ["GRANT READ ON TABLE t TO ada", "REVOKE READ ON TABLE t FROM ada"])
def test_what_is_no_privilege_is_told_with_those_there_are(text):
    with pytest.raises(SyntaxFault, match=r"a privilege \(SELECT, INSERT, .* or ALL\), found 'READ'"):
        parse_statement(text)


@pytest.mark.parametrize("on", ["ALL TABLES IN SCHEMA lab", "SCHEMA lab"])
def test_who_grants_as_in_postgresql_is_shown_the_word_for_it(on):
    with pytest.raises(Unsupported) as failure:
        parse_statement(f"GRANT SELECT ON {on} TO ada")
    assert "ON NAMESPACE n" in failure.value.fields["hint"]
