"""A query text with tokens replaced: by what the session is, or by the name of the row that was proposed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from kalam.sql.text.edits import Edits
from kalam.sql.text.lexer import StatementText, Token, read_tokens
from kalam.sql.text.statements import QueryText

_Statement = TypeVar("_Statement")
_FUNCTIONS = ("current_user", "current_roles")
_BEHIND_ITEM = frozenset({"", ",", "FROM", "WHERE", "ORDER", "LIMIT", "UNION"})


def names_session(text: str) -> bool:
    """Whether a text may name a parameter of the session."""
    folded = text.lower()
    return any(name in folded for name in _FUNCTIONS)


def with_session(statement: _Statement, user: str, roles: Sequence[str]) -> _Statement:
    """The statement with ``CURRENT_USER()`` and ``CURRENT_ROLES()`` as what they mean for this user."""
    values = {"CURRENT_USER": _literal(user), "CURRENT_ROLES": _list(roles)}
    return with_queries(statement, partial(_query_replaced, values=values))


def with_queries(statement: _Statement, changed_query: Callable[[QueryText], QueryText]) -> _Statement:
    """The statement with each query and expression in it as a function changes it."""
    if isinstance(statement, QueryText):
        return changed_query(statement)  # type: ignore[return-value] # it is of the same class
    if isinstance(statement, tuple):
        members = tuple(with_queries(member, changed_query) for member in statement)
        same = all(new is old for new, old in zip(members, statement, strict=True))
        return statement if same else members  # type: ignore[return-value] # as above
    if not isinstance(statement, msgspec.Struct):
        return statement
    changed: dict[str, Any] = {}
    for name in statement.__struct_fields__:
        old = getattr(statement, name)
        if (new := with_queries(old, changed_query)) is not old:
            changed[name] = new
    return replace(statement, **changed) if changed else statement


def _query_replaced(query: QueryText, values: Mapping[str, str]) -> QueryText:
    if not names_session(query.text):
        return query
    tokens, edits = list(read_tokens(StatementText(query.text))), Edits(query.text)
    for place, token in enumerate(tokens[:-3]):
        value = values.get(token.word)
        if value is not None and tokens[place + 1].text == "(" and tokens[place + 2].text == ")":
            shown = place > 0 and tokens[place - 1].word == "SELECT" and _ends_item(tokens[place + 3])
            text = f"{value} AS {token.word.lower()}" if shown else value
            edits.replace((token.start, tokens[place + 2].end), text)
    return edits.applied(query)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _list(texts: Sequence[str]) -> str:
    """A list of TEXT, also of none."""
    return f"make_array({', '.join(map(_literal, texts))})" if texts else "arrow_cast(make_array(), 'List(Utf8)')"


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
