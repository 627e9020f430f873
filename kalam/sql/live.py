"""SUBSCRIBE TO, and the bare SELECT that opens a live query: one table, columns or ``*``, a WHERE without sub-query.

Law: what is not exactly that is a SELECT whose rows are kept for the live query as those of a materialized view, if it
is one that groups, or that is run again. What is neither is refused, and never widened to something that is.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kalam.errors import InvalidOption, Unsupported
from kalam.rows.timestamp_text import read_utc_timestamp
from kalam.sql.queries.readers import read_condition, read_query
from kalam.sql.text.cursor import Cursor, did_you_mean
from kalam.sql.text.lexer import Kind, StatementText
from kalam.sql.text.statements import Subscribe, TableRef

_FORM = "a live query is SELECT columns|* FROM table [WHERE …], or a SELECT that groups"
_PLAIN = f"{_FORM}; this one has more than plain columns and does not group"
_HINT = "a materialized view takes expressions, and a live query follows it"
_CLAUSES = ("GROUP", "HAVING", "ORDER", "LIMIT", "OFFSET", "FETCH", "WINDOW", "QUALIFY", "UNION", "INTERSECT", "EXCEPT")
_JOINS = ("JOIN", "INNER", "LEFT", "RIGHT", "FULL", "CROSS", "NATURAL")
_OPTIONS = ("last_rows", "from_seq", "from_time")
_COUNT_MAX = 1 << 63


def subscribe(cursor: Cursor) -> Subscribe:
    """Read SUBSCRIBE TO SELECT … [OPTIONS (…)]."""
    cursor.expect("SUBSCRIBE", "TO")
    return _live(cursor, with_options=True)


def live_select(cursor: Cursor) -> Subscribe:
    """Read the bare SELECT of a live query, or a whole SUBSCRIBE."""
    if cursor.at("SUBSCRIBE"):
        return subscribe(cursor)
    if not cursor.at("SELECT"):
        raise cursor.refusal(_FORM)
    return _live(cursor, with_options=False)


def _live(cursor: Cursor, *, with_options: bool) -> Subscribe:
    start = cursor.token.start
    try:
        return _of_rows(cursor, with_options=with_options)
    except Unsupported:
        cursor.seek(start)
        found = _kept(cursor, with_options=with_options)
        if found is None:
            raise
        return found


def _of_rows(cursor: Cursor, *, with_options: bool) -> Subscribe:
    """The live query of rows of one table."""
    columns, ref = _select(cursor)
    stops = ("OPTIONS", *_CLAUSES) if with_options else _CLAUSES
    where = read_condition(cursor, *stops) if cursor.take("WHERE") else None
    options = _options(cursor) if with_options and cursor.take("OPTIONS") else {}
    _refuse_rest(cursor)
    return Subscribe(ref=ref, columns=columns, where=where, **options)


def _kept(cursor: Cursor, *, with_options: bool) -> Subscribe | None:
    """The live query of a SELECT whose rows are kept; None where each row of one table makes one row or none."""
    start, end = cursor.skip(lambda here: with_options and here.at("OPTIONS", "("))
    options = _options(cursor) if cursor.take("OPTIONS") else {}
    cursor.expect_end()
    line, column = cursor.statement.place(start)
    query = read_query(Cursor(StatementText(cursor.statement.text[start:end], line=line, column=column)))
    if query.plain or not query.tables:
        return None
    return Subscribe(ref=query.tables[0].ref, columns=None, where=None, query=query, **options)


def _select(cursor: Cursor) -> tuple[tuple[str, ...] | None, TableRef]:
    """Consume ``SELECT columns|* FROM table``."""
    cursor.expect("SELECT")
    named = None if cursor.take_symbol("*") else _columns(cursor)
    if not cursor.at("FROM"):
        raise cursor.refusal(_PLAIN, hint=_HINT)
    cursor.expect("FROM")
    if cursor.at_symbol("("):
        raise cursor.refusal(_FORM)
    ref = cursor.table()
    if cursor.at_symbol(",") or cursor.at_symbol("("):
        raise cursor.refusal(f"{_FORM}, of one table")
    if named and any(qualifier not in (None, ref.table) for qualifier, _ in named):
        raise cursor.refusal(f"{_FORM}, and the columns are that table's")
    return tuple(name for _, name in named) if named else None, ref


def _columns(cursor: Cursor) -> list[tuple[str | None, str]]:
    """The names of columns, each with the table's if it stands before it."""
    names: list[tuple[str | None, str]] = []
    while not names or cursor.take_symbol(","):
        if cursor.token.kind not in (Kind.WORD, Kind.QUOTED) or cursor.at("DISTINCT"):
            raise cursor.refusal(_PLAIN, hint=_HINT)
        name, qualifier = cursor.name("column"), None
        if cursor.take_symbol("."):
            qualifier, name = name, cursor.name("column")
        names.append((qualifier, name))
    return names


def _options(cursor: Cursor) -> dict[str, Any]:
    """Consume ``(last_rows = n)``, ``(from_seq = n)`` or ``(from_time = '…')``."""
    cursor.expect_symbol("(")
    options: dict[str, Any] = {}
    while not options or cursor.take_symbol(","):
        token = cursor.token
        name = cursor.name("option")
        if name not in _OPTIONS:
            hint = did_you_mean(name, _OPTIONS)
            raise cursor.error(
                InvalidOption, "a live query has the options last_rows, from_seq and from_time", at=token, hint=hint
            )
        if name in options:
            raise cursor.error(InvalidOption, f"the option {name} is given twice", at=token)
        cursor.expect_symbol("=")
        options[name] = _time(cursor, name) if name == "from_time" else _count(cursor, name)
    cursor.expect_symbol(")")
    return options


def _time(cursor: Cursor, name: str) -> datetime:
    token = cursor.token
    try:
        return read_utc_timestamp(cursor.string(name))
    except (ValueError, OverflowError) as exc:
        raise cursor.error(InvalidOption, f"{name} is a time like '2026-03-01T12:00:00Z': {exc}", at=token) from exc


def _count(cursor: Cursor, name: str) -> int:
    text = cursor.token.text
    if cursor.token.kind is not Kind.NUMBER or not text.isdigit() or len(text) > 19 or int(text) >= _COUNT_MAX:
        raise cursor.error(InvalidOption, f"{name} is a whole number from 0, found {cursor.found()}")
    return int(cursor.advance().text)


def _refuse_rest(cursor: Cursor) -> None:
    word = cursor.token.word
    if cursor.at_end():
        return
    if word in _CLAUSES or word in _JOINS or cursor.token.kind in (Kind.WORD, Kind.QUOTED):
        raise cursor.refusal(f"{_FORM}; {cursor.found()} is not part of it")
    raise cursor.unexpected("the end of the statement")
