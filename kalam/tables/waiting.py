"""What waits to be published: of one copy, and of all."""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

from kalam.schema import Table
from kalam.tables.ports import FeedPosition
from kalam.tables.runs import Unpublished


class Feed(msgspec.Struct):
    """The unpublished changes of one copy. ``position`` is None until the broker has been asked.

    ``behind_seq`` is the last change of those that are in the log alone, behind the pending ones; 0 for none. Their
    bytes are ``behind_bytes``, but for those of a table that nobody sees yet, and none of them is older than
    ``behind_us`` (microseconds since 1970). ``told_seq`` is what the database's watermark said at the start.
    """

    table: Table
    user: str
    copy_id: int
    pending: deque[Unpublished] = msgspec.field(default_factory=deque)
    byte_count: int = 0
    position: FeedPosition | None = None
    behind_seq: int = 0
    behind_bytes: int = 0
    behind_us: int | None = None
    told_seq: int = 0
    task: asyncio.Task[None] | None = None

    @property
    def published_seq(self) -> int:
        """The last change that is known to be published."""
        return self.position.change_seq if self.position else self.told_seq

    @property
    def known_seq(self) -> int:
        """The last change that is pending or published."""
        return self.pending[-1].chunk.last_seq if self.pending else self.published_seq

    @property
    def oldest_us(self) -> int | None:
        """The time of the oldest change that waits, as far as it is known."""
        return self.pending[0].chunk.updated_us if self.pending else self.behind_us

    @property
    def changes(self) -> int:
        """How many changes wait; a feed has no holes."""
        if not self.pending:
            return max(self.behind_seq - self.published_seq, 0)
        return max(self.pending[-1].chunk.last_seq, self.behind_seq) - self.pending[0].chunk.first_seq + 1


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """What is committed and not yet published; ``oldest_us`` is the time of the oldest (microseconds since 1970)."""

    changes: int
    oldest_us: int | None
