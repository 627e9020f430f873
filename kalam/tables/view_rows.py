"""The rows of materialized views, as whoever reads them meets them; nobody but Kalam writes any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from kalam.errors import DuplicateKey, Unsupported
from kalam.rows.types import Row
from kalam.schema import Table
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.copies import Key
from kalam.tables.insert_batch import Answer, Batch, Tally
from kalam.tables.kinds import Removal, Removed, Source, TakenRows, Verb
from kalam.tables.ports import ReplayPort
from kalam.tables.stored import StoredTables
from kalam.tables.stored_rows import StoredRows

_OF_FILES: Final[frozenset[Verb]] = frozenset({"FLUSH", "COMPACT", "CHECK"})


class Filling(Protocol):
    """Knows which views hold what their query says."""

    def is_filled(self, table: Table) -> bool:
        """Whether a view has been filled, and is not being filled anew."""

    async def wait_filled(self, table: Table) -> None:
        """Wait until it is; raises TooBusy after some seconds."""


class ViewRows(StoredRows):
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

    def stored(self, table: Table, verb: Verb) -> StoredTables:
        """Its files are kept as those of any table; raises Unsupported for what would change its rows."""
        if verb not in _OF_FILES:
            raise unwritable(table, verb)
        return super().stored(table, verb)

    def check_writable(self, table: Table) -> None:
        """Raise Unsupported."""
        raise unwritable(table, "INSERT")

    async def take_batch(self, table: Table, users: Sequence[str], batch: Batch, tally: Tally) -> list[Answer]:
        """Raise Unsupported."""
        raise unwritable(table, "INSERT")

    async def take_rows(self, table: Table, user: str, rows: Sequence[Row]) -> TakenRows:
        """Raise Unsupported."""
        raise unwritable(table, "INSERT")

    def check(self, table: Table, rows: Sequence[Row]) -> None:
        """Raise Unsupported."""
        raise unwritable(table, "INSERT")

    async def taken(self, table: Table, user: str, rows: Sequence[Row], before: set[Key]) -> Mapping[int, DuplicateKey]:
        """Raise Unsupported."""
        raise unwritable(table, "INSERT")

    async def remove(self, table: Table, user: str, removal: Removal) -> Removed:
        """Raise Unsupported."""
        raise unwritable(table, "DELETE")


def unwritable(table: Table, verb: str) -> Unsupported:
    """The refusal of what would change the rows of a view."""
    return Unsupported(
        f"{verb} on {table.name}: it is a materialized view, whose rows follow from other tables",
        hint="change the rows that its SELECT reads",
    )
