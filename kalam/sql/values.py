"""The rows of a VALUES list.

A bulk INSERT is mostly this, so plain literals are matched by one expression each, with what follows them, straight
from the text; everything else (comments in between, escapes, functions, expressions) takes the slower way through
tokens.
"""

from __future__ import annotations

import re

from kalam.errors import InvalidValue, KalamError
from kalam.schema import DataType, Default, DefaultKind
from kalam.sql.queries.readers import read_expression
from kalam.sql.tables.column_types import read_type
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.lexer import Kind
from kalam.sql.text.literals import CONSTANTS, read_literal
from kalam.sql.text.statements import DefaultFunction, DefaultValue, Literal, Parameter, Value

_PLAIN = re.compile(
    r"[ \t\r\n]*+(?:(-?[0-9]{1,18})|'((?:[^']++|'')*+)'|(-?[0-9]{1,9}\.[0-9]{1,6})"
    r"|(NULL|TRUE|FALSE)|\$([0-9]{1,7}))[ \t\r\n]*+(?=[,)])",
    re.IGNORECASE | re.ASCII,
)
_INTEGER, _TEXT, _FRACTION, _CONSTANT, _PARAMETER = range(1, 6)
_NEXT_ROW = re.compile(r"[ \t\r\n]*+,[ \t\r\n]*+\(")

DEFAULT = DefaultValue()
FUNCTIONS = {
    "NOW": DefaultFunction(Default(kind=DefaultKind.NOW)),
    "SNOWFLAKE_ID": DefaultFunction(Default(kind=DefaultKind.SNOWFLAKE_ID)),
    "UUID_V7": DefaultFunction(Default(kind=DefaultKind.UUID_V7)),
    "CURRENT_USER": DefaultFunction(Default(kind=DefaultKind.CURRENT_USER)),
}


def read_rows(cursor: Cursor, width: int | None) -> tuple[tuple[Value, ...], ...]:
    """Read ``(value, …), (value, …), …`` behind VALUES.

    ``width`` is the number of values that each row must have; None takes the first row's. Raises InvalidValue that
    names the row (from 1) that has another number.
    """
    rows: list[tuple[Value, ...]] = []
    cursor.expect_symbol("(")
    position = cursor.previous.end
    while True:
        start = position
        row, position = _read_row(cursor, position)
        rows.append(row)
        width = len(row) if width is None else width
        if len(row) != width:
            cursor.seek(start)
            raise cursor.error(InvalidValue, f"row {len(rows)} has {len(row)} values, expected {width}")
        following = _next_row(cursor, position)
        if following is None:
            return tuple(rows)
        position = following


def read_function(cursor: Cursor) -> DefaultFunction | None:
    """Consume ``NOW()``, ``CURRENT_TIMESTAMP`` or one of the other functions that a default can be, if it is next."""
    start = cursor.token
    if cursor.take("CURRENT_TIMESTAMP"):
        return FUNCTIONS["NOW"]
    name = cursor.take_one(FUNCTIONS)
    if name is None:
        return None
    if cursor.take_symbol("(") and cursor.take_symbol(")"):
        return FUNCTIONS[name]
    cursor.seek(start.start)
    return None


def _read_row(cursor: Cursor, position: int) -> tuple[tuple[Value, ...], int]:
    """The values from behind a row's opening bracket, and where its closing one ends."""
    text = cursor.statement.text
    row: list[Value] = []
    while True:
        match = _PLAIN.match(text, position)
        if match is None:
            cursor.seek(position)
            row.append(_read_value(cursor))
            position = cursor.token.start
        else:
            row.append(_plain(match))
            position = match.end()
        closing = text[position : position + 1]
        if closing == ")":
            return tuple(row), position + 1
        if closing != ",":
            cursor.seek(position)
            raise cursor.unexpected("',' or ')'")
        position += 1


def _plain(match: re.Match[str]) -> Value:
    group = match.lastindex
    text = match[group or 0]
    if group == _INTEGER:
        return Literal(int(text))
    if group == _TEXT:
        return Literal(text.replace("''", "'"))
    if group == _FRACTION:
        return Literal(float(text))
    return CONSTANTS[text.upper()] if group == _CONSTANT else Parameter(int(text))


def _read_value(cursor: Cursor) -> Value:
    start = cursor.token
    value = _read_simple(cursor) or _read_cast(cursor)
    if value is not None and (cursor.at_symbol(",") or cursor.at_symbol(")")):
        return value
    cursor.seek(start.start)
    return read_expression(cursor)


def _read_cast(cursor: Cursor) -> Parameter | None:
    """Consume ``CAST($1 AS type)`` with a type that a column can have."""
    start = cursor.token.start
    if not cursor.take("CAST", "(") or cursor.token.kind is not Kind.PARAMETER:
        cursor.seek(start)
        return None
    index = int(cursor.advance().text[1:])
    kind = _read_type(cursor) if cursor.take("AS") else None
    if kind is None or not cursor.take_symbol(")"):
        cursor.seek(start)
        return None
    return Parameter(index, kind, cursor.statement.text[start : cursor.previous.end])


def _read_type(cursor: Cursor) -> DataType | None:
    try:
        return read_type(cursor)
    except KalamError:  # DataFusion may know it, or has the last word on it
        return None


def _read_simple(cursor: Cursor) -> Value | None:
    if cursor.take("DEFAULT"):
        return DEFAULT
    if cursor.token.kind is Kind.PARAMETER:
        return _read_parameter(cursor)
    return read_literal(cursor) or read_function(cursor)


def _read_parameter(cursor: Cursor) -> Parameter | None:
    """Consume ``$1`` or ``$1::type``; None, and nothing consumed, where no column can have the type."""
    start, index = cursor.token.start, int(cursor.advance().text[1:])
    if not cursor.take(":", ":"):
        return Parameter(index)
    kind = _read_type(cursor)
    if kind is None:
        cursor.seek(start)
        return None
    return Parameter(index, kind, cursor.statement.text[start : cursor.previous.end])


def _next_row(cursor: Cursor, position: int) -> int | None:
    """Behind the opening bracket of the next row; None, and the cursor behind the last row, where there is none."""
    match = _NEXT_ROW.match(cursor.statement.text, position)
    if match:
        return match.end()
    cursor.seek(position)
    if not cursor.take_symbol(","):
        return None
    cursor.expect_symbol("(")
    return cursor.previous.end
