"""What a live query sees of a table: rows with their system columns, and batches of changes between them.

A *version* is a row of ``SELECT *``: the table's columns, then ``_updated`` and ``_deleted``, or ``_key`` in a STREAM
table. WHERE and projection work on versions, so every column that SELECT knows can stand in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from kalam.rows.codec import Codec
from kalam.rows.types import Row
from kalam.rows.versions import StoredVersions
from kalam.schema import Column, DataType, Table
from kalam.storage.log.copies import Chunk
from kalam.storage.log.former_times import unpack_times
from kalam.storage.log.times import from_us
from kalam.tables.ports import StoredEvents


def version_columns(table: Table) -> tuple[Column, ...]:
    """The columns of a version."""
    number = max(column.column_id for column in table.columns)
    added = (
        Column(column_id=number + place, name=name, type=DataType(name=kind))
        for place, (name, kind) in enumerate(table.system_columns.items(), 1)
    )
    return (*table.columns, *added)


class ChangeBatch(msgspec.Struct):
    """Changes of one copy in order: change ``seqs[i]`` turned version ``olds[i]`` into ``news[i]``; None is no row."""

    seqs: list[int] = msgspec.field(default_factory=list)
    olds: list[Row | None] = msgspec.field(default_factory=list)
    news: list[Row | None] = msgspec.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.seqs)

    @property
    def last_seq(self) -> int:
        """The number of its last change; 0 for an empty batch."""
        return self.seqs[-1] if self.seqs else 0

    def add(self, seqs: Sequence[int], olds: Sequence[Row | None], news: Sequence[Row | None]) -> None:
        """Take in changes that follow."""
        self.seqs += seqs
        self.olds += olds
        self.news += news


class Logged(msgspec.Struct, frozen=True):
    """The rows of a chunk of the log from its ``start`` on, and those before an update, without system columns."""

    chunk: Chunk
    start: int
    rows: Sequence[Row]
    old_rows: Sequence[Row] | None = None

    @classmethod
    def read(cls, chunk: Chunk, reader: StoredVersions, after_seq: int = 0) -> Logged:
        """Those behind ``after_seq``, decoded."""
        old = None
        if chunk.op == "update" and chunk.old is not None:
            old = reader.unpack(chunk.old, chunk.schema_version)
        return cls.of(chunk, reader.unpack(chunk.payload, chunk.schema_version), old, after_seq)

    @classmethod
    def of(cls, chunk: Chunk, rows: Sequence[Row], old_rows: Sequence[Row] | None, after_seq: int = 0) -> Logged:
        """Those behind ``after_seq`` of all of a chunk's."""
        start = max(0, after_seq + 1 - chunk.first_seq)
        if start:
            rows, old_rows = rows[start:], None if old_rows is None else old_rows[start:]
        return cls(chunk, start, rows, old_rows)

    def add_to(self, batch: ChangeBatch) -> None:
        """Add the changes, which follow those of a batch."""
        chunk, updated = self.chunk, self.chunk.updated
        seqs = range(chunk.first_seq + self.start, chunk.last_seq + 1)
        if chunk.op == "delete":
            batch.add(seqs, self._former(self.rows), [(*row, updated, True) for row in self.rows])
            return
        olds = [None] * len(self.rows) if self.old_rows is None else self._former(self.old_rows)
        batch.add(seqs, olds, [(*row, updated, False) for row in self.rows])

    def _former(self, rows: Sequence[Row]) -> list[Row | None]:
        times = _former_times(self.chunk, self.start)
        return [(*row, was, False) for row, was in zip(rows, times, strict=True)]


def batch_of_chunks(chunks: Iterable[Chunk], reader: StoredVersions, after_seq: int = 0) -> ChangeBatch:
    """The changes behind ``after_seq`` in chunks of the log, which follow each other without a hole.

    A chunk may be of an older version than the columns that ``reader`` gives: its insert was sent before an ALTER.
    """
    return batch_of(Logged.read(chunk, reader, after_seq) for chunk in chunks)


def batch_of(logged: Iterable[Logged]) -> ChangeBatch:
    """The changes of chunks, which follow each other."""
    batch = ChangeBatch()
    for each in logged:
        each.add_to(batch)
    return batch


def _former_times(chunk: Chunk, start: int) -> Sequence[object]:
    """``_updated`` of the versions before; where that is not known any more, the time of the change itself."""
    if chunk.old_updated is None:
        return [chunk.updated] * (chunk.row_count - start)
    return [from_us(us) for us in unpack_times(chunk.old_updated, chunk.row_count)[start:]]


def batch_of_events(events: StoredEvents, codec: Codec) -> ChangeBatch:
    """The events of a STREAM table as inserts; what does not decode is no row, as in SELECT."""
    batch = ChangeBatch()
    rows = codec.decode_events(events.payloads, events.seqs, events.stored_us)
    for seq, stored_us, row in zip(events.seqs, events.stored_us, rows, strict=True):
        if isinstance(row, tuple):
            key = f"{stored_us // 1_000}:{seq}" if stored_us else None  # which only reading the stream tells
            batch.add([seq], [None], [(*row, key)])
    return batch
