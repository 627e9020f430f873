"""Reading one row by its key: no plan, no DataFusion, no thread where the row is hot.

Only what surely means the same as the planned query is answered here: a plain list of columns and ``key = value``, of
each column of the key, with a value of its own type. Everything else is left to ``Queries``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import msgspec
import pyarrow as pa

from kalam.access.model import Privilege
from kalam.query.dropped import unless_dropped
from kalam.query.parameters import check_parameters
from kalam.query.policies import Policies
from kalam.query.predicate import Predicate
from kalam.query.queries import resolve
from kalam.query.results import Result, ResultColumn, sql_type
from kalam.query.row_answer import RowAnswer
from kalam.rows.column_types import TYPES
from kalam.rows.column_types.uuids import uuid_text
from kalam.rows.columns import STORED_FIELDS, shown_field
from kalam.rows.types import Row
from kalam.schema import Column, Table, TypeName
from kalam.sql.text.statements import Equality, Literal, Parameter, PointQuery, QueryText, TableUse
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.copies import Key
from kalam.storage.segments.cold_keys import KeyedRow
from kalam.storage.segments.key_rows import KeyLookup
from kalam.tables.kinds import Rows, Tables
from kalam.tables.stored import StoredTables

SHAPES_MAX = 4_096


def key_of(table: Table, equalities: Sequence[Equality], called: str, parameters: Sequence[Any]) -> Key | None:
    """The key that equalities pick from the table, which is ``called`` so there.

    None if they are not one for each column of the key, with a value of that column's own type.
    """
    if not equalities or len(equalities) != len(table.key):
        return None
    picked = {equality.column: equality for equality in equalities if equality.qualifier in (None, called)}
    parts: list[Any] = []
    for column in table.key_columns:
        equality = picked.get(column.name)
        part = None if equality is None else _part(column, equality.value, parameters)
        if part is None:
            return None
        parts.append(part)
    return parts[0] if len(parts) == 1 else tuple(parts)


def _part(column: Column, value: Literal | Parameter, parameters: Sequence[Any]) -> Any:
    """The value of a column of the key, in a row's form; None where only a query can tell it."""
    if isinstance(value, Literal):
        part = value.value
    else:
        check_parameters(value.index, parameters)
        part = parameters[value.index - 1]
    kind = column.type.name
    if kind is TypeName.UUID:
        return uuid_text(part) if isinstance(part, str) else None
    if kind is TypeName.TEXT:
        return part if isinstance(part, str) else None
    fits = TYPES[kind].bits is not None and isinstance(part, int) and not isinstance(part, bool)
    return part if fits and -(1 << 63) <= part < 1 << 63 else None


class Shape(msgspec.Struct, frozen=True):
    """What a query by key answers: for each column its place in (row, _updated, _deleted) and its type."""

    asked: tuple[tuple[str, str], ...]
    table: Table
    places: tuple[tuple[int, pa.DataType], ...]
    pick: Callable[[Row], Row]
    schema: pa.Schema
    columns: tuple[ResultColumn, ...]
    answer: RowAnswer
    wanted: frozenset[str] | None


class Plan(msgspec.Struct, frozen=True):
    """What a query by key comes to while definitions stand: its answer's shape, and where the key's values are.

    The same for all queries that differ from ``tables``' in the values alone. ``key`` has each column of the key, and
    the place in the query's WHERE.
    """

    tables: tuple[TableUse, ...]
    changes: int
    shape: Shape
    rows: Rows
    key: tuple[tuple[Column, int], ...]

    def key_of(self, point: PointQuery, parameters: Sequence[Any]) -> Key | None:
        """The key whose row is asked for; None where a value is not of its column's own type."""
        if len(self.key) == 1:
            ((column, place),) = self.key
            return _part(column, point.where[place].value, parameters)
        parts = tuple([_part(column, point.where[place].value, parameters) for column, place in self.key])
        return None if None in parts else parts


class PointRow(msgspec.Struct, frozen=True):
    """The answer to a query for one row: its columns, and the row as Python values, None where there is none."""

    fields: pa.Schema
    row: tuple[Any, ...] | None


