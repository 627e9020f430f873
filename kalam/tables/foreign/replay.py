"""Messages of a foreign stream as changes: since one that was seen, and as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator

from kalam.rows.foreign.decoder import ForeignDecoder
from kalam.rows.foreign.messages import ForeignMessages
from kalam.schema import Table
from kalam.sql.queries.scan_bounds import ScanBounds
from kalam.tables.foreign.tables import ForeignTables
from kalam.tables.replay import Replay
from kalam.tables.versions import ChangeBatch
from kalam.threads import Purpose, in_thread


def batch_of_messages(messages: ForeignMessages, decoder: ForeignDecoder) -> ChangeBatch:
    """Messages as inserts; what is no row in a SELECT is none here."""
    batch = ChangeBatch()
    versions = decoder.versions(messages)
    batch.add([seq for seq, _ in versions], [None] * len(versions), [row for _, row in versions])
    return batch


def replay_of_foreign(table: Table, tables: ForeignTables, from_seq: int, upto_seq: int) -> Replay:
    """The messages behind ``from_seq`` and up to ``upto_seq``."""
    return Replay(from_seq, upto_seq, _batches(table, tables, from_seq, upto_seq))


async def _batches(table: Table, tables: ForeignTables, from_seq: int, upto_seq: int) -> AsyncIterator[ChangeBatch]:
    if from_seq >= upto_seq:
        return
    over, decoder = table.foreign_options.over, tables.decoder(table)
    async for messages in tables.port.read(over, table.table_id, ScanBounds(after_seq=from_seq, upto_seq=upto_seq)):
        yield await in_thread(Purpose.LIVE, batch_of_messages, messages, decoder)
