"""A SHARED table, or a view, as a source of a view that is run again: all that is asked is whether it has changed.

What the changes are is seen by running the SELECT. So nothing of the log is read or kept, and however many changes wait
they are one.
"""

from __future__ import annotations

from msgspec.structs import replace

from kalam.schema import Table
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.view_positions import Position
from kalam.tables.stored import StoredTables
from kalam.tables.versions import ChangeBatch
from kalam.views.followed import Lag, Taken
from kalam.views.method import Changes


class NewsSource:
    """Watches a copy, that of a user where each has one; a Followed."""

    looks = full = holds = False
    is_copy = True

    def __init__(self, source: Table, stored: StoredTables, catalogue: Catalogue, user: str = "") -> None:
        self._source, self._stored, self._catalogue, self._user = source, stored, catalogue, user

    @property
    def table(self) -> Table:
        """The table as it is now."""
        return self._catalogue.by_id.get(self._source.table_id, self._source)

    def close(self) -> None:
        """Nothing is held."""

    def came(self, byte_count: int) -> None:
        """However much it was."""

    async def snapshot(self) -> None:
        """It is read with others."""

    async def begin(self, position: Position | None) -> Position:
        """Where it was."""
        return replace(position or Position(source_id=self._source.table_id), holds=False)

    async def take(self, position: Position, rows_max: int) -> Taken | None:
        """That something has changed."""
        table = self.table
        view = await self._stored.view(table, self._user)
        last_seq = 0 if view is None else view.last_seq
        if last_seq == position.seq:
            return None
        changes = Changes(table, ChangeBatch(), position.generation, retracts=True)
        return Taken(changes, replace(position, seq=last_seq), more=False)

    def lag(self, position: Position) -> Lag:
        """The changes that were committed since the SELECT was run."""
        view = self._stored.loaded_view(self.table, self._user)
        return Lag(0 if view is None else max(0, view.last_seq - position.seq))
