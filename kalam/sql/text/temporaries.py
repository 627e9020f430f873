"""Statements in which the names of a session's temporary tables are written out.

A name without a namespace means a temporary table of the session, where it has one of that name, before any other: as
in PostgreSQL it hides the others. ``pg_temp.t`` means nothing else. What is made, a table or a view, is never meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar, cast

import msgspec
from msgspec.structs import replace

from kalam.errors import Unsupported
from kalam.sql.text import statements as sql
from kalam.sql.text.replaced import with_queries
from kalam.sql.text.statements import QueryText, TableRef

Meant = Callable[[TableRef], TableRef]
"""What a reference means, written out if that is a temporary table; raises TableNotFound for one of others."""

_Statement = TypeVar("_Statement")
_CHANGING = (sql.Insert, sql.Update, sql.Delete, sql.Merge, sql.DropTable, sql.TruncateTable)
_READING = (sql.Select, sql.CreateTable, sql.CreateTemporary, sql.ExecuteAs)


def with_temporaries(statement: _Statement, meant: Meant) -> _Statement:
    """The statement with references to temporary tables written out; raises Unsupported where none may stand."""
    write = partial(_query_written, meant=meant)
    if isinstance(statement, _CHANGING):
        return cast("_Statement", replace(with_queries(statement, write), ref=meant(statement.ref)))
    if isinstance(statement, _READING):
        return with_queries(statement, write)
    for ref in _references(statement):
        if meant(ref) is not ref:
            raise Unsupported(
                f"this is not done with a temporary table: {ref.table}",
                hint="CREATE TABLE … AS makes an ordinary one of it",
            )
    return statement


def _query_written(query: QueryText, meant: Meant) -> QueryText:
    uses = tuple(use if (ref := meant(use.ref)) is use.ref else replace(use, ref=ref) for use in query.tables)
    same = all(new is old for new, old in zip(uses, query.tables, strict=True))
    return query if same else replace(query, tables=uses, point=None)


def _references(part: object) -> Iterator[TableRef]:
    """Every table that a statement names, but for one that it makes or says something of by its full name."""
    if isinstance(part, TableRef):
        yield part
    elif isinstance(part, tuple):
        for member in part:
            yield from _references(member)
    elif isinstance(part, msgspec.Struct):
        for name in part.__struct_fields__:
            if name != "ref" or not isinstance(part, sql.CreateSelect | sql.OnView):
                yield from _references(getattr(part, name))
