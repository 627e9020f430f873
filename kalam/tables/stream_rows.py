"""The events of STREAM tables, as whoever takes, reads and removes rows meets them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from kalam.errors import DuplicateKey, Unsupported
from kalam.names import TableName
from kalam.rows.codec import Codecs
from kalam.rows.types import Row
from kalam.schema import STREAM_KEY, Table
from kalam.storage.log.copies import Key
from kalam.tables.insert_batch import Answer, Batch, Tally
from kalam.tables.kinds import WHOLE_SCAN, Removal, Removed, Scan, Source, TakenRows, Verb
from kalam.tables.publishing import Publishing
from kalam.tables.replay import Replay, last_of_stream, replay_of_stream
from kalam.tables.stored import StoredTables
from kalam.tables.streams import StreamTables
from kalam.tables.window_pieces import EVENT_SEQ
from kalam.threads import beside
from kalam.tracing import batch_span, current_trace, span

REFUSALS: Final[Mapping[Verb, str]] = {
    "FLUSH": "FLUSH of the STREAM table {}: its events stay in JetStream until they are evicted "
    "and never go to Parquet",
    "COMPACT": "COMPACT of the STREAM table {}: its events never go to Parquet",
    "CHECK": "CHECK of the STREAM table {}: its events never go to Parquet",
    "UPDATE": "UPDATE on the STREAM table {}: an event that happened is not changed",
    "MERGE": "MERGE into the STREAM table {}: an event that happened is not changed",
    "ON CONFLICT": "ON CONFLICT on the STREAM table {}: its events have no key that could conflict",
    "on_conflict": "on_conflict on the STREAM table {}: its events have no key that could conflict",
}
_CHANGED: Final = "insert a new event, or use a SHARED table for rows that change"
HINTS: Final[Mapping[Verb, str]] = {"UPDATE": _CHANGED, "MERGE": _CHANGED}


class StreamRows:
    """Events of STREAM tables; a Rows."""

    ordered = True
    seq_column = EVENT_SEQ

    def __init__(self, tables: StreamTables, codecs: Codecs) -> None:
        self._tables, self._codecs = tables, codecs

    def stored(self, table: Table, verb: Verb) -> StoredTables:
        """None of these verbs is for events; raises Unsupported."""
        raise Unsupported(REFUSALS[verb].format(table.name), hint=HINTS.get(verb))

    def check_writable(self, table: Table) -> None:
        """Rows are taken."""

    async def take_batch(self, table: Table, users: Sequence[str], batch: Batch, tally: Tally) -> list[Answer]:
        """Publish the messages of all users as one run."""
        publishing = Publishing(self._tables, table, users, batch, tally)
        if not batch.traced:
            return await publishing.run()
        with batch_span("kalam.publish", batch.spans, table=str(table.name), rows=len(batch.rows)):
            return await publishing.run()

    async def take_rows(self, table: Table, user: str, rows: Sequence[Row]) -> TakenRows:
        """Publish the rows of a statement."""
        events = (await beside(len(rows), self._tables.events, table, rows)).in_trace(current_trace())
        with span("kalam.publish", table=str(table.name), events=len(rows)):
            return TakenRows(discarded=(await self._tables.publish(table, events)).discarded)

    def is_readable(self, table: Table) -> bool:
        """Always."""
        return True

    async def wait_readable(self, table: Table) -> None:
        """Nothing has to be waited for."""

    async def sources(
        self, tables: Mapping[TableName, Table], user: str, *, with_key: bool, scan: Scan = WHOLE_SCAN
    ) -> Mapping[TableName, Source]:
        """The events of their windows."""
        return {name: await self._tables.rows(table, with_key=with_key) for name, table in tables.items()}

    async def numbered(
        self, table: Table, user: str, *, with_key: bool, virtual: frozenset[str] = frozenset()
    ) -> tuple[Source, int]:
        """The events with their sequences in the stream."""
        events = await self._tables.rows(table, with_key=with_key, with_seq=True)
        return events, events.column(EVENT_SEQ)[-1].as_py() if events.num_rows else 0

    async def last_seq(self, table: Table, user: str) -> int:
        """What has been told of the stream is known to whoever follows it."""
        return 0

    async def changes_since(self, table: Table, user: str, from_seq: int, told_seq: int) -> Replay:
        """The events up to the last that was told."""
        return await replay_of_stream(table, self._codecs.of(table), self._tables.port, from_seq, told_seq)

    async def seq_before(self, table: Table, moment: datetime) -> int:
        """The broker keeps when it stored each event."""
        return await self._tables.port.seq_before(table, moment)

    async def last_of_keys(self, table: Table, told_seq: int) -> Replay:
        """The last events of the subjects; raises InvalidOption for a table that has one."""
        return last_of_stream(table, self._codecs.of(table), self._tables.port, told_seq)

    async def remove(self, table: Table, user: str, removal: Removal) -> Removed:
        """Remove events from the stream."""
        events = await self._tables.rows(table, with_key=True, with_seq=True)
        created = self._tables.created(table)
        seqs = (await removal.pick(table, events, [EVENT_SEQ])).column(0).to_pylist()

        @cache
        def shown() -> pa.Table:
            gone = events.filter(pc.is_in(events.column(EVENT_SEQ), pa.array(seqs, pa.int64())))
            return gone.drop_columns([EVENT_SEQ] if removal.names_key else [EVENT_SEQ, STREAM_KEY])

        await removal.check(table, len(seqs), shown)
        await self._tables.delete(table, seqs, created)
        return Removed(table, len(seqs), "event", shown)

    def check(self, table: Table, rows: Sequence[Row]) -> None:
        """Raise TooLarge and InvalidValue for what an event cannot carry."""
        self._tables.events(table, rows)

    async def taken(self, table: Table, user: str, rows: Sequence[Row], before: set[Key]) -> Mapping[int, DuplicateKey]:
        """An event has no key."""
        return {}
