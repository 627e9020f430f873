"""Where in a statement the name stands that an error is about.

What the parser refuses carries its place. What is only known later (a column or table that is not there, a function)
is told by its name, and the name is looked for among the statement's tokens, so that one in a string is not meant.
"""

from __future__ import annotations

import re

from kalam.errors import ColumnNotFound, KalamError, SyntaxFault, TableNotFound, Unsupported
from kalam.sql.text.lexer import StatementText, read_tokens

CHARACTERS_MAX = 1 << 14
"""Longer texts are mostly rows, and are not read for this."""
_NAME = r"""(?:"(?:[^"]|"")*"|'[^']*'|[\w$]+)"""
_NAMED = re.compile(rf"(?:no (?:table|column|function)|column|function) ({_NAME}(?:\.{_NAME})*)")
_PART = re.compile(_NAME)


def locate(error: KalamError, statement: StatementText) -> None:
    """Give an error about a name the line and column of that name, unless it has a place or the name is not found."""
    if "line" in error.fields or len(statement.text) > CHARACTERS_MAX:
        return
    named = _NAMED.search(error.detail) if isinstance(error, (ColumnNotFound, TableNotFound, Unsupported)) else None
    if named is None:
        return
    parts = [part.strip("\"'").replace('""', '"') for part in _PART.findall(named[1])]
    position = _position(statement, parts)
    if position is None:
        position = _position(statement, parts[-1:])  # its namespace or table is not written in the text
    if position is not None:
        error.fields["line"], error.fields["column"] = statement.place(position)


def position_of(text: str, error: KalamError) -> int | None:
    """Which character of a whole request an error is about, from 1; None where it has no place."""
    line, column = error.fields.get("line"), error.fields.get("column")
    if not isinstance(line, int) or not isinstance(column, int):
        return None
    start = 0
    for _ in range(line - 1):
        start = text.find("\n", start) + 1
    return start + column


def _position(statement: StatementText, parts: list[str]) -> int | None:
    """Where the first mention of a dotted name begins."""
    try:
        tokens = list(read_tokens(statement))
    except SyntaxFault:
        return None
    meant = [token.name or token.text for token in tokens]
    wanted = [parts[0]]
    for part in parts[1:]:
        wanted += [".", part]
    for place in range(len(meant) - len(wanted) + 1):
        behind = meant[place - 1] if place else None
        if meant[place : place + len(wanted)] == wanted and (len(parts) == 1 or behind != "."):
            return tokens[place].start
    return None
