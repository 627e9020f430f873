"""The life of a worker: one question after another, each answered to its end, or not at all, when it is killed."""

from __future__ import annotations

import mmap
import os
import re
import socket
import sys
import traceback
from collections.abc import Iterator, Sequence

import pyarrow as pa
from datafusion import DataFrame

from kalam.errors import KalamError
from kalam.query.exact.rewrite import EXPLAIN
from kalam.query.results import plainly_typed, widely_known
from kalam.query.wire import (
    ENCODER,
    HEAD,
    Ask,
    Bytes,
    Check,
    Compute,
    Failure,
    Forget,
    Frame,
    Judge,
    Parse,
    Question,
    Untyped,
    receive_question,
)
from kalam.query.worker.computing import Computers
from kalam.query.worker.faults import explain
from kalam.query.worker.judging import Judges
from kalam.query.worker.limits import Limits
from kalam.query.worker.parsing import parsed
from kalam.query.worker.planning import Planner
from kalam.query.worker.second_engine import rows_of

_FILES = re.compile(r"file_groups=\{[^}]*\}")
_FOLDER = re.compile(r"[^\[\], ][^\[\],]*/")
FRAME_BYTES = 4 << 20
"""About as much of a result goes in one frame."""


class Worker:
    """Answers on a socket."""

    def __init__(self, answers: socket.socket, limits: Limits) -> None:
        self._answers = answers
        self._waiting: list[memoryview] = []
        self._limits, self._planner = limits, Planner(limits)
        self._judges = Judges()
        self._computers = Computers()

    def warm(self) -> None:
        """Start DataFusion's threads, which every query needs."""
        self._planner.plan(Ask(text="SELECT 1", bound=[])).frame.collect()

    def serve(self, questions: socket.socket) -> None:
        """Answer until the server is gone."""
        while (received := receive_question(questions)) is not None:
            question, files = received
            try:
                self._answer(question, files)
            except BrokenPipeError:
                return
            except BaseException as exc:  # noqa: BLE001 - a panic in DataFusion is no Exception, and this is the edge
                self._fail(exc)

    def _fail(self, exc: BaseException) -> None:
        error = exc if isinstance(exc, KalamError) else explain(exc)
        if error.code == "internal":
            traceback.print_exception(exc, file=sys.stderr)
        self._send(Frame.FAILURE, ENCODER.encode(Failure(error.code, error.detail, error.fields)))

    def _answer(self, question: Question, files: list[int]) -> None:
        match question:
            case Ask():
                self._forget(question.forget)
                self._take(question, files)
                if question.untyped is not None:
                    self._describe(question, question.untyped)
                else:
                    self._run(question)
            case Forget():
                self._forget(question.forget)
            case Parse():
                self._send(Frame.BATCH, parsed(question))
            case Check():
                self._judges.check(question)
                self._send(Frame.END)
            case Judge():
                self._send(Frame.BATCH, ENCODER.encode(self._judges.judge(question)))
            case Compute():
                self._send(Frame.BATCH, self._computers.compute(question))

    def _take(self, ask: Ask, files: list[int]) -> None:
        left = iter(files)
        for told in ask.told:
            if isinstance(told, Bytes):
                self._planner.frames.take_rows(told.number, _read(told.data, left))
            else:
                self._planner.frames.take(told)

    def _forget(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._planner.frames.forget(number)

    def _describe(self, ask: Ask, untyped: Untyped) -> None:
        parameters, plan = self._planner.describe(ask, untyped)
        self._put(Frame.SCHEMA, parameters.serialize())
        self._put(Frame.SCHEMA, _told_schema(plan, ask).serialize())
        self._send(Frame.END)

    def _run(self, ask: Ask) -> None:
        plan = self._planner.plan(ask)
        schema = _told_schema(plan.frame, ask)
        tell = self._send if ask.tells_plan else self._put  # else it goes with the first rows
        tell(Frame.SCHEMA, schema.serialize())
        explained = EXPLAIN.match(ask.text)
        rows = size = 0
        for found in rows_of(ask, plan, self._limits):
            batch = found if explained is None else _without_folders(found)
            rows, size = rows + batch.num_rows, size + batch.nbytes
            for name, bound, number in (("rows", ask.rows_max, rows), ("bytes", ask.bytes_max, size)):
                if bound is not None and number > bound:
                    failure = Failure("too_large", f"more than {bound} {name}", too_many=name)
                    self._send(Frame.FAILURE, ENCODER.encode(failure))
                    return
            for part in _parts(plainly_typed(widely_known(pa.Table.from_batches([batch])), ask.casts)):
                self._send_batch(part, schema)
        self._send(Frame.END)

    def _send_batch(self, batch: pa.RecordBatch, schema: pa.Schema) -> None:
        plain = batch.schema.equals(schema, check_metadata=True)
        if plain and not any("dictionary<" in str(field.type) for field in schema):
            self._send(Frame.BATCH, batch.serialize())
            return
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        self._send(Frame.STREAM, sink.getvalue())

    def _put(self, kind: Frame, body: bytes | pa.Buffer = b"") -> None:
        """Have a frame sent before the next one."""
        view = memoryview(body)
        self._waiting += [memoryview(HEAD.pack(kind.value, view.nbytes)), view]

    def _send(self, kind: Frame, body: bytes | pa.Buffer = b"") -> None:
        self._put(kind, body)
        waiting, self._waiting = self._waiting, []
        sent = self._answers.sendmsg(waiting)
        for piece in waiting:
            if sent < piece.nbytes:
                self._answers.sendall(piece[sent:])
            sent = max(0, sent - piece.nbytes)


def _told_schema(plan: DataFrame, ask: Ask) -> pa.Schema:
    return plainly_typed(widely_known(plan.schema().empty_table()), ask.casts).schema


def _without_folders(plans: pa.RecordBatch) -> pa.RecordBatch:
    """What an EXPLAIN gives, in which each file of a segment is its name alone."""
    place = plans.schema.get_field_index("plan")
    shown = [_FILES.sub(lambda files: _FOLDER.sub("", files[0]), text) for text in plans.column(place).to_pylist()]
    return plans.set_column(place, plans.schema.field(place), pa.array(shown, plans.schema.field(place).type))


def _parts(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """The table in record batches of a bounded size."""
    for batch in table.to_batches():
        rows = max(1, batch.num_rows * FRAME_BYTES // max(batch.nbytes, 1))
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def _read(data: bytes | None, files: Iterator[int]) -> pa.Table:
    """The rows of an Arrow stream, which stay where they are."""
    if data is None:
        file = next(files)
        mapped = mmap.mmap(file, 0, prot=mmap.PROT_READ)  # the rows hold it
        os.close(file)
        return pa.ipc.open_stream(pa.py_buffer(mapped)).read_all()
    return pa.ipc.open_stream(data).read_all()
