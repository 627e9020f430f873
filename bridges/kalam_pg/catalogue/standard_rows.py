"""The rows of ``information_schema`` that tell of one table, in the words of the SQL standard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from kalam_pg.catalogue import pg_types
from kalam_pg.catalogue.described import MATERIALIZED, TABLE, VIEW, Described, DescribedColumn
from kalam_pg.catalogue.table_rows import Row, key_columns

_BITS: Final = {"int2": 16, "int4": 32, "int8": 64, "float4": 24, "float8": 53}
_TEXT_BYTES_MAX: Final = 1 << 30
_KIND: Final = {TABLE: "BASE TABLE", VIEW: "VIEW"}


def _yes(truth: object) -> str:
    return "YES" if truth else "NO"


def rows(table: Described, database: str) -> Iterator[Row]:
    """Every row of ``information_schema`` that tells of a table; materialized views are not of the standard."""
    if table.kind == MATERIALIZED:
        return
    named = {"table_catalog": database, "table_schema": table.schema, "table_name": table.name}
    yield (
        "information_schema.tables",
        {
            **named,
            "table_type": "LOCAL TEMPORARY" if table.temporary else _KIND[table.kind],
            "is_insertable_into": _yes(table.writable),
            "is_typed": "NO",
        },
    )
    for place, column in enumerate(table.columns, 1):
        if column.generated:  # as PostgreSQL's own system columns: who copies a table by this list writes what it lists
            continue
        yield "information_schema.columns", {**named, **_column(column, place, database, table.writable)}
    if table.kind == VIEW:
        no = dict.fromkeys(("is_updatable", "is_insertable_into"), "NO")
        never = dict.fromkeys(("is_trigger_updatable", "is_trigger_deletable", "is_trigger_insertable_into"), "NO")
        told = {"view_definition": table.definition, "check_option": "NONE"}
        yield "information_schema.views", {**named, **told, **no, **never}
    if table.key:
        yield from _key_rows(table, named, database)


def _column(column: DescribedColumn, place: int, database: str, writable: bool) -> Mapping[str, Any]:
    kind = column.type
    texts = kind.name in ("text", "varchar", "bpchar")
    length = column.typmod - pg_types.HEADER_BYTES if texts and column.typmod > 0 else None
    numeric = kind.name == "numeric" and column.typmod > 0
    return {
        "column_name": column.name,
        "ordinal_position": place,
        "column_default": None if column.generated else column.default,
        "is_nullable": _yes(column.nullable),
        "data_type": "ARRAY" if kind.is_array else pg_types.formatted(kind.oid, -1),
        "character_maximum_length": length,
        "character_octet_length": (length * 4 if length else _TEXT_BYTES_MAX) if texts else None,
        "numeric_precision": (column.typmod - pg_types.HEADER_BYTES) >> 16 if numeric else _BITS.get(kind.name),
        "numeric_precision_radix": 2 if kind.name in _BITS else 10 if kind.name == "numeric" else None,
        "numeric_scale": (
            (column.typmod - pg_types.HEADER_BYTES) & 0xFFFF
            if numeric
            else 0
            if kind.name in ("int2", "int4", "int8")
            else None
        ),
        "datetime_precision": 0 if kind.name == "date" else 6 if kind.name.startswith("time") else None,
        "udt_catalog": database,
        "udt_schema": "pg_catalog",
        "udt_name": kind.name,
        "dtd_identifier": str(place),
        "is_self_referencing": "NO",
        "is_identity": "NO",
        "identity_cycle": "NO",
        "is_generated": "ALWAYS" if column.generated else "NEVER",
        "generation_expression": column.default if column.generated else None,
        "is_updatable": _yes(writable and not column.generated),
    }


def _key_rows(table: Described, named: Mapping[str, str], database: str) -> Iterator[Row]:
    constraint = {
        "constraint_catalog": database,
        "constraint_schema": table.schema,
        "constraint_name": table.key_name,
    }
    yield (
        "information_schema.table_constraints",
        {
            **constraint,
            **named,
            "constraint_type": "PRIMARY KEY",
            "is_deferrable": "NO",
            "initially_deferred": "NO",
            "enforced": "YES",
            "nulls_distinct": None,
        },
    )
    for place, column in enumerate(key_columns(table), 1):
        told = {**constraint, **named, "column_name": column.name}
        yield "information_schema.key_column_usage", {**told, "ordinal_position": place}
        yield "information_schema.constraint_column_usage", told
