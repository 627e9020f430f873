"""A key-value bucket of others as a source: its keys come, change and go, and so do the rows that are made of them.

A bucket keeps what is there and not what has changed. So a view over one is compared with it when its server starts,
and from then on it is told of changes as live queries are; they are counted by the bucket itself.
"""

from __future__ import annotations

from collections import deque
from contextlib import AbstractContextManager

import pyarrow as pa

from kalam.schema import Table
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.view_positions import Position
from kalam.tables.foreign.bucket import Bucket
from kalam.tables.foreign.tables import ForeignTables
from kalam.tables.versions import ChangeBatch
from kalam.views.followed import Lag, RefillNeeded, Taken
from kalam.views.method import Changes

WAITING_MAX = 1_000_000
"""Changes that wait; past this the view is compared with the bucket again."""


class BucketSource:
    """Follows a bucket; a Followed."""

    looks = holds = True
    is_copy = full = False

    def __init__(self, source: Table, foreign: ForeignTables, catalogue: Catalogue) -> None:
        self._source, self._foreign, self._catalogue = source, foreign, catalogue
        self._bucket: Bucket | None = None
        self._listening: AbstractContextManager[None] | None = None
        self._waiting: deque[ChangeBatch] = deque()
        self._count = 0

    @property
    def table(self) -> Table:
        """The table as it is now."""
        return self._catalogue.by_id.get(self._source.table_id, self._source)

    def close(self) -> None:
        """Be told no more."""
        listening, self._listening, self._bucket = self._listening, None, None
        if listening is not None:
            listening.__exit__(None, None, None)
        self._waiting.clear()
        self._count = 0

    async def snapshot(self) -> tuple[Position, pa.Table]:
        """The rows of now, and the number of the last change in them; what follows is told."""
        self.close()
        table = self.table
        bucket = self._bucket = self._foreign.bucket(table)
        self._listening = bucket.listening(self._take_in)
        self._listening.__enter__()
        rows, number = await bucket.rows(frozenset(table.system_columns))
        return Position(source_id=table.table_id, seq=number), rows

    def came(self, byte_count: int) -> None:
        """Nothing is committed."""

    def _take_in(self, batch: ChangeBatch) -> None:
        if self._count <= WAITING_MAX:
            self._waiting.append(batch)
        self._count += len(batch)

    async def begin(self, position: Position | None) -> Position:
        """Where the snapshot was; raises RefillNeeded without one, for nobody knows what has changed since."""
        if self._bucket is None or position is None:
            raise RefillNeeded(f"the bucket of {self._source.name} keeps no changes")
        return position

    async def take(self, position: Position, rows_max: int) -> Taken | None:
        """What has changed since."""
        if self._bucket is None or self._count > WAITING_MAX:
            raise RefillNeeded(f"too many changes of {self._source.name} wait")
        await self._bucket.look()
        while self._waiting and self._waiting[0].last_seq <= position.seq:
            self._count -= len(self._waiting.popleft())
        if not self._waiting:
            return None
        batch = ChangeBatch()
        for number, each in enumerate(self._waiting):
            if number and len(batch) >= rows_max:
                break
            batch.add(each.seqs, each.olds, each.news)
        after = Position(source_id=position.source_id, seq=batch.last_seq)
        changes = Changes(self.table, batch, position.generation, retracts=True)
        return Taken(changes, after, more=batch.last_seq < self._waiting[-1].last_seq)

    def lag(self, position: Position) -> Lag:
        """The changes that were told and not taken in."""
        return Lag(max(0, self._waiting[-1].last_seq - position.seq) if self._waiting else 0)
