"""Queries over the rows of one table that are asked of batch after batch: planned once, in a process of their own.

A row that fails the whole batch is found by asking the halves, so that it alone is left out.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import count

import msgspec
import pyarrow as pa

from kalam.errors import KalamError, Unavailable
from kalam.query.arrow_streams import schema_bytes, stream_bytes
from kalam.query.forks import Forks
from kalam.query.lone_worker import LoneWorker
from kalam.query.wire import Compute, Computed

COMPUTE_S = 10.0
"""How long a query over one batch may take."""
SCHEMAS_MAX = 256
SCHEMA_TEXT_MAX = 32_768
"""Bytes of a question for a schema of which the answer is kept."""

Checked = Callable[[pa.Table], pa.Table]


class Failed(msgspec.Struct, frozen=True):
    """A row of a batch, by its place, that a query fails on, and why, without its values."""

    place: int
    reason: str


class ComputeProcess:
    """The process, and what it was told. Its methods are for threads, but for ``forget``, which waits for nobody."""

    def __init__(self, forks: Forks) -> None:
        self._worker = LoneWorker(forks, COMPUTE_S, "view")
        self._lock = threading.Lock()
        self._generation = 0
        self._known: set[int] = set()
        self._forgotten: deque[int] = deque()
        self.schemas: OrderedDict[Computed, pa.Schema] = OrderedDict()
        self.numbers = count(1)

    def open(self) -> None:
        """Take note of the event loop's thread, in which processes are made."""
        self._worker.open()

    def compute(self, number: int, told: Computed, rows: pa.Table) -> pa.Table:
        """What a query gives for rows; raises what it fails with."""
        with self._lock:
            generation = self._worker.ready()
            if generation != self._generation:
                self._generation = generation
                self._known.clear()
            data, forget = stream_bytes(rows).to_pybytes(), taken(self._forgotten)
            self._known.difference_update(forget)
            new = told if number not in self._known else None
            answer = self._worker.ask(Compute(number=number, rows=data, told=new, forget=forget))
            self._known.add(number)
            return pa.ipc.open_stream(answer).read_all()

    def schema(self, told: Computed) -> pa.Schema:
        """The columns that a query gives; raises what it fails with. They follow from what is told, and are kept."""
        with self._lock:
            known = self.schemas.get(told)
            if known is not None:
                self.schemas.move_to_end(told)
                return known
        number = next(self.numbers)
        try:
            found = self.compute(number, told, pa.ipc.read_schema(pa.py_buffer(told.schema)).empty_table()).schema
        finally:
            self.forget(number)
        if len(told.text) + len(told.schema) <= SCHEMA_TEXT_MAX:
            with self._lock:
                self.schemas[told] = found
                if len(self.schemas) > SCHEMAS_MAX:
                    self.schemas.popitem(last=False)
        return found

    def forget(self, number: int) -> None:
        """Let go of a query, with the next question.

        It takes no lock: the event loop calls it, and who holds the lock may wait for the loop to make the process.
        """
        self._forgotten.append(number)


def taken(numbers: deque[int]) -> list[int]:
    """What waits in a queue to which others add meanwhile; it is taken out."""
    return [numbers.popleft() for _ in range(len(numbers))]


class ComputedQuery:
    """One query over a table of this schema, row by row. Its methods are blocking."""

    def __init__(self, process: ComputeProcess, told: Computed) -> None:
        self._process, self._told = process, told
        self._number = next(process.numbers)

    @classmethod
    def of(cls, process: ComputeProcess, namespace: str, table: str, text: str, schema: pa.Schema) -> ComputedQuery:
        """The query of this text, in which the table has its full name."""
        return cls(process, Computed(namespace, table, text, schema_bytes(schema)))

    def close(self) -> None:
        """Nobody asks any more."""
        self._process.forget(self._number)

    def schema(self) -> pa.Schema:
        """The columns of its results; raises what it fails with."""
        return self._process.schema(self._told)

    def run(self, rows: pa.Table) -> pa.Table:
        """The result for these rows; raises what it fails with."""
        return self._process.compute(self._number, self._told, rows)

    def run_each(self, rows: pa.Table, checked: Checked = lambda result: result) -> tuple[list[pa.Table], list[Failed]]:
        """The results for all rows but those that it fails on, in order, and these.

        Results are ``checked``, which may raise, too.
        """
        return each_of(rows, lambda part: checked(self.run(part)))


def each_of(rows: pa.Table, work: Checked) -> tuple[list[pa.Table], list[Failed]]:
    """What work on rows gives for all of them but those that it fails on, in order, and these."""
    found: list[pa.Table] = []
    failed: list[Failed] = []
    todo: list[tuple[int, int]] = [(0, rows.num_rows)]
    while todo:
        start, end = todo.pop()
        try:
            found.append(work(rows.slice(start, end - start)))
        except Unavailable:
            raise
        except KalamError as exc:
            if end - start <= 1:
                failed.append(Failed(start, f"{exc.code}: {exc.kind}"))
                continue
            middle = (start + end) // 2
            todo += [(middle, end), (start, middle)]
    return found, failed
