"""What an INSERT puts into its table: a VALUES list or a query, read once, and made to rows of a table.

Reading waits, and an ALTER may pass meanwhile. So what is read keeps no column of the table: only when the rows are
wanted is it matched with the columns that the table has then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from itertools import product
from typing import Any, Final

import pyarrow as pa

from kalam.engine.assigned import naming_column
from kalam.engine.bounded import bounds_named
from kalam.engine.session import Request
from kalam.engine.upserts import existing_column
from kalam.errors import InvalidValue, Unsupported
from kalam.query.composed import as_columns, compose
from kalam.query.parameters import check_parameters
from kalam.query.queries import Queries
from kalam.rows.codec import Codecs
from kalam.rows.sql_values import sql_value
from kalam.rows.types import Row
from kalam.schema import Column, DataType, Default, DefaultKind, Table, TypeName
from kalam.settings import Settings
from kalam.sql.tables.column_types import BARE_DECIMAL
from kalam.sql.text.statements import DefaultFunction, DefaultValue, Insert, Literal, Parameter, QueryText, Value
from kalam.threads import beside

RowsOf = Callable[[Table], Awaitable[list[Row]]]
"""Makes what an INSERT gives to rows of a table, as the table is when it is called."""


MANY_PLAIN: Final = "many rows of parameters are for INSERT … VALUES of plain values, without ON CONFLICT"
_WITHOUT_BOUNDS: Final = (DataType(name=TypeName.TEXT), BARE_DECIMAL)
"""Types of a CAST that leave a value its length and its digits."""
EXPRESSIONS_TOGETHER_MAX = 256
"""Expressions of a VALUES list that are planned as one query: planning takes time in the square of their number."""


def _given(source: QueryText | Sequence[Sequence[Value]], many: pa.Table) -> pa.Table:
    """The table, whose columns a VALUES list takes as they are; raises Unsupported for another list."""
    plain = [Parameter(number) for number in range(1, many.num_columns + 1)]
    if isinstance(source, QueryText) or [list(row) for row in source] != [plain]:
        raise Unsupported(MANY_PLAIN, hint="the VALUES of a table of parameters are $1, $2, … in order")
    return many


class InsertSource:
    """Reads what INSERTs put into their tables."""

    def __init__(self, settings: Settings, codecs: Codecs, queries: Queries) -> None:
        self._settings, self._codecs, self._queries = settings, codecs, queries

    async def read(self, table: Table, statement: Insert, request: Request) -> RowsOf:
        """What an INSERT's query or VALUES give, evaluated once; made to rows of the table as it is when asked."""
        targets = target_columns(table, statement.columns)  # what is wrong with them is told before anything is run
        source = statement.source
        if isinstance(request.many, pa.Table):
            return self._rows_of_table(statement, _given(source, request.many), request)
        if isinstance(source, QueryText):
            return self._rows_of_table(statement, await self._selected(source, request), request)
        values, expressions = await beside(len(source), _prepared, source, targets)
        if request.many is not None and expressions:
            raise Unsupported(MANY_PLAIN, hint="run the statement for each row")
        evaluated = await self._evaluated(expressions, request)
        user = request.session.user

        def convert(newest: Table) -> list[Row]:
            converted = self._values(values, target_columns(newest, statement.columns), evaluated, request)
            return self._codecs.of(newest).decoder.convert(converted, user=user)

        async def rows_of(newest: Table) -> list[Row]:
            return await beside(len(values) * len(request.parameter_rows), convert, newest)

        return rows_of

    def check(self, table: Table, statement: Insert) -> None:
        """Raise what is wrong with the columns that an INSERT names."""
        target_columns(table, statement.columns)

    def named(self, table: Table, statement: Insert, data: pa.Table) -> list[str]:
        """The columns of the table that a query's go to, in their order; raises InvalidValue for another number."""
        return _matched(target_columns(table, statement.columns), data)

    def _rows_of_table(self, statement: Insert, data: pa.Table, request: Request) -> RowsOf:
        async def rows_of(newest: Table) -> list[Row]:
            columns = target_columns(newest, statement.columns)
            return await beside(data.num_rows, self._selected_rows, newest, columns, data, request)

        return rows_of

    async def _selected(self, query: QueryText, request: Request) -> pa.Table:
        with bounds_named(self._settings):
            return await self._queries.select(
                query,
                request.session.user,
                request.session.namespace,
                request.parameters,
                rows_max=self._settings.statement_rows_max,
                bytes_max=self._settings.statement_change_bytes_max,
            )

    def _selected_rows(self, table: Table, columns: Sequence[Column], data: pa.Table, request: Request) -> list[Row]:
        named = data.rename_columns(_matched(columns, data))
        return self._codecs.of(table).decoder.decode_table(named, user=request.session.user, sql=True)

    async def _evaluated(self, expressions: Sequence[tuple[QueryText, str]], request: Request) -> list[Any]:
        """The values of the expressions in a VALUES list, in order; evaluated together by DataFusion."""

        async def run(places: Sequence[int]) -> list[Any]:
            return await self._evaluate_expressions([expressions[place][0] for place in places], request)

        return await naming_column([name for _, name in expressions], run)

    def _values(
        self,
        rows: Sequence[Sequence[Value]],
        columns: Sequence[Column],
        expressions: Sequence[Any],
        request: Request,
    ) -> list[dict[str, Any]]:
        """The rows of a VALUES list as Python values by column."""
        evaluated = iter(expressions)
        decoded: list[dict[str, Any]] = []
        for number, (parameters, row) in enumerate(product(request.parameter_rows, rows), 1):
            if len(row) != len(columns):
                raise InvalidValue(f"row {number} has {len(row)} values for {len(columns)} columns")
            values: dict[str, Any] = {}
            for column, value in zip(columns, row, strict=True):
                match value:
                    case Parameter(index):
                        check_parameters(index, parameters)
                        values[column.name] = sql_value(column, parameters[index - 1])
                    case DefaultValue():
                        continue
                    case Literal(literal):
                        values[column.name] = sql_value(column, literal)
                    case DefaultFunction(default):
                        values[column.name] = self._generate(column, default, request.session.user)
                    case QueryText():
                        values[column.name] = sql_value(column, next(evaluated))
            decoded.append(values)
        return decoded

    async def _evaluate_expressions(self, expressions: Sequence[QueryText], request: Request) -> list[Any]:
        if not expressions:
            return []
        values: list[Any] = []
        for start in range(0, len(expressions), EXPRESSIONS_TOGETHER_MAX):
            together = expressions[start : start + EXPRESSIONS_TOGETHER_MAX]
            query = compose([("SELECT ", None), *as_columns(together, "v")])
            data = await self._queries.select(
                query, request.session.user, request.session.namespace, request.parameters, rows_max=1
            )
            values += [_python_value(column) for column in data.columns]
        return values

    def _generate(self, column: Column, default: Default, user: str) -> Any:
        match default.kind:
            case DefaultKind.NOW:
                return sql_value(column, datetime.now(UTC))
            case DefaultKind.CURRENT_USER:
                return user
            case DefaultKind.SNOWFLAKE_ID:
                return self._codecs.generators.snowflakes.take(1)[0]
            case DefaultKind.UUID_V7:
                return sql_value(column, self._codecs.generators.uuids.take(1)[0])
            case DefaultKind.LITERAL:
                return sql_value(column, default.literal)


