"""Results of statements, and how they are shown in JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import replace

from kalam.errors import InvalidValue, KalamError, TooLarge
from kalam.query.intervals import shown_interval
from kalam.rows.columns import SLICE_ROWS, TYPE_METADATA
from kalam.rows.lone_values import json_default, show_timestamp
from kalam.rows.shown import show_in_json
from kalam.schema import TypeName
from kalam.threads import INLINE_ROWS_MAX, Purpose, in_thread

TEXT_TYPES = frozenset({"JSON", "UUID", "TEXT", "VARCHAR"})
"""The types whose values Arrow holds as text."""

SLICE_BYTES = 1 << 20
_ENCODER = msgspec.json.Encoder()
_ANY_JSON = msgspec.json.Decoder(msgspec.Raw)


class TooManyRows(TooLarge):
    """A result is larger than the JSON format may be."""

    code = "too_large"

    def __init__(self, rows_max: int) -> None:
        super().__init__(
            f"the result has more than {rows_max} rows, the bound of the JSON format (setting result_rows_max)",
            hint="add a LIMIT or an aggregate, or ask HTTP for NDJSON, CSV or Arrow (Accept), which have no bound",
        )


class TooManyBytes(TooLarge):
    """A result takes more memory than it may."""

    code = "too_large"

    def __init__(self, bytes_max: int) -> None:
        super().__init__(
            f"the result takes more than {bytes_max} bytes, the bound of the JSON format (setting result_bytes_max)",
            hint="add a LIMIT, or ask HTTP for NDJSON, CSV or Arrow (Accept), which have no bound",
        )


class ResultColumn(msgspec.Struct, frozen=True):
    """A column of a result: its name and the name of its SQL type."""

    name: str
    type: str


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What one statement gave: ``data`` with its rows, or a ``message``. ``row_count`` counts rows given or touched.

    With ``bigint_as_text`` JSON shows the BIGINT values of its rows as text.
    """

    columns: tuple[ResultColumn, ...] = ()
    data: pa.Table | None = None
    row_count: int = 0
    message: str | None = None
    bigint_as_text: bool = False


def rows_result(data: pa.Table) -> Result:
    """The result that shows an Arrow table."""
    columns = tuple(ResultColumn(field.name, _shown_type(field, data, i)) for i, field in enumerate(data.schema))
    return Result(columns=columns, data=data, row_count=data.num_rows)


def _shown_type(field: pa.Field, data: pa.Table, place: int) -> str:
    name = sql_type(field)
    return TypeName.TEXT if name == TypeName.JSON and not _all_json(data.column(place)) else name


def _all_json(column: pa.ChunkedArray) -> bool:
    """Whether all of a JSON column is JSON still; in a UNION with a text it is not."""
    try:
        for start in range(0, len(column), SLICE_ROWS):
            for text in column.slice(start, SLICE_ROWS).to_pylist():
                if text is not None:
                    _ANY_JSON.decode(text)
    except (msgspec.DecodeError, UnicodeError):
        return False
    return True


def list_result(columns: Sequence[tuple[str, pa.DataType]], rows: Sequence[Sequence[Any]]) -> Result:
    """The result that shows some Python rows."""
    values = list(zip(*rows, strict=True)) if rows else [() for _ in columns]
    arrays = [pa.array(list(column), kind) for column, (_, kind) in zip(values, columns, strict=True)]
    return rows_result(pa.table(arrays, names=[name for name, _ in columns]))


def sql_type(field: pa.Field) -> str:
    """The SQL name of an Arrow field's type; Arrow's own name for a type that no column can have.

    What the metadata says counts only where it says more than the type, and not something else: DataFusion leaves it on
    what was cast.
    """
    kind = field.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_decimal(kind):
        return f"DECIMAL({kind.precision},{kind.scale})"
    if pa.types.is_list(kind):
        return f"{sql_type(kind.value_field)}[]"
    name = _type_name(kind)
    if name is TypeName.TEXT and field.metadata and TYPE_METADATA in field.metadata:
        said = str(field.metadata[TYPE_METADATA].decode())
        return said if said.partition("(")[0] in TEXT_TYPES else name.value
    return name.value if name else str(kind).upper()


