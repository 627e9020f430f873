"""Parsed statements, kept by their text: an application sends few texts, and sends them often.

A query for one row whose key stands in the text is a new text for each key. It is read by the text that has ``$1`` in
the key's place: if that one is a query for one row by ``$1``, then this one is the same query with the literal.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from contextlib import suppress

from msgspec.structs import replace

from kalam.errors import KalamError
from kalam.sql import StatementText, parse_statement, split
from kalam.sql.text.statements import Literal, Parameter, QueryText, Select, Statement

TEXTS_MAX = 1_024
CHARACTERS_MAX = 2_048
"""Longer texts are mostly rows, and each is sent once."""

_BY_LITERAL = re.compile(
    r"(SELECT\s[^$;']*\sWHERE\s[^$;'=]*=\s*)(?:(\d{1,18})|'((?:[^'\\]|'')*)')\s*;?\s*", re.IGNORECASE
)


class ParsedText:
    """The statements of one text; each is parsed when it is first needed, so that those before an error run."""

    def __init__(self, text: str, only: Statement | None = None) -> None:
        self.texts: list[StatementText] = split(text)
        self._statements: list[Statement | None] = [only] * len(self.texts)

    def __len__(self) -> int:
        return len(self.texts)

    def statement(self, place: int) -> Statement:
        """The statement at this place; raises what the parser has against it."""
        statement = self._statements[place]
        if statement is None:
            statement = self._statements[place] = parse_statement(self.texts[place])
        return statement

    def known_query(self) -> QueryText | None:
        """The query, if the text is one SELECT and nothing else and has been parsed."""
        statement = self._statements[0] if len(self.texts) == 1 else None
        return statement.query if isinstance(statement, Select) else None


class ParsedTexts:
    """The texts that were sent last. Statements are frozen values, so requests may share them."""

    def __init__(self) -> None:
        self._texts: OrderedDict[str, ParsedText] = OrderedDict()

    def parse(self, text: str) -> ParsedText:
        """The statements of a text."""
        if len(text) > CHARACTERS_MAX:
            return ParsedText(text)
        known = self._known(text)
        if known is not None:
            return known
        by_literal = _BY_LITERAL.fullmatch(text)
        query = None if by_literal is None else self._by_literal(by_literal)
        return self._keep(text) if query is None else ParsedText(text, Select(query))

    def known_query(self, text: str) -> QueryText | None:
        """The query that a text is, if that can be said without reading it."""
        if len(text) > CHARACTERS_MAX:
            return None
        known = self._known(text)
        if known is not None:
            return known.known_query()
        by_literal = _BY_LITERAL.fullmatch(text)
        if by_literal is None or with_parameter(by_literal) not in self._texts:
            return None
        return self._by_literal(by_literal)

    def _by_literal(self, by_literal: re.Match[str]) -> QueryText | None:
        """The query that the text with ``$1`` tells of; None where the text itself has to be read."""
        text = with_parameter(by_literal)
        like = self._known(text) or self._keep(text)
        with suppress(KalamError):  # what is wrong with it is told of the text itself
            like.statement(0)
        query = like.known_query()
        return None if query is None else with_literal(query, by_literal)

    def _known(self, text: str) -> ParsedText | None:
        known = self._texts.get(text)
        if known is not None:
            self._texts.move_to_end(text)
        return known

    def _keep(self, text: str) -> ParsedText:
        parsed = ParsedText(text)
        self._texts[text] = parsed
        if len(self._texts) > TEXTS_MAX:
            self._texts.popitem(last=False)
        return parsed


def by_parameter(text: str) -> tuple[str, str | int] | None:
    """A text that ends in ``= literal`` as one with ``$1`` in its place, and the value; None for every other text."""
    by_literal = _BY_LITERAL.fullmatch(text) if len(text) <= CHARACTERS_MAX else None
    return None if by_literal is None else (with_parameter(by_literal), _value(by_literal))


def _value(by_literal: re.Match[str]) -> str | int:
    number, text = by_literal[2], by_literal[3]
    return str(text).replace("''", "'") if number is None else int(number)


def with_parameter(by_literal: re.Match[str]) -> str:
    """The text with ``$1`` in the place of its literal."""
    return f"{by_literal[1]}$1"


def with_literal(query: QueryText, by_literal: re.Match[str]) -> QueryText | None:
    """The query of a text, from that of the text ``with_parameter``; None if ``$1`` is not the key that it asks for."""
    point = query.point
    if point is None or point.where[-1].value != Parameter(1):
        return None
    value = _value(by_literal)
    like = query.text.removesuffix("$1")
    where = (*point.where[:-1], replace(point.where[-1], value=Literal(value)))
    text = f"{like}{by_literal[2]}" if isinstance(value, int) else f"{like}'{by_literal[3]}'"
    return replace(query, text=text, parameters=0, point=replace(point, where=where))
