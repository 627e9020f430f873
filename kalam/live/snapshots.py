"""What a live query begins with: the rows that a SELECT with its WHERE would give."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pyarrow as pa

from kalam.names import TableName
from kalam.query.composed import from_table, quoted
from kalam.query.executor import BoundQuery, Wanted
from kalam.query.names import DELETED_SUFFIX
from kalam.query.predicate import Predicate
from kalam.query.queries import Queries
from kalam.rows.columns import arrow_schema
from kalam.schema import STREAM_KEY, Table
from kalam.sql.text.statements import QueryText
from kalam.tables.kinds import Rows, Tables


class Snapshot(msgspec.Struct, frozen=True):
    """The matching rows of one moment, oldest change first where ``last_rows`` was asked; ``seq`` is that moment."""

    rows: pa.Table
    seq: int


class Snapshots:
    """Reads the matching rows as SELECT does."""

    def __init__(self, queries: Queries, tables: Tables[Rows], rows_max: int) -> None:
        self._queries, self._tables, self._rows_max = queries, tables, rows_max

    async def snapshot(
        self, table: Table, user: str, columns: Sequence[str], predicate: Predicate, last_rows: int | None
    ) -> Snapshot:
        """The chosen columns of the rows that match, or of the ``last_rows`` newest of them."""
        rows = self._tables.of(table)
        if last_rows == 0:
            return Snapshot(arrow_schema(()).empty_table(), await rows.last_seq(table, user))
        seen = predicate.sees_deleted
        named = {*columns, *(predicate.condition.columns if predicate.condition else ())}
        virtual = table.hidden_columns & named
        source, seq = await rows.numbered(table, user, with_key=STREAM_KEY in named, virtual=virtual)
        guard = predicate.guard
        relation = self._queries.relation(table, user, source, sees_deleted=seen, with_seq=True, guard=guard)
        query = _query(table, columns, predicate, rows.seq_column, last_rows)
        rows_max = None if last_rows is not None else self._rows_max
        wanted = Wanted(user=user, in_order=rows.ordered, rows_max=rows_max)
        bound = BoundQuery(query, [], {(table.name, seen): relation}, predicate.parameters)
        data = await self._queries.run(bound, wanted)
        if last_rows is not None:  # the newest came first
            data = data.take(pa.array(range(data.num_rows - 1, -1, -1), pa.int64()))
        return Snapshot(data, seq)


def _query(table: Table, columns: Sequence[str], predicate: Predicate, seq: str, last_rows: int | None) -> QueryText:
    name, alias = table.name, None
    if predicate.sees_deleted:
        name, alias = TableName(name.namespace, name.table + DELETED_SUFFIX), name.table
    text = f"SELECT {quoted([*columns, seq])}{from_table(name, alias)}"
    if predicate.text is not None:
        text += f" WHERE ({predicate.text}\n)"
    if last_rows is not None:
        text += f' ORDER BY "{seq}" DESC LIMIT {last_rows}'
    return QueryText(text, parameters=len(predicate.parameters))
