"""Messages with ids that wait for one turn of a STREAM table, with one look for repeats and one note of answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from kalam.schema import Table
from kalam.tables.insert_batch import Answer, Batch


class Joined:
    """Batches of one version of a table that are published as one; ``answers`` are those of all messages, in order."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.users: list[str] = []
        self.row_count = 0
        self.answers: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        self._batches: list[Batch] = []

    @property
    def others(self) -> bool:
        """Whether more than the first batch waits."""
        return len(self._batches) > 1

    def add(self, users: Sequence[str], batch: Batch) -> int:
        """Take in one more batch of these senders; the place of its first message."""
        place = len(self.users)
        self.users += users
        self.row_count += len(batch.rows)
        self._batches.append(batch)
        return place

    def batch(self) -> Batch:
        """All of them as one."""
        if len(self._batches) == 1:
            return self._batches[0]
        each = [
            (message, batch.sifted.get(place, rows))
            for batch in self._batches
            for place, (message, rows) in enumerate(batch.each())
        ]
        traced = any(batch.traced for batch in self._batches)
        return Batch.of([message for message, _ in each], [rows for _, rows in each], traced=traced)
