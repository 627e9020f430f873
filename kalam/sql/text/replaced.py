"""A query text with some of its tokens replaced: by the session's user, or by the name of the row that was proposed."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from kalam.sql.text.edits import Edits
from kalam.sql.text.lexer import StatementText, Token, read_tokens
from kalam.sql.text.statements import QueryText

_Statement = TypeVar("_Statement")
_FUNCTION = "current_user"
_BEHIND_ITEM = frozenset({"", ",", "FROM", "WHERE", "ORDER", "LIMIT", "UNION"})


def with_user(statement: _Statement, user: str) -> _Statement:
    """The statement with ``CURRENT_USER()`` as the text that it means for this user."""
    if isinstance(statement, QueryText):
        return _query_with_user(statement, user)  # type: ignore[return-value] # it is of the same class
    if isinstance(statement, tuple):
        members = tuple(with_user(member, user) for member in statement)
        same = all(new is old for new, old in zip(members, statement, strict=True))
        return statement if same else members  # type: ignore[return-value] # as above
    if not isinstance(statement, msgspec.Struct):
        return statement
    changed: dict[str, Any] = {}
    for name in statement.__struct_fields__:
        old = getattr(statement, name)
        if (new := with_user(old, user)) is not old:
            changed[name] = new
    return replace(statement, **changed) if changed else statement


def _query_with_user(query: QueryText, user: str) -> QueryText:
    if _FUNCTION not in query.text.lower():
        return query
    literal = "'" + user.replace("'", "''") + "'"
    tokens, edits = list(read_tokens(StatementText(query.text))), Edits(query.text)
    for place, token in enumerate(tokens[:-3]):
        if token.word == "CURRENT_USER" and tokens[place + 1].text == "(" and tokens[place + 2].text == ")":
            shown = place > 0 and tokens[place - 1].word == "SELECT" and _ends_item(tokens[place + 3])
            text = f"{literal} AS {_FUNCTION}" if shown else literal
            edits.replace((token.start, tokens[place + 2].end), text)
    return edits.applied(query)


def _ends_item(token: Token) -> bool:
    return (token.word or token.text) in _BEHIND_ITEM


def with_column_named(query: QueryText, qualifier: str, name: str) -> QueryText:
    """The text in which what is said of ``qualifier``, as ``qualifier.column``, is said of ``name``."""
    if qualifier not in query.text.lower():
        return query
    tokens, edits = list(read_tokens(StatementText(query.text))), Edits(query.text)
    for place, token in enumerate(tokens[:-1]):
        qualifies = token.name == qualifier and tokens[place + 1].text == "."
        if qualifies and (place == 0 or tokens[place - 1].text != "."):
            edits.replace((token.start, token.end), f'"{name}"')
    return edits.applied(query)
