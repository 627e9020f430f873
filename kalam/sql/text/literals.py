"""Literals: what a number, a string or a word means as a value.

An integer of any size is an int; another number is a float, unless that would lose digits, then a Decimal.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal, InvalidOperation

from kalam.errors import InvalidValue
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.lexer import Kind, Token
from kalam.sql.text.statements import Literal

NULL, TRUE, FALSE = Literal(None), Literal(True), Literal(False)
CONSTANTS = {"NULL": NULL, "TRUE": TRUE, "FALSE": FALSE}

_DIGITS_MAX = 400
_FLOAT_DIGITS = 15
_ESCAPE = re.compile(r"''|\\(?:x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([0-7]{1,3})|(.))", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


def quoted(text: str) -> str:
    """A text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


def read_literal(cursor: Cursor) -> Literal | None:
    """Consume a literal; None, and nothing consumed, where none is next."""
    token = cursor.token
    match token.kind:
        case Kind.NUMBER:
            return Literal(number(cursor, cursor.advance()))
        case Kind.STRING | Kind.ESCAPE | Kind.DOLLAR:
            return Literal(string_value(cursor, cursor.advance()))
        case Kind.WORD if token.word in CONSTANTS:
            return CONSTANTS[cursor.advance().word]
        case Kind.SYMBOL if token.text in "+-":
            return _signed(cursor)
    return None


def _signed(cursor: Cursor) -> Literal | None:
    sign = cursor.advance()
    if cursor.token.kind is not Kind.NUMBER:
        cursor.seek(sign.start)
        return None
    value = number(cursor, cursor.advance())
    if sign.text == "+":
        return Literal(value)
    return Literal(value.copy_negate() if isinstance(value, Decimal) else -value)  # `-` rounds a Decimal to 28 digits


def number(cursor: Cursor, token: Token) -> int | float | Decimal:
    """The value of a NUMBER token; InvalidValue where it has more than 400 digits."""
    text = token.text
    if len(text) > _DIGITS_MAX:
        raise cursor.error(InvalidValue, f"a number has at most {_DIGITS_MAX} digits", at=token)
    if text.isdigit():
        return int(text)
    if len(text) <= _FLOAT_DIGITS and text.replace(".", "").isdigit():
        return float(text)
    try:
        exact = Decimal(text)
    except InvalidOperation:
        raise cursor.error(InvalidValue, "the number is out of range", at=token) from None
    if abs(exact.adjusted()) > _DIGITS_MAX:
        raise cursor.error(InvalidValue, "the number is out of range", at=token)
    value = float(text)
    if math.isinf(value):
        raise cursor.error(InvalidValue, "the number is out of range", at=token)
    return value if Decimal(repr(value)) == exact else exact


def string_value(cursor: Cursor, token: Token) -> str:
    """The value of a STRING, ESCAPE or DOLLAR token."""
    match token.kind:
        case Kind.ESCAPE:
            return _ESCAPE.sub(lambda match: _unescaped(cursor, token, match), token.text[2:-1])
        case Kind.DOLLAR:
            tag = token.text.index("$", 1) + 1
            return token.text[tag:-tag]
        case _:
            return token.text[1:-1].replace("''", "'")


def _unescaped(cursor: Cursor, token: Token, match: re.Match[str]) -> str:
    byte, short, long, octal, other = match.groups()
    if byte or octal:
        code = int(byte, 16) if byte else int(octal, 8)
        if not 0 < code < 0x80:  # beyond ASCII a byte is no character of UTF-8
            raise cursor.error(InvalidValue, rf"{match[0]} is no character; use \uXXXX", at=token)
        return chr(code)
    if short or long:
        return _character(cursor, token, int(short or long, 16))
    return _ESCAPED.get(other, other) if other else "'"


def _character(cursor: Cursor, token: Token, code: int) -> str:
    if 0 < code < 0xD800 or 0xE000 <= code <= 0x10FFFF:  # without NUL and surrogates
        return chr(code)
    raise cursor.error(InvalidValue, f"U+{code:04X} is no character", at=token)
