"""From chunks of the log to the messages of the change feed; pure.

A message carries a run of consecutive changes of one kind and one trace: as many as waited together, at most
``RUN_ROWS_MAX`` rows and ``RUN_BYTES_MAX`` bytes, no more than the broker takes, and with a SUBJECT_KEY only changes
of one key. Chunks of one kind that follow each other share a message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import msgspec
import pyarrow as pa
from msgspec.structs import replace

from kalam.errors import TooLarge
from kalam.rows.codec import Codec
from kalam.rows.column_rows import ColumnRows, is_columns, read_columns
from kalam.rows.lone_values import show_timestamp
from kalam.rows.stored import pack_rows, row_sizes
from kalam.rows.subject_key import key_token
from kalam.rows.types import Row
from kalam.schema import Table
from kalam.storage.log.copies import Chunk, Op
from kalam.storage.log.writes import Announcement, Traces
from kalam.tables.ports import ChangeMessage

RUN_ROWS_MAX = 1_000
RUN_BYTES_MAX = 256 << 10


class Unpublished(msgspec.Struct, frozen=True):
    """A chunk that waits to be published, its rows where they are at hand, and their traces if any has one."""

    chunk: Chunk
    rows: Sequence[Row] | None = None
    traces: Traces | None = None
    old_rows: Sequence[Row] | None = None

    @classmethod
    def of(cls, announcement: Announcement) -> Unpublished:
        """What was announced."""
        return cls(announcement.chunk, announcement.rows, announcement.traces, announcement.old_rows)


class Run(msgspec.Struct, frozen=True):
    """Consecutive changes of one kind, as values that the encoder writes."""

    op: Op
    key: str | None
    first_seq: int
    rows: list[Any]
    old: list[Any] | None
    trace: str | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def halves(self) -> tuple[Run, Run]:
        """The run in two."""
        middle = len(self) // 2
        old = (None, None) if self.old is None else (self.old[:middle], self.old[middle:])
        return (
            Run(self.op, self.key, self.first_seq, self.rows[:middle], old[0], self.trace),
            Run(self.op, self.key, self.first_seq + middle, self.rows[middle:], old[1], self.trace),
        )


def messages_of(waiting: Iterable[Unpublished], codec: Codec, payload_bytes_max: int) -> Iterator[ChangeMessage]:
    """The messages that publish these chunks, in order. The chunks follow each other without a hole."""
    pending: Run | None = None
    for each in waiting:
        columns = columns_to_show(each, codec)
        if columns is not None:
            if pending:
                yield from _encode(pending, codec, payload_bytes_max)
            pending = None
            yield from _of_columns(each, columns, codec, payload_bytes_max)
            continue
        for run in _runs(each, codec):
            joined = _join(pending, run) if pending else run
            if joined is None and pending:
                yield from _encode(pending, codec, payload_bytes_max)
            pending = joined or run
    if pending:
        yield from _encode(pending, codec, payload_bytes_max)


def columns_to_show(unpublished: Unpublished, codec: Codec) -> pa.Table | None:
    """The columns of a chunk that is to be told by these; None for one whose rows are."""
    chunk, rows, traces = unpublished.chunk, unpublished.rows, unpublished.traces
    if chunk.op != "insert" or codec.table.options.subject_key is not None or codec.column_changes is None:
        return None
    if traces is not None and len(traces) > 1:
        return None
    if isinstance(rows, ColumnRows):
        return rows.table
    return read_columns(chunk.payload) if rows is None and is_columns(chunk.payload) else None


def _of_columns(
    unpublished: Unpublished, columns: pa.Table, codec: Codec, payload_bytes_max: int
) -> Iterator[ChangeMessage]:
    chunk, shower = unpublished.chunk, codec.column_changes
    assert shower is not None
    trace = unpublished.traces[0][1] if unpublished.traces else None
    shown = shower.maps(columns, (show_timestamp(chunk.updated), False))
    bytes_max = min(RUN_BYTES_MAX, payload_bytes_max)
    runs = [(first, min(first + RUN_ROWS_MAX, len(shown))) for first in range(0, len(shown), RUN_ROWS_MAX)][::-1]
    while runs:
        first, end = runs.pop()
        head = b'{"op":"insert","seq":%d,"rows":[' % (chunk.first_seq + first)
        payload = b"".join((head, shown.array(first, end), b"]}"))
        if len(payload) > bytes_max and end - first > 1:
            middle = (first + end) // 2
            runs += [(middle, end), (first, middle)]
        else:
            yield ChangeMessage("insert", None, chunk.first_seq + first, end - first, payload, trace)


def _join(first: Run, second: Run) -> Run | None:
    if (first.op, first.key, first.trace) != (second.op, second.key, second.trace) or first.op == "truncate":
        return None
    if len(first) + len(second) > RUN_ROWS_MAX:
        return None
    old = None if first.old is None or second.old is None else first.old + second.old
    return Run(first.op, first.key, first.first_seq, first.rows + second.rows, old, first.trace)


def _runs(unpublished: Unpublished, codec: Codec) -> Iterator[Run]:
    chunk, rows = unpublished.chunk, unpublished.rows
    if chunk.op == "truncate":
        yield Run(chunk.op, None, chunk.first_seq, [None], None)
        return
    if rows is None:
        rows = codec.stored.unpack(chunk.payload)
    updated: Any = show_timestamp(chunk.updated) if codec.changes.is_json else chunk.updated
    show = partial(codec.changes.maps, constants=(updated, chunk.op == "delete"))
    old_rows = unpublished.old_rows
    if old_rows is None and chunk.old is not None:
        old_rows = codec.stored.unpack(chunk.old)
    old = None if old_rows is None else codec.events.changed(old_rows, rows)
    offset, alike = 0, list(_alike(rows, unpublished.traces, codec.table))
    # Short runs are made together; long ones one by one, while their rows are in the processor's cache.
    together = show(rows) if len(alike) > 1 else None
    for (key, trace), count in alike:
        for start in range(offset, offset + count, RUN_ROWS_MAX):
            end = min(start + RUN_ROWS_MAX, offset + count)
            part = None if old is None else old[start:end]
            shown = show(rows[start:end]) if together is None else together[start:end]
            yield Run(chunk.op, key, chunk.first_seq + start, shown, part, trace)
        offset += count


def _alike(
    rows: Sequence[Row], traces: Traces | None, table: Table
) -> Iterator[tuple[tuple[str | None, str | None], int]]:
    """How many rows, one after another, share a key and a trace."""
    keyed = table.options.subject_key is not None
    if not keyed and traces is None:
        yield (None, None), len(rows)
        return
    keys: Sequence[str | None] = subject_keys(table, rows) if keyed else [None] * len(rows)
    each = [None] * len(rows) if traces is None else [trace for count, trace in traces for _ in range(count)]
    for both, members in groupby(zip(keys, each, strict=True)):
        yield both, sum(1 for _ in members)


def subject_keys(table: Table, rows: Sequence[Row]) -> list[str]:
    """The last token of each row's subject; raises InvalidValue for a value that cannot be one."""
    index = [column.name for column in table.columns].index(table.options.subject_key or "")
    return [key_token(row[index]) for row in rows]


