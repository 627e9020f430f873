"""What columns of queries are called, and what is asked of a query that is only described, over no rows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import pyarrow as pa

from kalam.errors import InvalidValue
from kalam.query.wire import Untyped
from kalam.rows.columns import shown_field, shown_type
from kalam.schema import STREAM_KEY, DataType, Table
from kalam.sql.queries.readers import with_distinct_names
from kalam.sql.text.statements import QueryText
from kalam.tables.kinds import Source
from kalam.threads import reading

_Found = TypeVar("_Found")
_TWO_OF_ONE_NAME = (
    "Projections require unique expression names",
    "Schema error: Schema contains duplicate unqualified field name",
    "Schema error: Schema contains qualified field name",
)
"""DataFusion's words."""


def untyped_parameters(count: int, known: Mapping[int, pa.Field], outputs: Mapping[int, pa.Field]) -> Untyped:
    """The parameters of a query, of which some are ``known`` by numbers, others by the columns that they are."""
    return Untyped(count, _told({n: field for n, field in known.items() if n <= count}), _told(outputs))


def _told(fields: Mapping[int, pa.Field]) -> bytes:
    told: bytes = pa.schema([field.with_name(str(n)) for n, field in fields.items()]).serialize().to_pybytes()
    return told


def empty_source(table: Table, query: QueryText) -> Source:
    """What a query reads of a table in which there is nothing."""
    if table.is_stored:
        return None
    named = query.virtual | ({STREAM_KEY} if query.names_key else set())
    hidden = [shown_type(name, DataType(name=kind)) for name, kind in table.system_columns.items() if name in named]
    return pa.schema([*map(shown_field, table.columns), *hidden]).empty_table()


def renamed_schema(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    """The same columns under other names."""
    return pa.schema([field.with_name(name) for field, name in zip(schema, names, strict=True)])


async def distinctly_named(
    query: QueryText, ask: Callable[[QueryText], Awaitable[_Found]]
) -> tuple[_Found, list[str] | None]:
    """What is found, and the names that its columns are to have, where DataFusion had to be given others."""
    try:
        return await ask(query), None
    except InvalidValue as exc:
        if not exc.detail.startswith(_TWO_OF_ONE_NAME):
            raise
        named = await reading(query.text, with_distinct_names, query)
        if named is None:
            raise
    return await ask(named[0]), named[1]
