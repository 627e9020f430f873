"""``OVER STREAM …`` and ``FROM …``: what a STREAM table reads of a stream that others made."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kalam.errors import InvalidOption, InvalidValue, Unsupported
from kalam.foreign import ColumnSource, ForeignOptions, Over, Payload, Place
from kalam.names import listed
from kalam.rows.foreign.paths import steps_of
from kalam.schema import Column, DefaultKind, TypeName
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.lexer import Kind

TOKENS_MAX = 1_000
_PLACES = tuple(Place)
_STREAM_NAME = re.compile(r"[^\s.*>/\\]{1,255}")
_BUCKET_NAME = re.compile(r"[A-Za-z0-9_-]{1,250}")
_SUBJECT = re.compile(r"(?:[^\s.*>]+|\*)(?:\.(?:[^\s.*>]+|\*))*(?:\.>)?|>")
_NOT_OF_TEXT = frozenset({TypeName.BLOB, TypeName.JSON})
"""Types whose values are not read from the token of a subject, or from a header."""
_WHOLE = {Payload.TEXT: TypeName.TEXT, Payload.RAW: TypeName.BLOB}
"""The type of the one column that a whole payload is."""


def read_source(cursor: Cursor) -> ColumnSource:
    """Consume ``TOKEN n``, ``HEADER 'name'`` or ``PATH 'a.b[0]'`` behind a column's FROM."""
    word = cursor.take_one(_PLACES)
    token = cursor.token
    match word:
        case Place.TOKEN:
            if token.kind is not Kind.NUMBER or not token.text.isdigit() or not 1 <= int(token.text) <= TOKENS_MAX:
                raise cursor.unexpected(f"the number of a token of the subject, 1 to {TOKENS_MAX:,}")
            return ColumnSource(Place.TOKEN, int(cursor.advance().text))
        case Place.HEADER:
            name = cursor.string("the name of a header")
            if not name or not name.isprintable() or ":" in name:
                raise cursor.error(InvalidValue, f"{name[:80]!r} is not the name of a header", at=token)
            return ColumnSource(Place.HEADER, name)
        case Place.PATH:
            path = cursor.string("a path")
            if steps_of(path) is None:
                detail = f"{path[:80]!r} is not a path: it is like 'a.b[0]', and a name with points is [\"a.b\"]"
                raise cursor.error(InvalidValue, detail, at=token)
            return ColumnSource(Place.PATH, path)
        case _:
            raise cursor.unexpected("TOKEN n, HEADER 'name' or PATH 'a.b[0]'", choices=_PLACES)


def read_over(cursor: Cursor) -> Over:
    """Consume ``OVER STREAM 'name' [SUBJECT 'pattern'] [DOMAIN 'name']`` or ``OVER BUCKET 'name' [DOMAIN 'name']``."""
    cursor.expect("OVER")
    if cursor.take("BUCKET"):
        bucket = _matching(cursor, "the name of a bucket", _BUCKET_NAME)
        domain = read_domain(cursor)
        if cursor.at("SUBJECT"):
            raise cursor.refusal("a table over a bucket has all of its keys", hint="choose among them in WHERE")
        return Over.of_bucket(bucket, domain)
    cursor.expect("STREAM")
    stream = _matching(cursor, "the name of a stream", _STREAM_NAME)
    subject = domain = None
    while True:
        token = cursor.token
        if subject is None and cursor.take("SUBJECT"):
            subject = _matching(cursor, "a pattern of subjects", _SUBJECT)
        elif domain is None and cursor.take("DOMAIN"):
            domain = _matching(cursor, "the name of a domain", _STREAM_NAME)
        elif token.word in ("SUBJECT", "DOMAIN"):
            raise cursor.fault(f"{token.word} is given twice")
        else:
            return Over(stream, subject, domain)


def read_domain(cursor: Cursor) -> str | None:
    """Consume ``DOMAIN 'name'``, if it is there."""
    return _matching(cursor, "the name of a domain", _STREAM_NAME) if cursor.take("DOMAIN") else None


def read_stream_name(cursor: Cursor) -> str:
    """Consume the name of a stream in single quotes."""
    return _matching(cursor, "the name of a stream", _STREAM_NAME)


def _matching(cursor: Cursor, what: str, form: re.Pattern[str]) -> str:
    token = cursor.token
    text = cursor.string(what)
    if not form.fullmatch(text):
        raise cursor.error(InvalidValue, f"{text[:80]!r} is not {what}", at=token)
    return text


def check_no_sources(cursor: Cursor, columns: Sequence[Column]) -> None:
    """Refuse FROM where rows are Kalam's own."""
    for column in columns:
        if column.source is not None:
            raise cursor.refusal(
                f"column {column.name}: FROM {column.source.place} is for tables over a stream that others made",
                hint="CREATE STREAM TABLE … OVER STREAM 'name'",
            )


def check_foreign(columns: Sequence[Column], options: ForeignOptions) -> None:
    """Raise InvalidOption or Unsupported for columns that cannot be read from such messages."""
    for column in columns:
        _check_column(column, options)
    whole = _WHOLE.get(options.payload)
    if whole is not None:
        members = [column for column in columns if column.source is None]
        if len(members) > 1 or any(column.type.name is not whole for column in members):
            raise InvalidOption(
                f"payload = '{options.payload}' fills the one {whole} column without FROM; "
                f"the table has {listed([f'{column.name} {column.type}' for column in members])}"
            )


def _check_column(column: Column, options: ForeignOptions) -> None:
    if column.default is not None and column.default.kind is DefaultKind.CURRENT_USER:
        raise Unsupported(f"column {column.name}: no user has sent what others published, so none is its default")
    if column.source is None:
        return
    if column.source.place is Place.PATH:
        if options.payload not in (Payload.JSON, Payload.MSGPACK):
            raise InvalidOption(f"column {column.name}: a payload that is '{options.payload}' has no paths")
    elif column.type.name in _NOT_OF_TEXT:
        raise Unsupported(f"column {column.name}: a {column.type} is not read {column.source}", hint="use TEXT")
