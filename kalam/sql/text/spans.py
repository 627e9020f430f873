"""The tree of a query whose expressions know where they stand in its text.

sqlglot tells the places of names and literals only. This parser notes, for what its methods give back, the first and
the last token that they read, so that a text can be changed at token positions around any operand.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import msgspec
from sqlglot import exp
from sqlglot.errors import ErrorLevel
from sqlglot.tokenizer_core import Token, TokenType

from kalam.errors import SyntaxFault
from kalam.sql.text.dialect import FOREIGN_ERRORS, KalamParser, TooManySteps, dialect_of
from kalam.sql.text.limits import TOO_DEEP

_SPAN = "span"
_CLAUSES = frozenset(
    {
        TokenType.WHERE,
        TokenType.GROUP_BY,
        TokenType.HAVING,
        TokenType.WINDOW,
        TokenType.QUALIFY,
        TokenType.ORDER_BY,
        TokenType.LIMIT,
        TokenType.OFFSET,
        TokenType.FETCH,
        TokenType.UNION,
        TokenType.INTERSECT,
        TokenType.EXCEPT,
    }
)
_OPENING = frozenset({TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE})
_CLOSING = frozenset({TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE})


class _SpanParser(KalamParser):
    """Notes the tokens of what it reads: ``node.meta["span"]`` are the places of the first and behind the last."""

    def _noting(self, read: Callable[[], Any]) -> Any:
        first = self._index
        node = read()
        if isinstance(node, exp.Expr) and self._index > first:
            node.meta[_SPAN] = (first, self._index)
        return node

    def _parse_unary(self) -> Any:
        return self._noting(super()._parse_unary)

    def _parse_column_reference(self) -> Any:
        return self._noting(super()._parse_column_reference)

    def _parse_function(self, *args: Any, **options: Any) -> Any:
        return self._noting(lambda: super(_SpanParser, self)._parse_function(*args, **options))

    def _parse_lambda(self, *args: Any, **options: Any) -> Any:
        return self._noting(lambda: super(_SpanParser, self)._parse_lambda(*args, **options))

    def _parse_bitwise(self) -> Any:
        return self._noting(super()._parse_bitwise)

    def _parse_range(self, this: Any = None, parse_is: bool = False) -> Any:
        node = self._noting(lambda: super(_SpanParser, self)._parse_range(this, parse_is))
        first = this
        while isinstance(first, exp.Binary) and _SPAN not in first.meta:
            first = first.this
        if first is not None and _SPAN in first.meta and node is not this and _SPAN in node.meta:
            node.meta[_SPAN] = (first.meta[_SPAN][0], node.meta[_SPAN][1])  # what was read before belongs to it
        return node

    def _parse_escape(self, this: Any) -> Any:
        node = super()._parse_escape(this)
        if isinstance(node, exp.Escape):  # behind it stands one literal
            node.expression.meta.setdefault(_SPAN, (self._index - 1, self._index))
        return node

    def _parse_disjunction(self) -> Any:
        return self._noting(super()._parse_disjunction)

    def _parse_expression(self) -> Any:
        return self._noting(super()._parse_expression)

    def _parse_from(self, *args: Any, **options: Any) -> Any:
        return self._noting(lambda: super(_SpanParser, self)._parse_from(*args, **options))

    def _parse_with(self, *args: Any, **options: Any) -> Any:
        return self._noting(lambda: super(_SpanParser, self)._parse_with(*args, **options))

    def _parse_cte(self) -> Any:
        return self._noting(super()._parse_cte)


class Tree(msgspec.Struct, frozen=True):
    """A text, its tokens and its tree. Places are characters of the text, from the first to behind the last."""

    text: str
    tokens: tuple[Token, ...]
    root: exp.Expr

    def span(self, node: exp.Expr) -> tuple[int, int] | None:
        """Where an expression stands; None where that was not noted."""
        first, last = node, node
        while _SPAN not in first.meta and isinstance(first, exp.Binary):
            first = first.this
        while _SPAN not in last.meta and isinstance(last, exp.Binary):
            last = last.expression
        if _SPAN not in first.meta or _SPAN not in last.meta:
            return None
        return self.tokens[first.meta[_SPAN][0]].start, self.tokens[last.meta[_SPAN][1] - 1].end + 1

    def slice(self, node: exp.Expr) -> str:
        """The text of an expression, or the empty text."""
        span = self.span(node)
        return self.text[slice(*span)] if span else ""

    def between(self, start: int, end: int) -> list[Token]:
        """The tokens that begin in this part of the text."""
        first = bisect_right(self.tokens, start - 1, key=lambda token: token.start)
        last = bisect_right(self.tokens, end - 1, key=lambda token: token.start)
        return list(self.tokens[first:last])

    def name_token(self, start: int, end: int) -> Token:
        """The name of the call that is this part of the text, whose tree has nothing of a ``+`` in front of it."""
        return next(token for token in self.between(start, end) if token.token_type != TokenType.PLUS)

    def from_span(self, select: exp.Select) -> tuple[int, int] | None:
        """Where the FROM of a SELECT stands, with its joins."""
        source = select.args.get("from_")
        if source is None or _SPAN not in source.meta:
            return None
        first = source.meta[_SPAN][0]
        last, depth = first + 1, 0
        while last < len(self.tokens):
            kind = self.tokens[last].token_type
            depth += (kind in _OPENING) - (kind in _CLOSING)
            if depth < 0 or (depth == 0 and (kind in _CLAUSES or self.tokens[last].text.upper() == "FOR")):
                break
            last += 1
        return self.tokens[first].start, self.tokens[last - 1].end + 1

    def bracket_behind(self, position: int) -> tuple[int, int] | None:
        """The first bracket that opens at or behind a place: where what it holds begins and ends."""
        first = bisect_right(self.tokens, position - 1, key=lambda token: token.start)
        depth, opened = 0, None
        for token in self.tokens[first:]:
            kind = token.token_type
            if kind in _OPENING:
                opened = token.end + 1 if opened is None else opened
                depth += 1
            elif kind in _CLOSING:
                depth -= 1
                if depth == 0 and opened is not None:
                    return opened, token.start
        return None


def read_tree(text: str) -> Tree:
    """The tree of a query; raises SyntaxFault where sqlglot cannot read it."""
    dialect = dialect_of(text)
    parser = _SpanParser(error_level=ErrorLevel.IMMEDIATE, dialect=dialect)
    parser.sql = text
    try:
        tokens = dialect.tokenize(text)
        trees = parser.parse(tokens, text)
    except (RecursionError, TooManySteps):
        raise SyntaxFault(TOO_DEEP) from None
    except FOREIGN_ERRORS as exc:
        raise SyntaxFault("this is not SQL that Kalam can read") from exc
    if len(trees) != 1 or trees[0] is None:
        raise SyntaxFault("expected a query")
    return Tree(text, tuple(tokens), trees[0])
