"""The one fork: what is done with a table, by its kind.

Above ``sql`` nobody else asks for the kind of a table. What differs between kinds is a method of a protocol, fulfilled
once for the tables whose rows are stored (SHARED, USER) and once for STREAM tables; who needs it asks ``Tables.of``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, Protocol, TypeVar, assert_never

import msgspec

from kalam.schema import Table, TableDefinition, TableKind
from kalam.tables.alterations import Action, ColumnUsers

Acts = TypeVar("Acts")


class Tables(msgspec.Struct, Generic[Acts], frozen=True):
    """Something that is done with tables, once for each kind."""

    stored: Acts
    streams: Acts

    def of(self, table: Table | TableDefinition) -> Acts:
        """How it is done with this table."""
        match table.kind:
            case TableKind.SHARED | TableKind.USER:
                return self.stored
            case TableKind.STREAM:
                return self.streams
            case other:
                assert_never(other)


class Upkeep(Protocol):
    """Creates, alters and drops tables, and says how it stands with them."""

    async def create(self, definition: TableDefinition) -> Table:
        """Make the table with all that it needs, or nothing; raises InvalidOption and what the catalogue raises."""

    def altering(self, table: Table) -> AbstractAsyncContextManager[object]:
        """Held while the table is altered; to be entered before anything else is held."""

    async def alter(self, table: Table, action: Action, user: str, column_users: ColumnUsers) -> tuple[Table, str]:
        """The new state of the table, which is stored, and what was done to it in words."""

    def dropping(self, table: Table) -> AbstractAsyncContextManager[object]:
        """Held while the table is dropped, when nothing works on its files any more; to be entered likewise."""

    async def garbage(self, table: Table) -> list[str]:
        """The paths of the table's files, the last part of which may be a pattern."""

    async def clear(self, table: Table, garbage: Sequence[str]) -> None:
        """Remove files and events of a table that was dropped; what stays now goes at the next start."""

    async def state(self, table: Table) -> list[tuple[str, Any]]:
        """What is stored of the table, by name."""