def target_columns(table: Table, names: Sequence[str] | None) -> Sequence[Column]:
    """The columns that an INSERT names, or all that were declared; raises ColumnNotFound and InvalidValue."""
    if names is None:
        return table.declared_columns
    columns = [existing_column(table, name) for name in names]
    if len(set(names)) < len(names):
        raise InvalidValue(f"a column comes twice in the column list of INSERT INTO {table.name}")
    return columns


def _matched(columns: Sequence[Column], data: pa.Table) -> list[str]:
    """The names of the columns that a query's go to, in their order; raises InvalidValue for another number."""
    if data.num_columns != len(columns):
        raise InvalidValue(f"the query gives {data.num_columns} columns, the INSERT names {len(columns)}")
    return [column.name for column in columns]


def _prepared(
    rows: Sequence[Sequence[Value]], columns: Sequence[Column]
) -> tuple[tuple[tuple[Value, ...], ...], list[tuple[QueryText, str]]]:
    """The rows of a VALUES list as their columns take them, and the expressions in it, each with its column."""
    rows = as_columns_take(rows, columns)
    names = [column.name for column in columns]
    return rows, [
        (value, names[place] if place < len(names) else f"{place + 1}")
        for row in rows
        for place, value in enumerate(row)
        if isinstance(value, QueryText)
    ]


def as_columns_take(rows: Sequence[Sequence[Value]], columns: Sequence[Column]) -> tuple[tuple[Value, ...], ...]:
    """The rows of a VALUES list, in which a parameter with a CAST that does more than its column would is evaluated."""
    if not any(isinstance(value, Parameter) and value.cast for row in rows for value in row):
        return tuple(map(tuple, rows))
    kinds = [column.type for column in columns]
    return tuple(
        tuple(
            QueryText(value.written, parameters=value.index)
            if isinstance(value, Parameter) and place < len(kinds) and not _does_what(value.cast, kinds[place])
            else value
            for place, value in enumerate(row)
        )
        for row in rows
    )


def _does_what(cast: DataType | None, kind: DataType) -> bool:
    """Whether a column of this type does to a value what the CAST would do."""
    if cast is None or cast == kind:
        return True
    if cast.name is TypeName.FLOAT and kind.name is TypeName.DOUBLE:  # PostgreSQL's FLOAT has 64 bits
        return True
    return cast.name is kind.name and (cast.name is TypeName.TIMESTAMP or cast in _WITHOUT_BOUNDS)


def all_plain(rows: Sequence[Sequence[Value]]) -> bool:
    """Whether nothing in a VALUES list has to be evaluated."""
    return not any(isinstance(value, QueryText) for row in rows for value in row)


def _python_value(column: pa.ChunkedArray) -> Any:
    """The one value of a column; nanoseconds, in which DataFusion casts to TIMESTAMP, are no Python datetime."""
    kind = column.type
    return (column.cast(pa.timestamp("us", kind.tz), safe=False) if pa.types.is_timestamp(kind) else column)[0].as_py()
