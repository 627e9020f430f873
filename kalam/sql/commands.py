"""SHOW, DESCRIBE, COMMENT ON, USE, FLUSH, COMPACT, CHECK, REFRESH and KILL: what tells of the server and its jobs."""

from __future__ import annotations

from collections.abc import Callable

from kalam.errors import InvalidValue
from kalam.sql.access import grants, policies, users
from kalam.sql.access.statements import KillSession, ShowRoles, ShowSessions, ShowTokens, ShowUsers
from kalam.sql.tables.foreign import read_domain, read_stream_name
from kalam.sql.text.cursor import Cursor, did_you_mean
from kalam.sql.text.lexer import Kind
from kalam.sql.text.statements import (
    CheckTable,
    CommentOn,
    CompactTable,
    DescribeStream,
    DescribeTable,
    FlushAllTables,
    FlushTable,
    KillJob,
    KillLiveQuery,
    KillQuery,
    RefreshLake,
    ShowColumns,
    ShowCreateTable,
    ShowJobs,
    ShowLake,
    ShowLiveQueries,
    ShowNamespaces,
    ShowQueries,
    ShowStats,
    ShowStreams,
    ShowTables,
    Statement,
    TableRef,
    Use,
)
from kalam.sql.text.view_statements import RefreshView, ShowViews

_SHOW = (
    "SHOW takes NAMESPACES, TABLES [FROM ns], COLUMNS FROM t, VIEWS, STREAMS, JOBS, QUERIES, LIVE QUERIES, LAKE, "
    "STATS FOR TABLE t, CREATE TABLE t, USERS, ROLES, GRANTS [FOR u | ON t], POLICIES [ON t], TOKENS and SESSIONS"
)
_LISTS: dict[str, Statement] = {
    "NAMESPACES": ShowNamespaces(),
    "VIEWS": ShowViews(),
    "STREAMS": ShowStreams(),
    "JOBS": ShowJobs(),
    "QUERIES": ShowQueries(),
    "LAKE": ShowLake(),
}
_OF_ACCESS: dict[str, Callable[[Cursor], Statement]] = {
    "USERS": lambda _: ShowUsers(),
    "ROLES": lambda _: ShowRoles(),
    "GRANTS": grants.show_grants,
    "POLICIES": policies.show_policies,
    "TOKENS": lambda _: ShowTokens(),
    "SESSIONS": lambda _: ShowSessions(),
}
_SHOW_WORDS = ("TABLES", "COLUMNS", "LIVE", "STATS", "CREATE", *_LISTS, *_OF_ACCESS)
SAMPLE_DEFAULT, SAMPLE_MAX = 1_000, 100_000
"""How many messages DESCRIBE STREAM looks at."""
COMMENT_CHARACTERS_MAX = 4_096
_FLUSH = "FLUSH takes TABLE t, or ALL TABLES [IN ns]"
_KILL = "KILL takes JOB 'id', QUERY 'id', LIVE QUERY 'id' or SESSION 'id'"


def show(cursor: Cursor) -> Statement:
    """Read one of the SHOW statements."""
    cursor.expect("SHOW")
    if word := cursor.take_one(_LISTS):
        return _LISTS[word]
    if cursor.take("TABLES"):
        return ShowTables(cursor.name("namespace") if cursor.take_one(("IN", "FROM")) else None)
    if cursor.take("COLUMNS"):
        if cursor.take_one(("FROM", "IN")) is None:
            raise cursor.unexpected("FROM and a table", choices=("FROM",))
        return ShowColumns(cursor.table())
    if cursor.take("LIVE", "QUERIES"):
        return ShowLiveQueries()
    if cursor.take("STATS", "FOR", "TABLE"):
        return ShowStats(cursor.table())
    if cursor.take("CREATE", "TABLE"):
        return ShowCreateTable(cursor.table())
    if word := cursor.take_one(_OF_ACCESS):
        return _OF_ACCESS[word](cursor)
    raise cursor.refusal(_SHOW, hint=did_you_mean(cursor.token.word, _SHOW_WORDS))


def describe(cursor: Cursor) -> DescribeTable | DescribeStream:
    """Read DESCRIBE [TABLE] t [HISTORY], or DESCRIBE STREAM 'name' [DOMAIN 'name'] [SAMPLE n]."""
    cursor.take_one(("DESCRIBE", "DESC"))
    if cursor.at("STREAM") and not cursor.at("STREAM", "."):  # a table may be called so, or a namespace
        cursor.expect("STREAM")
        if cursor.at_end() or cursor.at("HISTORY"):
            return DescribeTable(TableRef(None, "stream"), cursor.take("HISTORY"))
        return _describe_stream(cursor)
    cursor.take("TABLE")
    ref = cursor.table()
    return DescribeTable(ref, cursor.take("HISTORY"))


