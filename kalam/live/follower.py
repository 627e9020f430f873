"""Follows a STREAM table while live queries are open on it.

The broker's stream is the truth, and its sequence says what is missing. An insert of our own is announced after its
ack and goes straight on if it follows what has been seen; at a gap (somebody else published there, or two batches were
acknowledged in the other order) the stream itself is read up to that place. A look at the stream now and then finds
what others published while nobody inserted through us.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import structlog

from kalam.errors import BrokerUnavailable
from kalam.live.versions import batch_of_events
from kalam.live.watch import Watch
from kalam.rows.codec import Codec
from kalam.schema import STREAM_KEY
from kalam.tables.ports import StoredEvents, StreamPort

LOOK_PAUSE_S = 0.25
log = structlog.get_logger(__name__)


class Follower:
    """Brings the events of one table to its watch, each once and in order."""

    def __init__(self, watch: Watch, codec: Codec, port: StreamPort) -> None:
        self._watch, self._codec, self._port = watch, codec, port
        self._seq: int | None = None
        self._behind = False
        self._created = ""
        self._wake = asyncio.Event()
        self._started = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"live events {watch.table.name}")

    async def wait_started(self) -> None:
        """Wait until everything that is published from now on will be brought."""
        await self._started.wait()

    @property
    def seq(self) -> int:
        """The event up to which everything has been brought."""
        return self._seq or 0

    def stop(self) -> None:
        """Follow no more."""
        self._task.cancel()
        self._started.set()

    def announce(self, payloads: Sequence[bytes], seqs: Sequence[int]) -> None:
        """Take in events that the broker has stored, with their sequences."""
        if self._seq is None or self._behind:
            self._wake.set()
            return
        first_seq, last_seq = seqs[0], seqs[-1]
        if last_seq <= self._seq:
            return
        if first_seq != self._seq + 1 or last_seq - first_seq + 1 != len(payloads) or self._needs_key():
            self._behind = True
            self._wake.set()
            return
        self._seq = last_seq
        events = StoredEvents(seqs, [0] * len(payloads), payloads)
        self._watch.take(partial(batch_of_events, events, self._codec), len(payloads))

    def _needs_key(self) -> bool:
        """Whether a live query reads ``_key``, in which the broker's time stands."""
        return any(
            any(column.name == STREAM_KEY for column in query.shape.columns)
            or (query.predicate.condition is not None and STREAM_KEY in query.predicate.condition.columns)
            for query in self._watch.queries.values()
        )

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
            except BrokerUnavailable as exc:
                log.debug("live events wait for the broker", table=str(self._watch.table.name), reason=exc.detail)
            except Exception:
                log.exception("live events failed", table=str(self._watch.table.name))
            try:
                async with asyncio.timeout(LOOK_PAUSE_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    async def _look(self) -> None:
        table = self._watch.table
        state = await self._port.state(table)
        if self._seq is None:
            self._created = state.created
            self._seq = state.last_seq
            self._watch.progress.seq = state.last_seq
            self._started.set()
        if state.last_seq < self._seq or state.created != self._created:  # the stream was made anew
            self._seq, self._created = 0, state.created
            self._lose()
        if state.last_seq <= self._seq:
            return
        self._behind = True
        if state.first_seq > self._seq + 1:  # what was between has been evicted before we came
            self._seq = state.first_seq - 1
            self._lose()
        async for events in self._port.read(table, self._seq):
            self._watch.take(partial(batch_of_events, events, self._codec), len(events.payloads))
            self._seq = max(self._seq, *events.seqs[-1:])
        self._seq = max(self._seq, state.last_seq)
        self._behind = False

    def _lose(self) -> None:
        for query in list(self._watch.queries.values()):
            query.resync()
