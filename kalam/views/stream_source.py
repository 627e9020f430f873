"""A STREAM table as a source: every event that comes through Kalam, and what the stream still holds of others.

Events are taken in as they are acknowledged, so no eviction takes one from a view that keeps up. What waits is bounded:
past the bound it is read from the stream again when its turn comes, and what is evicted by then was *missed*. That is
also how a view begins, and goes on after a restart.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence, Sized

import msgspec
import structlog
from msgspec.structs import replace

from kalam.live.follower import Follower
from kalam.live.live_query import Progress
from kalam.rows.codec import Codecs
from kalam.schema import Table
from kalam.storage.log.view_positions import Position
from kalam.tables.ports import Acked, StoredEvents
from kalam.tables.streams import StreamTables
from kalam.tables.versions import ChangeBatch, batch_of_events
from kalam.threads import Purpose, in_thread
from kalam.views.followed import Lag, Taken, Wake
from kalam.views.method import Changes

log = structlog.get_logger(__name__)


class _Held(msgspec.Struct, frozen=True):
    """Events at hand, of which no other lies between."""

    generation: int
    events: StoredEvents
    byte_count: int

    @property
    def last_seq(self) -> int:
        return self.events.seqs[-1]


class _ToRead(msgspec.Struct, frozen=True):
    """Events up to one that are to be read from the stream."""

    generation: int
    last_seq: int


class _Renumbered(msgspec.Struct, frozen=True):
    """From here on sequences are those of other events: a new generation, behind ``last_seq``."""

    generation: int
    last_seq: int


class StreamSource:
    """Follows a STREAM table; a Followed, and what its follower tells."""

    looks = is_copy = False
    holds = True

    def __init__(
        self, source: Table, streams: StreamTables, codecs: Codecs, wake: Wake, *, backlog_bytes_max: int, held: int
    ) -> None:
        self.table, self.progress = source, Progress()
        self._streams, self._codec, self._wake = streams, codecs.of(source), wake
        self._backlog_bytes_max, self._held_bytes_max = backlog_bytes_max, held
        self._follower: Follower | None = None
        self._waiting: deque[_Held | _ToRead | _Renumbered] = deque()
        self._byte_count = 0
        self._generation = 1
        self._since_us = 0
        self._reading: tuple[int, AsyncIterator[StoredEvents]] | None = None

    @property
    def keyed(self) -> Sized:
        """The times of events are not wanted."""
        return ()

    @property
    def full(self) -> bool:
        """Whether so much waits that whoever inserts had better wait."""
        return self._byte_count > self._backlog_bytes_max

    def close(self) -> None:
        """Follow no more."""
        if self._follower is not None:
            self._follower.stop()
            self._follower = None
        self._waiting.clear()
        self._byte_count, self._reading = 0, None

    # What the follower tells.

    def announce(self, payloads: Sequence[bytes], acked: Acked) -> None:
        """Take in events that the broker has stored."""
        if self._follower is not None:
            self._follower.announce(payloads, acked)

    def take_events(self, events: StoredEvents, make: Callable[[], ChangeBatch]) -> None:
        """Keep events until they are taken, or note that they are to be read again."""
        last = self._waiting[-1] if self._waiting else None
        if isinstance(last, _ToRead) and self._byte_count and last.generation == self._generation:
            self._waiting[-1] = _ToRead(self._generation, events.seqs[-1])
        elif self.full:
            self._waiting.append(_ToRead(self._generation, events.seqs[-1]))
        else:
            size = sum(map(len, events.payloads))
            self._waiting.append(_Held(self._generation, events, size))
            self._byte_count += size
            self._wake(size)
            return
        self._wake(0)

    def came(self, byte_count: int) -> None:
        """Events come by their broker."""

    def then(self, step: Callable[[], None]) -> None:
        """Everything is kept in order."""
        step()

    def lose(self, seq: int) -> None:
        """What lies before was evicted, which shows when it is to be read."""
        self._waiting.append(_ToRead(self._generation, seq))
        self._wake(0)

    def lose_keyed(self) -> None:
        """Nobody wants to know."""

    def renumber(self, seq: int) -> None:
        """The events behind ``seq`` are others."""
        self._generation += 1
        self._waiting.append(_Renumbered(self._generation, seq))
        self._wake(0)

    # What the view takes.

    async def snapshot(self) -> None:
        """What it holds is read as what comes."""

    async def begin(self, position: Position | None) -> Position:
        """Follow, and find out whether the stream is the one of before."""
        self.close()
        follower = self._follower = Follower(self, self._codec, self._streams, self._held_bytes_max)
        await follower.wait_started()
        state = await self._streams.port.state(self.table)
        begun, created = follower.seq, follower.created
        if position is None:
            retention_s = self.table.stream_options.retention_s
            self._since_us = 0 if retention_s is None else (time.time_ns() // 1_000) - retention_s * 1_000_000
            first = min(max(state.first_seq - 1, 0), begun)
            position = Position(source_id=self.table.table_id, seq=first, created=created)
        elif created != position.created:
            log.warning("the stream of a view's source was made anew", table=str(self.table.name))
            position = replace(position, generation=position.generation + 1, seq=0, created=created)
        elif begun < position.seq or 0 < position.seq <= state.doubtful_seq:
            log.warning("the stream of a view's source has fallen back", table=str(self.table.name))
            position = replace(position, generation=position.generation + 1, seq=min(begun, position.seq))
        # What follows was told while the state was asked; it stays behind what has to be read.
        self._waiting = deque(replace(each, generation=position.generation) for each in self._waiting)
        self._generation = position.generation
        if position.seq < begun:
            self._waiting.appendleft(_ToRead(position.generation, begun))
        return position

    async def take(self, position: Position, rows_max: int) -> Taken | None:
        """The events behind a position: those at hand, or a part of what is read."""
        while self._waiting:
            first = self._waiting[0]
            if (first.generation, first.last_seq) <= (position.generation, position.seq) and not isinstance(
                first, _Renumbered
            ):
                self._drop_first()
            elif isinstance(first, _Renumbered):
                if first.generation <= position.generation:
                    self._drop_first()
                    continue
                created = "" if self._follower is None else self._follower.created
                position = replace(position, generation=first.generation, seq=first.last_seq, created=created)
                return Taken(None, position, more=True)
            elif isinstance(first, _ToRead):
                return await self._read(position, first.last_seq)
            else:
                return await self._held(position, rows_max)
        return None

    def _drop_first(self) -> None:
        first = self._waiting.popleft()
        self._byte_count -= first.byte_count if isinstance(first, _Held) else 0

    async def _held(self, position: Position, rows_max: int) -> Taken:
        batch, count, chosen = ChangeBatch(), 0, 0
        for each in list(self._waiting):
            if not isinstance(each, _Held) or count >= rows_max:
                break
            events = _behind(each.events, position.seq)
            found = await in_thread(Purpose.LIVE, batch_of_events, events, self._codec)
            batch.add(found.seqs, found.olds, found.news)
            position = replace(position, seq=each.last_seq)
            count, chosen = count + len(events.seqs), chosen + 1
        return Taken(self._changes(batch, position), position, more=chosen < len(self._waiting))

    async def _read(self, position: Position, upto_seq: int) -> Taken:
        """The next part of what has to be read, up to one event."""
        port = self._streams.port
        if self._reading is None or self._reading[0] != position.seq:
            self._reading = position.seq, port.read(self.table, position.seq, upto_seq)
        events = await anext(self._reading[1], None)
        behind = upto_seq if events is None else events.seqs[-1]
        missed = 0
        first = upto_seq + 1 if events is None else events.seqs[0]
        if first > position.seq + 1:  # what was deleted is no event any more; what was evicted is missed
            first_kept = (await port.state(self.table)).first_seq
            missed = max(0, min(first, first_kept) - position.seq - 1)
        position = replace(position, seq=behind, missed=position.missed + missed)
        if events is None:
            self._reading = None
            return Taken(None, position, more=True)
        self._reading = behind, self._reading[1]
        batch = await in_thread(Purpose.LIVE, batch_of_events, self._unexpired(events), self._codec)
        return Taken(self._changes(batch, position), position, more=True)

    def _unexpired(self, events: StoredEvents) -> StoredEvents:
        """The events without those that nobody saw any more when the view began."""
        kept = [place for place, stored_us in enumerate(events.stored_us) if stored_us >= self._since_us]
        if len(kept) == len(events.seqs):
            return events
        return StoredEvents(
            [events.seqs[place] for place in kept],
            [events.stored_us[place] for place in kept],
            [events.payloads[place] for place in kept],
        )

    def _changes(self, batch: ChangeBatch, position: Position) -> Changes:
        return Changes(self.table, batch, position.generation, retracts=False)

    def lag(self, position: Position) -> Lag:
        """The events that came and were not taken in."""
        last = self._waiting[-1] if self._waiting else None
        return Lag(0 if last is None else max(0, last.last_seq - position.seq))


def _behind(events: StoredEvents, seq: int) -> StoredEvents:
    """The events behind one of them."""
    if events.seqs[0] > seq:
        return events
    start = next(place for place, each in enumerate(events.seqs) if each > seq)
    return StoredEvents(events.seqs[start:], events.stored_us[start:], events.payloads[start:])
