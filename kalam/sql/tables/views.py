"""CREATE, DROP and ALTER of materialized views, behind the word MATERIALIZED."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from kalam.sql.queries.readers import read_expression, read_view_query
from kalam.sql.tables.clauses import read_option_list
from kalam.sql.text.alterations import SetOptions
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.view_statements import AddExpression, AlterView, CreateView, DropView

_ALTER = "ALTER MATERIALIZED VIEW v takes SET (option = value, …) and ADD COLUMN c AS expression"


def create_ephemeral_view(cursor: Cursor) -> CreateView:
    """Read ``MATERIALIZED VIEW …`` behind EPHEMERAL."""
    cursor.expect("MATERIALIZED")
    return replace(create_view(cursor), ephemeral=True)


def create_view(cursor: Cursor) -> CreateView:
    """Read ``VIEW [IF NOT EXISTS] v [WITH (option = value, …)] AS SELECT …``."""
    cursor.expect("VIEW")
    if_not_exists = cursor.take("IF", "NOT", "EXISTS")
    ref = cursor.new_table()
    options: dict[str, Any] = {}
    if cursor.take("WITH"):
        read_option_list(cursor, options)
    cursor.expect("AS")
    return CreateView(ref=ref, query=read_view_query(cursor), options=options, if_not_exists=if_not_exists)


def drop_view(cursor: Cursor) -> DropView:
    """Read ``VIEW [IF EXISTS] v [CASCADE]``."""
    cursor.expect("VIEW")
    if_exists = cursor.take("IF", "EXISTS")
    return DropView(cursor.table(), if_exists, cursor.take("CASCADE"))


def alter_view(cursor: Cursor) -> AlterView:
    """Read ``VIEW v`` and its one action."""
    cursor.expect("VIEW")
    ref = cursor.table()
    match cursor.take_one(("ADD", "SET")):
        case "ADD":
            cursor.take("COLUMN")
            name = cursor.new_name("column")
            cursor.expect("AS")
            return AlterView(ref, AddExpression(name, read_expression(cursor)))
        case "SET":
            options: dict[str, Any] = {}
            read_option_list(cursor, options)
            return AlterView(ref, SetOptions(options))
        case _:
            raise cursor.refusal(_ALTER)
