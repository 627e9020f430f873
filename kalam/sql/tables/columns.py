"""The column list of a CREATE TABLE, and the column of an ALTER TABLE … ADD."""

from __future__ import annotations

import msgspec

from kalam.errors import ColumnNotFound, InvalidName, InvalidValue
from kalam.foreign import ColumnSource
from kalam.rows.column_types import TYPES
from kalam.schema import Column, DataType, Default, DefaultKind, TableKind
from kalam.sql.tables.column_types import read_type
from kalam.sql.tables.defaults import read_default
from kalam.sql.tables.foreign import read_source
from kalam.sql.text.alterations import AddColumn
from kalam.sql.text.cursor import Cursor, did_you_mean
from kalam.sql.text.lexer import Kind, Token

COLUMNS_MAX = 2_000

_CONSTRAINTS = frozenset({"CONSTRAINT", "UNIQUE", "CHECK", "FOREIGN", "REFERENCES", "EXCLUDE", "GENERATED", "COLLATE"})
_ALLOWED = "is not supported; a column can have NOT NULL, DEFAULT and PRIMARY KEY"
# On an ALTER a default is evaluated once, for all the old rows, so that these would give them all one identity.
_NOT_ON_ALTER = frozenset({DefaultKind.SNOWFLAKE_ID, DefaultKind.UUID_V7})


class _Declared(msgspec.Struct, frozen=True):
    """A column as it is written; ``key`` is the PRIMARY behind it, ``source`` its FROM, if they are there."""

    name: str
    type: DataType
    nullable: bool
    default: Default | None
    key: Token | None
    source: ColumnSource | None = None


def read_columns(cursor: Cursor, kind: TableKind) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """Consume ``(column, …[, PRIMARY KEY (column, …)])``; the columns, numbered from 1, and the names of the key's."""
    cursor.expect_symbol("(")
    declared: dict[str, _Declared] = {}
    keys: list[tuple[tuple[str, ...], Token]] = []
    while True:
        token = cursor.token
        if cursor.at("PRIMARY", "KEY"):
            keys.append((_table_key(cursor), token))
        else:
            column = _new_column(cursor, declared)
            keys += [((column.name,), column.key)] if column.key else []
        if not cursor.take_symbol(","):
            break
    cursor.expect_symbol(")")
    key = _checked_key(cursor, kind, declared, keys)
    return tuple(_column(number, column, key) for number, column in enumerate(declared.values(), 1)), key


def read_added_column(cursor: Cursor) -> AddColumn:
    """Consume ``[COLUMN] name TYPE [NOT NULL] [DEFAULT …]``."""
    cursor.take("COLUMN")
    token = cursor.token
    column = _declared(cursor)
    if column.key:
        raise cursor.refusal("a column that is added cannot be the key", at=column.key)
    if not column.nullable and column.default is None:
        raise cursor.error(InvalidValue, f"the column {column.name} is NOT NULL, so it needs a DEFAULT", at=token)
    if column.default and column.default.kind in _NOT_ON_ALTER:
        detail = f"{column.default} would give all old rows the same value and is refused here"
        raise cursor.error(InvalidValue, detail, at=token)
    return AddColumn(column.name, column.type, column.nullable, column.default, column.source)


def _new_column(cursor: Cursor, declared: dict[str, _Declared]) -> _Declared:
    token = cursor.token
    column = _declared(cursor)
    if column.name in declared:
        raise cursor.error(InvalidName, f"the column {column.name!r} is declared twice", at=token)
    if len(declared) == COLUMNS_MAX:
        raise cursor.refusal(f"a table has at most {COLUMNS_MAX:,} columns", at=token)
    declared[column.name] = column
    return column


def _declared(cursor: Cursor) -> _Declared:
    if cursor.token.word in _CONSTRAINTS:
        raise cursor.refusal(
            f"{cursor.token.word} {_ALLOWED}", hint="a column of that name is written in double quotes"
        )
    name = cursor.new_name("column")
    data_type = read_type(cursor)
    nullable, default, key, source = True, None, None, None
    seen: set[str] = set()
    while cursor.token.kind is Kind.WORD:
        token = cursor.token
        word = token.word
        if word in seen:
            raise cursor.fault(f"{word} is given twice")
        seen.add(word)
        if cursor.take("NOT", "NULL"):
            nullable = False
        elif cursor.take("NULL"):
            pass  # as it is anyway
        elif cursor.take("DEFAULT"):
            default = read_default(cursor, data_type)
        elif cursor.take("PRIMARY", "KEY"):
            key, nullable = token, False
        elif cursor.take("FROM"):
            source = read_source(cursor)
        elif word in _CONSTRAINTS:
            raise cursor.refusal(f"{word} {_ALLOWED}")
        else:
            raise cursor.unexpected("NOT NULL, DEFAULT, PRIMARY KEY, ',' or ')'", choices=("DEFAULT", "PRIMARY", "NOT"))
    return _Declared(name, data_type, nullable, default, key, source)


def _table_key(cursor: Cursor) -> tuple[str, ...]:
    token = cursor.token
    cursor.expect("PRIMARY", "KEY")
    names = tuple(cursor.names("column"))
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise cursor.error(InvalidValue, f"the PRIMARY KEY names the column {twice!r} twice", at=token)
    return names


def _checked_key(
    cursor: Cursor, kind: TableKind, declared: dict[str, _Declared], keys: list[tuple[tuple[str, ...], Token]]
) -> tuple[str, ...]:
    """The names of the key's columns, after the rules of keys."""
    if not keys:
        return ()
    names, token = keys[0]
    if kind is TableKind.STREAM:
        detail = "a STREAM table has no PRIMARY KEY; its rows have the key _key, {timestamp_ms}:{row_id}"
        raise cursor.refusal(detail, at=token)
    if len(keys) > 1:
        hint = "a key of several columns is declared behind the columns: PRIMARY KEY (a, b)"
        raise cursor.refusal("a table has one primary key", at=keys[1][1], hint=hint)
    for name in names:
        column = declared.get(name)
        if column is None:
            detail = f"the PRIMARY KEY names no column of the table: {name!r}"
            raise cursor.error(ColumnNotFound, detail, at=token, hint=did_you_mean(name, declared))
        if not TYPES[column.type.name].is_key:
            types = ", ".join(sorted(name for name, kind in TYPES.items() if kind.is_key))
            raise cursor.refusal(f"a primary key cannot be of type {column.type}; it is one of {types}", at=token)
    return names


def _column(number: int, column: _Declared, key: tuple[str, ...]) -> Column:
    return Column(
        column_id=number,
        name=column.name,
        type=column.type,
        nullable=column.nullable and column.name not in key,
        default=column.default,
        source=column.source,
    )
