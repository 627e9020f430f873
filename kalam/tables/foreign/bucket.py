"""The present state of a key-value bucket of others: read once, kept current, and told of as changes with old rows.

The law: the rows are the bucket's at one moment. They are read by the last message of each key until no more were
there, and then what comes is read likewise, from the newest messages on that are known, one of which has to be among
them. Where that fails, or the broker counts other keys than are known (others may purge, and restore), all is read
anew and compared: so whoever follows is told what has changed in any case, and nothing else.

Changes are counted here: an expiry has no message, and what has been superseded nobody can read again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kalam.errors import BrokerUnavailable, TooLarge
from kalam.foreign import Invalid
from kalam.rows.columns import TYPE_METADATA, arrow_schema, from_arrow, shown_schema
from kalam.rows.foreign.decoder import ERROR, EXTRA_TYPES, EXTRAS, PUT, SUBJECT, TIME, ForeignDecoder
from kalam.rows.foreign.faults import Reason
from kalam.rows.foreign.messages import ForeignMessages
from kalam.rows.types import TIMESTAMP_ARROW, Row
from kalam.schema import OPERATION, REVISION, SEQ, STREAM_KEY
from kalam.sql.queries.scan_bounds import NO_BOUNDS, ScanBounds
from kalam.tables.foreign.keys import Change, Keys, Kinship, removed
from kalam.tables.foreign.port import ForeignPort, ForeignState
from kalam.tables.foreign.room import Room
from kalam.tables.versions import ChangeBatch
from kalam.tables.window_pieces import EVENT_SEQ, EVENT_TIME, Pieces
from kalam.threads import Purpose, in_thread

LOOKS_MAX = 5
BEFORE_KEYS = r"^\$KV\.[^.]*\."
KNOWN_FIRST, KNOWN_GROWTH = 64, 16
"""So many of the newest messages are read again to see that they are the same, and so many times more if they are not
there any more."""
AGAIN_MAX = 50_000
"""Where more messages than this would be read to go on, all is read anew."""
PIECE_ROWS_MIN = 5_000
"""So many rows are a piece by themselves: joining them costs more than it saves."""
WHOLE_MAX = 1 << 62
Listener = Callable[[ChangeBatch], None]
"""Is told of changes, in order, at once after they are there."""


class Present(msgspec.Struct):
    """What is known of a bucket: its keys, and their rows with all that a message is."""

    keys: Keys
    pieces: Pieces
    faults: dict[int, Reason] = msgspec.field(default_factory=dict)
    dead: set[int] = msgspec.field(default_factory=set)

    def forget(self, seqs: Sequence[int]) -> None:
        """These are rows no more; they are let go of with others."""
        self.dead.update(seqs)
        for seq in seqs:
            self.faults.pop(seq, None)

    def sweep(self) -> None:
        """Let go of what is no row any more."""
        if self.dead:
            self.pieces.remove(np.array(sorted(self.dead), np.int64))
            self.dead.clear()


class Bucket:
    """The bucket of one table, as of the last look. ``lock`` is held while it is read.

    ``number`` counts the changes; ``used_at`` is when somebody asked last.
    """

    def __init__(self, decoder: ForeignDecoder, port: ForeignPort, bytes_max: int, room: Room) -> None:
        self._port, self._bytes_max, self._room = port, bytes_max, room
        self.lock = asyncio.Lock()
        self.used_at = time.monotonic()
        self.number = 0
        self._listeners: list[Listener] = []
        self._present: Present | None = None
        self.redefine(decoder)

    def redefine(self, decoder: ForeignDecoder) -> None:
        """Read by a table whose options are others."""
        self._decoder = decoder
        table = decoder.table
        self._skips = table.foreign_options.invalid is Invalid.SKIP
        self.table, self._over = table, table.foreign_options.over
        schema = arrow_schema(table.columns)
        for name in EXTRAS:
            schema = schema.append(pa.field(name, EXTRA_TYPES[name]))
        self._schema = schema.append(pa.field(EVENT_SEQ, pa.int64())).append(pa.field(EVENT_TIME, pa.int64()))
        self._created: str | None = None  # so that all is read anew
        self._end = (0, "")

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Tell of changes for as long as the block runs."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    @property
    def is_followed(self) -> bool:
        """Whether somebody is told of changes."""
        return bool(self._listeners)

    @property
    def is_busy(self) -> bool:
        """Whether it is being read, or followed."""
        return self.is_followed or self.lock.locked()

    @property
    def byte_count(self) -> int:
        """The memory that the rows take."""
        return 0 if self._present is None else self._present.pieces.byte_count

    def undecodable(self) -> dict[Reason, int]:
        """How many of the values do not decode, by reason."""
        found = [] if self._present is None else list(self._present.faults.values())
        return {reason: found.count(reason) for reason in Reason}

    @property
    def row_count(self) -> int:
        """How many keys have a value."""
        return 0 if self._present is None else self._present.keys.row_count

    # What a query sees.

    async def rows(
        self, virtual: frozenset[str], *, with_seq: bool = False, wrong: bool = False
    ) -> tuple[pa.Table, int]:
        """A row for each key of now, with these virtual columns behind the others, and the last change's number.

        What does not decode, of which changes do not tell, is among them only where ``wrong`` values are asked for.
        """
        self.used_at = time.monotonic()
        async with self.lock:
            await self._look()
            present, number = self._present, self.number
            assert present is not None
            await self._undisturbed(_swept, present)
            pieces = present.pieces.snapshot()
        return await in_thread(Purpose.ROWS, self._shown, pieces, virtual, wrong, with_seq), number

    async def rows_within(self, bounds: ScanBounds, virtual: frozenset[str]) -> pa.Table:
        """The rows within bounds, which are not kept; others may be among them."""
        state = await self._port.state(self._over)
        present = self._nothing(state)
        if bounds.upto_seq is None or bounds.upto_seq > 0:
            newest = bounds.after_seq == 0 and bounds.from_us is None
            async for messages in self._port.read_keys(self._over, self.table.table_id, bounds, newest=newest):
                await in_thread(Purpose.ROWS, self._take, present, messages, state.now_ns)
                self._check_size(present)
        await in_thread(Purpose.ROWS, present.sweep)
        return await in_thread(Purpose.ROWS, self._shown, present.pieces, virtual, ERROR in virtual, False)

    # Keeping it current.

    async def look(self) -> None:
        """See what has changed, and tell those who follow; raises why the bucket cannot be read."""
        async with self.lock:
            await self._look()

    async def _look(self) -> None:
        for _ in range(LOOKS_MAX):
            state = await self._port.state(self._over)
            present = self._present
            if present is None or (state.created, state.lifetimes) != (self._created, present.keys.lifetimes):
                if await self._read_whole(state):
                    return
                continue
            known = present.keys.count
            await self._apply(present, None, state.now_ns)
            goes_on = not present.keys.is_stale and await self._go_on(present, state)
            if goes_on and present.keys.agrees(state.subject_count, state.last_seq, known):
                self._end = (state.last_seq, state.last_text)
                return
            if await self._read_whole(state):
                return
        raise BrokerUnavailable(f"the {self._over.called} changes faster than it can be read; try again")

    async def _go_on(self, present: Present, state: ForeignState) -> bool:
        """Take in what has come; False if it does not go on from what is known."""
        if (state.last_seq, state.last_text) == self._end:
            return True
        count = KNOWN_FIRST
        while True:
            messages = await self._again(present.keys.oldest_of_newest(count) - 1)
            if messages is None:
                return False
            kinship, seq = present.keys.kinship(messages, count)
            if kinship is Kinship.SAME:
                behind = [place for place, each in enumerate(messages.seqs) if each > seq]
                await self._apply(present, messages.only(behind), state.now_ns)
                self._check_size(present)
            if kinship is not Kinship.UNKNOWN or count >= present.keys.count:
                return kinship is Kinship.SAME
            count *= KNOWN_GROWTH

    async def _again(self, after_seq: int) -> ForeignMessages | None:
        """The messages behind a sequence; None for too many."""
        found = ForeignMessages([], [], [], [], [])
        bounds = ScanBounds(after_seq=after_seq)
        async for messages in self._port.read_keys(self._over, self.table.table_id, bounds, newest=False):
            found = found.followed_by(messages)
            if len(found) > AGAIN_MAX:
                return None
        return found

    async def _read_whole(self, state: ForeignState) -> bool:
        """Read everything and tell what is another than before; False if the bucket has changed meanwhile."""
        present = self._nothing(state)
        async for messages in self._port.read_keys(self._over, self.table.table_id, NO_BOUNDS, newest=True):
            await in_thread(Purpose.ROWS, self._take, present, messages, state.now_ns)
            self._check_size(present)
        after = await self._port.state(self._over)
        if after.created != state.created:
            return False
        if after.last_seq == state.last_seq:
            present.forget(removed(present.keys.expire(after.now_ns)))
            if not present.keys.agrees(after.subject_count, after.last_seq, 0):
                return False
        before, batch = self._present, ChangeBatch()
        if self._listeners and before is not None:
            changes = await in_thread(Purpose.ROWS, before.keys.difference, present.keys)
            batch = await in_thread(Purpose.ROWS, self._batch, changes, before.pieces, present.pieces)
        self._present, self._created = present, state.created
        self._room.note(self, present.pieces.byte_count)
        self._end = (state.last_seq, state.last_text)
        self._tell(batch)
        return True

    def _nothing(self, state: ForeignState) -> Present:
        return Present(Keys(state.lifetimes), Pieces(self._schema))

    async def _apply(self, present: Present, messages: ForeignMessages | None, now_ns: int) -> None:
        """Let go of what is due, take in messages, and tell of both; whatever becomes of whoever waits for it."""
        if messages is not None or present.keys.has_due(now_ns):
            await self._undisturbed(self._changed, present, messages, now_ns)

    async def _undisturbed(self, work: Callable[..., ChangeBatch], *arguments: object) -> None:
        """Do something in a thread and tell of its changes, also if whoever waits for that is cancelled."""
        working = asyncio.ensure_future(in_thread(Purpose.ROWS, work, *arguments))
        try:
            await asyncio.shield(working)
        except asyncio.CancelledError:
            await asyncio.wait([working])
            self._tell(working.result())
            raise
        self._tell(working.result())

    def _changed(self, present: Present, messages: ForeignMessages | None, now_ns: int) -> ChangeBatch:
        changes = present.keys.expire(now_ns)
        present.forget(removed(changes))
        if messages is not None:
            changes += self._take(present, messages, now_ns)
        batch = self._batch(changes, present.pieces, present.pieces) if self._listeners else ChangeBatch()
        if 2 * len(present.dead) > present.pieces.count(0, WHOLE_MAX):
            present.sweep()
        return batch

    def _take(self, present: Present, messages: ForeignMessages, now_ns: int) -> list[Change]:
        """Add the rows of messages, and let go of those that they supersede."""
        changes = present.keys.take(messages, now_ns)
        present.forget(removed(changes))
        new = [change.new for change in changes if change.new is not None]
        if not new:
            return changes
        found = messages
        if len(new) < len(messages):
            wanted = set(new)
            found = messages.only([place for place, seq in enumerate(messages.seqs) if seq in wanted])
        arrays, _, faults = self._decoder.batch(found, EXTRAS)
        present.faults.update((found.seqs[place], fault.reason) for place, fault in faults.items())
        seqs, times = np.array(found.seqs, np.int64), np.array(found.times_ns, np.int64) // 1_000
        batch = pa.record_batch([*arrays, pa.array(seqs), pa.array(times)], schema=self._schema)
        present.pieces.add(batch, alone=len(found) >= PIECE_ROWS_MIN)
        return changes

    def _batch(self, changes: Sequence[Change], before: Pieces, after: Pieces) -> ChangeBatch:
        """Changes with their old and new versions; a value that does not decode is no row, as in SELECT."""
        olds = self._versions(before, [change.old for change in changes if change.old is not None])
        news = self._versions(after, [change.new for change in changes if change.new is not None])
        rows = [(olds.get(change.old), news.get(change.new)) for change in changes]  # type: ignore[arg-type] # None
        shown = [(old, new) for old, new in rows if old is not None or new is not None]
        batch = ChangeBatch()
        batch.add([0] * len(shown), [old for old, _ in shown], [new for _, new in shown])
        return batch

    def _versions(self, pieces: Pieces, seqs: Sequence[int]) -> dict[int, Row]:
        if not seqs:
            return {}
        events = pieces.chosen(np.array(sorted(seqs), np.int64))
        shown = self._of_events(events, frozenset(self.table.system_columns), wrong=not self._skips, with_seq=True)
        return {row[-1]: row[:-1] for row in from_arrow(shown)}

    def _tell(self, batch: ChangeBatch) -> None:
        if not len(batch):
            return
        batch.seqs = list(range(self.number + 1, self.number + len(batch) + 1))
        self.number += len(batch)
        for listener in list(self._listeners):
            listener(batch)

    def _check_size(self, present: Present) -> None:
        if present.pieces.byte_count > self._bytes_max:
            raise TooLarge(
                f"the rows of table {self.table.name} are larger than stream_window_bytes_max "
                f"({self._bytes_max} bytes)",
                hint="WHERE _key = '…', or = on a TEXT column FROM TOKEN, reads what fits",
            )
        self._room.hold(self, present.pieces.byte_count + (0 if present is self._present else self.byte_count))

    # Showing it.

    def _shown(self, pieces: Pieces, virtual: frozenset[str], wrong: bool, with_seq: bool) -> pa.Table:
        wrong = wrong or not self._skips
        return self._of_events(pieces.visible(0, WHOLE_MAX, None), virtual, wrong=wrong, with_seq=with_seq)

    def _of_events(self, events: pa.Table, virtual: frozenset[str], *, wrong: bool, with_seq: bool) -> pa.Table:
        """What is shown of events, ``wrong`` says whether those that do not decode, too."""
        if not wrong and events.column(ERROR).null_count < events.num_rows:
            events = events.filter(pc.is_null(events.column(ERROR)))
        columns = self.table.columns
        shown = pa.table(events.columns[: len(columns)], schema=shown_schema(columns))
        for name, kind in self.table.system_columns.items():
            if name in virtual:
                values = _virtual(events, name)
                shown = shown.append_column(pa.field(name, values.type, metadata={TYPE_METADATA: kind.value}), values)
        return shown.append_column(EVENT_SEQ, events.column(EVENT_SEQ)) if with_seq else shown


def _swept(present: Present) -> ChangeBatch:
    present.sweep()
    return ChangeBatch()


def _virtual(events: pa.Table, name: str) -> pa.ChunkedArray:
    if name in (SEQ, REVISION):
        return events.column(EVENT_SEQ)
    if name == TIME:
        return events.column(EVENT_TIME).cast(TIMESTAMP_ARROW)
    if name == STREAM_KEY:
        return pc.replace_substring_regex(events.column(SUBJECT), BEFORE_KEYS, "")
    if name == OPERATION:
        return pa.chunked_array([pa.repeat(PUT, events.num_rows)], pa.string())
    return events.column(name)
