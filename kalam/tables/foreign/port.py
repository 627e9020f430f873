"""What tables over foreign streams need of a broker: a port, fulfilled by the NATS bridge.

Every method raises NotFound for a stream that is not there, PermissionDenied, with what to grant, for one that Kalam
may not read, Unsupported for one that holds rows of a Kalam or that reading would change, and BrokerUnavailable.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Protocol

import msgspec

from kalam.foreign import BUCKET_PREFIX, Over
from kalam.rows.foreign.messages import ForeignMessages, nanoseconds
from kalam.sql.queries.scan_bounds import ScanBounds


class Lifetimes(msgspec.Struct, frozen=True, kw_only=True):
    """How long the broker keeps messages: for ``max_age_ns``, or as each says that it is to be kept.

    ``leaves_markers`` says that the last message of a subject leaves a note when it expires, ``history`` how many
    messages of a subject are kept; None is no bound.
    """

    max_age_ns: int | None = None
    by_message: bool = False
    leaves_markers: bool = False
    history: int | None = None


class ForeignState(msgspec.Struct, frozen=True, kw_only=True):
    """What the broker holds of a stream, and how it keeps it.

    ``created`` tells a stream from one that was made anew; the times are None for an empty one, ``last_text`` is that
    of the last message to the nanosecond. ``origin`` names the streams that it is a copy of. ``covered`` says that
    every message of it is one that the table reads. ``now_ns`` is the broker's clock, in nanoseconds since 1970.
    """

    name: str
    created: str
    messages: int
    bytes: int
    first_seq: int
    last_seq: int
    first_at: datetime | None
    last_at: datetime | None
    last_text: str
    subjects: tuple[str, ...]
    subject_count: int
    retention: str
    storage: str
    origin: str
    covered: bool = True
    lifetimes: Lifetimes = Lifetimes()
    now_ns: int = 0

    @property
    def is_bucket(self) -> bool:
        """Whether it is the stream of a key-value bucket."""
        return self.name.startswith(BUCKET_PREFIX) and self.lifetimes.history is not None

    @property
    def last_ns(self) -> int:
        """When the last message was stored, in nanoseconds since 1970."""
        return nanoseconds(self.last_text)


class ForeignPort(Protocol):
    """Streams that others made."""

    async def states(self) -> list[ForeignState]:
        """Every stream that Kalam may see and that is not a Kalam's own, by name."""

    async def state(self, over: Over) -> ForeignState:
        """What a stream holds now; raises what would keep it from being read."""

    async def count(self, over: Over, table_id: int) -> int | None:
        """How many messages the table reads are held now; None where the broker does not count them."""

    def read(self, over: Over, table_id: int, bounds: ScanBounds) -> AsyncIterator[ForeignMessages]:
        """The messages within these bounds that are stored now, in order, some thousand at a time; others may be too.

        What is stored while they are read may be among them; what is evicted before it was read is not.
        """

    def read_keys(
        self, over: Over, table_id: int, bounds: ScanBounds, *, newest: bool
    ) -> AsyncIterator[ForeignMessages]:
        """The messages of a bucket within these bounds, up to a moment at which there were no more.

        All that are kept, or, ``newest``, the last of each key, which then is the state of the bucket at that moment.
        Of a bound of the end nothing is taken.
        """

    def last_of_subjects(self, over: Over, table_id: int, count: int) -> AsyncIterator[ForeignMessages]:
        """The last message of each subject, ``count`` of them at most."""

    async def seq_before(self, over: Over, table_id: int, moment: datetime) -> int:
        """The sequence of the last message that was stored before a time, whether it is kept or not."""
