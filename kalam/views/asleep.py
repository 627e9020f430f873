"""What a query reads of a view in memory that is not awake: the rows that its SELECT gives now."""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from kalam.errors import TooLarge
from kalam.query.queries import Queries
from kalam.rows.columns import STORED_FIELDS, arrow_schema, shown_schema
from kalam.schema import Table
from kalam.sql import StatementText
from kalam.sql.queries.readers import read_query
from kalam.sql.text.cursor import Cursor
from kalam.views.result_types import fitted
from kalam.views.retention import Retention


class Asleep:
    """Runs the SELECT of a view, with its owner's rights."""

    def __init__(self, queries: Queries, rows_max: int) -> None:
        self._queries, self._rows_max = queries, rows_max

    async def rows(self, view: Table) -> pa.Table:
        """The rows, with the columns of the view that a SELECT shows and its system columns; raises TooLarge."""
        query = read_query(Cursor(StatementText(view.view_options.query)))
        schema = arrow_schema(view.shown_columns)
        parts: list[pa.Table] = []
        count = 0
        async with aclosing(self._queries.stream(query, view.owned_by, None)) as found:
            async for part in found:
                parts.append(fitted(part, schema))
                count += part.num_rows
                if count > self._rows_max:
                    raise TooLarge(f"the view {view.name} would have more than {self._rows_max:,} rows")
        data = _unexpired(pa.concat_tables(parts), view).cast(shown_schema(view.shown_columns))
        now = datetime.now(UTC)
        for field, value in zip(STORED_FIELDS, (now, False), strict=True):
            data = data.append_column(field, pa.repeat(pa.scalar(value, field.type), data.num_rows))
        return data


def _unexpired(data: pa.Table, view: Table) -> pa.Table:
    """Without the rows whose time is over."""
    column = view.view_options.retention_on
    since = Retention(view).since
    if column is None or since is None:
        return data
    times = data[column]
    return data.filter(pc.or_kleene(pc.is_null(times), pc.greater_equal(times, pa.scalar(since, times.type))))
