"""Asks a source again for what it was at a position that is past: what it is now, and what has come since."""

from __future__ import annotations

import sys

from kalam.schema import Table
from kalam.storage.log.view_positions import Position
from kalam.tables.kinds import Source
from kalam.tables.stored import StoredTables
from kalam.tables.versions import ChangeBatch
from kalam.threads import Purpose, in_thread
from kalam.views.copy_source import CopySource
from kalam.views.sight import Sight


class Rereading:
    """Of one copy: a SHARED table's or a view's, or a user's own. ``log`` has its changes."""

    def __init__(self, source: Table, stored: StoredTables, log: CopySource, sight: Sight) -> None:
        self._source, self._stored, self._log, self._sight = source, stored, log, sight

    async def since(self, seq: int) -> tuple[Table, Source, ChangeBatch]:
        """The source now, and the changes since a position that lead there; raises RefillNeeded where they are gone.

        The table is that of which the changes are versions.
        """
        table = self._log.table
        view = await self._stored.view(table, self._sight.user)
        last_seq = 0 if view is None else view.last_seq
        if last_seq <= seq:
            return table, view, ChangeBatch()
        taken = await self._log.take(Position(source_id=self._source.table_id, seq=seq), sys.maxsize)
        batch = ChangeBatch()
        if taken is not None and taken.changes is not None:
            changes = taken.changes
            table, batch = changes.source, await in_thread(Purpose.LIVE, lambda: changes.batch)
        count = sum(each <= last_seq for each in batch.seqs)
        since = ChangeBatch(batch.seqs[:count], batch.olds[:count], batch.news[:count])
        return table, view, await self._sight.seen_batch(table, since)
