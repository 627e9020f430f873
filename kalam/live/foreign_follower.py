"""Follows a foreign stream while live queries are open on the table over it: it is looked at, and what is new is read.

Nobody tells of what others publish. A look costs the broker one answer of its state; what lies behind the last message
that was told is read by a consumer that lives for that read, so that nothing of ours is left there.
"""

from __future__ import annotations

import asyncio
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

log = structlog.get_logger(__name__)


class ForeignFollower:
    """Brings the messages of one table to its watch."""

    def __init__(self, watch: Watch, tables: ForeignTables) -> None:
        self._watch, self._tables = watch, tables
        self._decoder = tables.decoder(watch.table)
        self._seq: int | None = None
        self._created = ""
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
            self._watch.progress.seq = state.last_seq
            self._beginning.done()
        elif state.created != self._created or state.last_seq < self._seq:
            self._renumber(state)
        if self.seq < state.last_seq:
            await self._read(state)

    def _renumber(self, state: ForeignState) -> None:
        """The stream is another one, or has fallen back: its sequences are those of other messages than before."""
        log.warning("a foreign stream has fallen back or was made anew", table=str(self._watch.table.name))
        self._seq = 0 if state.created != self._created else state.last_seq
        self._created = state.created
        self._watch.then(partial(self._watch.renumber, self._seq))

    async def _read(self, state: ForeignState) -> None:
        table, bounds = self._watch.table, ScanBounds(after_seq=self.seq, upto_seq=state.last_seq)
        lost = state.first_seq > self.seq + 1
        async for messages in self._tables.port.read(table.foreign_options.over, table.table_id, bounds):
            if lost:  # what was evicted before anybody read it cannot be told
                lost = False
                self._watch.then(partial(self._watch.lose, messages.seqs[0] - 1))
            self._seq = messages.seqs[-1]
            self._watch.take(partial(batch_of_messages, messages, self._decoder), len(messages))
        if lost:
            self._watch.then(partial(self._watch.lose, state.last_seq))
        self._seq = state.last_seq
