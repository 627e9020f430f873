"""The rows of materialized views, as whoever reads them meets them; nobody but Kalam writes any."""

from __future__ import annotations

from typing import Final, Protocol

from kalam.errors import Unsupported
from kalam.schema import Table
from kalam.storage.log.catalogue import Catalogue
from kalam.tables.kinds import Source, Verb
from kalam.tables.ports import ReplayPort
from kalam.tables.stored import StoredTables
from kalam.tables.stored_rows import StoredRows
from kalam.tables.unwritten import UnwrittenRows

_OF_FILES: Final[frozenset[Verb]] = frozenset({"FLUSH", "COMPACT", "CHECK"})


class Filling(Protocol):
    """Knows which views hold what their query says."""

    def is_filled(self, table: Table) -> bool:
        """Whether a view has been filled, and is not being filled anew."""

    async def wait_filled(self, table: Table) -> None:
        """Wait until it is; raises TooBusy after some seconds."""


class ViewRows(UnwrittenRows, StoredRows):
    """Rows of views; a Rows. They are those of a SHARED table, and are read when the view is filled."""

    def __init__(self, tables: StoredTables, catalogue: Catalogue, feed: ReplayPort, filling: Filling) -> None:
        super().__init__(tables, catalogue, feed)
        self._filling = filling

    def is_readable(self, table: Table) -> bool:
        """Not while it is filled."""
        return self._filling.is_filled(table)

    async def wait_readable(self, table: Table) -> None:
        """Wait while it is filled."""
        await self._filling.wait_filled(table)

    async def numbered(
        self, table: Table, user: str, *, with_key: bool, virtual: frozenset[str] = frozenset()
    ) -> tuple[Source, int]:
        """A view of the copy, once it is filled."""
        await self.wait_readable(table)
        return await super().numbered(table, user, with_key=with_key, virtual=virtual)

    def refusal(self, table: Table, what: str) -> Unsupported:
        """In the words of materialized views."""
        return unwritable(table, what)

    def stored(self, table: Table, verb: Verb) -> StoredTables:
        """Its files are kept as those of any table; raises Unsupported for what would change its rows."""
        if verb not in _OF_FILES:
            raise unwritable(table, verb)
        return super().stored(table, verb)


def unwritable(table: Table, verb: str) -> Unsupported:
    """The refusal of what would change the rows of a view."""
    return Unsupported(
        f"{verb} on {table.name}: it is a materialized view, whose rows follow from other tables",
        hint="change the rows that its SELECT reads",
    )
