"""The default of a column: a literal that fits the type, or one of four functions.

A literal is kept as JSON would carry it: instants as RFC 3339 in UTC with six digits, decimals and UUIDs as text, bytes
as base64, JSON as the value itself.
"""

from __future__ import annotations

import base64
import binascii

from kalam.errors import InvalidValue
from kalam.rows.column_types import TYPES
from kalam.schema import DataType, Default, DefaultKind, TypeName
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.lexer import Kind, StatementText
from kalam.sql.text.literals import read_literal
from kalam.sql.values import read_function

_ALLOWED = "a default is a literal, NOW(), SNOWFLAKE_ID(), UUID_V7() or CURRENT_USER()"
_FUNCTION_TYPES = {
    DefaultKind.NOW: (TypeName.TIMESTAMP,),
    DefaultKind.SNOWFLAKE_ID: (TypeName.BIGINT,),
    DefaultKind.UUID_V7: (TypeName.UUID, TypeName.TEXT),
    DefaultKind.CURRENT_USER: (TypeName.TEXT,),
}
_SEPARATORS = frozenset(",)")


def read_default(cursor: Cursor, data_type: DataType) -> Default | None:
    """Consume what follows DEFAULT; None for NULL. Raises InvalidValue where it does not fit the column's type."""
    token = cursor.token
    function = read_function(cursor)
    default = function.default if function else _literal(cursor, data_type)
    if not (cursor.at_end() or cursor.token.kind is Kind.WORD or cursor.token.text in _SEPARATORS):
        raise cursor.error(InvalidValue, _ALLOWED, at=token)
    if function and data_type.name not in _FUNCTION_TYPES[function.default.kind]:
        types = " or ".join(_FUNCTION_TYPES[function.default.kind])
        raise cursor.error(InvalidValue, f"{function.default} is a default of type {types}, not {data_type}", at=token)
    return default


def parse_default(text: str, data_type: DataType) -> Default | None:
    """The default that a text is for a column of this type; None for NULL. Raises what ``read_default`` raises."""
    cursor = Cursor(StatementText(text))
    default = read_default(cursor, data_type)
    cursor.expect_end()
    return default


def _literal(cursor: Cursor, data_type: DataType) -> Default | None:
    token = cursor.token
    if cursor.at_end():
        raise cursor.unexpected("a default")
    value = _typed_text(cursor, data_type)
    if value is None:
        literal = read_literal(cursor)
        if literal is None:
            raise cursor.error(InvalidValue, _ALLOWED, at=token)
        if literal.value is None:
            return None
        value = literal.value
    try:
        carried = TYPES[data_type.name].default(value, data_type)
    except (ValueError, TypeError, OverflowError) as exc:
        raise cursor.error(InvalidValue, f"the default does not fit the type {data_type}: {exc}", at=token) from None
    return None if carried is None else Default(kind=DefaultKind.LITERAL, literal=carried)


def _typed_text(cursor: Cursor, data_type: DataType) -> str | None:
    """Consume ``DATE '…'``, ``TIMESTAMP '…'`` or ``X'…'`` where that is the column's type; the text, or None."""
    word, start = cursor.token.word, cursor.token
    if not word or word != TYPES[data_type.name].literal:
        return None
    cursor.advance()
    if cursor.token.kind is not Kind.STRING:
        cursor.seek(start.start)
        return None
    text = cursor.string("a value")
    if word != "X":
        return text
    try:
        return base64.b64encode(binascii.unhexlify(text)).decode()
    except ValueError:
        raise cursor.error(InvalidValue, "X'…' holds pairs of hexadecimal digits", at=start) from None
