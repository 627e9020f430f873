"""CREATE TABLE … AS: a table with the columns of a query's result, filled with its rows as they are found.

The rows are never in memory together: each piece is stored before the next one is read. If the table's rows are stored
nobody sees it before the last one is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from functools import partial

import pyarrow as pa
from msgspec.structs import replace

from kalam.engine.definitions import Definitions, existing_table
from kalam.engine.result_columns import kept_places, result_columns
from kalam.engine.session import Request
from kalam.query.queries import Queries
from kalam.query.results import Result
from kalam.rows.codec import Codecs
from kalam.rows.types import Row
from kalam.schema import Column, Table
from kalam.sql.queries.readers import postgresql_names
from kalam.sql.tables.definitions import with_row_id
from kalam.sql.text.statements import CreateTable
from kalam.tables.kinds import Rows, Tables, Upkeep
from kalam.threads import beside, reading

SLICE_ROWS = 20_000


class FilledTables:
    """Carries out CREATE TABLE … AS."""

    def __init__(
        self, definitions: Definitions, queries: Queries, codecs: Codecs, tables: Tables[Rows], upkeep: Tables[Upkeep]
    ) -> None:
        self._definitions, self._queries, self._codecs = definitions, queries, codecs
        self._tables, self._upkeep = tables, upkeep

    async def create(self, statement: CreateTable, request: Request) -> Result:
        """Make the table and fill it; who asks may read what the query reads."""
        query, session = statement.query, request.session
        assert query is not None
        existing = self._definitions.existing(statement, session)
        if existing is not None:
            return existing_table(existing, statement)
        found = self._queries.stream(query, session.user, session.namespace, request.parameters)
        async with aclosing(found) as pieces:
            first = await anext(pieces)
            names = await reading(query.text, postgresql_names, query, first.column_names)
            kept = kept_places(names)
            columns = result_columns(first.schema, names, statement.names, statement.key)
            definition = self._definitions.definition(_with_columns(statement, columns), session)
            upkeep = self._upkeep.of(definition)
            async with upkeep.filling(definition) as table:
                fill = partial(self._fill, table, kept, [column.name for column in columns], request)
                rows = await fill(first)
                async for piece in pieces:
                    rows += await fill(piece)
                    await upkeep.settle(table)
        return self._definitions.created(definition, rows)

    async def _fill(
        self, table: Table, kept: Sequence[int], names: Sequence[str], request: Request, piece: pa.Table
    ) -> int:
        rows = self._tables.of(table)
        for start in range(0, piece.num_rows, SLICE_ROWS):
            part = piece.slice(start, SLICE_ROWS).select(list(kept)).rename_columns(list(names))
            decoded: Sequence[Row] = await beside(part.num_rows, self._decoded, table, part, request.session.user)
            await rows.take_rows(table, request.session.user, decoded)
        return int(piece.num_rows)

    def _decoded(self, table: Table, part: pa.Table, user: str) -> Sequence[Row]:
        return self._codecs.of(table).decoder.decode_many(part, user=user, sql=True)


def _with_columns(statement: CreateTable, columns: Sequence[Column]) -> CreateTable:
    return replace(statement, **with_row_id(statement.kind, tuple(columns), statement.key))
