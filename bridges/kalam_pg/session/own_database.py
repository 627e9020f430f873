"""The name of one's own database in front of a table's, ``kalam.lab.readings``, which PostgreSQL lets stand there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kalam.errors import SyntaxFault
from kalam.sql.text.lexer import Kind, StatementText, Token, read_tokens


def without_database(text: str, database: str, namespaces: Callable[[], Sequence[str]]) -> str:
    """The text with blanks for the database's name where two more names follow it.

    Places in the text stay where they were. Where a namespace has the database's name nothing is left out: there
    ``kalam.t.a`` may be a column.
    """
    if database.lower() not in text.lower() or database in namespaces():
        return text
    try:
        tokens = list(read_tokens(StatementText(text)))
    except SyntaxFault:
        return text
    pieces, done = [], 0
    for place in range(len(tokens) - 4):
        first, dot, second, again, third = tokens[place : place + 5]
        follows_a_dot = place > 0 and tokens[place - 1].text == "."
        dotted = dot.text == again.text == "." and None not in (_name(second), _name(third))
        if _name(first) == database and dotted and not follows_a_dot:
            pieces += [text[done : first.start], " " * (dot.end - first.start)]
            done = dot.end
    return "".join([*pieces, text[done:]])


def _name(token: Token) -> str | None:
    if token.kind is Kind.QUOTED:
        return token.text[1:-1].replace('""', '"')
    return token.text.lower() if token.kind is Kind.WORD else None
