"""The process that carries out an UPDATE or DELETE of any size; its whole life is ``main``.

It is given the rows that the statement picks, in pieces, and holds no more of them than a segment has, or
``RUN_BYTES``. Of each such *run*, sorted by key, it makes a segment of the rows that are to be, or of the rows that are
deleted, and the changes for the feed, which it gives back in pieces. Which versions are changed is noted in a file of
bits, for whoever writes their segments again without them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from kalam.errors import Internal, KalamError
from kalam.names import TableName
from kalam.rows.assigned import assigned_rows
from kalam.rows.codec import Codec
from kalam.rows.columns import UPDATED_FIELD, arrow_schema, from_arrow, to_arrow
from kalam.rows.field_ids import carries_ids, with_field_ids
from kalam.rows.ids import SnowflakeIds, UuidV7s
from kalam.rows.normalise import Generators
from kalam.rows.stored import pack_pieces, pack_rows, row_count
from kalam.schema import SEQ, UPDATED, Column, StoredOptions, Table, TableKind
from kalam.storage.log.copies import Op
from kalam.storage.log.former_times import pack_times
from kalam.storage.log.staged import Piece
from kalam.storage.log.written_file import WrittenFile
from kalam.storage.work.left_out import SeqBits
from kalam.storage.work.numbered_output import NumberedFile
from kalam.storage.work.output_file import SegmentsRequest
from kalam.storage.work.worker_process import WorkerAnswer, serve_requests
from kalam.tables.runs import check_events

RUN_BYTES: Final = 64 << 20
"""Bytes of picked rows, with the values that are assigned, that are in memory before they are worked on."""
SLICE_ROWS: Final = 5_000
ANSWER_BYTES: Final = 4 << 20


class Begin(SegmentsRequest, kw_only=True, tag=True):
    """Begin a change: what it does, to which table, and to the columns of which names it assigns values.

    ``last_seq`` is that of the newest version that may be picked; the versions are noted in the file ``left_out``.
    """

    op: Op
    table_name: TableName
    kind: TableKind
    options: StoredOptions
    created_at: datetime
    assigned: tuple[str, ...]
    updated_us: int
    row_bytes_max: int
    last_seq: int
    left_out: str


class Rows(msgspec.Struct, tag=True):
    """Picked rows as an Arrow stream: the table's columns, ``_seq``, ``_updated``, and the values ``_set_<n>``."""

    data: bytes


class More(msgspec.Struct, tag=True):
    """Ask for more changes of what was given."""


class End(msgspec.Struct, tag=True):
    """Say that there are no more rows."""


class Finish(msgspec.Struct, tag=True):
    """Complete the files: the first change has the number ``first_seq``."""

    first_seq: int


class ChangeAnswer(WorkerAnswer, kw_only=True):
    """Changes in their order; ``more`` of them are to be asked for before further rows are given.

    Or the code, detail and fields of the error by which the statement is ``refused``.
    """

    pieces: list[Piece] = msgspec.field(default_factory=list)
    more: bool = False
    files: list[WrittenFile] = msgspec.field(default_factory=list)
    refused: tuple[str, str, dict[str, object]] | None = None


def main() -> None:
    """Answer requests until the input ends."""
    state: list[Change] = []

    def answer(request: Begin | Rows | More | End | Finish, tell: object) -> ChangeAnswer:
        try:
            if isinstance(request, Begin):
                state[:] = [Change(request)]
                return ChangeAnswer()
            return state[0].answer(request)
        except KalamError as exc:
            if isinstance(exc, Internal):
                raise
            return ChangeAnswer(refused=(exc.code, exc.detail, exc.fields))

    serve_requests(Begin | Rows | More | End | Finish, answer, ChangeAnswer)


