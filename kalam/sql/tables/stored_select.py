"""CREATE, DROP and ALTER of views that are a stored SELECT."""

from __future__ import annotations

from typing import Final

from kalam.schema import TableKind
from kalam.sql.queries.readers import read_query
from kalam.sql.text.alterations import RenameTable
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.statements import AlterTable, CreateSelect, DropSelect, TableRef

KIND: Final = TableKind.QUERY
"""The kind of table that a view is."""


def create_select(cursor: Cursor, *, or_replace: bool = False) -> CreateSelect:
    """Read ``VIEW [IF NOT EXISTS] v [(name, …)] AS SELECT …``, behind CREATE [OR REPLACE]."""
    cursor.expect("VIEW")
    if_not_exists = cursor.take("IF", "NOT", "EXISTS")
    ref = cursor.new_table()
    names = cursor.names("column", lambda: cursor.new_name("column")) if cursor.at_symbol("(") else ()
    if cursor.at("WITH"):
        raise cursor.refusal("a view has no options; a MATERIALIZED VIEW has")
    cursor.expect("AS")
    query = read_query(cursor)
    if query.parameters:
        raise cursor.refusal("a view has no parameters: it is read when nobody gives any")
    return CreateSelect(ref=ref, query=query, names=names, or_replace=or_replace, if_not_exists=if_not_exists)


def drop_select(cursor: Cursor) -> DropSelect:
    """Read ``VIEW [IF EXISTS] v [CASCADE | RESTRICT]``, behind DROP."""
    cursor.expect("VIEW")
    if_exists = cursor.take("IF", "EXISTS")
    ref = cursor.table()
    cursor.take("RESTRICT")
    return DropSelect(ref, if_exists, cursor.take("CASCADE"))


def alter_select(cursor: Cursor, ref: TableRef) -> AlterTable:
    """Read the RENAME TO of an ALTER VIEW."""
    if not cursor.take("RENAME", "TO"):
        raise cursor.refusal("ALTER VIEW v takes RENAME TO new and OWNER TO u; CREATE OR REPLACE VIEW v AS changes it")
    return AlterTable(ref, RenameTable(cursor.new_name("view")))
