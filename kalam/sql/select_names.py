"""Names for a select list in which two columns would have one, which SQL allows and DataFusion refuses.

Each expression without a name gets one of its own for DataFusion, and the result gets back the names that it would
have had. The texts of the expressions are cut at token positions, as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sqlglot import exp

from kalam.sql.dialect import parse_query
from kalam.sql.lexer import Kind, StatementText, Token, read_token
from kalam.sql.statements import QueryText

REFUSAL = "Projections require unique expression names"
"""How DataFusion's error begins."""
_CLAUSES = "FROM WHERE GROUP HAVING WINDOW QUALIFY ORDER LIMIT OFFSET FETCH UNION INTERSECT EXCEPT FOR"
_BEHIND_LIST = frozenset(_CLAUSES.split())


def with_distinct_names(query: QueryText) -> tuple[QueryText, list[str]] | None:
    """The query with a name for each column, and the names that its result is to have; None where that is no help."""
    statement = StatementText(query.text)
    tree = parse_query(statement, 0, len(query.text))
    if not isinstance(tree, exp.Select) or any(node.is_star for node in tree.expressions):
        return None
    places = list(_list_places(statement))
    if len(places) != len(tree.expressions):
        return None
    names = [_name(node, query.text[start:end]) for node, (start, end) in zip(tree.expressions, places, strict=True)]
    text, tables = query.text, query.tables
    for number, (node, (_, end)) in reversed(list(enumerate(zip(tree.expressions, places, strict=True)))):
        if isinstance(node, exp.Alias):
            continue
        added = f' AS "_column_{number}"'
        text = text[:end] + added + text[end:]
        by = len(added)
        tables = tuple(
            replace(use, start=use.start + by, end=use.end + by) if use.start >= end else use for use in tables
        )
    return replace(query, text=text, tables=tables, plain=False, point=None), names


def _name(node: exp.Expr, text: str) -> str:
    """The name that a column has by itself: an alias, a column's name also behind a CAST, or else its text."""
    if isinstance(node, exp.Alias):
        return str(node.alias)
    inner = node
    while isinstance(inner, (exp.Cast, exp.Paren)):
        inner = inner.this
    return str(inner.name) if isinstance(inner, exp.Column) else " ".join(text.split())


def _list_places(statement: StatementText) -> Iterator[tuple[int, int]]:
    """Where the expressions of the outermost select list stand, from the first character to behind the last."""
    tokens = _outer_tokens(statement)
    if not any(token.word == "SELECT" for token in tokens):
        return
    first: Token | None = None
    last: Token | None = None
    for token in tokens:
        if first is None and token.word in ("ALL", "DISTINCT"):
            continue
        ends = token.kind is Kind.END or (
            token.word in _BEHIND_LIST and not (token.word == "FROM" and last is not None and last.word == "DISTINCT")
        )
        if ends or token.text == ",":
            if first is not None and last is not None:
                yield first.start, last.end
            if ends:
                return
            first = None
            continue
        first, last = first or token, token


def _outer_tokens(statement: StatementText) -> Iterator[Token]:
    """The tokens outside of brackets, of which a closing one stands for its pair, and the end."""
    depth, position = 0, 0
    while True:
        token = read_token(statement, position)
        position = token.end
        depth -= token.kind is Kind.SYMBOL and token.text in ")]"
        if depth <= 0 or token.kind is Kind.END:
            yield token
        depth += token.kind is Kind.SYMBOL and token.text in "(["
        if token.kind is Kind.END:
            return
