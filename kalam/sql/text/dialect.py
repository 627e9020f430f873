"""The dialect in which sqlglot reads queries and expressions, and the one place that knows sqlglot's errors.

It is PostgreSQL's, which is nearest to what DataFusion reads, without what DataFusion reads otherwise: template braces
and pipes, comments that end at a carriage return, and words that begin a command. What this dialect takes and
DataFusion does not is told by DataFusion; what both take must mean the same tables.

sqlglot tries alternatives and steps back, which is exponential in the nesting of type names (``array[array[…]]``). Its
parser here has a bounded number of steps back, so that no text of a bounded length keeps a thread for long.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar

from sqlglot import exp
from sqlglot.dialects.postgres import Postgres
from sqlglot.errors import ErrorLevel, SqlglotError
from sqlglot.parsers.postgres import PostgresParser
from sqlglot.tokenizer_core import Token, TokenType

from kalam.errors import SyntaxFault, TooLarge
from kalam.sql.text.lexer import StatementText
from kalam.sql.text.limits import TOO_DEEP, check_read_here

# sqlglot reads about 100,000 tokens/s, so that a text of this length takes some seconds.
CHARACTERS_MAX = 1 << 20

_STRING = re.compile(r"'[^']*+'")
_NO_KEYWORDS = frozenset({"|>", "ONLY", "VARIADIC", "INOUT", "UNCACHE"})
# What sqlglot's own code may raise on texts that nobody writes, besides its syntax errors.
FOREIGN_ERRORS = (SqlglotError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, AssertionError)


class TooManySteps(Exception):
    """sqlglot stepped back more often than a text of this length is worth."""


class KalamParser(PostgresParser):
    """PostgreSQL's parser with a bound on its steps back, and a memory of where its last error was."""

    FUNC_TOKENS: ClassVar[set[TokenType]] = {*PostgresParser.FUNC_TOKENS, TokenType.CURRENT_USER}

    fault_position: int | None = None
    steps_back = 0

    def raise_error(self, message: str, token: Any = None) -> None:
        """Remember the place, for ``_parse`` to tell."""
        where = token or self._curr
        self.fault_position = where.start if where else len(self.sql)
        super().raise_error(message, *([token] if token else []))

    def _retreat(self, index: int) -> None:
        self.steps_back += self._index - index
        if self.steps_back > 1_000 + 10 * self._tokens_size:
            raise TooManySteps
        super()._retreat(index)


class Kalam(Postgres):
    """The SQL of Kalam's queries."""

    class Tokenizer(Postgres.Tokenizer):
        """PostgreSQL's tokens without templates, pipes and commands."""

        KEYWORDS: ClassVar[dict[str, TokenType]] = {
            word: kind
            for word, kind in Postgres.Tokenizer.KEYWORDS.items()
            if word not in _NO_KEYWORDS and not ("%" in word or "{{" in word or "}}" in word)
        }
        COMMANDS: ClassVar[set[TokenType]] = set()
        COMMENTS_TERMINATE_AT_NEWLINE_ONLY = True

    Parser = KalamParser
    # Any other offset makes the parser simplify each index expression, which takes milliseconds apiece.
    INDEX_OFFSET = 0


class KalamWithoutDollarStrings(Kalam):
    """The same for a text without ``$$…$$``: sqlglot takes ``$1,$`` for the beginning of such a string."""

    class Tokenizer(Kalam.Tokenizer):
        """``$`` begins a parameter and nothing else."""

        HEREDOC_STRINGS: ClassVar[list[str | tuple[str, str]]] = []
        SINGLE_TOKENS: ClassVar[dict[str, TokenType]] = {
            **Kalam.Tokenizer.SINGLE_TOKENS,
            "$": TokenType.PARAMETER,
        }

    Parser = KalamParser


_DIALECT, _WITHOUT_DOLLAR_STRINGS = Kalam(), KalamWithoutDollarStrings()
_DOLLAR_STRING = re.compile(r"\$(?:[^\W\d]\w*+)?\$")


def dialect_of(text: str) -> Kalam:
    """The dialect in which a text is to be read."""
    return _DIALECT if _DOLLAR_STRING.search(text) else _WITHOUT_DOLLAR_STRINGS


def parse_query(statement: StatementText, start: int, end: int) -> exp.Expr:
    """The tree of the query that stands at ``start`` … ``end`` of a statement; positions in it count from ``start``.

    Raises SyntaxFault with line and column where sqlglot cannot read it.
    """
    return _parse(statement, start, end, lambda parser, tokens, text: parser.parse(tokens, text))


def parse_expression(statement: StatementText, start: int, end: int) -> exp.Expr:
    """The tree of the one scalar expression, without an alias, that stands there; otherwise as ``parse_query``."""

    def read(parser: KalamParser, tokens: list[Token], text: str) -> list[exp.Expr | None]:
        # sqlglot joins neighbouring strings, DataFusion takes the second one for an alias.
        for token, following in pairwise(tokens):
            if token.token_type == following.token_type == TokenType.STRING:
                parser.raise_error("two strings", following)
        return parser.parse_into(exp.Condition, tokens, text)

    return _parse(statement, start, end, read)


def _parse(
    statement: StatementText,
    start: int,
    end: int,
    read: Callable[[KalamParser, list[Token], str], list[Any]],
) -> exp.Expr:
    text = statement.text[start:end]
    check_read_here(text)
    _check_size(statement, start, text)
    dialect = dialect_of(text)
    parser = KalamParser(error_level=ErrorLevel.IMMEDIATE, dialect=dialect)
    parser.sql = text
    try:
        trees = read(parser, dialect.tokenize(text), text)
    except (RecursionError, TooManySteps):
        raise statement.fault(TOO_DEEP, start) from None
    except FOREIGN_ERRORS as exc:
        raise _fault(statement, start, text, parser.fault_position) from exc
    if len(trees) != 1 or not isinstance(trees[0], exp.Expr):
        raise statement.fault("expected a query or an expression", start)
    return trees[0]


def _check_size(statement: StatementText, start: int, text: str) -> None:
    if len(text) <= CHARACTERS_MAX or len(_STRING.sub("", text)) <= CHARACTERS_MAX:
        return
    line, column = statement.place(start)
    raise TooLarge(
        f"a query or expression has at most {CHARACTERS_MAX:,} characters outside of strings",
        line=line,
        column=column,
        hint="put long lists of values into a table",
    )


def _fault(statement: StatementText, start: int, text: str, position: int | None) -> SyntaxFault:
    if position is None:
        return statement.fault("this is not SQL that Kalam can read", start)
    word = re.match(r"\w+|.?", text[position:])
    near = word[0] if word else ""
    return statement.fault(f"unexpected {near!r}" if near else "the statement ends too early", start + position)
