"""RETURNING: a select list over the rows that a statement has just changed, and over nothing else."""

from __future__ import annotations

import pyarrow as pa

from kalam.engine.session import Request
from kalam.names import TableName
from kalam.query.composed import compose
from kalam.query.executor import Wanted
from kalam.query.queries import Own, Queries
from kalam.query.results import Result, rows_result
from kalam.schema import Table
from kalam.sql.text.recognised import has_plain_columns
from kalam.sql.text.statements import QueryText
from kalam.threads import beside

CHANGED_SUFFIX = "$changed"


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
        await returned(queries, table, returning, data, request, alias)


async def returned(
    queries: Queries, table: Table, returning: QueryText, data: pa.Table, request: Request, alias: str | None = None
) -> Result:
    """The select list of a RETURNING over ``data``; sub-queries see the tables as they are now."""
    changed = TableName(table.name.namespace, table.name.table + CHANGED_SUFFIX)
    source = f' FROM "{changed.namespace}"."{changed.table}" AS "{alias or table.name.table}"'
    query, own = compose([("SELECT ", returning), (source, None)]), Own(changed, table, data, alias)
    wanted = Wanted(user=request.session.user, in_order=True)
    found = await queries.run_around(query, own, request.session.namespace, request.parameters, wanted)
    return await beside(max(found.shape), rows_result, found)
