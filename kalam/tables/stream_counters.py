"""What became of the events of each STREAM table, counted across restarts.

Counting must not cost an fsync an event, so the counts live in memory and are written now and then and at the end; a
crash may lose those of the last seconds, never an event.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import msgspec

from kalam.storage.log.database import Database


class StreamCounts(msgspec.Struct):
    """The counts of one table.

    ``accounted_gone`` is how many of the events that are gone from the stream have been counted, as evicted or deleted.
    ``undecodable`` counts the messages up to ``judged_seq`` that were read and were no rows of the table.
    """

    published: int = 0
    discarded: int = 0
    rejected: int = 0
    evicted_ttl: int = 0
    evicted_max_buffer: int = 0
    deleted: int = 0
    undecodable: int = 0
    accounted_gone: int = 0
    judged_seq: int = 0

    @property
    def evicted(self) -> int:
        """Events that are gone for either reason."""
        return self.evicted_ttl + self.evicted_max_buffer


NAMES = StreamCounts.__struct_fields__


class StreamCounters:
    """The counts by table id."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counts: dict[int, StreamCounts] = {}
        self._written: dict[int, StreamCounts] = {}
        self._forgotten: set[int] = set()
        self._gone = StreamCounts()

    def load(self) -> None:
        """Read what was written; blocking, for the start."""
        with self._database.reading() as conn:
            rows = conn.execute(f"SELECT table_id, {', '.join(NAMES)} FROM stream_counters")  # noqa: S608 - constants
            self._counts = {table_id: StreamCounts(*counts) for table_id, *counts in rows}

    def of(self, table_id: int) -> StreamCounts:
        """The counts of a table, to read and to change."""
        counts = self._counts.get(table_id)
        if counts is None:
            counts = StreamCounts()
            if table_id not in self._forgotten:
                self._counts[table_id] = counts
        return counts

    def items(self) -> Iterator[tuple[int, StreamCounts]]:
        """Every table that has counts."""
        yield from list(self._counts.items())

    def totals(self) -> StreamCounts:
        """The counts of all tables, those that were dropped since the start among them: they only grow."""
        columns = zip(*map(_values, (self._gone, *list(self._counts.values()))), strict=True)
        return StreamCounts(*map(sum, columns))

    def forget(self, table_id: int) -> None:
        """Drop the counts of a table that was dropped."""
        self._forgotten.add(table_id)
        counts = self._counts.pop(table_id, None)
        if counts is not None:
            self._gone = StreamCounts(*map(sum, zip(_values(self._gone), _values(counts), strict=True)))
        self._written.pop(table_id, None)

    async def write(self) -> None:
        """Write the counts that have changed."""
        rows = [(table_id, *_values(counts)) for table_id, counts in self._changed()]
        if not rows:
            return
        places = ", ".join("?" * (len(NAMES) + 1))

        def replace(conn: sqlite3.Connection) -> None:
            conn.executemany(f"INSERT OR REPLACE INTO stream_counters VALUES ({places})", rows)  # noqa: S608 - constants

        await self._database.write(replace)
        self._written.update((table_id, StreamCounts(*values)) for table_id, *values in rows)

    def _changed(self) -> Iterator[tuple[int, StreamCounts]]:
        return ((i, counts) for i, counts in self._counts.items() if counts != self._written.get(i))


def _values(counts: StreamCounts) -> tuple[int, ...]:
    return tuple(getattr(counts, name) for name in NAMES)
