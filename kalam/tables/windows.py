"""The window of a STREAM table: its events as Arrow, built when first asked for and extended by what came since.

The broker's stream is the truth. A query asks it for its bounds, reads the events that the window does not have yet,
and sees those within the bounds and within RETENTION, by the clock of the query. A table that nobody queries costs
nothing.

A stream grows at one end and shrinks at the other, but for deletes. So what was read is right in two cases. Either all
that the stream counted between its bounds was read, and without a gap all that came since: then the stream's last
``MAX_BUFFER`` of these are visible. Or the last ``MAX_BUFFER`` that were read have no gap: then the stream held just
these when the last of them came, however fast it runs past the reader. In any other case something was evicted between
the answer and the read, and the next look has less to read; or somebody removed events from the middle, and then all is
read anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial

import msgspec
import numpy as np
import pyarrow as pa

from kalam.errors import BrokerUnavailable, KalamError, TooLarge
from kalam.rows.codec import Codec
from kalam.rows.columns import shown_schema, to_arrow
from kalam.rows.judged import judged
from kalam.rows.types import Row
from kalam.schema import STREAM_KEY, Table
from kalam.tables.ports import StoredEvents, StreamPort, StreamState
from kalam.tables.stream_counters import StreamCounts
from kalam.tables.window_pieces import EVENT_SEQ, EVENT_TIME, Pieces, window_schema
from kalam.threads import Purpose, in_thread

LOOKS_MAX = 12
ANEW_AT = 6
"""The look, from 0, before which the window is emptied: the count is not wrong so often because of evictions."""


class Bounds(msgspec.Struct, frozen=True):
    """The first and the last sequence that are visible."""

    first_seq: int
    last_seq: int


class Window:
    """The events of one table that have been read. ``lock`` is held while it is read or changed."""

    def __init__(self, codec: Codec, port: StreamPort, bytes_max: int, counts: StreamCounts) -> None:
        self._codec, self._port, self._bytes_max, self._counts = codec, port, bytes_max, counts
        self._schema = window_schema(codec.table)
        self._pieces = Pieces(self._schema)
        self._strangers = np.empty(0, np.int64)
        self._last_seq = self._last_state_seq = 0
        self._created = ""
        self.lock = asyncio.Lock()
        self.used_at = time.monotonic()

    async def rows(self, table: Table, *, with_key: bool, with_seq: bool = False) -> pa.Table:
        """The visible events in the order of their inserts, ``_key`` behind the columns if asked."""
        self.used_at = time.monotonic()
        async with self.lock:
            bounds = await self._load(table)
            pieces = self._pieces.snapshot()
        oldest_us = _oldest_us(table)
        return await in_thread(Purpose.ROWS, self._shown, pieces, bounds, oldest_us, with_key, with_seq)

    @property
    def created(self) -> str:
        """Which stream the events are of."""
        return self._created

    @property
    def byte_count(self) -> int:
        """The memory that the events take."""
        return self._pieces.byte_count

    async def _load(self, table: Table) -> Bounds:
        """Read what is missing."""
        for look in range(LOOKS_MAX):
            if look == ANEW_AT:
                self._empty()
            state = await self._port.state(table)
            if state.created != self._created or state.last_seq < self._last_state_seq:  # the stream was made anew
                self._empty()
                self._created = state.created
            self._last_state_seq = state.last_seq
            await self._read(table, state)
            bounds = self._bounds(state, table.stream_options.max_buffer_rows)
            if bounds is not None:
                break
        else:
            raise BrokerUnavailable(f"the events of table {table.name} go faster than they can be read; try again")
        self._pieces.trim(bounds.first_seq)
        self._strangers = self._strangers[self._strangers >= bounds.first_seq]
        return bounds

    def _bounds(self, state: StreamState, rows_max: int) -> Bounds | None:
        """What is visible of what was read; None if that cannot be told."""
        first_seq, last_seq = state.first_seq, self._last_seq
        complete = self._held(first_seq, state.last_seq) == state.messages
        if complete and self._held(state.last_seq + 1, last_seq) == last_seq - state.last_seq:
            surplus = self._held(first_seq, last_seq) - rows_max
            if surplus > 0:
                first_seq = int(self._seqs(first_seq)[surplus])
            return Bounds(first_seq, last_seq)
        if self._held(last_seq - rows_max + 1, last_seq) == rows_max:
            return Bounds(last_seq - rows_max + 1, last_seq)
        return None

    def _empty(self) -> None:
        self._pieces = Pieces(self._schema)
        self._strangers = np.empty(0, np.int64)
        self._last_seq = self._last_state_seq = 0

    async def _read(self, table: Table, state: StreamState) -> None:
        self._last_seq = max(self._last_seq, state.first_seq - 1)
        if self._last_seq >= state.last_seq:
            return
        async for events in self._port.read(table, self._last_seq):
            await in_thread(Purpose.ROWS, self._extend, events)
            self._last_seq = events.seqs[-1]
            self._check_size()
        self._last_seq = max(self._last_seq, state.last_seq)

    def _held(self, first_seq: int, last_seq: int) -> int:
        """How many events within these bounds were read."""
        strangers = np.count_nonzero((self._strangers >= first_seq) & (self._strangers <= last_seq))
        return self._pieces.count(first_seq, last_seq) + int(strangers)

    def _seqs(self, first_seq: int) -> np.ndarray:
        """The sequences, from this one on, that were read."""
        seqs = np.sort(np.concatenate([self._pieces.seqs(), self._strangers]))
        return seqs[np.searchsorted(seqs, first_seq) :]

    def forget(self, seqs: Sequence[int]) -> None:
        """Drop events that were deleted from the stream."""
        self._pieces.remove(np.array(seqs, np.int64))

    def prefix(self, table: Table, seqs: Sequence[int]) -> int:
        """How many of these growing sequences are the first visible events of the stream, without a gap."""
        if not seqs or len(self._strangers):
            return 0
        held, times = self._pieces.seqs(), self._pieces.times()
        start = int(np.searchsorted(held, seqs[0]))
        oldest_us = _oldest_us(table)
        if start and (oldest_us is None or times[:start].max() > oldest_us):
            return 0
        same = held[start : start + len(seqs)] == np.array(seqs[: len(held) - start], np.int64)
        return int(same.argmin()) if not same.all() else len(same)

    def _extend(self, events: StoredEvents) -> None:
        rows: list[Row | KalamError] = self._codec.decode_events(events.payloads, events.seqs, events.stored_us)
        seqs, times = np.array(events.seqs, np.int64), np.array(events.stored_us, np.int64)
        wrong = [number for number, row in enumerate(rows) if isinstance(row, KalamError)]
        if wrong:  # anybody with permission on the subject may have published it
            self._note_strangers(seqs[wrong])
            keep = np.ones(len(rows), bool)
            keep[wrong] = False
            seqs, times = seqs[keep], times[keep]
        kept: list[Row] = [row for row in rows if not isinstance(row, KalamError)] if wrong else rows  # type: ignore[assignment]
        if kept:
            try:
                batch = to_arrow(kept, self._columns)
            except Exception:  # noqa: BLE001 - one of them decodes to what Arrow does not hold: each by itself
                self._extend_each(kept, seqs, times)
                return
            self._pieces.add(pa.record_batch([*batch.columns, pa.array(seqs), pa.array(times)], schema=self._schema))

    def _extend_each(self, rows: Sequence[Row], seqs: np.ndarray, times: np.ndarray) -> None:
        for row, seq, stored_us in zip(rows, seqs, times, strict=True):
            batch = judged("event", partial(to_arrow, [row], self._columns))
            if isinstance(batch, KalamError):
                self._note_strangers(np.array([seq]))
                continue
            arrays = [*batch.columns, pa.array([seq]), pa.array([stored_us])]
            self._pieces.add(pa.record_batch(arrays, schema=self._schema))

    @property
    def _columns(self) -> pa.Schema:
        return pa.schema([self._schema.field(number) for number in range(len(self._schema) - 2)])

    def _note_strangers(self, seqs: np.ndarray) -> None:
        self._strangers = np.concatenate([self._strangers, seqs])
        new = seqs[seqs > self._counts.judged_seq]
        if len(new):
            self._counts.undecodable += len(new)
            self._counts.judged_seq = int(new[-1])

    def _check_size(self) -> None:
        if self._pieces.byte_count > self._bytes_max:
            self._empty()
            raise TooLarge(
                f"the window of table {self._codec.table.name} is larger than stream_window_bytes_max "
                f"({self._bytes_max} bytes)",
                hint="use a smaller MAX_BUFFER or RETENTION",
            )

    def _shown(self, pieces: Pieces, bounds: Bounds, oldest_us: int | None, with_key: bool, with_seq: bool) -> pa.Table:
        events = pieces.visible(bounds.first_seq, bounds.last_seq, oldest_us)
        columns = self._codec.table.columns
        shown = pa.table(events.columns[: len(columns)], schema=shown_schema(columns))
        seqs = events.column(EVENT_SEQ)
        if with_key:
            ms = pa.compute.divide(events.column(EVENT_TIME), 1_000).cast(pa.string())
            keys = pa.compute.binary_join_element_wise(ms, seqs.cast(pa.string()), ":")
            shown = shown.append_column(STREAM_KEY, keys)
        return shown.append_column(EVENT_SEQ, seqs) if with_seq else shown


def _oldest_us(table: Table) -> int | None:
    """The time, in microseconds since 1970, up to which events have expired."""
    retention_s = table.stream_options.retention_s
    return None if retention_s is None else time.time_ns() // 1_000 - retention_s * 1_000_000
