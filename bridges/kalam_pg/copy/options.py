"""A COPY statement, read: what is copied, which way, and in which form. Both forms of its options are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from kalam.errors import InvalidOption, Unsupported
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.lexer import Kind, StatementText
from kalam.sql.text.statements import TableRef

Form = Literal["text", "csv", "binary"]
_HINT: Final = "\\copy of psql and the COPY of drivers read and write the client's files by STDIN and STDOUT"


class CopyStatement(msgspec.Struct, frozen=True, kw_only=True):
    """``table`` with its ``columns`` (none: all), or a ``query``; ``into`` the table or out of it."""

    into: bool
    table: TableRef | None = None
    columns: tuple[str, ...] = ()
    query: str | None = None
    form: Form = "text"
    delimiter: str = "\t"
    null: str = "\\N"
    header: bool = False
    quote: str = '"'
    escape: str = '"'
    force_quote: tuple[str, ...] | None = ()
    """The columns that are quoted always; None for all."""


def read_copy(text: str) -> CopyStatement:
    """The statement of a text that begins with COPY; raises SyntaxFault, Unsupported and InvalidOption."""
    cursor = Cursor(StatementText(text))
    cursor.expect("COPY")
    cursor.take("BINARY")
    query: str | None = None
    table: TableRef | None = None
    columns: tuple[str, ...] = ()
    if cursor.at_symbol("("):
        query = _bracketed(cursor)
    else:
        table = cursor.table()
        if cursor.at_symbol("("):
            columns = cursor.names("column")
    into = cursor.take("FROM")
    if not into:
        cursor.expect("TO")
    elif query is not None:
        raise cursor.fault("COPY FROM needs a table")
    if not cursor.take("STDIN" if into else "STDOUT"):
        raise Unsupported("COPY reads and writes no files of the server and runs no programs", hint=_HINT)
    found = _options(cursor, CopyStatement(into=into, table=table, columns=columns, query=query))
    if cursor.take("WHERE"):
        raise Unsupported("COPY … WHERE is not there", hint="copy into a table, and INSERT … SELECT … WHERE from it")
    cursor.expect_end()
    return found


def _bracketed(cursor: Cursor) -> str:
    cursor.expect_symbol("(")
    start, end = cursor.skip(lambda _: False)
    cursor.expect_symbol(")")
    return cursor.statement.text[start:end]


def _options(cursor: Cursor, copied: CopyStatement) -> CopyStatement:
    given: dict[str, object] = {}
    cursor.take("WITH")
    if cursor.take_symbol("("):
        while True:
            _option(cursor, given, bracketed=True)
            if not cursor.take_symbol(","):
                break
        cursor.expect_symbol(")")
    else:
        while cursor.token.word and cursor.token.word != "WHERE":
            _option(cursor, given, bracketed=False)
    form = given.pop("form", "text")
    if form == "csv":
        copied = replace(copied, delimiter=",", null="")
    if "quote" in given and "escape" not in given:
        given["escape"] = given["quote"]
    copied = replace(copied, form=form, **given)
    _check(copied, given)
    return copied


def _option(cursor: Cursor, given: dict[str, object], *, bracketed: bool) -> None:
    word = cursor.advance().word
    if not bracketed and word in ("CSV", "BINARY"):
        given["form"] = word.lower()
        return
    if not bracketed and word == "FORCE":
        word = {"QUOTE": "FORCE_QUOTE"}.get(cursor.advance().word, "FORCE")
    read = _READERS.get(word)
    if read is None:
        raise Unsupported(f"COPY has no option {word or cursor.previous.text} here", hint=_KNOWN)
    cursor.take("AS")
    name, value = read(cursor)
    if name:
        given[name] = value


def _form(cursor: Cursor) -> tuple[str, object]:
    form = _word(cursor).lower()
    if form not in ("text", "csv", "binary"):
        raise InvalidOption(f"COPY format {form[:20]!r} is none of text, csv and binary")
    return "form", form


def _text(name: str) -> Callable[[Cursor], tuple[str, object]]:
    return lambda cursor: (name, _word(cursor))


def _header(cursor: Cursor) -> tuple[str, object]:
    token = cursor.token
    if token.kind in (Kind.STRING, Kind.NUMBER) or token.word in ("TRUE", "FALSE", "ON", "OFF", "MATCH"):
        return "header", _word(cursor).lower() in ("true", "on", "1", "match")
    return "header", True


def _encoding(cursor: Cursor) -> tuple[str, object]:
    encoding = _word(cursor)
    if encoding.upper().replace("-", "") not in ("UTF8", "UNICODE"):
        raise Unsupported(f"COPY reads and writes UTF-8, and not {encoding[:20]}")
    return "", None


def _freeze(cursor: Cursor) -> tuple[str, object]:
    if cursor.token.word in ("TRUE", "FALSE", "ON", "OFF"):
        cursor.advance()
    return "", None


def _force_quote(cursor: Cursor) -> tuple[str, object]:
    if cursor.take_symbol("*"):
        return "force_quote", None
    return "force_quote", cursor.names("column")


def _word(cursor: Cursor) -> str:
    token = cursor.advance()
    if token.kind is Kind.STRING:
        return token.text[1:-1].replace("''", "'")
    if token.kind is Kind.ESCAPE:
        body = token.text[2:-1].replace("''", "'")
        return body.replace("\\t", "\t").replace("\\n", "\n").replace("\\\\", "\\").replace("\\'", "'")
    if token.kind in (Kind.WORD, Kind.NUMBER, Kind.QUOTED):
        return token.name or token.text
    raise cursor.unexpected("a value")


def _check(copied: CopyStatement, given: dict[str, object]) -> None:
    if copied.form == "binary" and given:
        raise InvalidOption("COPY in binary has no options")
    for name in ("delimiter", "quote", "escape"):
        value = getattr(copied, name)
        if len(value.encode()) != 1 or value in "\r\n":
            raise InvalidOption(f"COPY {name} must be a single one-byte character")
    if copied.form == "csv" and copied.delimiter == copied.quote:
        raise InvalidOption("COPY delimiter and quote must be different")
    if copied.form == "text" and copied.delimiter in "\\.abcdefghijklmnopqrstuvwxyz0123456789":
        raise InvalidOption(f"COPY delimiter cannot be {copied.delimiter!r}")
    if copied.form != "csv" and {"quote", "escape", "force_quote"} & given.keys():
        raise InvalidOption("COPY quote, escape and force_quote are for csv")
    if "\n" in copied.null or "\r" in copied.null or copied.delimiter in copied.null:
        raise InvalidOption("COPY null cannot hold a line's end or the delimiter")


_READERS: Final[dict[str, Callable[[Cursor], tuple[str, object]]]] = {
    "FORMAT": _form,
    "DELIMITER": _text("delimiter"),
    "DELIMITERS": _text("delimiter"),
    "NULL": _text("null"),
    "HEADER": _header,
    "QUOTE": _text("quote"),
    "ESCAPE": _text("escape"),
    "FORCE_QUOTE": _force_quote,
    "ENCODING": _encoding,
    "FREEZE": _freeze,
}
_KNOWN: Final = "FORMAT, DELIMITER, NULL, HEADER, QUOTE, ESCAPE, FORCE_QUOTE and ENCODING"