def plainly_typed(table: pa.Table, places: Sequence[int]) -> pa.Table:
    """The table, of whose columns at these places Arrow's type says everything."""
    if not places:
        return table
    schema = table.schema
    for place in places:
        schema = schema.set(place, schema.field(place).remove_metadata())
    return table.cast(schema)


@lru_cache(maxsize=1_024)
def _type_name(kind: pa.DataType) -> TypeName | None:
    types = pa.types
    tests = (
        (types.is_boolean, TypeName.BOOLEAN),
        (lambda t: types.is_int8(t) or types.is_uint8(t) or types.is_int16(t), TypeName.SMALLINT),
        (lambda t: types.is_uint16(t) or types.is_int32(t), TypeName.INT),
        (types.is_integer, TypeName.BIGINT),
        (lambda t: types.is_float16(t) or types.is_float32(t), TypeName.FLOAT),
        (types.is_float64, TypeName.DOUBLE),
        (types.is_decimal, TypeName.DECIMAL),
        (lambda t: types.is_string(t) or types.is_large_string(t) or types.is_string_view(t), TypeName.TEXT),
        (lambda t: types.is_binary(t) or types.is_large_binary(t) or types.is_binary_view(t), TypeName.BLOB),
        (types.is_timestamp, TypeName.TIMESTAMP),
        (types.is_date, TypeName.DATE),
    )
    return next((name for test, name in tests if test(kind)), None)


def json_rows(result: Result) -> list[Sequence[Any]]:
    """The rows of a result as values that msgspec writes by the contract's rules; InvalidValue for one beyond them."""
    if result.data is None:
        return []
    columns = []
    for values, column in zip(result.data.columns, result.columns, strict=True):
        try:
            columns.append(_shown(values, column.type, result.bigint_as_text))
        except (pa.ArrowException, ValueError, OverflowError) as exc:  # a year beyond 9999 in a DATE, for one
            raise InvalidValue(f"column {column.name} of the result has a value that JSON cannot show: {exc}") from exc
    return list(zip(*columns, strict=True)) if columns else []


def _shown(column: pa.ChunkedArray, type_name: str, bigint_as_text: bool) -> Sequence[Any]:
    kind = _showable(column.type, bigint_as_text)
    if kind != column.type:
        column = column.cast(kind, safe=False)
    if pa.types.is_timestamp(kind):
        return list(pc.strftime(column.cast(pa.timestamp("us", kind.tz)), "%Y-%m-%dT%H:%M:%SZ").to_pylist())
    if pa.types.is_interval(kind) or pa.types.is_duration(kind):
        return [None if value is None else shown_interval(value) for value in column.to_pylist()]
    if pa.types.is_time(kind):
        return [None if value is None else str(value) for value in column.to_pylist()]
    values: Sequence[Any] = column.to_pylist()
    name = TypeName.JSON if type_name == TypeName.JSON else _type_name(kind)
    show = show_in_json(name) if name else None
    if show is not None:
        return show(values)
    return values if name is not None else [_nested(value) for value in values]


def _showable(kind: pa.DataType, bigint_as_text: bool) -> pa.DataType:
    """The type with times in UTC and their nanoseconds, which Python does not have, cut; BIGINT as text if asked."""
    if bigint_as_text and _type_name(kind) is TypeName.BIGINT:
        return pa.string()
    match kind:
        case pa.TimestampType():
            return pa.timestamp("us" if kind.unit == "ns" else kind.unit, kind.tz and "UTC")
        case pa.DurationType() if kind.unit == "ns":
            return pa.duration("us")
        case pa.Time64Type():
            return pa.time64("us")
        case pa.ListType():
            return pa.list_(kind.value_field.with_type(_showable(kind.value_type, bigint_as_text)))
        case pa.StructType():
            return pa.struct([field.with_type(_showable(field.type, bigint_as_text)) for field in kind])
        case pa.MapType():
            return pa.map_(_showable(kind.key_type, bigint_as_text), _showable(kind.item_type, bigint_as_text))
    return kind


