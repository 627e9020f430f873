"""What the tables need from a broker: ports, fulfilled by the NATS bridge.

Every method raises BrokerUnavailable when the broker does not answer or does not store, and then says in the field
``stored`` how many of the events are known to be stored, or ``unknown``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from kalam.names import TableName
from kalam.schema import Table
from kalam.storage.log.copies import Op


class StreamState(msgspec.Struct, frozen=True, kw_only=True):
    """What the broker holds of a STREAM table.

    ``created`` tells a stream from one that was made anew; the times are None for an empty one. ``lost`` events went
    that were neither evicted nor deleted, ``holes`` of them without the last sequence having become smaller; a sequence
    up to ``doubtful_seq`` that is remembered may be that of one.
    """

    created: str

    messages: int
    bytes: int
    first_seq: int
    last_seq: int
    first_at: datetime | None
    last_at: datetime | None
    doubtful_seq: int
    holes: int
    lost: int


class StoredEvents(msgspec.Struct, frozen=True):
    """Events as the broker holds them, in order: their sequences, the times they were stored at, their payloads."""

    seqs: Sequence[int]
    stored_us: Sequence[int]
    payloads: Sequence[bytes]


class Events(msgspec.Struct, frozen=True):
    """Events to publish.

    ``keys`` are the last tokens of their subjects where the table has a SUBJECT_KEY. An event whose id, of ``ids``, is
    among those stored in the last two minutes is not stored again. ``traces`` has the
    ``traceparent`` of each, or None, if any has one.
    """

    payloads: Sequence[bytes]
    keys: Sequence[str] | None
    ids: Sequence[str | None] | None = None
    traces: Sequence[str | None] | None = None

    def __len__(self) -> int:
        return len(self.payloads)

    def in_trace(self, trace: str | None) -> Events:
        """The same events, all of one trace."""
        return self if trace is None else replace(self, traces=[trace] * len(self))


class Acked(msgspec.Struct, frozen=True):
    """The sequences of events that are stored; ``repeats`` of them were before.

    ``created`` tells the stream whose sequences they are, as in StreamState; it is empty if that is not known.
    """

    seqs: Sequence[int]
    repeats: int = 0
    created: str = ""


class StreamPort(Protocol):
    """The streams that hold STREAM tables."""

    def subject(self, table: Table) -> str:
        """The subject to subscribe to for the table's events."""

    def stream_name(self, table: Table) -> str:
        """The broker's name for the table's stream."""

    async def create(self, table: Table) -> None:
        """Make the stream of a new table; an empty leftover of the same table is taken over."""

    async def drop(self, table: Table) -> None:
        """Remove the stream with all its events; nothing if it is not there."""

    async def publish(self, table: Table, events: Events, handed_over: Callable[[], None]) -> Acked:
        """Publish events in order; returns once all are stored. One call for a table after another is handed over.

        ``handed_over`` is called when they are on their way and nothing that is published later comes before them.
        """

    async def state(self, table: Table) -> StreamState:
        """What the stream holds now."""

    async def seq_before(self, table: Table, moment: datetime) -> int:
        """The sequence of the last event that was stored before a time, whether it is kept or not."""

    def read(
        self, table: Table, after_seq: int, upto_seq: int | None = None, *, last_per_key: bool = False
    ) -> AsyncIterator[StoredEvents]:
        """The events with a larger sequence that are stored now, in order, some thousand at a time.

        With ``upto_seq`` none behind it. With ``last_per_key`` of each key of the table the last alone, wherever it is.

        What is stored while they are read may be among them; what is evicted before it was read is not.
        """

    async def delete(self, table: Table, seqs: Sequence[int]) -> int:
        """Remove single events; how many were still there."""

    async def purge(self, table: Table, before_seq: int) -> int:
        """Remove every event with a smaller sequence; how many were still there."""

    async def expire(self, table: Table, before: datetime, last_seq: int) -> None:
        """Remove the events up to ``last_seq`` that were stored before a time."""

    async def alter(self, table: Table) -> None:
        """Change the stream in place to the table's present options."""

    async def interested(self, table: Table, key: str | None) -> bool:
        """Whether anybody listens on the subject of the table's events (of that key); True if it cannot be known."""


class ChangeMessage(msgspec.Struct, frozen=True):
    """A run of changes of one kind as it is published: ``row_count`` changes, the first numbered ``first_seq``.

    ``trace`` is the ``traceparent`` of the request that made all of them.
    """

    op: Op
    key: str | None
    first_seq: int
    row_count: int
    payload: bytes
    trace: str | None = None


class FeedPosition(msgspec.Struct, frozen=True):
    """Where the feed of a copy stands: the last change that the broker holds, and that message's sequence there."""

    change_seq: int
    stream_seq: int


class FeedPort(Protocol):
    """The change feeds of SHARED and USER tables."""

    @property
    def payload_bytes_max(self) -> int:
        """The largest payload that the broker takes."""

    def subject(self, table: Table) -> str:
        """The subject to subscribe to for the table's changes."""

    async def position(self, table: Table, user: str) -> FeedPosition:
        """The last change of this copy that the broker holds; zeros for none."""

    async def publish(
        self, table: Table, user: str, messages: Sequence[ChangeMessage], after: FeedPosition
    ) -> FeedPosition:
        """Store the messages behind ``after``, all or none; raises OutOfPlace if the feed does not stand there."""

    async def purge(self, name: TableName, *, per_user: bool) -> None:
        """Remove the changes of a dropped table, of which each user may have had a copy."""

    async def purge_copy(self, name: TableName, user: str) -> None:
        """Remove the changes of one user's copy of a table."""


class UnkeptPort(Protocol):
    """Changes of views in memory: told to who listens, and kept by nobody."""

    @property
    def payload_bytes_max(self) -> int:
        """The largest payload that the broker takes."""

    def subject(self, table: Table) -> str:
        """The subject to subscribe to for the view's changes."""

    async def heard(self, tables: Sequence[Table]) -> set[int] | None:
        """The ids of those to whose changes somebody subscribes; None where that cannot be known."""

    def tell(self, table: Table, feed_id: int, messages: Sequence[ChangeMessage]) -> None:
        """Publish changes, behind those that were told before; what the broker does not take is lost."""


class FeedRun(msgspec.Struct, frozen=True):
    """A message of a change feed: changes ``seq``, ``seq + 1``, … as they were shown.

    ``old`` has the former values of what changed in each row; None where they were left out.
    """

    op: Op
    seq: int
    rows: Sequence[dict[str, Any]]
    old: Sequence[dict[str, Any]] | None


class ReplayPort(Protocol):
    """The change feeds of SHARED and USER tables, read backwards in time."""

    async def find(self, table: Table, owner: str, seq: int) -> int | None:
        """The place in the feed of the message that holds change ``seq``; None if it holds it no more, or not yet."""

    def read(self, table: Table, owner: str, place: int) -> AsyncIterator[FeedRun]:
        """The messages of a copy from a place on, as far as the feed goes."""


class NoticePort(Protocol):
    """Where Kalam tells of what it did; nothing is kept and nobody waits."""

    def notice(self, what: str, body: dict[str, object]) -> None:
        """Publish a JSON notice on ``kalam.event.<what>``."""


class OutOfPlace(Exception):
    """The feed does not stand where the publisher believed: ask for its position again."""
