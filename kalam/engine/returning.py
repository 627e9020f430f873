"""RETURNING: a select list over the rows that a statement has just changed, and over nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from kalam.engine.session import Request
from kalam.errors import ColumnNotFound
from kalam.query.composed import compose
from kalam.query.queries import Queries
from kalam.query.results import Result, rows_result
from kalam.schema import Table
from kalam.sql.queries.readers import postgresql_names
from kalam.sql.text.recognised import has_plain_columns
from kalam.sql.text.statements import QueryText
from kalam.threads import beside, reading


async def check_returning(
    queries: Queries,
    table: Table,
    returning: QueryText | None,
    data: pa.Table,
    request: Request,
    alias: str | None = None,
) -> None:
    """Raise now what ``returned`` would raise over ``data``, after a change that could not be undone."""
    if returning is not None and not has_plain_columns(returning.text, set(data.column_names)):
        try:
            await returned(queries, table, returning, data, request, alias)
        except ColumnNotFound as exc:
            there = exc.fields.get("hint")
            told = "RETURNING shows the rows of the changed table alone" + (f": {there}" if there else "")
            raise ColumnNotFound(exc.detail, **(exc.fields | {"hint": told})) from exc


async def returned(
    queries: Queries, table: Table, returning: QueryText, data: pa.Table, request: Request, alias: str | None = None
) -> Result:
    """The select list of a RETURNING over ``data``; sub-queries see the tables as they are now."""
    session = request.session
    found = await queries.run_over(
        [("SELECT ", returning)], table, data, alias, session.user, session.namespace, request.parameters
    )
    if session.postgresql_names:
        found = found.rename_columns(await shown_names(returning, found.column_names))
    return await beside(max(found.shape), rows_result, found)


async def shown_names(returning: QueryText, names: Sequence[str]) -> list[str]:
    """What PostgreSQL calls the columns of a RETURNING, which have ``names`` from DataFusion."""
    query = compose([("SELECT ", returning)])
    return await reading(query.text, postgresql_names, query, names)
