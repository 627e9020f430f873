"""A catalogue query's text as sqlglot's tree.

It is Kalam's dialect, with functions kept under the names that they are written with (sqlglot would turn some into
others of its own), and with what PostgreSQL reads and sqlglot does not: arrays of types that it does not know
(``oid[]``), and keywords as names behind AS. These are put right among the tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final

from sqlglot import exp
from sqlglot.errors import ErrorLevel
from sqlglot.tokenizer_core import Token, TokenType

from kalam.errors import SyntaxFault
from kalam.sql.text.dialect import FOREIGN_ERRORS, KalamParser, KalamWithoutDollarStrings, TooManySteps
from kalam.sql.text.limits import TOO_DEEP

_OWN_FORMS: Final = frozenset({"CAST", "EXTRACT", "SUBSTRING", "TRIM", "POSITION"})
_NAMES: Final = frozenset({TokenType.IDENTIFIER, TokenType.VAR, TokenType.STRING})
_NAME_ENDS: Final = frozenset({TokenType.COMMA, TokenType.FROM, TokenType.R_PAREN})


class CatalogueParser(KalamParser):
    """Kalam's parser for which a function is its name and its arguments."""

    FUNCTIONS: ClassVar[dict[str, Callable[..., Any]]] = {}
    FUNCTION_PARSERS: ClassVar[dict[str, Callable[..., Any]]] = {
        name: parser for name, parser in KalamParser.FUNCTION_PARSERS.items() if name in _OWN_FORMS
    }


class CatalogueDialect(KalamWithoutDollarStrings):
    """The SQL of queries about the catalogue."""

    Parser = CatalogueParser


_DIALECT: Final = CatalogueDialect()


def read(text: str) -> exp.Expr:
    """The tree of the one query in a text; raises SyntaxFault for what is none."""
    parser = CatalogueParser(error_level=ErrorLevel.IMMEDIATE, dialect=_DIALECT)
    parser.sql = text
    try:
        trees = [tree for tree in parser.parse(_readable(_DIALECT.tokenize(text)), text) if tree is not None]
    except (RecursionError, TooManySteps):
        raise SyntaxFault(TOO_DEEP) from None
    except FOREIGN_ERRORS as exc:
        place = parser.fault_position
        near = text[place : place + 20].split() if place is not None else []
        raise SyntaxFault(f"unexpected {near[0]!r}" if near else "this is not SQL that Kalam can read") from exc
    if len(trees) != 1 or not isinstance(trees[0], exp.Expr):
        raise SyntaxFault("expected one query")
    return trees[0]


def _readable(tokens: list[Token]) -> list[Token]:
    """The tokens as sqlglot can read them."""
    kept: list[Token] = []
    for place, token in enumerate(tokens):
        before = kept[-1].token_type if kept else None
        after = tokens[place + 1].token_type if place + 1 < len(tokens) else TokenType.COMMA
        if (
            before is TokenType.ALIAS
            and after in _NAME_ENDS
            and token.token_type not in _NAMES
            and token.text.isalpha()
        ):
            kept.append(_renamed(token, token.text))
        elif token.token_type is TokenType.R_BRACKET and before is TokenType.L_BRACKET and _is_type(kept[:-1]):
            kept.pop()
            kept[-1] = _renamed(kept[-1], f"_{kept[-1].text.lower()}")
        else:
            kept.append(token)
    return kept


def _is_type(tokens: list[Token]) -> bool:
    """Whether tokens end in ``::name``, ``::schema.name`` or the like after AS."""
    if not tokens or not (tokens[-1].token_type is TokenType.VAR or tokens[-1].text.lower() in ("oid", "name")):
        return False
    before = tokens[-2].token_type if len(tokens) > 1 else None
    if before is TokenType.DOT and len(tokens) > 3:
        before = tokens[-4].token_type
    return before in (TokenType.DCOLON, TokenType.ALIAS)


def _renamed(token: Token, text: str) -> Token:
    return Token(TokenType.VAR, text, token.line, token.col, token.start, token.end, token.comments)
