"""CREATE TEMPORARY TABLE: a table that a session makes for itself."""

from __future__ import annotations

from typing import Final

from kalam.errors import InvalidName
from kalam.names import TEMPORARY_NAMESPACE
from kalam.schema import Column, TableKind
from kalam.sql.queries.readers import read_query
from kalam.sql.tables.columns import read_columns
from kalam.sql.tables.filled import read_listed
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.statements import CreateTemporary, QueryText, TableRef
from kalam.table_options import OnCommit

_WORDS: Final = ("TEMPORARY", "TEMP")
_SCOPES: Final = ("LOCAL", "GLOBAL")
"""Words that PostgreSQL lets stand there, too, and that mean nothing."""


def at_temporary(cursor: Cursor) -> bool:
    """Whether what is created is a temporary table, or is to be something else that is temporary."""
    return any(cursor.at(*words) for word in _WORDS for words in ((word,), *((scope, word) for scope in _SCOPES)))


def create_temporary(cursor: Cursor) -> CreateTemporary:
    """Read ``[LOCAL] TEMPORARY TABLE [IF NOT EXISTS] t (…) [ON COMMIT …]``, or with AS and a query."""
    cursor.take_one(_SCOPES)
    cursor.take_one(_WORDS)
    if not cursor.at("TABLE"):
        raise cursor.refusal("only tables are temporary: CREATE TEMPORARY TABLE t …")
    cursor.expect("TABLE")
    if_not_exists = cursor.take("IF", "NOT", "EXISTS")
    ref = _own_table(cursor)
    columns: tuple[Column, ...] = ()
    names: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    if cursor.at_symbol("("):
        start = cursor.token
        listed = read_listed(cursor)
        if listed is None or not (cursor.at("AS") or cursor.at("ON", "COMMIT")):
            cursor.seek(start.start)
            columns, key = read_columns(cursor, TableKind.TEMPORARY)
        else:
            names, key = listed
    _refuse_options(cursor)
    on_commit = _on_commit(cursor)
    query: QueryText | None = None
    if not columns:
        cursor.expect("AS")
        query = read_query(cursor)
    return CreateTemporary(
        ref=ref,
        columns=columns,
        key=key,
        if_not_exists=if_not_exists,
        on_commit=on_commit,
        query=query,
        names=names,
    )


def _own_table(cursor: Cursor) -> TableRef:
    first = cursor.token
    ref = cursor.new_table()
    if ref.namespace not in (None, TEMPORARY_NAMESPACE):
        raise cursor.error(InvalidName, "a temporary table is in no namespace of the server: name it alone", at=first)
    return TableRef(None, ref.table)


def _refuse_options(cursor: Cursor) -> None:
    if cursor.token.word in ("WITH", "WITHOUT", "TABLESPACE", "USING", "INHERITS", "PARTITION"):
        raise cursor.refusal(f"a temporary table takes no {cursor.token.word}: the session holds its rows")


def _on_commit(cursor: Cursor) -> OnCommit:
    if not cursor.take("ON", "COMMIT"):
        return OnCommit.PRESERVE_ROWS
    for choice in OnCommit:
        if cursor.take(*choice.value.split()):
            return choice
    raise cursor.unexpected("PRESERVE ROWS, DELETE ROWS or DROP", choices=("PRESERVE", "DELETE", "DROP"))
