"""The upkeep of materialized views as tables: files and feed are those of a SHARED table."""

from __future__ import annotations

from collections.abc import Sequence

from kalam.errors import Unsupported
from kalam.names import TableName
from kalam.schema import Table
from kalam.sql.text.alterations import Action
from kalam.storage.log.catalogue import Sql
from kalam.tables.alterations import ColumnUsers
from kalam.tables.stored_upkeep import StoredUpkeep
from kalam.tables.view_rows import unwritable


class DerivedUpkeep:
    """What an Upkeep refuses of every materialized view, wherever its rows are."""

    async def alter(
        self, table: Table, action: Action, user: str, column_users: ColumnUsers, also: Sequence[Sql] = ()
    ) -> tuple[Table, str]:
        """Raise Unsupported: what a view is follows from its SELECT."""
        raise Unsupported(
            f"{table.name} is a materialized view",
            hint=f"ALTER MATERIALIZED VIEW {table.name} takes SET (…) and ADD COLUMN c AS expression",
        )

    async def rename(self, table: Table, name: TableName) -> Table:
        """Raise Unsupported."""
        raise Unsupported(f"the materialized view {table.name} keeps its name", hint="drop it, and create another")

    async def truncate(self, table: Table) -> None:
        """Raise Unsupported."""
        raise unwritable(table, "TRUNCATE")


class ViewUpkeep(DerivedUpkeep, StoredUpkeep):
    """Keeps the tables that views are; an Upkeep."""
