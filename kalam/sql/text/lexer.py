"""Words of a text: where its statements end, and what their tokens are.

One law: a `;`, a bracket or a keyword inside a string, a quoted name, a dollar string or a comment is none. Comments
nest and a line comment ends at a line feed only, as DataFusion has it, which reads the same text after us.

The tokens are our own, read one at a time, and not sqlglot's, because the VALUES list of a bulk INSERT is most of the
text that a server sees and sqlglot's tokenizer reads 0.3 million tokens/s. sqlglot sees queries and expressions only.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from kalam.errors import SyntaxFault

_STRING = r"'(?:[^']|'')*+'"
_ESCAPE_STRING = r"[eE]'(?:[^'\\]|\\.|'')*+'"
_QUOTED = r'"(?:[^"]|"")*+"'
_DOLLAR = r"\$(?P<tag>(?:[^\W\d]\w*+)?)\$.*?\$(?P=tag)\$"
_WORD = r"[^\W\d][\w$]*+"
_LINE_COMMENT = r"--[^\n]*+"

_BLANK = re.compile(rf"(?:[ \t\r\n\f\v]++|{_LINE_COMMENT})*+")
_TOKEN = re.compile(
    rf"(?P<ESCAPE>{_ESCAPE_STRING})|(?P<WORD>{_WORD})|(?P<STRING>{_STRING})|(?P<QUOTED>{_QUOTED})"
    r"|(?P<NUMBER>(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?+)"
    rf"|(?P<PARAMETER>\$[0-9]++)|(?P<DOLLAR>{_DOLLAR})|(?P<SYMBOL>[^'\"])",
    re.DOTALL,
)
_STATEMENT = re.compile(
    rf"(?:[^;'\"$/\-\w]++|{_ESCAPE_STRING}|{_WORD}|\d++|{_STRING}|{_QUOTED}|{_DOLLAR}|{_LINE_COMMENT}|\$|-|/(?!\*))*+",
    re.DOTALL,
)
_EMPTY = re.compile(r"[; \t\r\n\f\v]++")
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_PARAMETER_DIGITS_MAX = 7
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


class Kind(enum.Enum):
    """What a token is. PARAMETER is ``$1``; ESCAPE is ``E'…'``; DOLLAR is ``$$…$$``; a SYMBOL is one character."""

    WORD = enum.auto()
    QUOTED = enum.auto()
    STRING = enum.auto()
    ESCAPE = enum.auto()
    DOLLAR = enum.auto()
    NUMBER = enum.auto()
    PARAMETER = enum.auto()
    SYMBOL = enum.auto()
    END = enum.auto()


_KINDS = {kind.name: kind for kind in Kind}


class Token(NamedTuple):
    """A token as it is written, and where: characters ``start`` to ``end`` of its statement."""

    kind: Kind
    text: str
    start: int
    end: int

    @property
    def word(self) -> str:
        """The word in capitals, or the empty text where the token is no unquoted word."""
        return self.text.upper() if self.kind is Kind.WORD else ""

    @property
    def name(self) -> str:
        """The name that the token means: folded unless it is quoted; the empty text where it can be no name."""
        if self.kind is Kind.QUOTED:
            return self.text[1:-1].replace('""', '"')
        return fold(self.text) if self.kind is Kind.WORD else ""


class StatementText(msgspec.Struct, frozen=True):
    """One statement of a request: its text, and where that begins in the request (``line`` and ``column`` from 1)."""

    text: str
    offset: int = 0
    line: int = 1
    column: int = 1

    def place(self, position: int) -> tuple[int, int]:
        """Line and column, in the whole request, of a position in this statement."""
        before = self.text[:position]
        lines = before.count("\n")
        if lines == 0:
            return self.line, self.column + position
        return self.line + lines, position - before.rfind("\n")

    def fault(self, message: str, position: int, hint: str | None = None) -> SyntaxFault:
        """The syntax error at that position."""
        line, column = self.place(position)
        return SyntaxFault(message, line=line, column=column, hint=hint)


def split(text: str) -> list[StatementText]:
    """Cut a request into its statements, in order, without the empty ones.

    What cannot be cut (a string that does not end) is left whole in the last statement, so that the statements before
    it can run and ``parse_statement`` of that one tells the error. Raises SyntaxFault where there is no statement.
    """
    statements: list[StatementText] = []
    line, line_start, counted, start = 1, 0, 0, 0
    while start < len(text):
        first = skip_blank(text, start)
        end = _statement_end(text, first)
        if first < end:
            line += text.count("\n", counted, first)
            line_start = text.rfind("\n", 0, first) + 1 if line > 1 else 0
            counted = first
            statements.append(StatementText(text[first:end].rstrip(), first, line, first - line_start + 1))
        empty = _EMPTY.match(text, end)
        start = empty.end() if empty else end + 1
    if not statements:
        raise SyntaxFault("the text holds no statement", line=1, column=1)
    return statements


def check_unicode(statement: StatementText) -> None:
    """Raise SyntaxFault where the text holds half a surrogate pair, which no UTF-8 can carry."""
    try:
        statement.text.encode()
    except UnicodeEncodeError as exc:
        raise statement.fault("the text is not valid Unicode here", exc.start) from None


def read_token(statement: StatementText, position: int) -> Token:
    """The first token at or after ``position``, END where there is none; SyntaxFault where one does not end."""
    text = statement.text
    start = skip_blank(text, position)
    if start == len(text):
        return Token(Kind.END, "", start, start)
    match = _TOKEN.match(text, start)
    if match is None or text.startswith("/*", start):
        what = {"'": "string", '"': "quoted name"}.get(text[start], "comment")
        raise statement.fault(f"the {what} that begins here does not end", start)
    kind = _KINDS[match.lastgroup or ""]
    if kind is Kind.SYMBOL and match[0] == "$":
        raise statement.fault(
            "'$' begins a parameter ($1, $2, …) or a string that ends ($$…$$), and this is neither", start
        )
    if kind is Kind.PARAMETER and match.end() - start > _PARAMETER_DIGITS_MAX:
        raise statement.fault("there are not so many parameters", start)
    return Token(kind, match[0], start, match.end())


def read_tokens(statement: StatementText, position: int = 0) -> Iterator[Token]:
    """The tokens at or after ``position``, of which the last is END; raises SyntaxFault as ``read_token``."""
    token = read_token(statement, position)
    while token.kind is not Kind.END:
        yield token
        token = read_token(statement, token.end)
    yield token


def fold(name: str) -> str:
    """An unquoted name as it counts: its ASCII letters in lower case, as DataFusion folds them."""
    return name.translate(_ASCII_LOWER)


def skip_blank(text: str, position: int) -> int:
    """Where blanks and comments end; a comment that does not end is left standing."""
    while True:
        position = _blank_end(text, position)
        if not text.startswith("/*", position):
            return position
        end = _comment_end(text, position)
        if end > len(text):
            return position
        position = end


def _blank_end(text: str, position: int) -> int:
    match = _BLANK.match(text, position)
    return match.end() if match else position


def _comment_end(text: str, position: int) -> int:
    depth = 0
    for edge in _COMMENT_EDGE.finditer(text, position):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(text) + 1


def _statement_end(text: str, position: int) -> int:
    """Where the statement's ``;`` stands, or the text's end."""
    while position < len(text):
        match = _STATEMENT.match(text, position)
        position = match.end() if match else position
        if text.startswith("/*", position):
            position = _comment_end(text, position)
        elif text.startswith(";", position):
            return position
        else:
            return len(text)
    return len(text)