class Change:
    """One statement."""

    def __init__(self, request: Begin) -> None:
        self._request = request
        table = Table(
            name=request.table_name,
            kind=request.kind,
            columns=request.columns,
            key=request.key,
            options=request.options,
            table_id=request.table_id,
            schema_version=request.schema_version,
            created_at=request.created_at,
        )
        self._codec = Codec(table, Generators(SnowflakeIds(), UuidV7s()))
        self._columns = [_named(table, name) for name in request.assigned]
        self._bits = SeqBits(request.last_seq)
        self._waiting: list[pa.Table] = []
        self._rows = self._bytes = 0
        self._runs: deque[Iterator[Piece]] = deque()
        self._files: list[NumberedFile] = []
        self._schema = pa.schema([*arrow_schema(table.columns), UPDATED_FIELD])

    def answer(self, request: Rows | More | End | Finish) -> ChangeAnswer:
        """Take a request; raises what is wrong with the rows."""
        match request:
            case Rows():
                self._take(pa.ipc.open_stream(request.data).read_all())
            case End():
                self._begin_run()
                self._bits.write(Path(self._request.left_out))
            case Finish():
                return ChangeAnswer(files=list(self._finished(request.first_seq)))
            case More():
                pass
        return self._changes()

    def _take(self, rows: pa.Table) -> None:
        self._bits.add(rows.column(SEQ).to_numpy())
        self._waiting.append(rows)
        self._rows += rows.num_rows
        self._bytes += rows.nbytes
        if self._rows >= self._request.segment_rows_max or self._bytes >= RUN_BYTES:
            self._begin_run()

    def _begin_run(self) -> None:
        if self._rows:
            rows = pa.concat_tables(self._waiting)
            self._waiting, self._rows, self._bytes = [], 0, 0
            for start in range(0, rows.num_rows, self._request.segment_rows_max):
                self._runs.append(self._run(rows.slice(start, self._request.segment_rows_max)))

    def _run(self, rows: pa.Table) -> Iterator[Piece]:
        """The changes of a run; behind the last its segment is written."""
        rows = rows.take(pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in self._request.key]))
        made: list[pa.RecordBatch] = []
        for start in range(0, rows.num_rows, SLICE_ROWS):
            part = rows.slice(start, SLICE_ROWS)
            olds = from_arrow(part.select(range(len(self._request.columns))))
            times = part.column(UPDATED).cast(pa.int64()).to_pylist()
            news = olds if self._request.op == "delete" else self._assigned(olds, part)
            packed = pack_pieces(news)
            if self._request.op == "update":
                check_events(self._codec, news, packed, self._request.row_bytes_max)
            first = 0
            for payload in packed:
                count = row_count(payload)
                own = slice(first, first + count)
                old = None if self._request.op == "delete" else pack_rows(olds[own])
                yield Piece(self._request.op, count, payload, old, pack_times(times[own]))
                first += count
            made.append(to_arrow(news, arrow_schema(self._request.columns)))
        del rows
        self._write(pa.Table.from_batches(made))

    def _assigned(self, olds: Sequence[tuple[object, ...]], part: pa.Table) -> list[tuple[object, ...]]:
        return assigned_rows(self._codec.decoder, self._columns, olds, part)

    def _write(self, rows: pa.Table) -> None:
        request, deleted = self._request, self._request.op == "delete"
        if deleted and request.updated_us < request.forget_deleted_us:
            return
        updated = pa.repeat(pa.scalar(request.updated_us, pa.int64()), rows.num_rows).cast(UPDATED_FIELD.type)
        rows = rows.append_column(UPDATED_FIELD, updated)
        if carries_ids(request.history, request.schema_version):
            rows = rows.cast(with_field_ids(rows.schema, request.columns))
        self._files.append(NumberedFile(request, rows, len(self._files), deleted=deleted))

    def _changes(self) -> ChangeAnswer:
        pieces: list[Piece] = []
        size = 0
        while self._runs and size < ANSWER_BYTES:
            piece = next(self._runs[0], None)
            if piece is None:
                self._runs.popleft()
                continue
            pieces.append(piece)
            size += len(piece.payload) + len(piece.old or b"")
        return ChangeAnswer(pieces=pieces, more=bool(self._runs))

    def _finished(self, first_seq: int) -> Iterator[WrittenFile]:
        for file in self._files:
            yield file.finish(first_seq)
            first_seq += file.row_count


def _named(table: Table, name: str) -> Column:
    column = table.column(name)
    if column is None:
        raise Internal(f"table {table.name} has no column {name}")
    return column


def remove_files(folder: Path, name: str) -> None:
    """Remove what such a process has written and nobody has renamed; blocking."""
    for path in folder.glob(f".*-{name}-*.tmp"):
        with suppress(OSError):
            path.unlink(missing_ok=True)
