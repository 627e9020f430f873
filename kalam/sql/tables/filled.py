"""CREATE TABLE … AS: a table that a query fills, whose columns are those of the result."""

from __future__ import annotations

from kalam.errors import InvalidName
from kalam.schema import TableKind
from kalam.sql.queries.readers import read_query
from kalam.sql.tables.clauses import read_clauses
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.statements import CreateTable, TableRef


def read_filled(cursor: Cursor, kind: TableKind, ref: TableRef, *, if_not_exists: bool) -> CreateTable | None:
    """Consume ``[(name, …[, PRIMARY KEY (name, …)])] [WITH (…)] AS query``.

    None, and the cursor where it was, if columns are declared with types or there is no AS.
    """
    start = cursor.token
    listed = read_listed(cursor) if cursor.at_symbol("(") else ((), ())
    if listed is None or not (cursor.at("AS") or cursor.at("WITH") or cursor.at_end()):
        cursor.seek(start.start)
        return None
    names, key = listed
    options = read_clauses(cursor, "AS")
    if not cursor.take("AS"):
        cursor.seek(start.start)
        return None
    if key and kind is TableKind.STREAM:
        raise cursor.refusal("a STREAM table has no PRIMARY KEY; its rows have the key _key, {timestamp_ms}:{row_id}")
    return CreateTable(
        ref=ref,
        kind=kind,
        columns=(),
        key=key,
        options=options,
        if_not_exists=if_not_exists,
        query=read_query(cursor),
        names=names,
    )


def read_listed(cursor: Cursor) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Consume the names of columns and of the key's; None where a column has a type."""
    cursor.expect_symbol("(")
    names: list[str] = []
    key: tuple[str, ...] = ()
    while True:
        token = cursor.token
        if cursor.take("PRIMARY", "KEY"):
            if key:
                raise cursor.refusal("a table has one primary key", at=token)
            key = cursor.names("column")
        else:
            name = cursor.name("column")
            if not (cursor.at_symbol(",") or cursor.at_symbol(")")):
                return None
            names.append(cursor.check_new(name, "column", token))
            if name in names[:-1]:
                raise cursor.error(InvalidName, f"the column {name!r} is named twice", at=token)
        if not cursor.take_symbol(","):
            break
    cursor.expect_symbol(")")
    return tuple(names), key
