"""INSERT … ON CONFLICT: which rows are new, which are skipped, and what the others become.

The rows that are there already are read from one view and changed by the same task of the writer as an UPDATE's; if
one of them changes before the commit, or a key that was free is taken, the statement is prepared again. So upserts,
updates and inserts of one key give a serial result.

An assignment sees the row that is there as the table's own columns and the row that was to be inserted as ``excluded``,
which is one column of structs, so that a bare name never is ambiguous. That column has a name that no column of a
table can have, and the texts are made to say it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import pyarrow as pa
from msgspec.structs import replace

from kalam.access.model import Command
from kalam.engine.assigned import naming_column
from kalam.engine.session import Request
from kalam.errors import ColumnNotFound, InvalidValue, Unsupported
from kalam.names import listed
from kalam.query.composed import as_columns
from kalam.query.parameters import check_parameters
from kalam.query.queries import Queries
from kalam.rows.assigned import assigned_rows
from kalam.rows.columns import arrow_schema, changed_rows, to_arrow
from kalam.rows.door import RowDecoder
from kalam.rows.keys import key_name, shown_key
from kalam.rows.types import Row
from kalam.rows.values import shorten
from kalam.schema import DELETED, SEQ, STREAM_KEY, UPDATED, Column, Table, TypeName
from kalam.sql.text.recognised import EXCLUDED, is_negative_zero, proposed_column
from kalam.sql.text.replaced import with_column_named
from kalam.sql.text.statements import Assignment, OnConflict, Parameter
from kalam.storage.log.copies import Key, View
from kalam.storage.segments.key_rows import KeyedRows
from kalam.tables.matched import Matched
from kalam.tables.stored import StoredTables
from kalam.threads import beside

EXCLUDED_STRUCT = "excluded$"


def existing_column(table: Table, name: str) -> Column:
    """The column that a statement writes; raises InvalidValue or ColumnNotFound."""
    if name in (UPDATED, DELETED, STREAM_KEY) or name.startswith("_"):
        raise InvalidValue(f"column {name} is kept by the server and cannot be written")
    column = table.column(name)
    if column is None:
        known = listed([column.name for column in table.declared_columns])
        raise ColumnNotFound(f"table {table.name} has no column {name!r}; it has {known}")
    return column


def check_conflict(table: Table, conflict: OnConflict) -> None:
    """Raise Unsupported, InvalidValue or ColumnNotFound for an ON CONFLICT that the table cannot have."""
    if conflict.key is not None and sorted(conflict.key) != sorted(table.key):
        named = ", ".join(conflict.key)
        raise InvalidValue(f"ON CONFLICT ({named}): the key of table {table.name} is {key_name(table)}")
    for assignment in conflict.assignments:
        if existing_column(table, assignment.column).name in table.key:
            raise Unsupported(f"the key {key_name(table)} cannot be set ON CONFLICT: both rows have the same")


async def assign(
    queries: Queries,
    table: Table,
    assignments: Sequence[Assignment],
    data: pa.Table,
    request: Request,
    alias: str | None = None,
) -> pa.Table:
    """The assigned values, as ``_set_0``, ``_set_1``, …, for each of the given rows of the table, in their order."""
    constants = constant_values(assignments, data.num_rows, request)
    if constants is not None:
        return constants
    assignments = [with_sign_of_zero(table, assignment) for assignment in assignments]

    async def run(places: Sequence[int]) -> pa.Table:
        return await _computed(queries, table, [assignments[place] for place in places], data, request, alias)

    return await naming_column([assignment.column for assignment in assignments], run)


def with_sign_of_zero(table: Table, assignment: Assignment) -> Assignment:
    """``-0.0`` is stored as VALUES would, where a column has such a number: as a DECIMAL it has no sign."""
    value = assignment.value
    column = table.column(assignment.column)
    if column is None or column.type.name not in (TypeName.FLOAT, TypeName.DOUBLE):
        return assignment
    return replace(assignment, value=replace(value, text="-0e0")) if is_negative_zero(value.text) else assignment


async def _computed(
    queries: Queries,
    table: Table,
    assignments: Sequence[Assignment],
    data: pa.Table,
    request: Request,
    alias: str | None,
) -> pa.Table:
    data = data.append_column(SEQ, pa.array(range(data.num_rows), pa.int64()))
    pieces = [(f'SELECT "{SEQ}", ', None), *as_columns([assignment.value for assignment in assignments], "_set_")]
    session = request.session
    answer = await queries.run_over(pieces, table, data, alias, session.user, session.namespace, request.parameters)
    return answer.sort_by(SEQ)


def of_structs(assignments: Sequence[Assignment]) -> list[Assignment]:
    """The assignments with ``excluded`` as the column of structs that it is for DataFusion."""
    return [replace(one, value=with_column_named(one.value, EXCLUDED, EXCLUDED_STRUCT)) for one in assignments]


def is_proposed(column: Column, assignment: Assignment) -> bool:
    """Whether the column gets what the row had in it that was to be inserted: ``c = excluded.c``."""
    return column.name == proposed_column(assignment.value.text)


def scalar(value: Any) -> Any:
    """A parameter as Arrow has it; maps and lists are JSON texts."""
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise InvalidValue(f"parameter {shorten(value)} does not fit 64 bits; send it as a text")
    return msgspec.json.encode(value).decode() if isinstance(value, dict | list) else value


def constant_values(assignments: Sequence[Assignment], rows: int, request: Request) -> pa.Table | None:
    """The assigned values for so many rows, where they are the same for all; None where one has to be evaluated."""
    values = [assignment.value.constant for assignment in assignments]
    if None in values:
        return None
    columns = []
    for value in values:
        if isinstance(value, Parameter):
            check_parameters(value.index, request.parameters)
            columns.append(pa.array([scalar(request.parameters[value.index - 1])] * rows))
        else:
            columns.append(pa.array([value.value if value else None] * rows))
    return pa.table(columns, names=[f"_set_{number}" for number in range(len(values))])


class Upsert:
    """One INSERT … ON CONFLICT; ``match`` judges its rows against a view."""

    def __init__(
        self,
        queries: Queries,
        stored: StoredTables,
        decoder: RowDecoder,
        table: Table,
        assignments: Sequence[Assignment],
        rows: Sequence[Row],
        request: Request,
    ) -> None:
        self._queries, self._decoder, self._request = queries, decoder, request
        self.table, self.row_count = table, len(rows)
        self._stored, self._assignments = stored, assignments
        self._columns = [existing_column(table, assignment.column) for assignment in assignments]
        self._by_key: dict[Key, Row] = {}
        for row in rows:
            key = table.key_of(row)
            if key in self._by_key and assignments:
                raise InvalidValue(
                    f"key {shown_key(table, key)} comes twice in this statement; DO UPDATE changes a row once"
                )
            self._by_key.setdefault(key, row)

    async def match(self, view: View) -> Matched:
        """The rows of the view that have one of the keys, what they become, and the rows that are new."""
        user = self._request.session.user
        found = await self._queries.rows_by_key(self._stored, self.table, user, view, list(self._by_key))
        if not self._assignments:
            return await beside(len(self._by_key), self._skipping, found)
        olds = [found_row.row for found_row in found.rows]
        policies = self._queries.policies
        await policies.require(self.table, policies.seen(user, self.table, Command.UPDATE, Command.SELECT), olds)
        news = await self._assigned(olds, [found_row.updated for found_row in found.rows]) if olds else []
        matched, inserts = await beside(len(self._by_key), lambda: (Matched.of_keyed(found, news), self._free(found)))
        return replace(matched, inserts=inserts)

    def _skipping(self, found: KeyedRows) -> Matched:
        return Matched(olds=[], seqs=[], updated_us=[], news=[], seen_seq=found.seen_seq, inserts=self._free(found))

    def _free(self, found: KeyedRows) -> list[Row]:
        """The rows whose keys are not there."""
        there = {self.table.key_of(found_row.row) for found_row in found.rows}
        return [row for key, row in self._by_key.items() if key not in there]

    async def _assigned(self, olds: Sequence[Row], updated: Sequence[datetime]) -> list[Row]:
        """What the rows that are there become, in their order."""
        table = self.table
        proposed = [self._by_key[table.key_of(row)] for row in olds]
        if all(map(is_proposed, self._columns, self._assignments)):
            return await beside(len(olds), self._replaced, olds, proposed)

        def both() -> pa.Table:
            structs = to_arrow(proposed, arrow_schema(table.columns)).to_struct_array()
            return changed_rows(table, olds, updated).append_column(EXCLUDED_STRUCT, structs)

        data = await beside(len(olds), both)
        answer = await assign(self._queries, table, of_structs(self._assignments), data, self._request)
        return await beside(len(olds), assigned_rows, self._decoder, self._columns, olds, answer)

    def _replaced(self, olds: Sequence[Row], proposed: Sequence[Row]) -> list[Row]:
        values = list(zip(*olds, strict=True))
        for place in map(self.table.columns.index, self._columns):
            values[place] = tuple(row[place] for row in proposed)
        return list(zip(*values, strict=True))

    def in_order(self, changed: Sequence[Row]) -> list[Row]:
        """Changed rows in the order of the statement's rows."""
        by_key = {self.table.key_of(row): row for row in changed}
        return [by_key[key] for key in self._by_key if key in by_key]
