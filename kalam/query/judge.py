"""Judges conditions in a query process of their own, by DataFusion itself, as a WHERE is judged in SELECT.

All live queries share the process. A condition that takes it too long, too much memory or its life is found by judging
the halves of what was asked together, each in a new process, and ends its live queries alone.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence
from itertools import count
from weakref import WeakKeyDictionary, finalize

import numpy as np
import pyarrow as pa
import structlog

from kalam.errors import Internal, KalamError, Timeout
from kalam.names import TableName
from kalam.query.forks import Fork, Forks
from kalam.query.handed import schema_bytes, stream_bytes
from kalam.query.predicate import Predicate
from kalam.query.wire import (
    FAILURES,
    HEAD,
    VERDICTS,
    Check,
    Condition,
    Frame,
    Question,
    question_message,
    receive_exactly,
)
from kalam.query.wire import Judge as JudgeQuestion
from kalam.query.workers import error_of
from kalam.rows.columns import arrow_schema, to_arrow
from kalam.rows.types import Row
from kalam.schema import Column

JUDGE_S = 2.0
"""How long the conditions of one batch of changes may take."""
Verdicts = dict[Predicate, "list[int] | KalamError"]
"""For each predicate the places of the versions for which it holds, or why it cannot be said."""
log = structlog.get_logger(__name__)


class JudgeProcess:
    """The process, made when there is something to judge. Its methods are for threads, one at a time."""

    def __init__(self, forks: Forks) -> None:
        self._forks = forks
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fork: Fork | None = None
        self._lock = threading.Lock()
        self._numbers: WeakKeyDictionary[Predicate, int] = WeakKeyDictionary()
        self._next = count(1)
        self._known: set[int] = set()
        self._gone: list[int] = []

    def open(self) -> None:
        """Take note of the event loop's thread, in which processes are made."""
        self._loop = asyncio.get_running_loop()

    def check(self, check: Check) -> None:
        """Raise what there is against a condition."""
        with self._lock:
            self._ask(check)

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
        told = [_condition(number, each) for number, each in by_number.items() if number not in self._known]
        forget, self._gone = self._gone, []
        self._known -= set(forget)
        question = JudgeQuestion(
            namespace=table.namespace,
            table=table.table,
            rows=rows,
            conditions=list(by_number),
            told=told,
            forget=forget,
        )
        body = self._ask(question)
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

    def _ask(self, question: Question) -> bytes:
        """The body of the answer; raises the failure that it is, and what became of the process."""
        fork = self._fork if self._fork is not None and not self._fork.ended.done() else self._new()
        try:
            fork.questions.sendall(question_message(question))
            head = receive_exactly(fork.answers, HEAD.size)
            kind, size = HEAD.unpack(head) if head else (b"", 0)
            body = receive_exactly(fork.answers, size) if head else None
        except TimeoutError as exc:
            self._end()
            raise Timeout(f"the condition takes longer than {JUDGE_S:g} s") from exc
        except OSError:
            body = None
        if body is None:
            said = fork.said()
            self._end()
            log.error("the process that judges live queries ended", said=said)
            raise Internal("the process that judges conditions ended; the server's log has the reason")
        if Frame(kind) is Frame.FAILURE:
            raise error_of(FAILURES.decode(body))
        return body

    def _new(self) -> Fork:
        assert self._loop is not None
        self._end()
        fork = self._fork = asyncio.run_coroutine_threadsafe(self._forks.fork(), self._loop).result()
        for sock in (fork.questions, fork.answers):
            _bound(sock)
        return fork

    def _end(self) -> None:
        fork, self._fork = self._fork, None
        self._known.clear()
        if fork is not None:
            fork.kill()
            fork.close()
            fork.answers.close()


def _bound(sock: socket.socket) -> None:
    sock.settimeout(JUDGE_S)


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
