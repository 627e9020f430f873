"""Answers with DuckDB what DataFusion has no plan for: sub-queries that compare with each row around them.

Law: DataFusion has read and typed the query before, and its word on names and types holds; DuckDB sees the rows that
DataFusion would have seen, after policies, copied into its memory, and nothing else: no file, no extension, no Python
object. Who is refused here gets the refusal that DataFusion gave. DuckDB is imported when it is needed first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from datafusion import col

from kalam.errors import InvalidValue, TooLarge
from kalam.query.wire import Ask
from kalam.query.worker.faults import MEMORY_HINT, explain
from kalam.query.worker.frames import Frame
from kalam.query.worker.limits import Limits
from kalam.query.worker.planning import Planned
from kalam.query.worker.shared_words import SCHEMA, Handed, in_shared_words

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

BATCH_ROWS = 8_192
_MARKS = ("This feature is not implemented: Physical plan does not support logical expression",)
_SETTINGS = (
    "SET integer_division = true",
    "SET default_null_order = 'nulls_last_on_asc_first_on_desc'",
    "SET lock_configuration = true",
)


def rows_of(ask: Ask, planned: Planned, limits: Limits) -> Iterator[pa.RecordBatch]:
    """The rows of a plan, as they are found, by whichever engine has a way."""
    try:
        stream = planned.frame.execute_stream()
    except Exception as exc:
        if not str(exc).partition("error: ")[2].startswith(_MARKS) or ask.in_order:
            raise
        shown = [(bound, frame.schema) for bound, frame in planned.relations]
        handed = in_shared_words(ask.text, shown, planned.values)
        if handed is None:
            raise
        refusal = explain(exc)
    else:
        yield from (found.to_pyarrow() for found in stream)
        return
    yield from _second(handed, planned.frame.schema(), [frame for _, frame in planned.relations], limits, refusal)


def _second(
    handed: Handed, schema: pa.Schema, frames: Sequence[Frame], limits: Limits, refusal: Exception
) -> Iterator[pa.RecordBatch]:
    import duckdb  # 0.1 s and some MB, of which few queries have need

    with _connected(limits) as connection:
        try:
            for place, (frame, columns) in enumerate(zip(frames, handed.columns, strict=True)):
                _copy(connection, place, frame, columns)
            for setting in _SETTINGS:
                connection.execute(setting)
            reader = connection.execute(handed.text).to_arrow_reader(BATCH_ROWS)
            for found in reader:
                yield _as_described(found, schema)
        except (duckdb.OutOfMemoryException, MemoryError):
            raise TooLarge("the query needs more memory than it may have", hint=MEMORY_HINT) from None
        except duckdb.OutOfRangeException:
            raise InvalidValue("a number of the query is out of range of BIGINT") from None
        except (duckdb.Error, pa.ArrowNotImplementedError) as exc:
            if "More than one row returned by a subquery" in str(exc):
                raise InvalidValue("a sub-query that stands for a value has more than one row") from None
            raise refusal from None


def _connected(limits: Limits) -> DuckDBPyConnection:
    import duckdb

    config: dict[str, Any] = {
        "enable_external_access": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "python_enable_replacements": "false",
        "temp_directory": "",
        "threads": str(min(2, limits.partitions)),
        "memory_limit": f"{max(1 << 20, limits.memory_bytes // 2)}B",  # half of it, as for DataFusion
    }
    return duckdb.connect(":memory:", config=config)


def _copy(connection: DuckDBPyConnection, place: int, frame: Frame, columns: Sequence[str]) -> None:
    """Have DuckDB keep a relation: pushed into Arrow's own filters a condition would mean something else."""
    if place == 0:
        connection.execute(f"CREATE SCHEMA {SCHEMA}")
    names = list(columns) or frame.schema.names[:1]
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    read = frame.frame.select(*map(col, quoted))
    failed: list[BaseException] = []

    def rows() -> Iterator[pa.RecordBatch]:
        try:
            yield from (found.to_pyarrow() for found in read.execute_stream())
        except BaseException as exc:
            failed.append(exc)  # DuckDB would tell it in words of its own
            raise

    connection.register("handed", pa.RecordBatchReader.from_batches(read.schema(), rows()))
    kinds = [frame.schema.field(name).type for name in names]
    shown = ", ".join(
        f"CAST({name} AS BIGINT) AS {name}" if pa.types.is_integer(kind) else name
        for name, kind in zip(quoted, kinds, strict=True)
    )
    try:
        connection.execute(f"CREATE TABLE {SCHEMA}.t{place} AS SELECT {shown} FROM handed")  # noqa: S608 - quoted names
    except Exception:
        if failed:
            raise failed[0] from None
        raise
    connection.unregister("handed")


def _as_described(found: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The rows with the types that DataFusion has told of them."""
    fields = [field.with_nullable(True) for field in schema]
    if len(fields) != found.num_columns:
        raise pa.ArrowNotImplementedError("another number of columns")
    arrays = [_cast(column, field.type) for column, field in zip(found.columns, fields, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields, schema.metadata))


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type == kind:
        return column
    if not any(alike(column.type) and alike(kind) for alike in (_is_whole, _is_text, pa.types.is_timestamp)):
        raise pa.ArrowNotImplementedError(f"{column.type} for {kind}")
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        raise InvalidValue("a number of the result is out of range of its type") from None


def _is_whole(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or (pa.types.is_decimal128(kind) and kind.scale == 0))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_string_view(kind) or pa.types.is_large_string(kind))
