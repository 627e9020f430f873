"""What live queries need of others: a snapshot of the matching rows, and the changes that a feed still holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

import msgspec
import pyarrow as pa

from kalam.live.predicate import Predicate
from kalam.schema import Table
from kalam.storage.log.copies import Chunk, Op


class Snapshot(msgspec.Struct, frozen=True):
    """The matching rows of one moment, oldest change first where ``last_rows`` was asked; ``seq`` is that moment."""

    rows: pa.Table
    seq: int


class SnapshotPort(Protocol):
    """Reads rows as SELECT does."""

    async def snapshot(
        self, table: Table, user: str, columns: Sequence[str], predicate: Predicate, last_rows: int | None
    ) -> Snapshot:
        """The chosen columns of the rows that match, or of the ``last_rows`` newest of them."""


class FeedRun(msgspec.Struct, frozen=True):
    """A message of a change feed: changes ``seq``, ``seq + 1``, … as they were shown.

    ``old`` has the former values of what changed in each row; None where they were left out.
    """

    op: Op
    seq: int
    rows: Sequence[dict[str, Any]]
    old: Sequence[dict[str, Any]] | None


class LogPort(Protocol):
    """The log of SHARED and USER tables, which keeps what is flushed until the feed has told it."""

    async def logged(self, table: Table, owner: str, seq: int, before_seq: int) -> list[Chunk]:
        """The chunks that have changes from ``seq`` on and before ``before_seq``, as far as the log has them."""


class ReplayPort(Protocol):
    """The change feeds of SHARED and USER tables, read backwards in time."""

    async def find(self, table: Table, owner: str, seq: int) -> int | None:
        """The place in the feed of the message that holds change ``seq``; None if it holds it no more, or not yet."""

    def read(self, table: Table, owner: str, place: int) -> AsyncIterator[FeedRun]:
        """The messages of a copy from a place on, as far as the feed goes."""
