"""Runs a query text in a worker process over tables that are bound to it, and to it alone."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Protocol, TypeVar

import msgspec
import pyarrow as pa

from kalam.errors import KalamError, Timeout, Unavailable
from kalam.names import TableName
from kalam.query.handed import Handed
from kalam.query.names import DELETED_SUFFIX
from kalam.query.parameters import sent
from kalam.query.pool import Pool
from kalam.query.results import TooManyBytes, TooManyRows
from kalam.query.running import in_state, interruptible, note_rows
from kalam.query.wire import Around, Ask, Bound, Untyped
from kalam.query.workers import TooMany, Worker
from kalam.sql.text.edits import Edits
from kalam.sql.text.recognised import starred
from kalam.sql.text.statements import QueryText, TableUse
from kalam.threads import Purpose, in_thread, reading
from kalam.tracing import makes_spans, span

Relations = Mapping[tuple[TableName, bool], "Relation"]
Message = tuple[bytes, list[int], Sequence[Handed]]
T = TypeVar("T")


class Relation(Protocol):
    """What a bound table stands for; ``guard`` is the condition of the policies over its rows."""

    @property
    def guard(self) -> str | None:
        """None where none is asked."""

    def make(self) -> Handed:
        """Make it; blocking."""

    def known(self) -> Handed | None:
        """The same without waiting; None where it would wait."""


class BoundQuery(msgspec.Struct, frozen=True):
    """A query with what its names stand for, and the values of its parameters, with the types that are known of them.

    ``names`` are the full names of ``query.tables``, in their order; ``relations`` gives for each of them, with and
    without its deleted rows as the mention asks, what it stands for, and may have more. ``around`` is asked of the
    rows in their place.
    """

    query: QueryText
    names: Sequence[TableName]
    relations: Relations
    parameters: Sequence[Any] = ()
    types: Mapping[int, pa.DataType] = {}
    around: Around | None = None


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """How a query is to be answered: for whom, with its rows in order or not, and within which bounds."""

    user: str
    in_order: bool = False
    rows_max: int | None = None
    bytes_max: int | None = None


class Executor:
    """Queries in worker processes, bounded in time."""

    def __init__(self, pool: Pool, time_s: float) -> None:
        self.pool, self._time_s = pool, time_s

    async def run(self, bound: BoundQuery, wanted: Wanted) -> pa.Table:
        """The rows of a query.

        Raises TooManyRows and TooManyBytes past what is wanted, Timeout past the time limit, and what the worker says
        against the query.
        """
        ask = await reading(bound.query.text, _ask, bound, wanted)
        async with self._leased(wanted.user) as worker:
            try:
                return await self._step(lambda: _rows(worker, ask, bound.relations), self._time_s)
            except TooMany as exc:
                raise _past(exc, wanted) from exc

    async def describe(self, bound: BoundQuery, untyped: Untyped, user: str) -> tuple[pa.Schema, pa.Schema]:
        """The types of a query's parameters, under their numbers, and its columns; nothing is run."""
        ask = await reading(bound.query.text, _ask, bound, Wanted(user=user))
        ask.untyped = untyped
        async with self._leased(user) as worker:
            return await self._step(lambda: _described(worker, ask, bound.relations), self._time_s)

    async def stream(self, bound: BoundQuery, wanted: Wanted) -> AsyncGenerator[pa.Table, None]:
        """The rows of a query as they are found, as tables of one schema, the first of them empty.

        Only in what they say of NULL the tables may differ: an engine knows it better with the rows than before them.
        The time limit counts the time that the query works, and not the time that the reader takes.
        """
        ask = await reading(bound.query.text, _ask, bound, wanted)
        async with self._leased(wanted.user) as worker:
            left_s, started = self._time_s, time.monotonic()
            async with aclosing(worker.answer()) as answer:
                with span("kalam.plan"):
                    held = await self._step(lambda: _send(worker, ask, bound.relations), left_s)
                    part = await self._step(lambda: anext(answer, None), left_s - (time.monotonic() - started))
                with span("kalam.execute", apart=True):
                    while part is not None:
                        left_s -= time.monotonic() - started
                        if isinstance(part, pa.Schema):
                            yield part.empty_table()
                        else:
                            note_rows(part.num_rows)
                            yield pa.Table.from_batches([part])
                        started = time.monotonic()
                        part = await self._step(lambda: anext(answer, None), left_s)
        del held

    @asynccontextmanager
    async def _leased(self, user: str) -> AsyncIterator[Worker]:
        if self.pool.closing:
            raise Unavailable("the server is shutting down")
        lease = self.pool.lease(user)
        with in_state("waiting"), interruptible():
            worker = await lease.__aenter__()
        try:
            with in_state("running", worker.memory_bytes):
                yield worker
        except KalamError as exc:
            if self.pool.closing:
                raise Unavailable("the server stopped before the answer was ready") from exc
            raise
        finally:
            await lease.__aexit__(None, None, None)

    async def in_time(self, work: Callable[[], Awaitable[T]]) -> T:
        """What is read before a query can be asked: the time limit and a cancel end it as they end the query."""
        return await self._step(work, self._time_s)

    async def _step(self, work: Callable[[], Awaitable[T]], left_s: float) -> T:
        try:
            async with asyncio.timeout(max(left_s, 0)):
                with interruptible():
                    return await work()
        except TimeoutError as exc:
            raise Timeout(f"the query ran longer than {self._time_s:g} s (setting query_time_s)") from exc


