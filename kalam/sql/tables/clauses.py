"""The options of a CREATE TABLE or ALTER TABLE … SET as they are written: WITH lists and the older clauses.

The outcome is the raw value of each option by its name in capitals; `options` says what the values may be.
"""

from __future__ import annotations

from typing import Any

from kalam.errors import InvalidOption
from kalam.sql.tables import durations
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.lexer import Kind, Token, fold
from kalam.sql.text.literals import read_literal

_CLAUSES = ("RETENTION", "TTL_SECONDS", "EPHEMERAL", "MAX_BUFFER", "LOCATION", "DELETED_RETENTION")


def read_clauses(cursor: Cursor, *stops: str) -> dict[str, Any]:
    """Consume what stands behind the column list of a CREATE TABLE, up to one of the ``stops`` words.

    Raises InvalidOption where an option is given twice.
    """
    options: dict[str, Any] = {}
    while not cursor.at_end() and cursor.token.word not in stops:
        token = cursor.token
        if cursor.take("WITH"):
            read_option_list(cursor, options)
        elif cursor.take("FLUSH"):
            cursor.expect("POLICY")
            _add(cursor, options, "FLUSH_POLICY", _flush_policy(cursor), token)
        elif (name := cursor.take_one(_CLAUSES)) is not None:
            _add(cursor, options, name, True if name == "EPHEMERAL" else _value(cursor), token)
        else:
            raise cursor.unexpected("WITH (…) or the end of the statement", choices=("WITH", "FLUSH", *_CLAUSES))
    return options


def read_option_list(cursor: Cursor, options: dict[str, Any]) -> None:
    """Consume ``(option = value, …)`` into ``options``."""
    cursor.expect_symbol("(")
    while True:
        token = cursor.token
        name = cursor.name("option").upper()
        cursor.expect_symbol("=")
        _add(cursor, options, name, _value(cursor), token)
        if not cursor.take_symbol(","):
            break
    cursor.expect_symbol(")")


def _add(cursor: Cursor, options: dict[str, Any], name: str, value: Any, at: Token) -> None:
    if name in options:
        raise cursor.error(InvalidOption, f"the option {name} is given twice", at=at)
    options[name] = value


def _value(cursor: Cursor) -> Any:
    """A string, a number, a boolean, a bare word, or a bare duration (``10s``)."""
    token = cursor.token
    if token.kind is Kind.QUOTED:
        return cursor.name("column")
    if token.kind is Kind.WORD and token.word not in ("TRUE", "FALSE"):
        return fold(cursor.advance().text)
    literal = read_literal(cursor)
    if literal is None or literal.value is None:
        raise cursor.unexpected("an option's value")
    following = cursor.token
    if token.kind is Kind.NUMBER and following.kind is Kind.WORD and following.start == token.end:
        return token.text + cursor.advance().text
    return literal.value


def _flush_policy(cursor: Cursor) -> str:
    """``ROWS n``, ``TIME 600s`` or ``ROWS n OR TIME 600s``, as the option FLUSH_POLICY writes it."""
    if cursor.take("TIME"):
        return f"interval:{_interval(cursor)}"
    cursor.expect("ROWS")
    rows = f"rows:{_value(cursor)}"
    if not cursor.take("OR"):
        return rows
    cursor.expect("TIME")
    return f"{rows},interval:{_interval(cursor)}"


def _interval(cursor: Cursor) -> int:
    token = cursor.token
    span_s = durations.seconds(_value(cursor))
    if span_s is None:
        raise cursor.error(InvalidOption, "FLUSH POLICY TIME takes a time such as 600s", at=token)
    return span_s
