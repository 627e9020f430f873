"""STREAM tables: validated here, held by the broker, read through a window, and accounted for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from typing import Protocol

import msgspec
import pyarrow as pa
import structlog

from kalam.errors import TooLarge
from kalam.rows.codec import Codecs
from kalam.rows.types import Row
from kalam.schema import Table
from kalam.storage.log.answers import MessageName, known_answers, remember_answers
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.database import Database, now_us
from kalam.tables.evictions import Evictions
from kalam.tables.flights import Flights
from kalam.tables.joined import Joined
from kalam.tables.ports import Acked, Events, StreamPort
from kalam.tables.room import Room
from kalam.tables.runs import subject_keys
from kalam.tables.stream_counters import StreamCounters
from kalam.tables.windows import Window
from kalam.threads import Purpose, in_thread

log = structlog.get_logger(__name__)

WINDOW_IDLE_S = 300.0
QUESTIONS_MAX = 16
"""Subjects of one batch that interest is asked for; a batch with more is stored."""
DISCARD_LOG_S = 1.0


class Published(msgspec.Struct, frozen=True):
    """What became of events: the sequences of those that were stored, and for each whether it was stored.

    ``stored`` is None where all were.
    """

    seqs: Sequence[int]
    stored: Sequence[bool] | None = None

    @property
    def discarded(self) -> int:
        """How many were not stored because nobody listens."""
        return 0 if self.stored is None else self.stored.count(False)


class EventListener(Protocol):
    """Who hears of the events of STREAM tables when the broker has stored them."""

    def interested(self, table: Table) -> bool:
        """Whether the events of an EPHEMERAL table are wanted now."""

    def announce_events(self, table: Table, payloads: Sequence[bytes], acked: Acked) -> None:
        """Take in events, in order."""


class StreamTables:
    """Writes to and reads from STREAM tables."""

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        codecs: Codecs,
        port: StreamPort,
        counters: StreamCounters,
        evictions: Evictions,
        *,
        row_bytes_max: int,
        window_bytes_max: int,
        windows_bytes_max: int,
    ) -> None:
        self._database, self._catalogue, self._codecs, self.port = database, catalogue, codecs, port
        self.counters, self.evictions = counters, evictions
        self._row_bytes_max, self._window_bytes_max = row_bytes_max, window_bytes_max
        self._windows_bytes_max = windows_bytes_max
        self._windows: dict[int, Window] = {}
        self._logged: dict[int, tuple[float, int]] = {}
        self._turns: dict[int, asyncio.Lock] = {}
        self.joinable: dict[int, Joined] = {}
        """What waits for its turn and may be joined, by the table's id: nothing else waits behind it."""
        self.flights = Flights()
        self._listeners: list[EventListener] = []
        self.room = Room()

    def events(
        self,
        table: Table,
        rows: Sequence[Row],
        ids: Sequence[str | None] | None = None,
        traces: Sequence[str | None] | None = None,
    ) -> Events:
        """The events of these rows; raises TooLarge and InvalidValue."""
        payloads = self._codecs.of(table).events.each(rows)
        if payloads and max(map(len, payloads)) > self._row_bytes_max:
            number, size = next((i, len(p)) for i, p in enumerate(payloads, 1) if len(p) > self._row_bytes_max)
            detail = f"row {number}: its event has {size} bytes; row_bytes_max is {self._row_bytes_max}"
            raise TooLarge(detail)
        return Events(payloads, subject_keys(table, rows) if table.options.subject_key else None, ids, traces)

    def turn(self, table: Table) -> asyncio.Lock:
        """Held, by one insert after another, until its events are on their way: nobody overtakes one that asks."""
        return self._turns.setdefault(table.table_id, asyncio.Lock())

    def end_joining(self, table: Table, joined: Joined) -> None:
        """Nobody joins these any more."""
        if self.joinable.get(table.table_id) is joined:
            del self.joinable[table.table_id]

    async def publish(self, table: Table, events: Events, *, in_turn: bool = False) -> Published:
        """Publish events in order; of an EPHEMERAL table those that somebody listens for."""
        if in_turn:
            return await self._publish(table, events, lambda: None)
        self.joinable.pop(table.table_id, None)  # who comes later does not overtake these
        turn = self.turn(table)
        await turn.acquire()
        held = [turn]

        def handed_over() -> None:
            if held:
                held.pop().release()

        try:
            return await self._publish(table, events, handed_over)
        finally:
            handed_over()

    async def _publish(self, table: Table, events: Events, handed_over: Callable[[], None]) -> Published:
        table = self._catalogue.newest(table)  # an ALTER may have passed while this waited for its turn
        stored = await self._interesting(table, events) if table.stream_options.ephemeral else None
        if stored is not None:
            events = _only(events, stored)
        if not len(events):
            return Published((), stored)
        await self.room.wait(table)
        flight = self.flights.begin(table.table_id)
        try:
            acked = await self.port.publish(table, events, handed_over)
            for listener in self._listeners:
                listener.announce_events(table, events.payloads, acked)
        finally:
            self.flights.end(table.table_id, flight)
        self.counters.of(table.table_id).published += len(events) - acked.repeats
        self.evictions.note_publish(table)
        return Published(acked.seqs, stored)

    def add_listener(self, listener: EventListener) -> None:
        """Have somebody told of every event from now on, and asked before one is discarded."""
        self._listeners.append(listener)

    def _is_followed(self, table: Table) -> bool:
        return any(listener.interested(table) for listener in self._listeners)

    async def _interesting(self, table: Table, events: Events) -> list[bool] | None:
        """For each event whether anybody listens; None if all are to be stored."""
        if self._is_followed(table):
            return None
        distinct = [None] if events.keys is None else list(dict.fromkeys(events.keys))
        if len(distinct) > QUESTIONS_MAX:
            return None
        answers = await asyncio.gather(*(self.port.interested(table, key) for key in distinct))
        if all(answers) or self._is_followed(table):  # one may have been opened meanwhile
            return None
        listened = dict(zip(distinct, answers, strict=True))
        keys: Sequence[str | None] = events.keys or [None] * len(events)
        stored = [listened[key] for key in keys]
        self._note_discarded(table, stored.count(False))
        return stored

    def _note_discarded(self, table: Table, count: int) -> None:
        self.counters.of(table.table_id).discarded += count
        logged_at, since = self._logged.get(table.table_id, (0.0, 0))
        now = time.monotonic()
        if now - logged_at >= DISCARD_LOG_S:
            log.info("discarded events that nobody listens for", table=str(table.name), events=since + count)
            self._logged[table.table_id] = (now, 0)
        else:
            self._logged[table.table_id] = (logged_at, since + count)

    async def rows(self, table: Table, *, with_key: bool = False, with_seq: bool = False) -> pa.Table:
        """The events that a reader sees now."""
        rows = await self._window(table).rows(table, with_key=with_key, with_seq=with_seq)
        self._drop_surplus_windows()
        return rows

    def _window(self, table: Table) -> Window:
        window = self._windows.get(table.table_id)
        if window is None:
            counts = self.counters.of(table.table_id)
            window = Window(self._codecs.of(table), self.port, self._window_bytes_max, counts)
            self._windows[table.table_id] = window
        return window

    def created(self, table: Table) -> str:
        """Which stream it was that ``rows`` read last."""
        return self._window(table).created

    async def delete(self, table: Table, seqs: Sequence[int], created: str) -> None:
        """Remove events that a query has found in a stream; a reader sees all of them or none."""
        if not seqs:
            return
        seqs, window, counts = sorted(seqs), self._window(table), self.counters.of(table.table_id)
        async with window.lock, self.evictions.lock(table):
            if (await self.port.state(table)).created != created:
                return  # it was made anew, and the numbers are those of other events
            together, removed = window.prefix(table, seqs), 0
            if together:  # the oldest events go in one step; some may have been evicted, expired ones go along
                removed = min(together, await self.port.purge(table, seqs[together - 1] + 1))
            removed += await self.port.delete(table, seqs[together:])
            counts.deleted += removed
            counts.accounted_gone += removed
            window.forget(seqs)
        await self.counters.write()

    async def truncate(self, table: Table) -> None:
        """Remove the events that are stored now; like those that are evicted, no live query is told of them."""
        window, counts = self._window(table), self.counters.of(table.table_id)
        async with window.lock, self.evictions.lock(table):
            removed = await self.port.purge(table, (await self.port.state(table)).last_seq + 1)
            counts.deleted += removed
            counts.accounted_gone += removed
            self._windows.pop(table.table_id, None)
        await self.counters.write()

    async def alter(self, table: Table) -> None:
        """Change the stream in place to new options, of which the window and the evictions take note."""
        await self.port.alter(table)
        self.evictions.note_publish(table)

    def forget(self, table: Table) -> None:
        """Let go of what is kept of a table that was dropped."""
        self._windows.pop(table.table_id, None)
        self._logged.pop(table.table_id, None)
        self._turns.pop(table.table_id, None)
        self.counters.forget(table.table_id)
        self.evictions.forget(table)

    async def answered(self, table: Table, names: Sequence[MessageName]) -> dict[MessageName, bytes]:
        """What inserts with these names were answered, as far as there were any."""

        def read() -> dict[MessageName, bytes]:
            with self._database.reading() as conn:
                return known_answers(conn, table, names)

        return await in_thread(Purpose.CATALOGUE, read)

    async def remember(self, table: Table, answers: Mapping[MessageName, bytes]) -> None:
        """Keep the answers of inserts that had a ``Nats-Msg-Id``."""
        if answers:
            await self._database.write(lambda conn: remember_answers(conn, table, answers, now_us()))

    def drop_idle_windows(self) -> None:
        """Let go of the windows that nobody has asked for a while."""
        now = time.monotonic()
        for table_id in [i for i, window in self._windows.items() if now - window.used_at > WINDOW_IDLE_S]:
            del self._windows[table_id]

    def _drop_surplus_windows(self) -> None:
        """Let go of those that were used longest ago, while all together are too large."""
        surplus = sum(window.byte_count for window in self._windows.values()) - self._windows_bytes_max
        if surplus <= 0:
            return
        idle = sorted(self._windows.items(), key=lambda item: item[1].used_at)[:-1]
        for table_id, window in idle:
            if surplus <= 0:
                return
            if not window.lock.locked():
                surplus -= window.byte_count
                del self._windows[table_id]


def _only(events: Events, stored: Sequence[bool]) -> Events:
    chosen = list(compress(range(len(events)), stored))
    keys, ids, traces = events.keys, events.ids, events.traces
    return Events(
        [events.payloads[place] for place in chosen],
        None if keys is None else [keys[place] for place in chosen],
        None if ids is None else [ids[place] for place in chosen],
        None if traces is None else [traces[place] for place in chosen],
    )
