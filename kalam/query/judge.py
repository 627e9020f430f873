"""Judges conditions in a query process of their own, by DataFusion itself, as a WHERE is judged in SELECT.

All live queries share the process. A condition that takes it too long, too much memory or its life is found by judging
the halves of what was asked together, each in a new process, and ends its live queries alone.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from itertools import count
from weakref import WeakKeyDictionary, finalize

import numpy as np
import pyarrow as pa

from kalam.errors import KalamError
from kalam.names import TableName
from kalam.query.arrow_streams import schema_bytes, stream_bytes
from kalam.query.computed import taken
from kalam.query.forks import Forks
from kalam.query.lone_worker import LoneWorker
from kalam.query.predicate import Predicate
from kalam.query.wire import VERDICTS, Check, Condition
from kalam.query.wire import Judge as JudgeQuestion
from kalam.query.workers import error_of
from kalam.rows.columns import arrow_schema, to_arrow
from kalam.rows.types import Row
from kalam.schema import Column

JUDGE_S = 2.0
"""How long the conditions of one batch of changes may take."""
Verdicts = dict[Predicate, "list[int] | KalamError"]
"""For each predicate the places of the versions for which it holds, or why it cannot be said."""


class JudgeProcess:
    """The process, made when there is something to judge. Its methods are for threads, one at a time."""

    def __init__(self, forks: Forks) -> None:
        self._worker = LoneWorker(forks, JUDGE_S, "condition")
        self._generation = 0
        self._lock = threading.Lock()
        self._numbers: WeakKeyDictionary[Predicate, int] = WeakKeyDictionary()
        self._next = count(1)
        self._known: set[int] = set()
        self._gone: deque[int] = deque()

    def open(self) -> None:
        """Take note of the event loop's thread, in which processes are made."""
        self._worker.open()

    def check(self, check: Check) -> None:
        """Raise what there is against a condition."""
        with self._lock:
            self._worker.ask(check)

    def judge(self, table: TableName, rows: bytes, predicates: Sequence[Predicate]) -> Verdicts:
        """Judge conditions over rows, an Arrow stream."""
        with self._lock:
            return self._judge(table, rows, predicates)

    def _judge(self, table: TableName, rows: bytes, predicates: Sequence[Predicate]) -> Verdicts:
        try:
            return self._verdicts(table, rows, predicates)
        except KalamError as exc:
            if len(predicates) == 1:
                return {predicates[0]: exc}
        middle = len(predicates) // 2
        return self._judge(table, rows, predicates[:middle]) | self._judge(table, rows, predicates[middle:])

    def _verdicts(self, table: TableName, rows: bytes, predicates: Sequence[Predicate]) -> Verdicts:
        by_number = {self._number(predicate): predicate for predicate in predicates}
        generation = self._worker.ready()
        if generation != self._generation:
            self._generation = generation
            self._known.clear()
        told = [_condition(number, each) for number, each in by_number.items() if number not in self._known]
        forget = taken(self._gone)
        self._known.difference_update(forget)
        question = JudgeQuestion(
            namespace=table.namespace,
            table=table.table,
            rows=rows,
            conditions=list(by_number),
            told=told,
            forget=forget,
        )
        body = self._worker.ask(question)
        self._known |= by_number.keys()
        return {
            by_number[verdict.number]: np.frombuffer(verdict.places, np.int32).tolist()
            if verdict.failure is None
            else error_of(verdict.failure)
            for verdict in VERDICTS.decode(body)
        }

    def _number(self, predicate: Predicate) -> int:
        number = self._numbers.get(predicate)
        if number is None:
            number = self._numbers[predicate] = next(self._next)
            finalize(predicate, self._gone.append, number).atexit = False
        return number


def _condition(number: int, predicate: Predicate) -> Condition:
    reads_clock = predicate.condition is not None and predicate.condition.reads_clock
    alone = bool(predicate.parameters) or reads_clock
    return Condition(number, str(predicate.text), list(predicate.parameters), alone, reads_clock)


class Judge:
    """Judges the conditions of one table at one schema version."""

    def __init__(self, process: JudgeProcess, name: TableName, columns: Sequence[Column]) -> None:
        self._process, self._name = process, name
        self._schema = arrow_schema(columns)

    def check(self, predicate: Predicate) -> None:
        """Raise the error that SELECT gives for a condition that cannot be planned as a WHERE."""
        check = Check(
            namespace=self._name.namespace,
            table=self._name.table,
            schema=schema_bytes(self._schema),
            text=str(predicate.text),
            parameters=list(predicate.parameters),
        )
        self._process.check(check)

    def judge(self, predicates: Sequence[Predicate], versions: Sequence[Row]) -> Verdicts:
        """Judge every predicate over every version."""
        rows = stream_bytes(pa.Table.from_batches([to_arrow(versions, self._schema)])).to_pybytes()
        return self._process.judge(self._name, rows, predicates)
