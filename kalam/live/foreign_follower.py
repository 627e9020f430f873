"""Follows a foreign stream while live queries are open on the table over it: it is looked at, and what is new is read.

Nobody tells of what others publish. A look costs the broker one answer of its state; what lies behind the last message
that was told is read by a consumer that lives for that read, so that nothing of ours is left there.

A sequence alone does not tell where to go on: a broker that has lost its tail gives the same ones to other messages,
and a stream that is restored from a backup is a new one with the same messages. So the last messages are remembered
with their times, and each read begins at the last one, which must be the same.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from functools import partial

import structlog

from kalam.errors import KalamError
from kalam.live.beginning import Beginning
from kalam.live.follower import LOOK_PAUSE_S
from kalam.live.watch import Watch
from kalam.sql.queries.scan_bounds import ScanBounds
from kalam.tables.foreign.port import ForeignState
from kalam.tables.foreign.replay import batch_of_messages
from kalam.tables.foreign.tables import ForeignTables

REMEMBERED_MAX = 16
log = structlog.get_logger(__name__)


class ForeignFollower:
    """Brings the messages of one table to its watch."""

    def __init__(self, watch: Watch, tables: ForeignTables) -> None:
        self._watch, self._tables = watch, tables
        self._decoder = tables.decoder(watch.table)
        self._seq: int | None = None
        self._created = ""
        self._remembered: deque[tuple[int, int]] = deque(maxlen=REMEMBERED_MAX)
        """Sequence and time (ns) of the last messages that were told."""
        self._beginning = Beginning()
        self._task = asyncio.create_task(self._run(), name=f"live messages {watch.table.name}")

    async def wait_started(self) -> None:
        """Wait until everything that is published from now on will be brought; raises why the stream is not found."""
        await self._beginning.wait()

    @property
    def seq(self) -> int:
        """The message up to which everything has been brought."""
        return self._seq or 0

    def stop(self) -> None:
        """Follow no more."""
        self._task.cancel()
        self._beginning.done()

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
            except KalamError as exc:
                log.debug("live messages wait for the stream", table=str(self._watch.table.name), reason=exc.detail)
                self._beginning.failed(exc)
            except Exception as exc:
                log.exception("live messages failed", table=str(self._watch.table.name))
                self._beginning.failed(exc)
            await asyncio.sleep(LOOK_PAUSE_S)

    async def _look(self) -> None:
        state = await self._tables.port.state(self._watch.table.foreign_options.over)
        if self._seq is None:
            self._created, self._seq = state.created, state.last_seq
            if state.messages:
                self._remembered.append((state.last_seq, state.last_ns))
            self._watch.progress.seq = state.last_seq
            self._beginning.done()
        elif state.created != self._created or state.last_seq < self._seq or self._is_other(state):
            await self._find_again(state)
        if self.seq < state.last_seq:
            await self._read(state)

    def _is_other(self, state: ForeignState) -> bool:
        """Whether the stream ends with another message of the same sequence as the last that is remembered."""
        if not (state.messages and self._remembered):
            return False
        seq, time_ns = self._remembered[-1]
        return seq == state.last_seq and time_ns != state.last_ns

    async def _find_again(self, state: ForeignState) -> None:
        """Go on behind the newest message that is remembered and still there."""
        over, table_id = self._watch.table.foreign_options.over, self._watch.table.table_id
        there: set[tuple[int, int]] = set()
        if self._remembered and state.messages:
            bounds = ScanBounds(after_seq=self._remembered[0][0] - 1, upto_seq=self._remembered[-1][0])
            async for messages in self._tables.port.read(over, table_id, bounds):
                there.update(zip(messages.seqs, messages.times_ns, strict=True))
        whole = bool(self._remembered) and self._remembered[-1] in there
        while self._remembered and self._remembered[-1] not in there:
            self._remembered.pop()
        if self._remembered:
            self._seq = self._remembered[-1][0]
        else:
            self._seq = 0 if state.created != self._created else min(self.seq, state.last_seq)
        self._created = state.created
        if not whole:  # behind that one the sequences are those of other messages
            log.warning("a foreign stream has fallen back or was made anew", table=str(self._watch.table.name))
            self._watch.then(partial(self._watch.renumber, self._seq))

    async def _read(self, state: ForeignState) -> None:
        table = self._watch.table
        known = self._remembered[-1] if self._remembered else (self.seq + 1, 0)
        bounds = ScanBounds(after_seq=min(self.seq, known[0] - 1), upto_seq=state.last_seq)
        lost = state.first_seq > self.seq + 1
        async for messages in self._tables.port.read(table.foreign_options.over, table.table_id, bounds):
            if self._remembered and messages.seqs[0] == known[0] and messages.times_ns[0] != known[1]:
                await self._find_again(state)
                return  # the next look reads what came behind it
            fresh = messages.part(bisect_right(messages.seqs, self.seq), len(messages))
            if not len(fresh):
                continue
            if lost:  # what was evicted before anybody read it cannot be told
                lost = False
                self._watch.then(partial(self._watch.lose, fresh.seqs[0] - 1))
            self._seq = fresh.seqs[-1]
            self._remembered.extend(zip(fresh.seqs[-REMEMBERED_MAX:], fresh.times_ns[-REMEMBERED_MAX:], strict=True))
            self._watch.take(partial(batch_of_messages, fresh, self._decoder), len(fresh))
        if lost:
            self._watch.then(partial(self._watch.lose, state.last_seq))
        self._seq = state.last_seq
