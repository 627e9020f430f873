"""The types of columns, under Kalam's names and PostgreSQL's."""

from __future__ import annotations

from kalam.errors import InvalidValue, Unsupported
from kalam.rows.column_types import TYPES
from kalam.rows.column_types.decimals import DIGITS_MAX
from kalam.schema import DataType, TimestampUnit, TypeName
from kalam.sql.text.cursor import Cursor, did_you_mean
from kalam.sql.text.lexer import Kind, StatementText

BARE_DECIMAL = DataType(name=TypeName.DECIMAL, precision=DIGITS_MAX, scale=10)
"""What NUMERIC without digits is."""
_LENGTH_MAX = 10_485_760
_FLOAT_BITS, _DOUBLE_BITS = 24, 53
_MICROSECONDS = 6

_TYPES = {word: name for name, kind in TYPES.items() for word in kind.words}
_SIZED_TEXT = frozenset({"VARCHAR", "CHARACTER", "CHAR"})
_HINTS = {
    **dict.fromkeys(("SERIAL", "BIGSERIAL", "SMALLSERIAL"), "use BIGINT DEFAULT SNOWFLAKE_ID()"),
    **dict.fromkeys(("ARRAY", "STRUCT", "MAP", "HSTORE"), "use JSON"),
    **dict.fromkeys(("TIME", "TIMETZ", "INTERVAL", "ENUM", "INET", "XML"), "use TEXT"),
    "MONEY": "use DECIMAL(19,4)",
}


def read_type(cursor: Cursor) -> DataType:
    """Consume a column type; Unsupported, naming the types there are, for any other."""
    token = cursor.token
    if token.kind not in (Kind.WORD, Kind.QUOTED):
        raise cursor.unexpected("a type", choices=_TYPES)
    word = token.word
    name = _TYPES.get(word)
    if name is None:
        hint = _HINTS.get(word) or did_you_mean(word, _TYPES)
        raise cursor.refusal(f"there is no type {cursor.found()}; the types are {', '.join(TypeName)}", hint=hint)
    cursor.advance()
    data_type = _sized(cursor, name, word)
    if cursor.at_symbol("[") or cursor.at("ARRAY"):
        raise cursor.refusal("there are no array types", hint="use JSON")
    if cursor.at("UNIT"):
        raise cursor.refusal(f"UNIT is said once, behind the type, and belongs to TIMESTAMP, not to {data_type}")
    return data_type


def _sized(cursor: Cursor, name: TypeName, word: str) -> DataType:
    match name:
        case TypeName.DECIMAL:
            return _decimal(cursor)
        case TypeName.TEXT if word in _SIZED_TEXT:
            return _text(cursor, word)
        case TypeName.TIMESTAMP:
            return _timestamp(cursor, word)
        case TypeName.FLOAT if word == "FLOAT" and cursor.at_symbol("("):
            return _float(cursor)
        case TypeName.DOUBLE if word == "DOUBLE":
            cursor.take("PRECISION")
    if cursor.at_symbol("("):
        raise cursor.refusal(f"the type {word} has no size")
    return DataType(name=name)


def _float(cursor: Cursor) -> DataType:
    """Consume ``(p)``: so many binary digits are at least to be kept."""
    token = cursor.token
    sizes = _sizes(cursor)
    if len(sizes) != 1 or not 1 <= sizes[0] <= _DOUBLE_BITS:
        raise cursor.error(Unsupported, f"FLOAT(p) has 1 to {_DOUBLE_BITS} binary digits", at=token)
    return DataType(name=TypeName.FLOAT if sizes[0] <= _FLOAT_BITS else TypeName.DOUBLE)


def _decimal(cursor: Cursor) -> DataType:
    token = cursor.token
    sizes = _sizes(cursor)
    if not sizes:
        return BARE_DECIMAL
    precision, scale = sizes[0], sizes[1] if len(sizes) > 1 else 0
    if len(sizes) > 2 or not 1 <= precision <= DIGITS_MAX or not 0 <= scale <= precision:
        raise cursor.error(
            Unsupported, f"DECIMAL(p,s) has 1 to {DIGITS_MAX} digits, of which 0 to p are the scale", at=token
        )
    return DataType(name=TypeName.DECIMAL, precision=precision, scale=scale)


def _text(cursor: Cursor, word: str) -> DataType:
    varying = word == "VARCHAR" or cursor.take("VARYING")
    token = cursor.token
    sizes = _sizes(cursor)
    if not sizes:
        # PostgreSQL's CHARACTER without a length holds one character.
        return DataType(name=TypeName.TEXT, length_max=None if varying else 1)
    if len(sizes) > 1 or not 1 <= sizes[0] <= _LENGTH_MAX:
        raise cursor.refusal(f"a text's length is 1 to {_LENGTH_MAX} characters", at=token)
    return DataType(name=TypeName.TEXT, length_max=sizes[0])


def _timestamp(cursor: Cursor, word: str) -> DataType:
    """Consume ``(6)``, ``WITH TIME ZONE`` (every TIMESTAMP is an instant in microseconds) and ``UNIT '…'``."""
    token = cursor.token
    if _sizes(cursor) not in ([], [_MICROSECONDS]):
        raise cursor.refusal("a TIMESTAMP always has microseconds", at=token, hint="leave the precision out")
    if word == "TIMESTAMP" and not cursor.take("WITH", "TIME", "ZONE"):
        cursor.take("WITHOUT", "TIME", "ZONE")
    return DataType(name=TypeName.TIMESTAMP, unit=_unit(cursor))


def parse_type(text: str) -> DataType:
    """The type that a text names; raises what ``read_type`` raises."""
    cursor = Cursor(StatementText(text))
    data_type = read_type(cursor)
    cursor.expect_end()
    return data_type


def _unit(cursor: Cursor) -> TimestampUnit | None:
    """Consume ``UNIT '…'``; None for milliseconds, said or not."""
    if not cursor.take("UNIT"):
        return None
    token = cursor.token
    text = cursor.string("a unit")
    if text not in list(TimestampUnit):
        units = ", ".join(f"'{unit}'" for unit in TimestampUnit)
        raise cursor.error(InvalidValue, f"UNIT is one of {units}; found {text[:40]!r}", at=token)
    return None if text == TimestampUnit.MILLISECONDS else TimestampUnit(text)


def _sizes(cursor: Cursor) -> list[int]:
    """Consume ``(n, …)``, if it is there."""
    sizes: list[int] = []
    if not cursor.take_symbol("("):
        return sizes
    while not sizes or cursor.take_symbol(","):
        token = cursor.token
        if token.kind is not Kind.NUMBER or not token.text.isdigit() or len(token.text) > 9:
            raise cursor.unexpected("a whole number")
        sizes.append(int(cursor.advance().text))
    cursor.expect_symbol(")")
    return sizes
