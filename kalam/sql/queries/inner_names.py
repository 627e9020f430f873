"""Names of columns within a query, as PostgreSQL gives them: ``SELECT sum FROM (SELECT sum(x) FROM t) q``.

DataFusion calls them by its plan (``sum(lab.t.x)``), and who writes for PostgreSQL names them otherwise. An expression
of a sub-query in FROM or WITH gets PostgreSQL's name as its alias, unless another one there has it, or something else
in the sub-query is called so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Final

from sqlglot import exp

from kalam.errors import KalamError
from kalam.sql.queries.select_names import list_places, name_of
from kalam.sql.text.dialect import parse_query
from kalam.sql.text.edits import Edits, Span
from kalam.sql.text.lexer import Kind, StatementText, read_tokens
from kalam.sql.text.statements import QueryText

KEPT: Final = 512
_BEFORE_RELATION = frozenset({"FROM", "JOIN", "LATERAL", "AS", "MATERIALIZED", ","})


def with_inner_names(query: QueryText) -> QueryText:
    """The query with a name for what has none in its sub-queries."""
    edits = Edits(query.text)
    for span, name in _names(query.text):
        edits.enclose(span, behind=f' AS "{name}"')
    return edits.applied(query) if edits.changed else query


@lru_cache(maxsize=KEPT)
def _names(text: str) -> tuple[tuple[Span, str], ...]:
    return tuple(
        ((start + place[0], start + place[1]), name)
        for start, end in _inner_selects(text)
        for place, name in _unnamed(text[start:end])
    )


def _inner_selects(text: str) -> Iterator[Span]:
    """Where the SELECTs in brackets stand that are relations, without the brackets."""
    opened: list[int | None] = []
    tokens = list(read_tokens(StatementText(text)))
    for before, token, behind in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if token.kind is not Kind.SYMBOL:
            continue
        if token.text == "(":
            is_relation = (before.word or before.text) in _BEFORE_RELATION and behind.word == "SELECT"
            opened.append(behind.start if is_relation else None)
        elif token.text == ")" and opened and (start := opened.pop()) is not None:
            yield start, token.start


def _unnamed(text: str) -> Iterator[tuple[Span, str]]:
    """The expressions of a SELECT that have no name, and the one that each is to have."""
    try:
        tree: exp.Expr | None = parse_query(StatementText(text), 0, len(text))
    except KalamError:  # whoever reads the whole tells it
        return
    while isinstance(tree, exp.SetOperation):
        tree = tree.this
    places = list(list_places(StatementText(text)))
    if not isinstance(tree, exp.Select) or len(places) != len(tree.expressions):
        return
    found = [name_of(node, text[start:end]) for node, (start, end) in zip(tree.expressions, places, strict=True)]
    twice = {name for name, count in Counter(found).items() if count > 1}
    words = [token for token, behind in pairwise(read_tokens(StatementText(text))) if behind.text != "("]
    for (start, end), node, name in zip(places, tree.expressions, found, strict=True):
        if not name or name in twice or isinstance(node, (exp.Alias, exp.Column, exp.Star)):
            continue
        if not any(word.name == name and not start <= word.start < end for word in words):
            yield (start, end), name