class PointLookup(msgspec.Struct, frozen=True):
    """Looks up the rows that a query asks for with different parameters, in one turn of the event loop."""

    plan: Plan
    point: PointQuery
    guard: Predicate | None
    found: KeyLookup

    def rows(self, parameters: Sequence[Any]) -> list[list[Any]] | None:
        """The row that is asked for, as it is shown, or none; None if memory cannot tell."""
        key = self.plan.key_of(self.point, parameters)
        found = None if key is None else self.found.find(key)
        if found is None:
            return None
        if not found or not (self.guard is None or self.guard.may_match(found[0].row)):
            return []
        return [list(self.plan.shape.pick(_whole(found[0])))]

    def answer(self, rows: list[list[Any]], took_ms: float) -> bytes:
        """The JSON answer with these rows, whose values are changed in place."""
        return self.plan.shape.answer.write(rows[0] if rows else None, took_ms)

    def row(self, rows: list[list[Any]], _: float) -> PointRow:
        """The same answer as Python values."""
        return PointRow(self.plan.shape.schema, tuple(rows[0]) if rows else None)


class Points:
    """Answers queries for single rows."""

    def __init__(self, catalogue: Catalogue, stored: StoredTables, own: Tables[Rows], policies: Policies) -> None:
        self._catalogue, self._stored, self._own, self._policies = catalogue, stored, own, policies
        self._shapes: dict[tuple[int, int], Shape] = {}
        self._plans: dict[tuple[int, str | None], Plan] = {}

    async def select(
        self, query: QueryText, user: str, namespace: str | None, parameters: Sequence[Any]
    ) -> Result | None:
        """The answer to a query that asks for one row by its key; None for any other query."""
        asked = self._asked(query, namespace, parameters)
        if asked is None:
            return None
        shape, key = asked
        with unless_dropped(self._catalogue, [shape.table.name]):
            guard = self._policies.seen(user, shape.table)
            found = await self._stored.rows_by_key(shape.table, user, [key], _wanted(shape, guard))
            if found is None:
                return None
            held = await self._policies.held(shape.table, guard, [row.row for row in found.rows])
        rows = [_whole(row) for row, visible in zip(found.rows, held, strict=True) if visible]
        arrays = [pa.array([row[place] for row in rows], kind) for place, kind in shape.places]
        data = pa.Table.from_arrays(arrays, schema=shape.schema)
        return Result(columns=shape.columns, data=data, row_count=len(rows))

    def described(
        self, query: QueryText, namespace: str | None, known: Mapping[int, pa.Field]
    ) -> tuple[dict[int, pa.Field], pa.Schema] | None:
        """The parameters and the columns of a query that asks for one row by its key; None for any other query.

        And where a parameter is ``known`` as something else than its column of the key.
        """
        point = query.point
        table = None if point is None else self._table(query, namespace)
        shape = None if point is None or table is None else self._shape(table, point)
        if point is None or table is None or shape is None:
            return None
        columns = {column.name: column for column in table.key_columns}
        parameters: dict[int, pa.Field] = {}
        for equality in point.where:
            column = columns.pop(equality.column, None)
            if column is None:
                return None
            if isinstance(equality.value, Parameter):
                field = shown_field(column)
                index = equality.value.index
                if parameters.setdefault(index, field) is not field or not _may_be(field, known.get(index)):
                    return None
                parameters[index] = known.get(index, field)
        return None if columns or len(parameters) != query.parameters else (parameters, shape.schema)

    def lookup(
        self, query: QueryText, user: str, namespace: str | None, reader: str | None = None
    ) -> PointLookup | None:
        """Looks single rows up in memory, as a query asks for them; None for any other query.

        And where the ``reader``, whose rights count, may not read the table. It is good while nothing else runs.
        """
        plan = self._plan_of(query, namespace)
        if plan is None:
            return None
        shape = plan.shape
        if reader is not None and not self._policies.rights.may(reader, Privilege.SELECT, shape.table):
            return None
        guard = self._policies.seen(user, shape.table)
        if guard is not None and guard.asks:
            return None
        rows = self._stored.lookup(shape.table, user, _wanted(shape, guard))
        return None if rows is None or query.point is None else PointLookup(plan, query.point, guard, rows)

    def _asked(self, query: QueryText, namespace: str | None, parameters: Sequence[Any]) -> tuple[Shape, Key] | None:
        """What is asked for, and the key of whose row; None for a query that has to be planned."""
        plan = self._plan_of(query, namespace)
        key = None if plan is None or query.point is None else plan.key_of(query.point, parameters)
        return None if plan is None or key is None else (plan.shape, key)

    def _plan_of(self, query: QueryText, namespace: str | None) -> Plan | None:
        """What a query by key comes to; None for a query that has to be planned."""
        point = query.point
        if point is None:
            return None
        plan = self._plans.get((id(query.tables), namespace))
        if plan is None or plan.tables is not query.tables or plan.changes != self._catalogue.changes:
            plan = self._plan(query, point, namespace)
        return plan if plan is not None and plan.rows.is_readable(plan.shape.table) else None

    def _plan(self, query: QueryText, point: PointQuery, namespace: str | None) -> Plan | None:
        """What a query comes to now, which is kept; None for one that has to be planned otherwise."""
        table = self._table(query, namespace)
        shape = None if table is None else self._shape(table, point)
        places = {each.column: at for at, each in enumerate(point.where) if each.qualifier in (None, "")}
        if table is None or shape is None or len(point.where) != len(table.key):
            return None
        if any(column.name not in places for column in table.key_columns):
            return None
        if len(self._plans) >= SHAPES_MAX:
            self._plans.clear()
        key = tuple((column, places[column.name]) for column in table.key_columns)
        changes, rows = self._catalogue.changes, self._own.of(table)
        plan = self._plans[id(query.tables), namespace] = Plan(query.tables, changes, shape, rows, key)
        return plan

    def _table(self, query: QueryText, namespace: str | None) -> Table | None:
        """The table that is asked, if its rows can be read by key."""
        table = self._catalogue.tables.get(resolve(query.tables[0].ref, namespace))
        if table is None or not table.key or not self._own.of(table).is_readable(table):
            return None
        return table

    def _shape(self, table: Table, point: PointQuery) -> Shape | None:
        """What the answer looks like; None where the query names a column that the table does not have."""
        name = (id(point.columns), table.table_id)  # the same for all keys that a text was sent with
        known = self._shapes.get(name)
        if known is not None and known.asked is point.columns and known.table is table:
            return known
        fields = _fields(table)
        names = point.columns or tuple((name, name) for name in fields if name not in table.hidden_columns)
        if any(column not in fields for column, _ in names):
            return None
        order = {name: place for place, name in enumerate(fields)}
        schema = pa.schema([fields[column].with_name(shown) for column, shown in names])
        columns = tuple(ResultColumn(field.name, sql_type(field)) for field in schema)
        places = tuple((order[column], fields[column].type) for column, _ in names)
        # Of one place itemgetter gives no tuple.
        pick = (
            itemgetter(*[place for place, _ in places])
            if len(places) > 1
            else itemgetter(slice(places[0][0], places[0][0] + 1))
        )
        types = {**{column.name: column.type.name for column in table.columns}, **table.system_columns}
        if len(self._shapes) >= SHAPES_MAX:
            self._shapes.clear()
        answer = RowAnswer(columns, [types[column] for column, _ in names])
        wanted = frozenset(column for column, _ in point.columns) or None
        made = self._shapes[name] = Shape(point.columns, table, places, pick, schema, columns, answer, wanted)
        return made


def _may_be(field: pa.Field, known: pa.Field | None) -> bool:
    """Whether a parameter that is known as something is a value of a column of the key, as it is."""
    integers = known is not None and pa.types.is_integer(known.type) and pa.types.is_integer(field.type)
    return known is None or known.type == field.type or integers


def _wanted(shape: Shape, guard: Predicate | None) -> frozenset[str] | None:
    """The columns that have to be read: those that are shown, and those that the policies ask."""
    if guard is None or shape.wanted is None:
        return shape.wanted
    return shape.wanted | guard.columns


def _whole(found: KeyedRow) -> tuple[Any, ...]:
    """The row with its system columns."""
    return (*found.row, found.updated, False)


def _fields(table: Table) -> dict[str, pa.Field]:
    """The fields of what SELECT sees of a table, by name, in order."""
    return {field.name: field for field in (*map(shown_field, table.columns), *STORED_FIELDS)}