def _encode(run: Run, codec: Codec, payload_bytes_max: int) -> Iterator[ChangeMessage]:
    body: dict[str, Any] = {"op": run.op, "seq": run.first_seq}
    if run.op != "truncate":
        body["rows"] = run.rows
    if run.old is not None:
        body["old"] = run.old
    payload = codec.changes.encode(body)
    if len(payload) > min(RUN_BYTES_MAX, payload_bytes_max) and len(run) > 1:
        for half in run.halves():
            yield from _encode(half, codec, payload_bytes_max)
        return
    if len(payload) > payload_bytes_max and body.pop("old", None) is not None:
        payload = codec.changes.encode({**body, "old_omitted": True})
    yield ChangeMessage(run.op, run.key, run.first_seq, len(run), payload, run.trace)


def cut(chunk: Chunk, change_seq: int, codec: Codec) -> Chunk:
    """The part of a chunk behind ``change_seq``."""
    offset = change_seq + 1 - chunk.first_seq
    return replace(
        chunk,
        first_seq=change_seq + 1,
        row_count=chunk.row_count - offset,
        payload=pack_rows(codec.stored.unpack(chunk.payload)[offset:]),
        old=None if chunk.old is None else pack_rows(codec.stored.unpack(chunk.old)[offset:]),
        old_updated=None,  # which the feed does not tell
    )


def check_events(codec: Codec, rows: Sequence[Row], pieces: Sequence[bytes], row_bytes_max: int) -> None:
    """Raise TooLarge and InvalidValue for what an event of rows, which are packed as ``pieces``, cannot carry."""
    if codec.table.options.subject_key is not None:
        subject_keys(codec.table, rows)
    if isinstance(rows, ColumnRows):
        if not codec.may_exceed(rows.row_bytes_max(), row_bytes_max):
            return
    elif not any(
        codec.may_exceed(len(packed), row_bytes_max) and codec.may_exceed(max(row_sizes(packed)), row_bytes_max)
        for packed in pieces
    ):
        return
    for number, row in enumerate(rows, 1):
        if codec.may_exceed(len(pack_rows([row])), row_bytes_max):
            size = len(codec.events.each([row])[0])
            if size > row_bytes_max:
                raise TooLarge(f"row {number}: its event would have {size} bytes; row_bytes_max is {row_bytes_max}")


def first_of(pending: Iterable[Unpublished], bytes_max: int) -> list[Unpublished]:
    """The first chunks that wait: at least one, at most about so many bytes."""
    taken: list[Unpublished] = []
    size = 0
    for each in pending:
        taken.append(each)
        size += each.chunk.byte_count
        if size >= bytes_max:
            break
    return taken
