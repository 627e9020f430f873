"""The process that merges segments of a copy into fewer ones; its whole life is ``main``.

The law: every input is sorted by key, so is the output, and of the inputs only some batches are in memory at a time.
Each turn takes, from every input, the rows up to the least of the last keys in memory; no smaller key can come later.
Rows that an override hides and rows that were deleted long ago are left out. What is written is a description of files
that nothing names yet; the server renames and records them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kalam.rows.columns import SEQ_FIELD, UPDATED_FIELD, arrow_schema
from kalam.rows.field_ids import carries_ids, with_field_ids
from kalam.rows.keys import key_arrays, key_at, places_among
from kalam.rows.versions import Layout, layout
from kalam.schema import SEQ, UPDATED, Column
from kalam.storage.log.copies import Key
from kalam.storage.log.copy_store import read_overrides
from kalam.storage.log.database import connect
from kalam.storage.log.written_file import WrittenFile
from kalam.storage.segments.parquet import SegmentWriter, bounded_in_files
from kalam.storage.segments.remote import opened, refetch
from kalam.storage.segments.segment_file import (
    OUT_OF_RESOURCES,
    READ_ERRORS,
    Identity,
    Misfit,
    compare,
    reason_of,
    stamp_of,
)
from kalam.storage.work.left_out import LeftOut
from kalam.storage.work.output_file import SegmentsRequest
from kalam.storage.work.segment_output import Output
from kalam.storage.work.worker_process import WorkerAnswer, serve_requests

BUFFER_BYTES = 192 << 20
"""Bytes of decoded rows of all inputs together that are in memory, about."""
BATCH_ROWS = (256, 32_768)
TELL_ROWS = 200_000


class CompactInput(msgspec.Struct, kw_only=True):
    """A segment to merge, the schema version that it was written under, and what its file has to be."""

    path: str
    schema_version: int
    identity: Identity


class CompactRequest(SegmentsRequest, kw_only=True):
    """Merge ``inputs``, which lie in the folder as well, all of live or all of ``deleted`` rows.

    ``left_out`` is the file of a ``LeftOut``, whose versions are left out.
    """

    inputs: list[CompactInput]
    deleted: bool
    left_out: str | None = None


class CompactAnswer(WorkerAnswer, kw_only=True):
    """The files, the rows in them, and the rows that were left out.

    Or no files, and the place of the input that is ``damaged``, with what is wrong with it; or none because no version
    of what was to be left out is in the inputs, which are ``untouched``.
    """

    untouched: bool = False

    damaged: int | None = None
    damage: str = ""

    files: list[WrittenFile] = msgspec.field(default_factory=list)
    row_count: int = 0
    removed: int = 0


def main() -> None:
    """Answer requests until the input ends."""
    serve_requests(CompactRequest, compact, CompactAnswer)


class DamagedInput(Exception):
    """An input is not what it was: its place, and what is wrong with it."""

    def __init__(self, place: int, damage: str) -> None:
        super().__init__(damage)
        self.place, self.damage = place, damage


def compact(request: CompactRequest, tell: Callable[[int], None] = lambda rows: None) -> CompactAnswer:
    """Merge, filter, write; of a damaged input nothing is taken, and nothing is written then."""
    try:
        with ExitStack() as stack:
            inputs = [SortedInput(request, place) for place in range(len(request.inputs))]
            for own in inputs:
                stack.callback(own.close)
            for own in inputs:
                own.open()
            left_out = None if request.left_out is None else LeftOut(Path(request.left_out))
            if left_out is not None and not any(own.meets(left_out) for own in inputs):
                return CompactAnswer(untouched=True)
            return _compact(request, inputs, tell, left_out)
    except DamagedInput as exc:
        return CompactAnswer(damaged=exc.place, damage=exc.damage)


def _compact(
    request: CompactRequest, inputs: Sequence[SortedInput], tell: Callable[[int], None], left_out: LeftOut | None
) -> CompactAnswer:
    hidden = Hidden.read(request, [column for name in request.key for column in request.columns if column.name == name])
    bounded = bounded_in_files([(own.file, own.layout.names) for own in inputs], request.columns)
    writer = partial(
        SegmentWriter,
        schema=inputs[0].schema,
        compression=request.compression,
        bounded=[*bounded, UPDATED, SEQ],
    )
    read = told = 0
    with Output(request, writer) as output:
        for rows in merged(inputs, request.key):
            read += rows.num_rows
            kept = _due_left_out(request, hidden.left_out(rows, request.key))
            kept = kept if left_out is None else left_out.without(kept)
            output.add(kept, deleted=request.deleted)
            if read - told >= TELL_ROWS:
                told = read
                tell(read)
        output.complete()
    return CompactAnswer(files=output.written, row_count=output.row_count, removed=read - output.row_count)


def _due_left_out(request: CompactRequest, rows: pa.Table) -> pa.Table:
    if not request.deleted or not request.forget_deleted_us:
        return rows
    updated = rows.column(UPDATED).cast(pa.int64())
    return rows.filter(pc.greater_equal(updated, request.forget_deleted_us))


class Hidden:
    """The overrides of the copy, sorted by key."""

    def __init__(self, overrides: dict[Key, int], key: Sequence[Column]) -> None:
        self._keys = sorted(overrides)
        self._columns = key_arrays(self._keys, key)
        self._seqs = pa.array([overrides[key] for key in self._keys], pa.int64())

    @classmethod
    def read(cls, request: CompactRequest, key: Sequence[Column]) -> Hidden:
        """What the database holds now; a later override hides rows as well as an earlier one."""
        conn = connect(Path(request.database), read_only=True)
        try:
            overrides = read_overrides(conn, request.copy_id, key)
        finally:
            conn.close()
        return cls(overrides, key)

    def left_out(self, rows: pa.Table, key: Sequence[str]) -> pa.Table:
        """The rows, which are sorted by the columns ``key``, without those that an override hides."""
        if not self._keys or not rows.num_rows:
            return rows
        keys = [rows.column(name) for name in key]
        first = bisect_left(self._keys, key_at(keys, 0))
        last = bisect_right(self._keys, key_at(keys, -1))
        if first == last:
            return rows
        places = places_among(keys, [column.slice(first, last - first) for column in self._columns])
        seqs = pc.take(self._seqs.slice(first, last - first), places)
        seen = pc.greater_equal(rows.column(SEQ), seqs)
        return rows.filter(pc.fill_null(seen, True))


class SortedInput:
    """One segment, read in batches, in the columns of the request."""

    def __init__(self, request: CompactRequest, place: int) -> None:
        given = request.inputs[place]
        self._place, self._identity, self._count = place, given.identity, len(request.inputs)
        self._path = Path(request.folder) / given.path
        self.layout: Layout = layout(request.columns, request.history[given.schema_version])
        self.schema = pa.schema([*arrow_schema(request.columns), UPDATED_FIELD, SEQ_FIELD])
        if carries_ids(request.history, request.schema_version):
            self.schema = with_field_ids(self.schema, request.columns)
        self._key = request.key
        self._source: Any = None
        self._rows = self.schema.empty_table()
        self.first: Any = None
        self.last: Any = None

    def open(self) -> None:
        """Open the file and look whether it is the one that it should be; raises DamagedInput."""
        with self._judging():
            try:
                self._open_source()
            except Misfit:
                if not refetch(self._path):  # a cache may be damaged where the store is not
                    raise
                self._open_source()
            self.file = pq.ParquetFile(self._source, buffer_size=1 << 20)
        self._batches = self._read(_batch_rows(self.file, self._count))

    def _open_source(self) -> None:
        if self._path.exists():
            stamp_of(self._path)  # to open what is no file might wait for ever
        self._source = opened(self._path)
        compare(self._source, self._identity)

    def close(self) -> None:
        """Let go of the file."""
        if self._source is not None:
            self._source.close()

    @contextmanager
    def _judging(self) -> Iterator[None]:
        try:
            yield
        except (Misfit, *READ_ERRORS) as exc:
            if isinstance(exc, OSError) and exc.errno in OUT_OF_RESOURCES:
                raise
            raise DamagedInput(self._place, reason_of(exc)) from exc

    def _read(self, batch_rows: int) -> Iterator[pa.Table]:
        names = [name for name in (*self.layout.names, UPDATED, SEQ) if name is not None]
        batches = self.file.iter_batches(batch_size=batch_rows, columns=names)
        while True:
            with self._judging():
                batch = next(batches, None)
            if batch is None:
                return
            rows = pa.Table.from_batches([batch])
            yield pa.Table.from_arrays(
                [
                    rows.column(name).cast(field.type)
                    if name is not None
                    else pa.repeat(pa.scalar(fill, field.type), rows.num_rows)
                    for field, name, fill in zip(
                        self.schema,
                        (*self.layout.names, UPDATED, SEQ),
                        (*self.layout.fills, None, None),
                        strict=True,
                    )
                ],
                schema=self.schema,
            )

    def meets(self, left_out: LeftOut) -> bool:
        """Whether a version that is to be left out is in the file."""
        with self._judging():
            batches = self.file.iter_batches(columns=[SEQ])
            return any(left_out.has(batch.column(0).to_numpy()).any() for batch in batches)

    def load(self) -> bool:
        """Have rows in memory; False at the end."""
        while not self._rows.num_rows:
            rows = next(self._batches, None)
            if rows is None:
                return False
            self._rows = rows
        keys = [self._rows.column(name) for name in self._key]
        self.first, self.last = key_at(keys, 0), key_at(keys, -1)
        return True

    def take(self, bound: Key) -> pa.Table:
        """The rows in memory whose key is at most ``bound``."""
        rows, count = self._rows, self._rows.num_rows
        if self.last > bound:
            keys = [rows.column(name) for name in self._key]
            count = bisect_right(range(count), bound, key=partial(key_at, keys))
        self._rows = rows.slice(count)
        return rows.slice(0, count)


def _batch_rows(file: pq.ParquetFile, inputs: int) -> int:
    metadata = file.metadata
    size = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    row_bytes = max(16, 2 * size // max(1, metadata.num_rows))
    return int(min(BATCH_ROWS[1], max(BATCH_ROWS[0], BUFFER_BYTES // (inputs * row_bytes))))


def merged(inputs: Sequence[SortedInput], key: Sequence[str]) -> Iterator[pa.Table]:
    """The rows of all inputs in the order of their keys, a batch at a time."""
    left = list(inputs)
    while left := [own for own in left if own.load()]:
        bound = min(own.last for own in left)
        parts = [own.take(bound) for own in left if own.first <= bound]
        rows = pa.concat_tables(parts)
        if len(parts) > 1:
            rows = rows.take(pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in key]))
        yield rows
