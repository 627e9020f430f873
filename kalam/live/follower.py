"""Follows a STREAM table while live queries are open on it: each event once and in order, whatever is evicted.

The law: what Kalam publishes is told from what it has in hand, with the sequence of its ack; acks that come in another
order wait for each other. The stream is read for nothing else than what others published there, and exactly once: a
gap that stays after everything of ours that was on its way has landed is theirs. What the stream does not hold any
more of it cannot be told by anybody, and a ``resync`` says so.

Sequences mean something within one stream only. Each ack comes with the creation time of its stream, and a sequence
that was told before shows that the broker has fallen back behind it; in both cases everything waits until a look at
the stream has told which numbers count. A look's answer is as old as its question: it is compared with what had been
told when it was asked.

Only ``_key`` holds something that no ack tells, the broker's time. While a live query names it, the stream is read for
the times of our own events too; where they are evicted before, those live queries get a ``resync``, and no others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import msgspec
import structlog

from kalam.errors import KalamError
from kalam.live.beginning import Beginning
from kalam.live.held_events import UNKNOWN_US, HeldEvents, follow_each_other, of_acks
from kalam.live.listening import Listening
from kalam.rows.codec import Codec
from kalam.tables.ports import Acked, StoredEvents, StreamState
from kalam.tables.streams import StreamTables
from kalam.tables.versions import batch_of_events

LOOK_PAUSE_S = 0.25
"""How often a stream is looked at for what others published."""
log = structlog.get_logger(__name__)


class Doubtful(msgspec.Struct, frozen=True):
    """Events of which it is not known yet whether their numbers follow those that were told.

    ``created`` tells the stream that acknowledged them; ``again`` says that their numbers were told before.
    """

    created: str
    events: StoredEvents
    again: bool


class Follower:
    """Brings the events of one table to its watch. What waits for others before it is bounded by ``held_bytes_max``."""

    def __init__(self, watch: Listening, codec: Codec, streams: StreamTables, held_bytes_max: int) -> None:
        self._watch, self._codec, self._streams = watch, codec, streams
        self._held_bytes_max = held_bytes_max
        self._seq: int | None = None
        self._created = ""
        self._held = HeldEvents()
        self._doubtful: list[Doubtful] = []
        self._doubtful_bytes = 0
        self._look_at_s = 0.0
        self._forgone_seq = 0  # up to here acks may still come of events that were waited for too long
        self._wake = asyncio.Event()
        self._beginning = Beginning()
        self._task = asyncio.create_task(self._run(), name=f"live events {watch.table.name}")

    async def wait_started(self) -> None:
        """Wait until everything that is published from now on will be brought; raises why the stream is not found."""
        await self._beginning.wait()

    @property
    def seq(self) -> int:
        """The event up to which everything has been brought."""
        return self._seq or 0

    @property
    def created(self) -> str:
        """Which stream it is that is followed."""
        return self._created

    def stop(self) -> None:
        """Follow no more."""
        self._task.cancel()
        self._beginning.done()

    def announce(self, payloads: Sequence[bytes], acked: Acked) -> None:
        """Take in events that the broker has stored."""
        events, told = of_acks(acked.seqs, payloads), self._seq
        first_seq, known_again = events.seqs[0], acked.repeats > 0
        again = told is not None and self._forgone_seq < first_seq <= told and not known_again
        if told is None or again or self._doubtful or acked.created != self._created:
            self._doubt(Doubtful(acked.created, events, again))
            return
        follows = first_seq == told + 1 and not known_again and follow_each_other(events.seqs)
        if follows and not self._held and not self._watch.keyed:
            self._bring(events)
            return
        self._held.add(events)
        if not self._watch.keyed:
            self._bring_held()
        self._bound()

    def _doubt(self, doubtful: Doubtful) -> None:
        """Hold events until it is known which stream's numbers they have; what is let go of shows as a gap."""
        self._doubtful.append(doubtful)
        self._doubtful_bytes += sum(map(len, doubtful.events.payloads))
        if self._doubtful_bytes > self._held_bytes_max:
            del self._doubtful[1:]
        self._wake.set()

    def _bring(self, events: StoredEvents) -> None:
        self._seq = events.seqs[-1]
        self._watch.take_events(events, partial(batch_of_events, events, self._codec))
        if self._watch.keyed and UNKNOWN_US in events.stored_us:
            self._watch.then(self._watch.lose_keyed)

    def _bring_held(self, upto_seq: int | None = None) -> None:
        """Bring what follows the last one that was told, up to ``upto_seq`` if it is given."""
        for events in self._held.take(self.seq, upto_seq):
            self._bring(events)

    def _bound(self) -> None:
        """Wake the one that closes gaps; let go of what waits too long a time for it."""
        if self._held.byte_count > self._held_bytes_max:
            self._bring_held()
        if self._held.byte_count > self._held_bytes_max:
            self._forgone_seq = self._held.last_start - 1
            self._skip(self._forgone_seq)
        if self._held:
            self._wake.set()

    def _skip(self, upto_seq: int) -> None:
        """Go on behind ``upto_seq``; what of it is not in hand cannot be told."""
        bring_upto = upto_seq if self._watch.keyed else None
        self._bring_held(bring_upto)
        while self.seq < upto_seq:
            self._seq = min(self._held.first_seq - 1, upto_seq) if self._held else upto_seq
            self._watch.then(partial(self._watch.lose, self._seq))
            self._bring_held(bring_upto)

    async def _run(self) -> None:
        gap_upto_seq = 0
        while True:
            try:
                if gap_upto_seq:
                    await self._read(gap_upto_seq)
                else:
                    await self._look()
            except KalamError as exc:
                log.debug("live events wait for the broker", table=str(self._watch.table.name), reason=exc.detail)
                self._beginning.failed(exc)
                await asyncio.sleep(LOOK_PAUSE_S)
            except Exception as exc:
                log.exception("live events failed", table=str(self._watch.table.name))
                self._beginning.failed(exc)
                await asyncio.sleep(LOOK_PAUSE_S)
            gap_upto_seq = await self._wait_due()

    async def _wait_due(self) -> int:
        """Wait until a look is due, or until a gap does not close by itself: where it ends, 0 for a look."""
        landed = self._streams.flights.wait_landed
        if self._held:
            self._wake.set()
        try:
            async with asyncio.timeout_at(self._look_at_s):
                while True:
                    await self._wake.wait()
                    self._wake.clear()
                    if self._seq is None or self._doubtful or self._watch.keyed:
                        return 0
                    upto_seq = self._held.last_start - 1  # a later gap may be one of acks that are still to come
                    await landed(self._watch.table.table_id)
                    if self.seq < upto_seq and not self._doubtful:
                        return upto_seq
        except TimeoutError:
            return 0

    async def _look(self) -> None:
        table, told = self._watch.table, self._seq
        self._look_at_s = asyncio.get_running_loop().time() + LOOK_PAUSE_S
        state = await self._streams.port.state(table)
        if told is None:
            await self._begin(state)
        else:
            self._judge(state, told)
        upto_seq = max(state.last_seq, self._held.last_start - 1)
        if self.seq < upto_seq:
            await self._streams.flights.wait_landed(table.table_id)
            await self._read(upto_seq)

    async def _begin(self, state: StreamState) -> None:
        """What is published from now on is told; what is on its way now may be among what a snapshot shows."""
        await self._streams.flights.wait_landed(self._watch.table.table_id)
        self._created, self._seq = state.created, state.last_seq
        self._watch.progress.seq = state.last_seq
        self._judge(state, 0)
        self._beginning.done()

    def _judge(self, state: StreamState, told: int) -> None:
        """Find out whether the numbers are those of before, and take in what waited for that.

        ``told`` had been told when the state was asked for, so a stream that holds less has fallen back.
        """
        doubtful, self._doubtful, self._doubtful_bytes = self._doubtful, [], 0
        mine = [one for one in doubtful if one.created in ("", state.created)]
        again = [one.events.seqs[0] - 1 for one in mine if one.again]
        if state.created != self._created:
            self._created = state.created
            self._renumber(0)
        elif again or state.last_seq < told:
            self._renumber(min([state.last_seq, *again]))
        for one in mine:
            self._held.add(one.events)
        if not self._watch.keyed:
            self._bring_held()

    def _renumber(self, seq: int) -> None:
        """The numbers behind ``seq`` are those of other events than before."""
        log.warning("the stream of a table has fallen back or was made anew", table=str(self._watch.table.name))
        self._seq, self._forgone_seq = seq, 0
        self._held.clear()
        self._watch.then(partial(self._watch.renumber, seq))

    async def _read(self, upto_seq: int) -> None:
        """Read what is missing up to ``upto_seq``: it was published by others, and by us only if its ack never came."""
        table, port = self._watch.table, self._streams.port
        if self.seq < upto_seq:
            async for events in port.read(table, self.seq, upto_seq):
                if (await port.state(table)).created != self._created:
                    self._look_at_s = 0  # it was made anew meanwhile
                    return
                self._held.add(events)
                self._bring_held(events.seqs[-1] if self._watch.keyed else None)
            self._skip(upto_seq)
