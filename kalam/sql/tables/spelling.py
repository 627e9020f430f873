"""Definitions written as text: for DESCRIBE TABLE, and as the SQL that makes the same table again.

Law: ``parse_statement(create_table_sql(table))`` asks for the same columns, key and options.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from kalam.names import numbered
from kalam.schema import (
    Column,
    Default,
    DefaultKind,
    StoredOptions,
    StreamOptions,
    TableDefinition,
    TableOptions,
    TypeName,
)
from kalam.sql.tables.durations import duration_text

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
    lines = [_column_sql(column, table.key) for column in table.declared_columns]
    body = ",\n".join(f"    {line}" for line in lines)
    name = f"{_name(table.name.namespace)}.{_name(table.name.table)}"
    options = options_sql(table.options, separator=",\n    ")
    return f"CREATE {table.kind} TABLE {name} (\n{body}\n) WITH (\n    {options}\n)"


def options_sql(options: TableOptions, separator: str = ", ") -> str:
    """The options as ``OPTION = value, …``, without the brackets; what is not set is left out."""
    return separator.join(f"{name.upper()} = {value}" for name, value in _written(options) if value is not None)


def describe_options(options: TableOptions) -> list[tuple[str, str]]:
    """Every option of the table's kind with its value, as DESCRIBE TABLE shows them: ``retention``, ``10 seconds``."""
    match options:
        case StreamOptions():
            retention_s = options.retention_s
            return [
                ("retention", "none" if retention_s is None else numbered(retention_s, "second")),
                ("max_buffer", numbered(options.max_buffer_rows, "row")),
                ("ephemeral", _flag(options.ephemeral)),
                ("subject_key", options.subject_key or "none"),
                ("storage", options.storage.value),
                ("replicas", str(options.replicas)),
                ("format", options.format.value),
                ("bigint_as_text", _flag(options.bigint_as_text)),
            ]
        case StoredOptions():
            kept_s = options.deleted_retention_s
            return [
                ("flush_policy", _policy(options)),
                ("location", options.location or "default"),
                ("deleted_retention", "off" if kept_s is None else f"{kept_s} seconds"),
                ("compression", options.compression.value),
                ("subject_key", options.subject_key or "none"),
                ("format", options.format.value),
                ("bigint_as_text", _flag(options.bigint_as_text)),
            ]
        case other:
            assert_never(other)


def _written(options: TableOptions) -> list[tuple[str, str | None]]:
    subject_key = None if options.subject_key is None else _quoted(options.subject_key)
    match options:
        case StreamOptions():
            return [
                ("retention", None if options.retention_s is None else _quoted(duration_text(options.retention_s))),
                ("max_buffer", str(options.max_buffer_rows)),
                ("ephemeral", _flag(options.ephemeral)),
                ("subject_key", subject_key),
                ("storage", _quoted(options.storage)),
                ("replicas", str(options.replicas)),
                ("format", _quoted(options.format)),
                ("bigint_as_text", _flag(options.bigint_as_text)),
            ]
        case StoredOptions():
            kept_s = options.deleted_retention_s
            return [
                ("flush_policy", _quoted(_policy(options))),
                ("location", None if options.location is None else _quoted(options.location)),
                ("deleted_retention", _quoted("off" if kept_s is None else duration_text(kept_s, "dh"))),
                ("compression", _quoted(options.compression)),
                ("subject_key", subject_key),
                ("format", _quoted(options.format)),
                ("bigint_as_text", _flag(options.bigint_as_text)),
            ]
        case other:
            assert_never(other)


def _column_sql(column: Column, key: str | None) -> str:
    parts = [_name(column.name), column.type.declaration]
    if not column.nullable and column.name != key:
        parts.append("NOT NULL")
    if column.default is not None:
        parts.append(f"DEFAULT {_default_sql(column.default, column.type.name)}")
    if column.name == key:
        parts.append("PRIMARY KEY")
    return " ".join(parts)


def _default_sql(default: Default, type_name: TypeName) -> str:
    if default.kind is DefaultKind.LITERAL and type_name is TypeName.JSON:
        return _quoted(msgspec.json.encode(default.literal).decode())
    return str(default)


def _policy(options: StoredOptions) -> str:
    parts = {"rows": options.flush_rows, "interval": options.flush_interval_s}
    return ",".join(f"{what}:{bound}" for what, bound in parts.items() if bound is not None)


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _name(name: str) -> str:
    return f'"{name}"' if name in _RESERVED else name


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
