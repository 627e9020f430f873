"""INSERT, UPDATE and DELETE: what changes rows."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from kalam.errors import InvalidValue
from kalam.schema import DELETED, ROW_ID, STREAM_KEY, UPDATED
from kalam.sql.queries.readers import read_expression, read_query, read_select_list, read_sources
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.lexer import fold
from kalam.sql.text.statements import Assignment, Delete, Insert, Merge, OnConflict, QueryText, Update, Value
from kalam.sql.values import read_rows

_UNWRITABLE = frozenset({UPDATED, DELETED, "_seq", ROW_ID, STREAM_KEY})
_QUERY_WORDS = ("SELECT", "WITH", "VALUES")


def insert(cursor: Cursor) -> Insert:
    """Read INSERT INTO … VALUES or SELECT."""
    cursor.expect("INSERT")
    if cursor.token.word in ("OVERWRITE", "OR", "IGNORE"):
        raise cursor.refusal(f"INSERT {cursor.token.word} is not supported; use ON CONFLICT (key) DO UPDATE SET …")
    cursor.expect("INTO")
    ref = cursor.table()
    columns = _insert_columns(cursor)
    source = _insert_source(cursor, columns)
    conflict = _on_conflict(cursor)
    return Insert(ref=ref, columns=columns, source=source, on_conflict=conflict, returning=_returning(cursor))


def update(cursor: Cursor) -> Update:
    """Read UPDATE t [alias] SET …."""
    cursor.expect("UPDATE")
    ref = cursor.table()
    alias = _alias(cursor, "SET")
    cursor.expect("SET")
    assignments = _assignments(cursor, "WHERE", "RETURNING", "FROM")
    sources = read_sources(cursor, "WHERE", "RETURNING") if cursor.take("FROM") else None
    where = read_expression(cursor, "RETURNING") if cursor.take("WHERE") else None
    returning = _returning(cursor)
    return Update(ref=ref, alias=alias, assignments=assignments, where=where, returning=returning, sources=sources)


def delete(cursor: Cursor) -> Delete:
    """Read DELETE FROM t [alias] …."""
    cursor.expect("DELETE", "FROM")
    ref = cursor.table()
    alias = _alias(cursor, "WHERE", "RETURNING", "USING")
    sources = read_sources(cursor, "WHERE", "RETURNING") if cursor.take("USING") else None
    where = read_expression(cursor, "RETURNING") if cursor.take("WHERE") else None
    return Delete(ref=ref, alias=alias, where=where, returning=_returning(cursor), sources=sources)


def merge(cursor: Cursor) -> Merge:
    """Read MERGE INTO t [alias] USING … ON … with its WHEN clauses, at most one of each kind."""
    cursor.expect("MERGE", "INTO")
    ref = cursor.table()
    alias = _alias(cursor, "USING")
    cursor.expect("USING")
    sources = read_sources(cursor, "ON")
    cursor.expect("ON")
    on = read_expression(cursor, "WHEN")
    found = Merge(ref=ref, alias=alias, sources=sources, on=on)
    matched = missing = False
    while not cursor.at_end():
        token = cursor.token
        cursor.expect("WHEN")
        is_missing = cursor.take("NOT")
        cursor.expect("MATCHED")
        if cursor.at("AND"):
            raise cursor.refusal("WHEN … AND is not supported in a MERGE; say it in ON, or in USING")
        if cursor.at("BY"):
            raise cursor.refusal("WHEN … BY is not supported in a MERGE", hint="a DELETE removes what has no source")
        if missing if is_missing else matched:
            raise cursor.refusal("a MERGE has one WHEN MATCHED and one WHEN NOT MATCHED", at=token)
        cursor.expect("THEN")
        if cursor.take("DO", "NOTHING"):
            pass
        elif is_missing:
            found = replace(found, **_merge_insert(cursor))
        elif cursor.take("DELETE"):
            found = replace(found, deletes=True)
        else:
            cursor.expect("UPDATE", "SET")
            found = replace(found, assignments=_assignments(cursor, "WHEN"))
        matched, missing = matched or not is_missing, missing or is_missing
    if not (matched or missing):
        raise cursor.unexpected("WHEN MATCHED or WHEN NOT MATCHED", choices=("WHEN",))
    return found


def _merge_insert(cursor: Cursor) -> dict[str, Any]:
    cursor.expect("INSERT")
    columns = cursor.names("column", lambda: _written_column(cursor)) if cursor.at_symbol("(") else None
    cursor.expect("VALUES")
    cursor.expect_symbol("(")
    values = [read_expression(cursor)]
    while cursor.take_symbol(","):
        values.append(read_expression(cursor))
    cursor.expect_symbol(")")
    return {"columns": columns, "values": tuple(values)}


def _alias(cursor: Cursor, *stops: str) -> str | None:
    if cursor.take("AS"):
        return cursor.name("alias")
    return None if cursor.at_end() or cursor.token.word in stops else cursor.name("alias")


def _insert_columns(cursor: Cursor) -> tuple[str, ...] | None:
    """Consume ``(column, …)``; None where no column list is next, but perhaps a query in brackets."""
    start = cursor.token
    if cursor.token.word and cursor.token.word not in (*_QUERY_WORDS, "DEFAULT"):
        raise (
            cursor.refusal("INSERT INTO t takes no alias")
            if cursor.at("AS")
            else cursor.unexpected("'(', VALUES or SELECT", choices=("VALUES", "SELECT"))
        )
    if not cursor.take_symbol("("):
        return None
    if cursor.token.word in _QUERY_WORDS or cursor.at_symbol("("):
        cursor.seek(start.start)
        return None
    cursor.seek(start.start)
    columns = cursor.names("column", lambda: _written_column(cursor))
    twice = next((name for place, name in enumerate(columns) if name in columns[:place]), None)
    if twice is not None:
        raise cursor.error(InvalidValue, f"the column {twice!r} is named twice", at=start)
    return columns


def _insert_source(cursor: Cursor, columns: tuple[str, ...] | None) -> tuple[tuple[Value, ...], ...] | QueryText:
    if cursor.at("DEFAULT", "VALUES"):
        raise cursor.refusal("INSERT … DEFAULT VALUES is not supported; write VALUES (DEFAULT, …)")
    if cursor.take("VALUES"):
        return read_rows(cursor, len(columns) if columns is not None else None)
    if cursor.token.word not in _QUERY_WORDS and not cursor.at_symbol("("):
        raise cursor.unexpected("VALUES or a query", choices=("VALUES", "SELECT"))
    return read_query(cursor, before_conflict=True)


def _on_conflict(cursor: Cursor) -> OnConflict | None:
    if not cursor.take("ON", "CONFLICT"):
        return None
    if cursor.at("ON", "CONSTRAINT"):
        raise cursor.refusal("ON CONFLICT names the key's columns: ON CONFLICT (a, b)")
    key = tuple(cursor.names("column")) if cursor.at_symbol("(") else None
    cursor.expect("DO")
    if cursor.take("NOTHING"):
        return OnConflict(key, ())
    cursor.expect("UPDATE", "SET")
    assignments = _assignments(cursor, "WHERE", "RETURNING")
    if cursor.at("WHERE"):
        raise cursor.refusal("ON CONFLICT … DO UPDATE takes no WHERE")
    return OnConflict(key, assignments)


def _assignments(cursor: Cursor, *stops: str) -> tuple[Assignment, ...]:
    assignments = [_assignment(cursor, stops)]
    while cursor.take_symbol(","):
        token = cursor.token
        assignment = _assignment(cursor, stops)
        if any(assignment.column == earlier.column for earlier in assignments):
            raise cursor.error(InvalidValue, f"the column {assignment.column!r} is set twice", at=token)
        assignments.append(assignment)
    return tuple(assignments)


def _assignment(cursor: Cursor, stops: tuple[str, ...]) -> Assignment:
    if cursor.at_symbol("("):
        raise cursor.refusal("SET takes one column at a time: SET a = …, b = …")
    column = _written_column(cursor)
    if cursor.at_symbol("."):
        raise cursor.refusal("SET names a column alone, without its table")
    cursor.expect_symbol("=")
    if cursor.at("DEFAULT"):
        raise cursor.refusal("SET … = DEFAULT is not supported; write the value")
    return Assignment(column, read_expression(cursor, *stops))


def _written_column(cursor: Cursor) -> str:
    token = cursor.token
    name = cursor.name("column")
    if name in _UNWRITABLE:
        raise cursor.error(InvalidValue, f"the column {fold(name)} is kept by Kalam; nobody writes it", at=token)
    return name


def _returning(cursor: Cursor) -> QueryText | None:
    return read_select_list(cursor) if cursor.take("RETURNING") else None
