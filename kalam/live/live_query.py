"""One live query: what waits for its subscriber, and in which order it goes.

The order is protocol.md's: snapshot, ``ready``, changes. While the opening (snapshot, or the changes of a resume) is
still being handed over, later changes are held; what the opening has shown already is dropped from them. Both queues
are bounded. When the queue of changes overflows it is dropped, and the next message is a ``resync``: after it come only
later changes. Everything here happens in the event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, Protocol, cast

import msgspec

from kalam.live.held import Held, Nameless
from kalam.live.reads import Read
from kalam.live.shape import MESSAGE_BYTES_MAX, MESSAGE_ROWS_MAX, Shape
from kalam.query.predicate import Predicate
from kalam.schema import Table

CHANGE_OVERHEAD_BYTES = 64
OPENING_BYTES_MAX = 2 << 20
"""Messages of an opening that wait for the subscriber before more of it is made."""


class Message(msgspec.Struct, frozen=True):
    """A message to the subscriber. ``seq`` is where a resume would go on, None where none is possible yet."""

    number: int
    payload: bytes
    kind: Literal["snapshot", "ready", "changes", "heartbeat", "resync", "closed"]
    seq: int | None = None


class Sink(Protocol):
    """Whoever brings the messages of live queries to their subscribers."""

    def subject(self, query: LiveQuery) -> str | None:
        """Where the subscriber finds the messages, if on a subject."""

    def note(self, query: LiveQuery) -> None:
        """Something waits in ``query``: take it soon. Called often; must be quick."""


class Progress(msgspec.Struct):
    """How far the changes of a copy have been judged; shared by the live queries on it."""

    seq: int = 0


class LiveQuery:
    """A live query that is open, or was. Made by the registry."""

    def __init__(
        self,
        query_id: str,
        user: str,
        table: Table,
        sql: str,
        options: dict[str, Any],
        predicate: Predicate,
        shape: Shape,
        sink: Sink,
        *,
        created_at: datetime,
        queue_bytes_max: int,
        held_bytes_max: int,
        rights_of: str | None = None,
        held: Held | None = None,
        nameless: Nameless | None = None,
    ) -> None:
        self.id, self.user, self.table, self.sql, self.options = query_id, user, table, sql, options
        self.predicate, self.shape, self.sink, self.created_at = predicate, shape, sink, created_at
        self.rights_of, self.held, self.nameless = rights_of or user, held or nameless, nameless
        self.progress = Progress()
        self.delivered = self.resyncs = self.last_seq = 0
        self.opener: asyncio.Task[None] | None = None
        self.closed: str | None = None
        self._queue_bytes_max, self._held_bytes_max = queue_bytes_max, held_bytes_max
        self._opening: deque[tuple[bytes, Literal["snapshot", "ready", "changes"], int | None, int]] = deque()
        self._opening_bytes = 0
        self._room = asyncio.Event()
        self._changes: deque[tuple[int, bytes | None]] = deque()  # None is a ``resync``
        self._bytes = 0
        self._ready = self._live = self._overflown = self._closed_told = False
        self._start_seq = 0
        self._renumbered: int | None = None
        self._number = 0

    @property
    def feed_id(self) -> int:
        """The number by which its changes are known as those of one table."""
        return self.table.table_id if self.held is None else self.held.feed_id

    @property
    def column_names(self) -> frozenset[str]:
        """The columns that it shows or judges by."""
        shown = frozenset(column.name for column in self.shape.columns)
        condition = self.predicate.condition
        return shown | condition.columns if condition else shown

    @property
    def reads(self) -> Sequence[Read]:
        """What it reads: its table, or what the SELECT reads of which the rows are kept for it."""
        if self.nameless is not None:
            return self.nameless.reads
        guard = self.predicate.guard
        return [Read(self.table, self.column_names, None if guard is None else guard.text)]

    def read_of(self, table: Table) -> Read | None:
        """What it reads of a table; None where it does not read it."""
        return next((read for read in self.reads if read.is_of(table)), None)

    @property
    def queued(self) -> int:
        """How many messages and changes wait."""
        return len(self._opening) + len(self._changes)

    @property
    def waiting(self) -> bool:
        """Whether ``take`` would give something."""
        if self.closed is not None:
            return not self._closed_told
        return bool(self._opening or (self._live and (self._changes or self._overflown)))

    @property
    def seq(self) -> int:
        """The change up to which the subscriber has everything once what waits is taken."""
        return max(self.progress.seq, self._start_seq) if self._live else self._start_seq

    async def offer(
        self, payload: bytes, kind: Literal["snapshot", "ready", "changes"], seq: int | None = None, changes: int = 0
    ) -> None:
        """Queue a message of the opening, once there is room for it."""
        while self._opening_bytes > OPENING_BYTES_MAX:
            self._room.clear()
            await self._room.wait()
        self._opening.append((payload, kind, seq, changes))
        self._opening_bytes += len(payload)
        if kind == "ready":
            self._ready = True
            self.reached(seq or 0)
        self.sink.note(self)

    def reached(self, seq: int) -> None:
        """The opening has come as far as ``seq``; the heartbeats of a long resume tell."""
        if self._renumbered is None:
            self._start_seq = seq

    def start(self, seq: int) -> None:
        """The opening is complete and covers everything up to ``seq``: go on with what was held."""
        self._live = True
        if self._renumbered is not None:  # that was a number of before, and what is held came afterwards
            self._start_seq = self.last_seq = self._renumbered
        else:
            self._start_seq = self.last_seq = seq
            while self._changes and self._changes[0][0] <= seq:
                self._bytes -= _size(self._changes.popleft()[1])
        if self.waiting:
            self.sink.note(self)

    def push(self, changes: Sequence[tuple[int, bytes]], byte_count: int) -> None:
        """Queue numbered changes that match; ``byte_count`` is the size of what they say."""
        if self.closed is not None or self._overflown:
            return
        if self._live and changes[0][0] <= self._start_seq:
            changes = [numbered for numbered in changes if numbered[0] > self._start_seq]
            byte_count = sum(len(change) for _, change in changes)
        size = byte_count + CHANGE_OVERHEAD_BYTES * len(changes)
        bound = self._queue_bytes_max if self._live else self._held_bytes_max
        if self._changes and self._bytes + size > bound:
            self._overflow()
        else:
            self._changes.extend(changes)
            self._bytes += size
        if self._live:
            self.sink.note(self)

    def resync(self) -> None:
        """Drop what waits: changes are missing, and the subscriber has to know."""
        if self.closed is None and not self._overflown:
            self._overflow()
            self.sink.note(self)

    def lose(self, seq: int) -> None:
        """Changes up to ``seq`` are missing: the subscriber learns it behind what waits for it."""
        if self.closed is not None or self._overflown:
            return
        if self._changes and self._changes[-1][1] is None:
            self._changes.pop()
        else:
            self._bytes += _size(None)
            self.resyncs += 1
        self._changes.append((seq, None))
        if self._live:
            self.sink.note(self)

    def renumber(self, seq: int) -> None:
        """The changes behind ``seq`` are numbered anew, and some may be missing."""
        self._start_seq = seq
        if not self._live:
            self._renumbered = seq
            self._changes.clear()  # nobody could tell which of them the opening shows
            self._bytes = 0
        self.lose(seq)

    def _overflow(self) -> None:
        self._changes.clear()
        self._bytes = 0
        self._overflown = True
        self.resyncs += 1

    def close(self, reason: str) -> None:
        """End it; the last message says why."""
        if self.closed is not None:
            return
        self.closed = reason
        if self.opener is not None:
            self.opener.cancel()
        self._opening.clear()
        self._changes.clear()
        self._bytes = self._opening_bytes = 0
        self.sink.note(self)

    def take(self) -> Message | None:
        """The next message; None if nothing waits."""
        if self.closed is not None:
            return self._take_closed()
        if self._opening:
            return self._take_opening()
        if not self._live:
            return None
        if self._overflown:
            self._overflown = False
            self.last_seq = self.seq
            return self._message("resync", {"seq": self.seq}, self.seq)
        if self._changes and self._changes[0][1] is None:
            self.last_seq, _ = self._changes.popleft()
            self._bytes -= _size(None)
            return self._message("resync", {"seq": self.last_seq}, self.last_seq)
        return self._take_changes() if self._changes else None

    def heartbeat(self) -> Message | None:
        """The sign of life, if nothing else waits."""
        if not self._ready or self.waiting or self.closed is not None:
            return None
        self.last_seq = self.seq
        return self._message("heartbeat", {"seq": self.seq, "table_id": self.feed_id}, self.seq)

    def _take_closed(self) -> Message | None:
        if self._closed_told:
            return None
        self._closed_told = True
        return self._message("closed", {"reason": self.closed}, None)

    def _take_opening(self) -> Message:
        payload, kind, seq, changes = self._opening.popleft()
        self._opening_bytes -= len(payload)
        self._room.set()
        self.delivered += changes
        self._number += 1
        return Message(self._number, payload, kind, seq)

    def _take_changes(self) -> Message:
        if self._bytes <= MESSAGE_BYTES_MAX and len(self._changes) <= MESSAGE_ROWS_MAX:
            waiting = [change for _, change in self._changes]
            if None not in waiting:  # all of it, as a rule, which need not be weighed one by one
                seq, size = self._changes[-1][0], self._bytes - CHANGE_OVERHEAD_BYTES * len(waiting)
                self._changes.clear()
                return self._told(cast("list[bytes]", waiting), size, seq)
        taken: list[bytes] = []
        size, seq = 0, 0
        while self._changes and len(taken) < MESSAGE_ROWS_MAX:
            at, change = self._changes[0]
            if change is None or (taken and size + len(change) > MESSAGE_BYTES_MAX):
                break
            self._changes.popleft()
            taken.append(change)
            seq = at
            size += len(change)
        return self._told(taken, size, seq)

    def _told(self, taken: Sequence[bytes], size: int, seq: int) -> Message:
        self._bytes -= size + CHANGE_OVERHEAD_BYTES * len(taken)
        self.delivered += len(taken)
        self.last_seq = seq
        self._number += 1
        return Message(self._number, self.shape.changes_message(taken), "changes", seq)

    def _message(
        self, kind: Literal["heartbeat", "resync", "closed"], body: dict[str, Any], seq: int | None
    ) -> Message:
        self._number += 1
        return Message(self._number, self.shape.message({"type": kind, **body}), kind, seq)


def _size(change: bytes | None) -> int:
    """What a change that waits counts for."""
    return CHANGE_OVERHEAD_BYTES + len(change or b"")
