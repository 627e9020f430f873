"""Views: a SELECT in the place of rows. Who reads one reads what the SELECT reads (``kalam.query.expanded``)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, NoReturn

from kalam.errors import Unsupported
from kalam.names import TableName
from kalam.schema import Table, TableDefinition
from kalam.sql.text.alterations import Action
from kalam.storage.log.catalogue import Catalogue, Sql
from kalam.storage.log.database import Database
from kalam.storage.log.drop_notes import forget_drops
from kalam.tables.alterations import ColumnUsers
from kalam.tables.fileless import FilelessUpkeep
from kalam.tables.kinds import WHOLE_SCAN, Scan, Source, Verb
from kalam.tables.replay import Replay
from kalam.tables.stored import StoredTables
from kalam.tables.unwritten import UnwrittenRows


def has_no_rows(table: TableDefinition, what: str) -> Unsupported:
    """Why something cannot be done with a view."""
    return Unsupported(f"{what}: {table.name} is a view, which has no rows of its own", hint="name the table it reads")


class SelectRows(UnwrittenRows):
    """Rows that no view has; a Rows."""

    ordered = False
    seq_column = ""

    def refusal(self, table: Table, what: str) -> Unsupported:
        """In the words of views."""
        return has_no_rows(table, what)

    def stored(self, table: Table, verb: Verb) -> StoredTables:
        """Raise Unsupported."""
        raise has_no_rows(table, verb)

    def is_readable(self, table: Table) -> bool:
        """What it reads is asked for itself."""
        return True

    async def wait_readable(self, table: Table) -> None:
        """Nothing has to be waited for."""

    async def sources(
        self, tables: Mapping[TableName, Table], user: str, *, with_key: bool, scan: Scan = WHOLE_SCAN
    ) -> Mapping[TableName, Source]:
        """Raise Unsupported: a query reads what the view reads."""
        self._refuse_live(next(iter(tables.values())))

    async def numbered(
        self, table: Table, user: str, *, with_key: bool, virtual: frozenset[str] = frozenset()
    ) -> tuple[Source, int]:
        """Raise Unsupported."""
        self._refuse_live(table)

    async def last_seq(self, table: Table, user: str) -> int:
        """Raise Unsupported."""
        self._refuse_live(table)

    async def changes_since(self, table: Table, user: str, from_seq: int, told_seq: int) -> Replay:
        """Raise Unsupported."""
        self._refuse_live(table)

    async def seq_before(self, table: Table, moment: datetime) -> int:
        """Raise Unsupported."""
        self._refuse_live(table)

    async def last_of_keys(self, table: Table, told_seq: int) -> Replay:
        """Raise Unsupported."""
        self._refuse_live(table)

    def _refuse_live(self, table: Table) -> NoReturn:
        raise Unsupported(
            f"a live query reads a table, and {table.name} is a view", hint="a materialized view has changes of its own"
        )


class SelectUpkeep(FilelessUpkeep):
    """Keeps views, which are a line of the catalogue; an Upkeep."""

    def __init__(self, database: Database, catalogue: Catalogue) -> None:
        self._database, self._catalogue = database, catalogue

    async def create(self, definition: TableDefinition) -> Table:
        """A view in the catalogue."""
        return await self._catalogue.create_table(definition)

    @asynccontextmanager
    async def filling(self, definition: TableDefinition) -> AsyncIterator[Table]:
        """Raise Unsupported."""
        raise has_no_rows(definition, "AS")
        yield  # which makes it a generator

    async def alter(
        self, table: Table, action: Action, user: str, column_users: ColumnUsers, also: Sequence[Sql] = ()
    ) -> tuple[Table, str]:
        """Raise Unsupported: its columns are those of its SELECT."""
        raise Unsupported(f"{table.name} is a view", hint=f"CREATE OR REPLACE VIEW {table.name} AS …")

    async def rename(self, table: Table, name: TableName) -> Table:
        """Views that read it know it by its id."""
        return await self._catalogue.rename_table(table, name, ())

    async def truncate(self, table: Table) -> None:
        """Raise Unsupported."""
        raise has_no_rows(table, "TRUNCATE")

    async def clear(self, table: Table, garbage: Sequence[str]) -> None:
        """The broker has nothing of it."""
        await self._database.write(lambda conn: forget_drops(conn, [table.table_id]))

    async def state(self, table: Table) -> list[tuple[str, Any]]:
        """It has no rows."""
        return []