async def _rows(worker: Worker, ask: Ask, relations: Relations) -> pa.Table:
    schema: pa.Schema | None = None
    batches: list[pa.RecordBatch] = []
    async with aclosing(worker.answer()) as answer:
        with span("kalam.plan"):  # the schema comes when there is a plan
            held = await _send(worker, ask, relations)
            first = await anext(answer, None)
        with span("kalam.execute"):
            part = first
            while part is not None:
                if isinstance(part, pa.Schema):
                    schema = part
                else:
                    batches.append(part)
                    note_rows(part.num_rows)
                part = await anext(answer, None)
    del held
    return pa.Table.from_batches(batches, schema=batches[0].schema if batches else schema)


async def _described(worker: Worker, ask: Ask, relations: Relations) -> tuple[pa.Schema, pa.Schema]:
    schemas: list[pa.Schema] = []
    async with aclosing(worker.answer()) as answer:
        held = await _send(worker, ask, relations)
        async for part in answer:
            assert isinstance(part, pa.Schema)
            schemas.append(part)
    del held
    parameters, columns = schemas
    return parameters, columns


async def _send(worker: Worker, ask: Ask, relations: Relations) -> Sequence[Handed]:
    """Ask a worker; what is returned has to be held until it has answered."""
    worker.at_rest = False  # even if the question does not get there: what the worker knows is not certain then

    def prepare(handed: Sequence[Handed] | None = None) -> Message:
        held = handed or [relation.make() for relation in relations.values()]
        ask.bound = [
            Bound(name.namespace, name.table + DELETED_SUFFIX if deleted else name.table, each.number, relation.guard)
            for ((name, deleted), relation), each in zip(relations.items(), held, strict=True)
        ]
        return *worker.question(ask, held), held

    known = [handed for relation in relations.values() if (handed := relation.known()) is not None]
    if len(known) == len(relations) and worker.learns_little(known):
        message, files, held = prepare(known)
    else:
        message, files, held = await _prepared(prepare)
    try:
        await worker.send(message, files)
    except OSError as exc:
        raise await worker.death() from exc
    return held


async def _prepared(prepare: Callable[[], Message]) -> Message:
    work = asyncio.ensure_future(in_thread(Purpose.QUERIES, prepare))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        work.add_done_callback(_close_files)
        raise


def _close_files(work: asyncio.Future[Message]) -> None:
    if not work.cancelled() and work.exception() is None:
        for file in work.result()[1]:
            os.close(file)


def _past(exc: TooMany, wanted: Wanted) -> TooManyRows | TooManyBytes:
    if exc.what == "rows":
        return TooManyRows(wanted.rows_max or 0)
    return TooManyBytes(wanted.bytes_max or 0)


def _ask(bound: BoundQuery, wanted: Wanted) -> Ask:
    parameters, typed = sent(bound.parameters[: bound.query.parameters], bound.types)
    return Ask(
        text=bind_names(bound.query, bound.names),
        bound=[],
        parameters=parameters,
        typed=typed,
        casts=bound.query.casts,
        around=bound.around,
        in_order=wanted.in_order,
        rows_max=wanted.rows_max,
        bytes_max=wanted.bytes_max,
        tells_plan=makes_spans(),
    )


def bind_names(query: QueryText, names: Sequence[TableName]) -> str:
    """The text of a query with every mention of a table replaced by its full, quoted name."""
    edits, named = Edits(query.text), starred(query.text) if query.tables else frozenset()
    for use, name in zip(query.tables, names, strict=True):
        edits.replace((use.start, use.end), _mention(use, name, named))
    return edits.whole


def _mention(use: TableUse, name: TableName, starred: frozenset[str]) -> str:
    suffix = DELETED_SUFFIX if use.sees_deleted else ""
    # DataFusion knows t.id of a table n.t, and t.* only of one that is called t.
    called = not use.aliased and (use.sees_deleted or name.table.lower() in starred)
    alias = f' AS "{name.table}"' if called else ""
    return f'"{name.namespace}"."{name.table}{suffix}"{alias}'