def _describe_stream(cursor: Cursor) -> DescribeStream:
    stream, domain = read_stream_name(cursor), read_domain(cursor)
    sample = SAMPLE_DEFAULT
    if cursor.take("SAMPLE"):
        text = cursor.token.text
        if cursor.token.kind is not Kind.NUMBER or not text.isdigit() or not 1 <= int(text) <= SAMPLE_MAX:
            raise cursor.unexpected(f"a number of messages, 1 to {SAMPLE_MAX:,}")
        sample = int(cursor.advance().text)
    return DescribeStream(stream, domain, sample)


def comment(cursor: Cursor) -> CommentOn:
    """Read COMMENT ON TABLE t | VIEW v | COLUMN t.c IS 'text' | NULL."""
    cursor.expect("COMMENT", "ON")
    ref, column = TableRef(None, ""), None
    cursor.take("MATERIALIZED")
    match cursor.take_one(("TABLE", "VIEW", "COLUMN")):
        case "TABLE" | "VIEW":
            ref = cursor.table()
        case "COLUMN":
            ref, column = _column_of(cursor)
        case _:
            raise cursor.refusal("COMMENT ON takes TABLE t IS 'text', VIEW v IS 'text' and COLUMN t.c IS 'text'")
    cursor.expect("IS")
    text = None if cursor.take("NULL") else cursor.string("a comment, or NULL,")
    if text is not None and len(text) > COMMENT_CHARACTERS_MAX:
        raise cursor.error(InvalidValue, f"a comment has at most {COMMENT_CHARACTERS_MAX:,} characters")
    return CommentOn(ref, column, text or None)


def _column_of(cursor: Cursor) -> tuple[TableRef, str]:
    """Consume ``table.column`` or ``namespace.table.column``."""
    names = [cursor.name("table")]
    cursor.expect_symbol(".")
    names.append(cursor.name("column"))
    if cursor.take_symbol("."):
        names.append(cursor.name("column"))
    *namespace, table, column = names
    return TableRef(namespace[0] if namespace else None, table), column


def use(cursor: Cursor) -> Use:
    """Read USE ns."""
    cursor.expect("USE")
    return Use(cursor.name("namespace"))


def flush(cursor: Cursor) -> FlushTable | FlushAllTables:
    """Read [STORAGE] FLUSH TABLE t, or … ALL TABLES [IN ns]."""
    cursor.take("STORAGE")
    cursor.expect("FLUSH")
    if cursor.take("ALL", "TABLES"):
        return FlushAllTables(_in_namespace(cursor))
    if not cursor.take("TABLE"):
        raise cursor.fault(_FLUSH)
    return FlushTable(cursor.table())


def compact(cursor: Cursor) -> CompactTable:
    """Read COMPACT TABLE t."""
    cursor.expect("COMPACT", "TABLE")
    return CompactTable(cursor.table())


def refresh(cursor: Cursor) -> RefreshLake | RefreshView:
    """Read REFRESH LAKE [FOR TABLE t], or REFRESH MATERIALIZED VIEW v."""
    cursor.expect("REFRESH")
    if cursor.take("MATERIALIZED", "VIEW"):
        return RefreshView(cursor.table())
    if not cursor.take("LAKE"):
        raise cursor.unexpected("LAKE or MATERIALIZED VIEW", choices=("LAKE", "MATERIALIZED"))
    return RefreshLake(cursor.table() if cursor.take("FOR", "TABLE") else None)


def check(cursor: Cursor) -> CheckTable:
    """Read CHECK TABLE t."""
    cursor.expect("CHECK", "TABLE")
    return CheckTable(cursor.table())


def kill(cursor: Cursor) -> KillJob | KillQuery | KillLiveQuery | KillSession:
    """Read KILL JOB 'id', KILL QUERY 'id', KILL LIVE QUERY 'id' or KILL SESSION 'id'."""
    cursor.expect("KILL")
    if cursor.take("JOB"):
        return KillJob(cursor.string("the job's id"))
    if cursor.take("QUERY"):
        return KillQuery(cursor.string("the query's id"))
    if cursor.take("LIVE", "QUERY"):
        return KillLiveQuery(cursor.string("the live query's id"))
    if cursor.take("SESSION"):
        return users.kill_session(cursor)
    raise cursor.refusal(_KILL)


def _in_namespace(cursor: Cursor) -> str | None:
    return cursor.name("namespace") if cursor.take("IN") else None
