"""SHOW, DESCRIBE, USE, FLUSH, COMPACT, CHECK, REFRESH and KILL: what tells of the server and its jobs."""

from __future__ import annotations

from collections.abc import Callable

from kalam.sql.access import grants, policies, users
from kalam.sql.access.statements import KillSession, ShowRoles, ShowSessions, ShowTokens, ShowUsers
from kalam.sql.tables.foreign import read_domain, read_stream_name
from kalam.sql.text.cursor import Cursor, did_you_mean
from kalam.sql.text.lexer import Kind
from kalam.sql.text.statements import (
    CheckTable,
    CompactTable,
    DescribeStream,
    DescribeTable,
    FlushAllTables,
    FlushTable,
    KillJob,
    KillLiveQuery,
    KillQuery,
    RefreshLake,
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

_SHOW = (
    "SHOW takes NAMESPACES, TABLES [IN ns], STREAMS, JOBS, QUERIES, LIVE QUERIES, LAKE, STATS FOR TABLE t, "
    "CREATE TABLE t, USERS, ROLES, GRANTS [FOR u | ON t], POLICIES [ON t], TOKENS and SESSIONS"
)
_OF_ACCESS: dict[str, Callable[[Cursor], Statement]] = {
    "USERS": lambda _: ShowUsers(),
    "ROLES": lambda _: ShowRoles(),
    "GRANTS": grants.show_grants,
    "POLICIES": policies.show_policies,
    "TOKENS": lambda _: ShowTokens(),
    "SESSIONS": lambda _: ShowSessions(),
}
_SHOW_WORDS = ("NAMESPACES", "TABLES", "STREAMS", "JOBS", "QUERIES", "LIVE", "LAKE", "STATS", "CREATE", *_OF_ACCESS)
SAMPLE_DEFAULT, SAMPLE_MAX = 1_000, 100_000
"""How many messages DESCRIBE STREAM looks at."""
_FLUSH = "FLUSH takes TABLE t, or ALL TABLES [IN ns]"
_KILL = "KILL takes JOB 'id', QUERY 'id', LIVE QUERY 'id' or SESSION 'id'"


def show(cursor: Cursor) -> Statement:
    """Read one of the SHOW statements."""
    cursor.expect("SHOW")
    if cursor.take("NAMESPACES"):
        return ShowNamespaces()
    if cursor.take("TABLES"):
        return ShowTables(_in_namespace(cursor))
    if cursor.take("STREAMS"):
        return ShowStreams()
    if cursor.take("JOBS"):
        return ShowJobs()
    if cursor.take("QUERIES"):
        return ShowQueries()
    if cursor.take("LIVE", "QUERIES"):
        return ShowLiveQueries()
    if cursor.take("LAKE"):
        return ShowLake()
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


def refresh(cursor: Cursor) -> RefreshLake:
    """Read REFRESH LAKE [FOR TABLE t]."""
    cursor.expect("REFRESH", "LAKE")
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
