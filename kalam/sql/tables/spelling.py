"""Definitions written as text: for DESCRIBE TABLE, and as the SQL that makes the same table again.

Law: ``parse_statement(create_table_sql(table))`` asks for the same columns, key and options.
"""

from __future__ import annotations

import msgspec

from kalam.foreign import ForeignOptions
from kalam.names import TableName
from kalam.schema import (
    Column,
    Default,
    DefaultKind,
    SelectOptions,
    TableDefinition,
    TableOptions,
    TypeName,
    ViewOptions,
)
from kalam.sql.tables.options import options_of
from kalam.sql.text.literals import quoted

# PostgreSQL's reserved words, and those that begin something else in a column list: such names are written in quotes.
_RESERVED_WORDS = """
    all analyse analyze and any array as asc asymmetric authorization between binary both case cast check collate
    column concurrently constraint create cross current_date current_role current_time current_timestamp
    current_user default deferrable desc distinct do else end except exclude false fetch for foreign from freeze
    full generated grant group having if ilike in initially inner intersect into is isnull join lateral leading left
    like limit localtime localtimestamp natural not notnull null offset on only or order outer overlaps placing
    primary references returning right select session_user similar some symmetric table then to trailing true union
    unique user using values variadic verbose when where window with
"""
_RESERVED = frozenset(_RESERVED_WORDS.split())


def create_table_sql(table: TableDefinition) -> str:
    """The CREATE TABLE that makes this table."""
    if isinstance(table.options, ViewOptions):
        return _create_view_sql(table, table.options)
    if isinstance(table.options, SelectOptions):
        columns = ", ".join(_name(column.name) for column in table.columns)
        return f"CREATE VIEW {full_name(table.name)} ({columns}) AS {table.options.query}"
    lines = [_column_sql(column, table.key) for column in table.declared_columns]
    if len(table.key) > 1:
        lines.append(f"PRIMARY KEY ({', '.join(map(_name, table.key))})")
    body = ",\n".join(f"    {line}" for line in lines)
    name = full_name(table.name)
    options = options_sql(table.options, separator=",\n    ")
    if isinstance(table.options, ForeignOptions):
        return f"CREATE STREAM TABLE {name} (\n{body}\n) {table.options.over} WITH (\n    {options}\n)"
    return f"CREATE {table.kind} TABLE {name} (\n{body}\n) WITH (\n    {options}\n)"


def full_name(name: TableName) -> str:
    """The full name of a table, as SQL."""
    return f"{_name(name.namespace)}.{_name(name.table)}"


def _create_view_sql(table: TableDefinition, options: ViewOptions) -> str:
    name = full_name(table.name)
    written = options_sql(options, separator=",\n    ")
    what = "EPHEMERAL MATERIALIZED VIEW" if options.ephemeral else "MATERIALIZED VIEW"
    return f"CREATE {what} {name} WITH (\n    {written}\n) AS {options.query}"


def options_sql(options: TableOptions, separator: str = ", ") -> str:
    """The options as ``OPTION = value, …``, without the brackets; what is not set is left out."""
    written = ((name, option.written(options)) for name, option in options_of(options))
    return separator.join(f"{name} = {value}" for name, value in written if value is not None)


def describe_options(options: TableOptions) -> list[tuple[str, str]]:
    """Every option of the table's kind with its value, as DESCRIBE TABLE shows them: ``retention``, ``10 seconds``."""
    return [(name.lower(), option.shown(options)) for name, option in options_of(options)]


def _column_sql(column: Column, key: tuple[str, ...]) -> str:
    parts = [_name(column.name), column.type.declaration]
    if not column.nullable and (column.name,) != key:
        parts.append("NOT NULL")
    if column.default is not None:
        parts.append(f"DEFAULT {_default_sql(column.default, column.type.name)}")
    if (column.name,) == key:
        parts.append("PRIMARY KEY")
    if column.source is not None:
        parts.append(str(column.source))
    return " ".join(parts)


def _default_sql(default: Default, type_name: TypeName) -> str:
    if default.kind is DefaultKind.LITERAL and type_name is TypeName.JSON:
        return quoted(msgspec.json.encode(default.literal).decode())
    return str(default)


def is_word(name: str) -> bool:
    """Whether a name has to be written in quotes, since without them it is a word of SQL."""
    return name in _RESERVED


def _name(name: str) -> str:
    return f'"{name}"' if is_word(name) else name
