"""A stream of others as a source: read from the last message on that was taken, which has to be the same one.

Law: neither the creation time of a stream nor its last sequence shows whether it is the one of before: a restore
changes the one with the same messages, a broker that has lost its end gives sequences anew to others. So the last
messages that were read are remembered by sequence and time, and a read begins with the newest of them. A sequence that
has another time now, or a stream that ends before it, is another stream; a message that is gone was evicted or deleted,
and the others decide.

What was evicted before it was read shows as a jump of the sequence. Where a table reads some subjects of a stream
alone, jumps are how it is, and only what lies before the first message that is kept can be told, at most.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Final

import msgspec
import structlog
from msgspec.structs import replace

from kalam.errors import Unsupported
from kalam.rows.foreign.messages import ForeignMessages
from kalam.schema import Table
from kalam.sql.queries.scan_bounds import ScanBounds
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.view_positions import Position
from kalam.table_options import OnRecreate
from kalam.tables.foreign.port import ForeignState
from kalam.tables.foreign.replay import batch_of_messages
from kalam.tables.foreign.tables import ForeignTables
from kalam.threads import Purpose, in_thread
from kalam.views.followed import Lag, Taken
from kalam.views.method import Changes, Stopped

REMEMBERED = 16
UNKEPT: Final = {
    "workqueue": "a work queue: what its workers have taken is gone",
    "interest": "an interest stream: what its consumers have taken is gone",
}
"""How streams keep messages of which a view could not know the whole."""
log = structlog.get_logger(__name__)


class Recreated(Stopped):
    """The stream is not the one any more that the view has followed."""


class ForeignSource:
    """Follows a stream of others; a Followed."""

    looks = holds = True
    is_copy = full = False

    def __init__(self, source: Table, foreign: ForeignTables, catalogue: Catalogue, on_recreate: OnRecreate) -> None:
        self._source, self._foreign, self._catalogue = source, foreign, catalogue
        self._on_recreate = on_recreate
        self._state: ForeignState | None = None
        self._reading: _Reading | None = None

    @property
    def table(self) -> Table:
        """The table as it is now."""
        return self._catalogue.by_id.get(self._source.table_id, self._source)

    def came(self, byte_count: int) -> None:
        """Nothing is committed."""

    def close(self) -> None:
        """Nothing of ours is left at the broker."""
        self._reading = None

    async def snapshot(self) -> None:
        """What it holds is read as what comes."""

    async def begin(self, position: Position | None) -> Position:
        """Where it was, or before the first message that is kept."""
        state = await self._look()
        if position is not None:
            return position
        seq = max(0, min(state.first_seq - 1, state.last_seq))
        return Position(source_id=self._source.table_id, seq=seq, created=state.created)

    async def _look(self) -> ForeignState:
        self._state = await self._foreign.port.state(self.table.foreign_options.over)
        check_kept(self._state)
        return self._state

    async def take(self, position: Position, rows_max: int) -> Taken | None:
        """The messages behind a position: the next part of a read that goes on, or of a new one."""
        reading = self._reading
        if reading is None or reading.position != position:
            self._reading = None
            state = await self._look()
            if _nothing_new(state, position):
                return None
            reading = await self._begun(state, position)
            if reading is None:
                return None
            if reading.position != position:  # another stream, from here on
                self._reading = reading
                return Taken(None, reading.position, more=True)
        self._reading = None
        messages = await reading.next()
        if messages is None:
            after = reading.at_end()
            return None if after == position else Taken(None, after, more=False)
        after = reading.behind(messages)
        self._reading = replace_reading(reading, after)
        table = self.table
        batch = await in_thread(Purpose.LIVE, batch_of_messages, messages, self._foreign.decoder(table))
        return Taken(Changes(table, batch, after.generation, retracts=False), after, more=True)

    async def _begun(self, state: ForeignState, position: Position) -> _Reading | None:
        """A read behind the position, once it is known that it is the same stream; raises Recreated."""
        if state.last_seq >= position.seq:
            if not position.remembered:
                if state.created == position.created or position.seq < state.first_seq:
                    return self._read(state, replace(position, created=state.created))
            else:
                found = await self._found(state, position)
                if found is not None:
                    return found
        return await self._another(state, position)

    async def _found(self, state: ForeignState, position: Position) -> _Reading | None:
        """The read from the newest message on that is remembered; None where another message has its place."""
        pairs = dict(position.remembered)
        last = position.remembered[-1][0]
        if state.first_seq <= last:
            reading = self._read(state, position, after_seq=last - 1)
            messages = await reading.next()
            if messages is not None and messages.seqs[0] == last:
                if messages.times_ns[0] != pairs[last]:
                    return None
                reading.give_back(messages.part(1, len(messages)))
                return reading
            # It was deleted; the others decide.
            fits = await self._newest_fitting(state, position)
            if fits is None:
                return None
            if fits == 0 and state.created != position.created:
                return None
        elif state.created != position.created:
            return None
        return self._read(state, position)

    async def _newest_fitting(self, state: ForeignState, position: Position) -> int | None:
        """The newest of the remembered messages that is there; 0 where none is, None where one is another now."""
        pairs = dict(position.remembered)
        first, last = position.remembered[0][0], position.remembered[-1][0]
        found = 0
        bounds = ScanBounds(after_seq=first - 1, upto_seq=last)
        over = self.table.foreign_options.over
        async for messages in self._foreign.port.read(over, self._source.table_id, bounds):
            for seq, time_ns in zip(messages.seqs, messages.times_ns, strict=True):
                if seq in pairs:
                    if pairs[seq] != time_ns:
                        return None
                    found = seq
        return found

    async def _another(self, state: ForeignState, position: Position) -> _Reading:
        """Go on with another stream, if the view is to; raises Recreated."""
        if self._on_recreate is OnRecreate.STOP:
            raise Recreated(
                f"recreated: the stream {state.name} is not the one any more that was read up to {position.seq}; "
                "ALTER MATERIALIZED VIEW … SET (on_recreate = 'continue') goes on with it"
            )
        log.warning("a view goes on with another stream", table=str(self.table.name), stream=state.name)
        seq = await self._last_common(state, position)
        pairs = tuple(pair for pair in position.remembered if pair[0] <= seq)
        generation = position.generation + 1
        return self._read(
            state, replace(position, generation=generation, seq=seq, created=state.created, remembered=pairs)
        )

    async def _last_common(self, state: ForeignState, position: Position) -> int:
        """The newest remembered message that still fits after a roll-back; before the first one where none does."""
        pairs, fits = dict(position.remembered), 0
        if pairs and state.last_seq:
            bounds = ScanBounds(after_seq=min(pairs) - 1, upto_seq=min(max(pairs), state.last_seq))
            if bounds.upto_seq is not None and bounds.after_seq < bounds.upto_seq:
                over = self.table.foreign_options.over
                async for messages in self._foreign.port.read(over, self._source.table_id, bounds):
                    for seq, time_ns in zip(messages.seqs, messages.times_ns, strict=True):
                        fits = seq if pairs.get(seq) == time_ns else fits
        return fits or max(0, min(state.first_seq - 1, state.last_seq))

    def _read(self, state: ForeignState, position: Position, after_seq: int | None = None) -> _Reading:
        bounds = ScanBounds(after_seq=position.seq if after_seq is None else after_seq, upto_seq=state.last_seq)
        over = self.table.foreign_options.over
        parts = self._foreign.port.read(over, self._source.table_id, bounds)
        return _Reading(position=position, state=state, parts=parts)

    def lag(self, position: Position) -> Lag:
        """The messages that were there at the last look and were not taken in, at most."""
        return Lag(0 if self._state is None else max(0, self._state.last_seq - position.seq))


class _Reading(msgspec.Struct, kw_only=True):
    """A read on its way: the position up to which it was taken, and what is left of it."""

    position: Position
    state: ForeignState
    parts: AsyncIterator[ForeignMessages]
    left: ForeignMessages | None = None

    async def next(self) -> ForeignMessages | None:
        """The next messages, of which there is at least one."""
        left, self.left = self.left, None
        return left if left is not None else await anext(self.parts, None)

    def give_back(self, messages: ForeignMessages) -> None:
        """What was read and is still to be taken."""
        self.left = messages if len(messages) else None

    def behind(self, messages: ForeignMessages) -> Position:
        """The position behind messages that follow it."""
        pairs = (
            *self.position.remembered,
            *zip(messages.seqs[-REMEMBERED:], messages.times_ns[-REMEMBERED:], strict=True),
        )
        first, last = messages.seqs[0], messages.seqs[-1]
        # What was gone before the first message was read is not missed: nobody knows what it was.
        before = self.position.seq if self.position.remembered else first - 1
        if self.state.covered:
            missed = last - before - len(messages)
        else:
            missed = max(0, min(first, self.state.first_seq) - before - 1)
        return self._moved(last, missed, pairs[-REMEMBERED:])

    def at_end(self) -> Position:
        """The position when there is no more: what lies between is gone, or is of other subjects."""
        last = self.state.last_seq
        if not self.position.remembered:
            missed = 0
        elif self.state.covered:
            missed = max(0, last - self.position.seq)
        else:
            missed = max(0, min(last + 1, self.state.first_seq) - self.position.seq - 1)
        return self._moved(max(last, self.position.seq), missed, self.position.remembered)

    def _moved(self, seq: int, missed: int, remembered: tuple[tuple[int, int], ...]) -> Position:
        missed += self.position.missed
        return replace(self.position, seq=seq, created=self.state.created, missed=missed, remembered=remembered)


def replace_reading(reading: _Reading, position: Position) -> _Reading:
    """The same read, taken up to another position."""
    return _Reading(position=position, state=reading.state, parts=reading.parts, left=reading.left)


def _nothing_new(state: ForeignState, position: Position) -> bool:
    """Whether a stream stands where it stood, as far as its state tells."""
    if state.created != position.created or state.last_seq != position.seq:
        return False
    last = position.remembered[-1] if position.remembered else (0, 0)
    return last[0] != state.last_seq or state.last_ns == last[1]


async def check_all_kept(sources: Iterable[Table], foreign: ForeignTables) -> None:
    """Raise Unsupported where one of them is over a stream whose messages go when others have taken them."""
    for source in sources:
        if source.is_foreign:
            check_kept(await foreign.port.state(source.foreign_options.over))


def check_kept(state: ForeignState) -> None:
    """Raise Unsupported for a stream whose messages go when others have taken them."""
    if state.retention in UNKEPT:
        raise Unsupported(f"a view cannot follow the stream {state.name}: it is {UNKEPT[state.retention]}")
