"""A table in ``kalam.db``: what is read, written and removed of its definition."""

from __future__ import annotations

import sqlite3

from kalam.errors import AlreadyExists, NamespaceNotFound
from kalam.names import TEMPORARY_NAMESPACE, TableName
from kalam.schema import (
    Table,
    TableDefinition,
    TableKind,
    dump_columns,
    dump_key,
    dump_options,
    load_columns,
    load_key,
    load_options,
)
from kalam.storage.log.times import from_us


def read_tables(conn: sqlite3.Connection) -> list[Table]:
    """Every table that the database knows."""
    rows = conn.execute(
        """SELECT table_id, namespace, table_name, kind, key, options, schema_version, tables.created_us, columns,
        owner, row_security, home
        FROM tables JOIN table_schemas USING (table_id, schema_version)"""
    )
    return [
        Table(
            name=TableName(namespace, name),
            kind=TableKind(kind),
            columns=load_columns(columns),
            key=load_key(key),
            options=load_options(TableKind(kind), options),
            table_id=table_id,
            schema_version=version,
            created_at=from_us(created),
            owned_by=owner,
            row_security=bool(row_security),
            home=home,
        )
        for table_id, namespace, name, kind, key, options, version, created, columns, *rest in rows
        for owner, row_security, home in [rest]
    ]


def insert_table(conn: sqlite3.Connection, definition: TableDefinition, created: int, home: str | None) -> int:
    """Add a table; its id. Raises NamespaceNotFound or AlreadyExists."""
    name = definition.name
    if not conn.execute("SELECT 1 FROM namespaces WHERE namespace = ?", (name.namespace,)).fetchone():
        is_temporary = name.namespace.startswith(TEMPORARY_NAMESPACE)
        hint = "CREATE TEMPORARY TABLE makes one" if is_temporary else f"CREATE NAMESPACE {name.namespace}"
        raise NamespaceNotFound(f"there is no namespace {name.namespace!r}", hint=hint)
    try:
        cursor = conn.execute(
            "INSERT INTO tables (namespace, table_name, kind, key, options, schema_version, created_us, owner, home) "
            "VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?)",
            (
                name.namespace,
                name.table,
                definition.kind,
                dump_key(definition.key),
                dump_options(definition.options),
                created,
                definition.owned_by,
                home,
            ),
        )
    except sqlite3.IntegrityError as exc:
        raise AlreadyExists(f"table {name} exists already, or is being made") from exc
    table_id = cursor.lastrowid
    assert table_id is not None
    conn.execute("INSERT INTO table_schemas VALUES (?, 1, ?, ?)", (table_id, dump_columns(definition.columns), created))
    return table_id


def delete_table(conn: sqlite3.Connection, table_id: int) -> None:
    """Remove all that the database has of a table."""
    copies = "SELECT copy_id FROM copies WHERE table_id = ?"
    conn.execute(
        f"DELETE FROM key_filters WHERE segment_id IN (SELECT segment_id FROM segments WHERE copy_id IN ({copies}))",  # noqa: S608
        (table_id,),
    )
    for child in ("log", "segments", "overrides"):
        conn.execute(f"DELETE FROM {child} WHERE copy_id IN ({copies})", (table_id,))  # noqa: S608 - the names stand above
    for child in (
        "copies",
        "answers",
        "stream_counters",
        "stream_ends",
        "table_schemas",
        "grants",
        "policies",
        "comments",
        "replaced_segments",
        "view_positions",
        "view_states",
        "view_memory",
        "tables",
    ):
        conn.execute(f"DELETE FROM {child} WHERE table_id = ?", (table_id,))  # noqa: S608 - the names stand above
