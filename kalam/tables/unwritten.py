"""Rows that no statement and no message writes, whatever they are read from: each is refused in its table's words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from kalam.errors import DuplicateKey, Unsupported
from kalam.rows.types import Row
from kalam.schema import Table
from kalam.storage.log.copies import Key
from kalam.tables.insert_batch import Answer, Batch, Tally
from kalam.tables.kinds import Removal, Removed, TakenRows


class UnwrittenRows(ABC):
    """The writing half of a Rows, refused."""

    @abstractmethod
    def refusal(self, table: Table, what: str) -> Unsupported:
        """Why something (INSERT, DELETE, …) cannot be done with the table's rows."""

    def check_writable(self, table: Table) -> None:
        """Raise Unsupported."""
        raise self.refusal(table, "INSERT")

    async def take_batch(self, table: Table, users: Sequence[str], batch: Batch, tally: Tally) -> list[Answer]:
        """Raise Unsupported."""
        raise self.refusal(table, "INSERT")

    async def take_rows(self, table: Table, user: str, rows: Sequence[Row]) -> TakenRows:
        """Raise Unsupported."""
        raise self.refusal(table, "INSERT")

    def check(self, table: Table, rows: Sequence[Row]) -> None:
        """Raise Unsupported."""
        raise self.refusal(table, "INSERT")

    async def taken(self, table: Table, user: str, rows: Sequence[Row], before: set[Key]) -> Mapping[int, DuplicateKey]:
        """Raise Unsupported."""
        raise self.refusal(table, "INSERT")

    async def remove(self, table: Table, user: str, removal: Removal) -> Removed:
        """Raise Unsupported."""
        raise self.refusal(table, "DELETE")
