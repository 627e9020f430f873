"""Runs a query text on DataFusion over tables that are bound to it, and to it alone.

One context lives as long as the server, because it holds the caches of file metadata. Nothing stays registered in it:
the relations of a query are registered under their names, the text is planned, and they are taken away again, all
under one lock; a plan holds what it was made from. So no query can name what was not bound to it.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pyarrow as pa
from datafusion import DataFrame, RuntimeEnvBuilder, SessionConfig, SessionContext
from datafusion.catalog import Schema

from kalam.errors import (
    ColumnNotFound,
    Internal,
    InvalidValue,
    KalamError,
    SyntaxFault,
    TableNotFound,
    Timeout,
    TooLarge,
    Unsupported,
)
from kalam.names import TableName
from kalam.query.cancellation import interruptible
from kalam.query.exact.checked import MARK
from kalam.query.exact.rewrite import ExactQueries, exact_config
from kalam.query.merge import SEGMENTS_SCHEMA
from kalam.query.results import TooManyRows, plainly_typed, widely_known
from kalam.sql.statements import QueryText, TableUse

DELETED_SUFFIX = "$deleted"

Relation = Callable[[], tuple[DataFrame, Any]]
"""Makes the frame of a bound table, and whatever has to live as long as it is read."""


class Executor:
    """DataFusion, bounded in memory, time and concurrency."""

    def __init__(self, *, memory_bytes: int, time_s: float, concurrency_max: int, partitions: int) -> None:
        runtime = RuntimeEnvBuilder().with_disk_manager_os().with_fair_spill_pool(memory_bytes)
        config = SessionConfig().with_target_partitions(partitions).with_information_schema(enabled=False)
        config = config.set("datafusion.sql_parser.map_string_types_to_utf8view", "false")  # CAST AS TEXT gives TEXT
        self.ctx = SessionContext(exact_config(config), runtime)
        self._exact = ExactQueries(self.ctx)
        self._catalog = self.ctx.catalog()
        self._catalog.register_schema(SEGMENTS_SCHEMA, Schema.memory_schema())
        self._time_s = time_s
        self._running = asyncio.Semaphore(concurrency_max)
        self._planning = threading.Lock()

    async def run(
        self,
        query: QueryText,
        names: Sequence[TableName],
        relations: Mapping[tuple[TableName, bool], Relation],
        parameters: Sequence[Any] = (),
        *,
        rows_max: int | None = None,
    ) -> pa.Table:
        """The rows of a query.

        ``names`` are the full names of ``query.tables``, in their order; ``relations`` gives for each of them, with
        and without its deleted rows as the mention asks, what it stands for. Raises TooLarge past ``rows_max`` rows,
        Timeout past the time limit, and the errors of ``explain``.
        """
        text = bind_names(query, names)
        async with self._slot():
            try:
                async with asyncio.timeout(self._time_s):
                    with interruptible():
                        stream, held = await asyncio.to_thread(self._start, text, relations, parameters)
                        table = await _collect(stream, held[1].schema(), rows_max)
            except TimeoutError as exc:
                raise Timeout(f"the query ran longer than {self._time_s:g} s (setting query_time_s)") from exc
            except KalamError:
                raise
            except Exception as exc:
                raise explain(exc) from exc
        del held
        return plainly_typed(widely_known(table), query.casts)

    async def stream(
        self,
        query: QueryText,
        names: Sequence[TableName],
        relations: Mapping[tuple[TableName, bool], Relation],
        parameters: Sequence[Any] = (),
    ) -> AsyncGenerator[pa.Table, None]:
        """The rows of a query as they are found, as tables of one schema, the first of them empty.

        The time limit counts the time that the query works, and not the time that the reader takes.
        """
        text = bind_names(query, names)
        left_s = self._time_s
        async with self._slot():
            started = time.monotonic()
            stream, held = await self._step(lambda: asyncio.to_thread(self._start, text, relations, parameters), left_s)
            left_s -= time.monotonic() - started
            yield plainly_typed(held[1].schema().empty_table(), query.casts)
            while True:
                started = time.monotonic()
                batch = await self._step(lambda: anext(stream, None), left_s)
                left_s -= time.monotonic() - started
                if batch is None:
                    break
                yield plainly_typed(pa.Table.from_batches([batch.to_pyarrow()]), query.casts)
        del held

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """One of the places for queries that run at the same time."""
        with interruptible():
            await self._running.acquire()
        try:
            yield
        finally:
            self._running.release()

    async def _step(self, work: Callable[[], Awaitable[Any]], left_s: float) -> Any:
        try:
            async with asyncio.timeout(max(left_s, 0)):
                with interruptible():
                    return await work()
        except TimeoutError as exc:
            raise Timeout(f"the query ran longer than {self._time_s:g} s (setting query_time_s)") from exc
        except KalamError:
            raise
        except Exception as exc:
            raise explain(exc) from exc

    def _start(
        self, text: str, relations: Mapping[tuple[TableName, bool], Relation], parameters: Sequence[Any]
    ) -> tuple[Any, Any]:
        frames = {name: relation() for name, relation in relations.items()}
        values = {str(index): _scalar(value) for index, value in enumerate(parameters, 1)}
        with self._planning:
            bound: list[tuple[Schema, str]] = []
            try:
                for (name, sees_deleted), (frame, _) in frames.items():
                    schema = self._schema(name.namespace)
                    bound.append((schema, name.table + DELETED_SUFFIX if sees_deleted else name.table))
                    schema.register_table(bound[-1][1], frame.into_view())
                plan = self._exact.plan(text, values, [frame.schema() for frame, _ in frames.values()])
            finally:
                for schema, table in bound:
                    schema.deregister_table(table)
        return plan.execute_stream(), (frames, plan)

    def _schema(self, name: str) -> Schema:
        if name not in self._catalog.schema_names():
            self._catalog.register_schema(name, Schema.memory_schema())
        return self._catalog.schema(name)


async def _collect(stream: Any, schema: pa.Schema, rows_max: int | None) -> pa.Table:
    batches: list[pa.RecordBatch] = []
    rows = 0
    async for batch in stream:
        batches.append(batch.to_pyarrow())
        rows += batches[-1].num_rows
        if rows_max is not None and rows > rows_max:
            raise TooManyRows(rows_max)
    return pa.Table.from_batches(batches, schema=batches[0].schema if batches else schema)


def bind_names(query: QueryText, names: Sequence[TableName]) -> str:
    """The text of a query with every mention of a table replaced by its full, quoted name."""
    text = query.text
    for use, name in sorted(zip(query.tables, names, strict=True), key=lambda pair: -pair[0].start):
        text = text[: use.start] + _mention(use, name, query.text) + text[use.end :]
    return text


def _mention(use: TableUse, name: TableName, text: str) -> str:
    suffix = DELETED_SUFFIX if use.sees_deleted else ""
    # DataFusion knows t.id of a table n.t, and t.* only of one that is called t.
    called = not use.aliased and (use.sees_deleted or re.search(rf'\b{name.table}"?\s*\.\s*\*', text, re.IGNORECASE))
    alias = f' AS "{name.table}"' if called else ""
    return f'"{name.namespace}"."{name.table}{suffix}"{alias}'


def _scalar(value: Any) -> Any:
    if isinstance(value, dict | list):
        return msgspec.json.encode(value).decode()
    if isinstance(value, int) and not isinstance(value, bool) and not -(1 << 63) <= value < 1 << 63:
        raise InvalidValue(f"parameter {value} does not fit 64 bits")
    return pa.scalar(value)


_TABLE = re.compile(r"table '(?:datafusion\.)?([^']+)' not found")
_FIELD = re.compile(r"No field named ([^.]+(?:\.[^.\s]+)*)\.(.*)", re.DOTALL)
_SIGNATURE = re.compile(r"Function '(\w+)' failed to match any signature")
_CAUSE = re.compile(r"^((Arrow|Cast|DataFusion|Optimizer|External|Execution) error: |Error during planning: )+")
_POSITION = re.compile(r"Line: (\d+), Column: (\d+)")
_KINDS: tuple[tuple[str, type[KalamError]], ...] = (
    ("ParserError", SyntaxFault),
    ("No field named", ColumnNotFound),
    ("not found in struct", ColumnNotFound),
    ("Ambiguous reference", ColumnNotFound),
    ("Resources exhausted", TooLarge),
    ("not implemented", Unsupported),
    ("not supported", Unsupported),
    ("Invalid function", Unsupported),
    ("Parquet error", Internal),
    ("Object Store error", Internal),
    ("Internal error", Internal),
    ("os error", Internal),
)


_OURS = re.compile(rf"{MARK}(.*?);")


def explain(exc: Exception) -> KalamError:
    """The error that a user reads for what DataFusion said."""
    ours = _OURS.search(str(exc))
    if ours:
        return InvalidValue(ours[1])
    text = _CAUSE.sub("", str(exc).split("\ncaused by\n")[-1])  # the last cause is what the user can do something about
    signature = _SIGNATURE.search(text)
    if signature:
        return InvalidValue(f"function {signature[1]} does not take arguments of these types")
    table = _TABLE.search(text)
    if table:
        return TableNotFound(f"there is no table {table[1].removeprefix('public.')}")
    kind = next((error for words, error in _KINDS if words in text), InvalidValue)
    position = _POSITION.search(text)
    fields = {"line": int(position[1]), "column": int(position[2])} if position else {}
    return kind(text.strip().splitlines()[0][:2_000] if text.strip() else repr(exc), **fields)
