"""Passwords in statements: what of a CREATE USER or ALTER USER may be shown to others, and told in an error.

Law: whoever sees a statement that somebody else sent (a list of queries, the log) sees of such a one its name and its
keywords only, however it is written: a password that is not quoted, or quoted wrongly, is one all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from kalam.errors import KalamError

HIDDEN: Final = "'…'"
_COMMENT: Final = r"(?>--[^\n]{0,200}\n|/\*.{0,200}?\*/)"
_BLANK: Final = rf"(?:\s|{_COMMENT})"
_HEAD: Final = re.compile(
    rf"\b(?:CREATE|ALTER){_BLANK}++USER\b(?!{_BLANK}++TABLE\b)(?:{_BLANK}++IF{_BLANK}++NOT{_BLANK}++EXISTS\b)?+(?:{_BLANK}*+[\w\"-]++)?+",
    re.IGNORECASE | re.DOTALL,
)
_COMMENTS: Final = re.compile(_COMMENT, re.DOTALL)
_PIECE: Final = re.compile(
    r"\s+|;|--[^\n]*|/\*.*?(?:\*/|\Z)"
    r"|[eE]'(?:[^'\\]|\\.|'')*+(?:'|\\?\Z)|'(?:[^']|'')*+(?:'|\Z)|\"(?:[^\"]|\"\")*+(?:\"|\Z)"
    r"|\$(\w*)\$.*?(?:\$\1\$|\Z)|[^\s;'\"]+",
    re.DOTALL,
)
_KEYWORDS: Final = frozenset({"WITH", "PASSWORD", "ADMIN", "NOADMIN", "LOCK", "UNLOCK", "VALID", "UNTIL"})
_FOUND: Final = re.compile(r"\bfound .*", re.DOTALL)
_LOOKED_AT: Final = 20_000
"""A longer text is rows; what begins within so many characters is found."""
_TOLD_MIN: Final = 4
"""Fewer characters are in many a message by chance, and no password."""


def without_passwords(text: str) -> str:
    """A text as others may see it, whether or not it is valid."""
    return "".join(shown for _, shown in _pieces(text))


def without_password_in(error: KalamError, statement: str) -> None:
    """Take what a CREATE USER or ALTER USER holds out of an error that it has raised."""
    hidden = [piece for piece, shown in _pieces(statement[:_LOOKED_AT]) if shown == HIDDEN]
    if not hidden:
        return
    error.detail = _scrubbed(_FOUND.sub("found something else", error.detail), hidden)
    error.args = (error.detail,)
    for name, value in error.fields.items():
        if isinstance(value, str):
            error.fields[name] = _scrubbed(value, hidden)


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """The pieces of a text, and what is shown of each."""
    place = 0
    while head := _HEAD.search(text, place):
        yield text[place : head.start()], text[place : head.start()]
        yield head[0], _COMMENTS.sub(" ", head[0])
        place = head.end()
        while piece := _PIECE.match(text, place):
            place = piece.end()
            yield piece[0], _shown(piece[0])
            if piece[0] == ";":
                break
    yield text[place:], text[place:]


def _shown(piece: str) -> str:
    if piece == ";" or piece.isspace() or piece.upper() in _KEYWORDS:
        return piece
    return " " if piece.startswith(("--", "/*")) else HIDDEN


def _scrubbed(told: str, hidden: list[str]) -> str:
    for piece in hidden:
        content = piece.strip("'\"$;,()=")
        for form in (content, repr(content)[1:-1]):
            start = told.find(form[:_TOLD_MIN]) if len(form) >= _TOLD_MIN else -1
            if start >= 0:
                told = told[:start].rstrip("'\" ") + "…"
    return told
