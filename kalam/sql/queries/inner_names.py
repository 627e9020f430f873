"""Names of columns within a query, as PostgreSQL gives them: ``SELECT sum FROM (SELECT sum(x) FROM t) q``.

DataFusion calls them by its plan (``sum(lab.t.x)``), and who writes for PostgreSQL names them otherwise. An expression
of a sub-query in FROM or WITH gets PostgreSQL's name as its alias, unless another one there has it, or something else
in the sub-query is called so. Law: each part of a text is read once, however deep sub-queries are nested; so an
expression that has a sub-query in it keeps DataFusion's name.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

from sqlglot import exp

from kalam.errors import KalamError
from kalam.sql.queries.select_names import SelectList, name_of, select_lists
from kalam.sql.text.dialect import parse_query
from kalam.sql.text.edits import Edits, Span
from kalam.sql.text.lexer import StatementText, read_tokens
from kalam.sql.text.limits import KEPT_CHARACTERS_MAX
from kalam.sql.text.statements import QueryText

Words = Mapping[str, Sequence[int]]
"""Where names stand that are no function's, in order."""
_SELECT = "SELECT "


def with_inner_names(query: QueryText) -> QueryText:
    """The query with a name for what has none in its sub-queries."""
    kept = len(query.text) <= KEPT_CHARACTERS_MAX
    edits = Edits(query.text)
    for span, name in (_kept_names if kept else _names)(query.text):
        edits.enclose(span, behind=f' AS "{name}"')
    return edits.applied(query)


@lru_cache(maxsize=512)
def _kept_names(text: str) -> tuple[tuple[Span, str], ...]:
    return tuple(_names(text))


def _names(text: str) -> Iterator[tuple[Span, str]]:
    """The expressions of sub-queries that have no name, and the one that each is to have."""
    words: defaultdict[str, list[int]] = defaultdict(list)
    for token, behind in pairwise(read_tokens(StatementText(text))):
        if behind.text != "(":
            words[token.name].append(token.start)
    for inner in select_lists(StatementText(text)):
        if inner.is_relation:
            yield from _unnamed(text, inner, words)


def _unnamed(text: str, inner: SelectList, words: Words) -> Iterator[tuple[Span, str]]:
    nodes = [_expression(text[start:end]) for start, end in inner.places]
    names = [
        None if node is None else name_of(node, text[start:end])
        for node, (start, end) in zip(nodes, inner.places, strict=True)
    ]
    taken = Counter(names)
    for name, place in zip(names, inner.places, strict=True):
        if name and taken[name] == 1 and _count(words, name, (inner.start, inner.end)) == _count(words, name, place):
            yield place, name


def _expression(text: str) -> exp.Expr | None:
    """What an expression of a list is; None for one that is not read."""
    if any(token.word == "SELECT" for token in read_tokens(StatementText(text))):
        return None
    try:
        select = parse_query(StatementText(_SELECT + text), 0, len(_SELECT) + len(text))
    except KalamError:  # whoever reads the whole tells it
        return None
    return select.expressions[0] if isinstance(select, exp.Select) and len(select.expressions) == 1 else None


def _count(words: Words, name: str, span: Span) -> int:
    """How often a name stands in a part of the text."""
    places = words.get(name, ())
    return bisect_left(places, span[1]) - bisect_left(places, span[0])
