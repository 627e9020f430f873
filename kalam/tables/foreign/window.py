"""What a query sees of a foreign stream: read from the broker, and kept for the next query.

The law is that of the windows of STREAM tables: what was read is believed only if the broker's count of what it holds
now agrees. Others may delete and purge here, and a broker that has lost its tail gives sequences anew, so what comes is
read from the last message on that is remembered, which must be the same one. In any other case everything is read anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec
import numpy as np
import pyarrow as pa
from msgspec.structs import replace

from kalam.errors import BrokerUnavailable, TooBusy, TooLarge
from kalam.rows.columns import TYPE_METADATA, arrow_schema, shown_schema
from kalam.rows.foreign.decoder import EXTRA_TYPES, EXTRAS, TIME, ForeignDecoder
from kalam.rows.foreign.faults import Reason
from kalam.rows.foreign.messages import ForeignMessages
from kalam.rows.types import TIMESTAMP_ARROW
from kalam.schema import SEQ, Table
from kalam.sql.queries.scan_bounds import NO_BOUNDS, ScanBounds
from kalam.tables.foreign.port import ForeignPort, ForeignState
from kalam.tables.foreign.room import Room
from kalam.tables.window_pieces import EVENT_SEQ, EVENT_TIME, Pieces
from kalam.threads import Purpose, in_thread

LOOKS_MAX = 6
WHOLE_MAX = 1 << 62
REASONS = tuple(Reason)


class ForeignWindow:
    """The messages of one table that have been read, with some of its virtual columns.

    ``lock`` is held while it is read.
    """

    def __init__(
        self, decoder: ForeignDecoder, port: ForeignPort, extras: Sequence[str], bytes_max: int, room: Room
    ) -> None:
        self._decoder, self._port, self._extras, self._bytes_max = decoder, port, extras, bytes_max
        self._room = room
        table = decoder.table
        self._table, self._over = table, table.foreign_options.over
        schema = arrow_schema(table.columns)
        for name in extras:
            schema = schema.append(pa.field(name, EXTRA_TYPES[name]))
        self._schema = schema.append(pa.field(EVENT_SEQ, pa.int64())).append(pa.field(EVENT_TIME, pa.int64()))
        self.lock = asyncio.Lock()
        self.used_at = time.monotonic()
        self._empty()

    def _empty(self) -> None:
        self._pieces = Pieces(self._schema)
        self._strangers = np.empty(0, np.int64)
        self._faulty, self._reasons = np.empty(0, np.int64), np.empty(0, np.int8)
        self._created = self._last_text = ""
        self._read_seq = 0
        self._last: tuple[int, int] | None = None

    @property
    def byte_count(self) -> int:
        """The memory that the rows take."""
        return self._pieces.byte_count

    @property
    def is_busy(self) -> bool:
        """Whether it is being read."""
        return self.lock.locked()

    async def rows(self, virtual: frozenset[str], *, with_seq: bool = False) -> pa.Table:
        """Every row of the stream as of now, with these virtual columns behind the others."""
        self.used_at = time.monotonic()
        async with self.lock:
            state = await self._load()
            pieces = self._pieces.snapshot()
        return await in_thread(Purpose.ROWS, self._shown, pieces, state.first_seq, virtual, with_seq)

    async def rows_within(self, bounds: ScanBounds, virtual: frozenset[str]) -> pa.Table:
        """The rows within bounds, which are not kept."""
        async with self.lock:
            state = await self._port.state(self._over)
            await self._read(state, bounds)
            return await in_thread(Purpose.ROWS, self._shown, self._pieces, 0, virtual, False)

    async def _load(self) -> ForeignState:
        """Read what is missing, or everything; the state of the stream as of which all is there."""
        for look in range(LOOKS_MAX):
            state = await self._port.state(self._over)
            if look == LOOKS_MAX - 2 or state.created != self._created or state.last_seq < self._read_seq:
                self._empty()
            anew = not self._read_seq
            if anew:
                self._empty()  # of what a read had found that broke off
                self._created = state.created
                await self._read(state, NO_BOUNDS)
            elif not await self._go_on(state):
                self._empty()
                continue
            self._read_seq, self._last_text = state.last_seq, state.last_text
            if not await self._lacks_some(state) if anew else await self._is_whole(state):
                self._trim(state.first_seq)
                self._room.note(self, self._pieces.byte_count)
                return state
            self._empty()
        raise BrokerUnavailable(f"the stream {self._over.stream} changes faster than it can be read; try again")

    async def _go_on(self, state: ForeignState) -> bool:
        """Read what has come since; False if that is not the same stream any more."""
        if state.last_seq == self._read_seq:
            return state.last_text == self._last_text
        if self._last is None:
            await self._read(state, ScanBounds(after_seq=self._read_seq))
            return True
        seq, time_ns = self._last
        return await self._read(state, ScanBounds(after_seq=seq - 1), known=(seq, time_ns))

    async def _read(self, state: ForeignState, bounds: ScanBounds, known: tuple[int, int] | None = None) -> bool:
        """Read messages up to the state's last; False if the first is not the one that is ``known``."""
        upto_seq = state.last_seq if bounds.upto_seq is None else min(state.last_seq, bounds.upto_seq)
        async for messages in self._port.read(self._over, self._table.table_id, replace(bounds, upto_seq=upto_seq)):
            taken = messages
            if known is not None:
                if (messages.seqs[0], messages.times_ns[0]) != known:
                    return False
                taken, known = messages.part(1, len(messages)), None
            if len(taken):
                await self._take(taken)
                self._check_size(state, taken.seqs[-1])
        return known is None

    async def _take(self, messages: ForeignMessages) -> None:
        """Add messages. Who is cancelled meanwhile waits for the end of it: the next one adds to what is there."""
        extending = asyncio.ensure_future(in_thread(Purpose.ROWS, self._extend, messages))
        try:
            await asyncio.shield(extending)
        except asyncio.CancelledError:
            await asyncio.wait([extending])
            raise

    def _extend(self, messages: ForeignMessages) -> None:
        self._last = messages.seqs[-1], messages.times_ns[-1]
        arrays, places, faults = self._decoder.batch(messages, self._extras)
        seqs = np.array(messages.seqs, np.int64)
        if faults:
            reasons = np.array([REASONS.index(fault.reason) for fault in faults.values()], np.int8)
            self._faulty = np.concatenate([self._faulty, seqs[list(faults)]])
            self._reasons = np.concatenate([self._reasons, reasons])
        times = np.array(messages.times_ns, np.int64) // 1_000
        if len(places) < len(messages):
            kept = np.zeros(len(messages), bool)
            kept[list(places)] = True
            self._strangers = np.concatenate([self._strangers, seqs[~kept]])
            seqs, times = seqs[kept], times[kept]
        if len(seqs):
            self._pieces.add(pa.record_batch([*arrays, pa.array(seqs), pa.array(times)], schema=self._schema))

    async def _lacks_some(self, state: ForeignState) -> bool:
        """Whether there are more messages than what was read and what can have come since, or the stream is another."""
        after = await self._port.state(self._over)
        ended = state.last_seq, state.last_text
        if after.created != state.created or after.last_seq < state.last_seq:
            return True
        if after.last_seq == state.last_seq and (after.last_seq, after.last_text) != ended:
            return True
        count = after.messages if state.covered else await self._port.count(self._over, self._table.table_id)
        return count is not None and self._held(after.first_seq, state) + after.last_seq - state.last_seq < count

    def _held(self, first_seq: int, state: ForeignState) -> int:
        """How many messages from one on were read, up to the last of a state."""
        held = self._pieces.count(first_seq, state.last_seq)
        return held + int(np.count_nonzero(self._strangers >= first_seq))

    async def _is_whole(self, state: ForeignState) -> bool:
        """Whether the broker counts as many messages as were read and are not evicted."""
        held = self._held(state.first_seq, state)
        if state.covered:
            return held == state.messages
        count = await self._port.count(self._over, self._table.table_id)
        after = await self._port.state(self._over)
        still = (after.created, after.last_seq, after.messages) == (state.created, state.last_seq, state.messages)
        return still and held == count

    def undecodable(self) -> dict[Reason, int]:
        """How many of the messages do not decode, by reason."""
        return {reason: int(np.count_nonzero(self._reasons == place)) for place, reason in enumerate(REASONS)}

    def _trim(self, first_seq: int) -> None:
        kept = self._faulty >= first_seq
        self._faulty, self._reasons = self._faulty[kept], self._reasons[kept]
        self._pieces.trim(first_seq)
        self._strangers = self._strangers[self._strangers >= first_seq]

    def _check_size(self, state: ForeignState, seq: int) -> None:
        if self._pieces.byte_count <= self._bytes_max:
            try:
                self._room.hold(self, self._pieces.byte_count)
            except TooBusy:
                self._empty()
                raise
            return
        first = int(self._pieces.seqs()[0])
        fits = int((seq - first + 1) * self._bytes_max / self._pieces.byte_count * 0.8)
        self._empty()
        raise TooLarge(
            f"the window of table {self._table.name} is larger than stream_window_bytes_max ({self._bytes_max} bytes)",
            hint=f"WHERE {SEQ} > {max(0, state.last_seq - fits)} reads the newest that fit; {TIME} is a bound, too",
        )

    def _shown(self, pieces: Pieces, first_seq: int, virtual: frozenset[str], with_seq: bool) -> pa.Table:
        events = pieces.visible(first_seq, WHOLE_MAX, None)
        columns = self._decoder.table.columns
        shown = pa.table(events.columns[: len(columns)], schema=shown_schema(columns))
        for name, kind in self._table.system_columns.items():
            if name in virtual:
                values = _virtual(events, name)
                field = pa.field(name, values.type, metadata={TYPE_METADATA: kind.value})
                shown = shown.append_column(field, values)
        return shown.append_column(EVENT_SEQ, events.column(EVENT_SEQ)) if with_seq else shown


def _virtual(events: pa.Table, name: str) -> pa.ChunkedArray:
    if name == SEQ:
        return events.column(EVENT_SEQ)
    if name == TIME:
        return events.column(EVENT_TIME).cast(TIMESTAMP_ARROW)
    return events.column(name)


class WindowKey(msgspec.Struct, frozen=True):
    """Which window: the table at a schema version, and the virtual columns that it keeps."""

    table_id: int
    schema_version: int
    extras: tuple[str, ...]

    @classmethod
    def of(cls, table: Table, virtual: frozenset[str]) -> WindowKey:
        """The window that has these columns."""
        return cls(table.table_id, table.schema_version, tuple(name for name in EXTRAS if name in virtual))