def _nested(value: Any) -> Any:
    """A list, struct or map, and what is in it, in a form that JSON has."""
    match value:
        case dict():
            return {str(name): _nested(member) for name, member in value.items()}
        case timedelta() | pa.MonthDayNano():
            return shown_interval(value)
        case list() | tuple():
            return [_nested(member) for member in value]
        case datetime() if value.tzinfo is None:
            return show_timestamp(value.replace(tzinfo=UTC))
    return json_default(value)


def result_json(result: Result) -> dict[str, Any]:
    """One member of ``results``."""
    return {
        "columns": [{"name": column.name, "type": column.type} for column in result.columns],
        "rows": json_rows(result),
        "row_count": result.row_count,
        "message": result.message,
    }


def results_json(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The member ``results`` of an answer or of a problem."""
    return [result_json(result) for result in results]


def answer_json(results: Sequence[Result], took_ms: float) -> bytes:
    """The whole JSON answer of a request; a slice of the rows at a time, so that other threads get their turn."""
    bodies = b",".join(map(_body, results))
    return b'{"results":[%b],"took_ms":%b}' % (bodies, _ENCODER.encode(round(took_ms, 3)))


def _body(result: Result) -> bytes:
    columns = _ENCODER.encode([{"name": column.name, "type": column.type} for column in result.columns])
    rows = b",".join(_ENCODER.encode(rows)[1:-1] for rows in map(json_rows, _slices(result)) if rows)
    message = _ENCODER.encode(result.message)
    return b'{"columns":%b,"rows":[%b],"row_count":%d,"message":%b}' % (columns, rows, result.row_count, message)


def _slices(result: Result) -> Iterator[Result]:
    data = result.data
    if data is None:
        return
    rows = max(1, min(SLICE_ROWS, data.num_rows * SLICE_BYTES // max(data.nbytes, 1)))
    for start in range(0, data.num_rows, rows):
        yield replace(result, data=data.slice(start, rows))


async def encoded_answer(results: Sequence[Result], took_ms: float) -> bytes:
    """The same, beside the event loop where it is large."""
    tables = [result.data for result in results if result.data is not None]
    if sum(table.num_rows for table in tables) > INLINE_ROWS_MAX or sum(table.nbytes for table in tables) > SLICE_BYTES:
        return await in_thread(Purpose.ANSWERS, answer_json, results, took_ms)
    return answer_json(results, took_ms)


def problem_json(error: KalamError) -> bytes:
    """The problem object of an error as JSON, with the results that came before it."""
    problem = error.problem()
    if "results" in problem:
        problem["results"] = results_json(problem["results"])
    return _ENCODER.encode(problem)


def widely_known(table: pa.Table) -> pa.Table:
    """The table with Arrow's newer layouts (views) as the older ones, which every reader of Arrow knows."""
    fields = [field.with_type(_known_type(field.type)) for field in table.schema]
    if all(field.type == old.type for field, old in zip(fields, table.schema, strict=True)):
        return table
    return table.cast(pa.schema(fields, metadata=table.schema.metadata))


def _known_type(kind: pa.DataType) -> pa.DataType:
    match kind:
        case pa.ListType():
            return pa.list_(_known_field(kind.value_field))
        case pa.LargeListType():
            return pa.large_list(_known_field(kind.value_field))
        case pa.FixedSizeListType():
            return pa.list_(_known_field(kind.value_field), kind.list_size)
        case pa.StructType():
            return pa.struct([_known_field(field) for field in kind])
        case pa.MapType():
            return pa.map_(_known_field(kind.key_field), _known_field(kind.item_field), kind.keys_sorted)
    if pa.types.is_string_view(kind):
        return pa.string()
    return pa.binary() if pa.types.is_binary_view(kind) else kind


def _known_field(field: pa.Field) -> pa.Field:
    return field.with_type(_known_type(field.type))
