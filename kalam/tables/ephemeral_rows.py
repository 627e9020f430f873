"""The rows of materialized views in memory, and their upkeep as tables, which are a line of the catalogue."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Protocol

import pyarrow as pa

from kalam.errors import CursorExpired, Unsupported
from kalam.names import TableName
from kalam.schema import SEQ, Table, TableDefinition
from kalam.tables.kinds import WHOLE_SCAN, Scan, Source, Verb
from kalam.tables.ports import UnkeptPort
from kalam.tables.replay import Replay, no_changes
from kalam.tables.selects import SelectUpkeep
from kalam.tables.stored import StoredTables
from kalam.tables.unwritten import UnwrittenRows
from kalam.tables.view_rows import unwritable
from kalam.tables.view_upkeep import DerivedUpkeep


def is_nameless(table: Table) -> bool:
    """Whether it is what live queries keep of a SELECT that groups, which no catalogue has."""
    return table.table_id < 0


class Waking(Protocol):
    """Gives the rows of views in memory."""

    async def source(self, table: Table, *, with_key: bool) -> pa.Table:
        """What a query reads of a view; with its hidden key where that is named."""

    async def numbered(self, table: Table) -> tuple[pa.Table, int]:
        """The rows of one that is held, numbered, and its last change."""

    def last_seq(self, table: Table) -> int:
        """The last change of one that is held."""

    def state(self, table: Table) -> list[tuple[str, Any]]:
        """How it stands with one."""


class EphemeralRows(UnwrittenRows):
    """Rows of views in memory; a Rows. ``views`` is set before the first is read."""

    ordered = False
    seq_column = SEQ
    views: Waking

    def refusal(self, table: Table, what: str) -> Unsupported:
        """In the words of materialized views."""
        return unwritable(table, what)

    def stored(self, table: Table, verb: Verb) -> StoredTables:
        """Raise Unsupported: it has no files."""
        if verb in ("FLUSH", "COMPACT", "CHECK"):
            raise Unsupported(f"{verb}: {table.name} is an EPHEMERAL materialized view, which lives in memory")
        raise unwritable(table, verb)

    def is_readable(self, table: Table) -> bool:
        """Only by a query: there is no row to be looked up by its key."""
        return False

    async def wait_readable(self, table: Table) -> None:
        """One that is not awake is read by its SELECT."""

    async def sources(
        self, tables: Mapping[TableName, Table], user: str, *, with_key: bool, scan: Scan = WHOLE_SCAN
    ) -> Mapping[TableName, Source]:
        """The rows, each view's of a moment."""
        return {name: await self.views.source(table, with_key=with_key) for name, table in tables.items()}

    async def numbered(
        self, table: Table, user: str, *, with_key: bool, virtual: frozenset[str] = frozenset()
    ) -> tuple[Source, int]:
        """The rows of a view that is held."""
        return await self.views.numbered(table)

    async def last_seq(self, table: Table, user: str) -> int:
        """The last change of a view that is held."""
        return self.views.last_seq(table)

    async def changes_since(self, table: Table, user: str, from_seq: int, told_seq: int) -> Replay:
        """Nothing, behind the last change; raises CursorExpired for an older one, which nothing keeps."""
        last_seq = self.views.last_seq(table)
        if from_seq != last_seq:
            raise CursorExpired(f"changes of a view in memory are not kept, and it is at {last_seq} now")
        return no_changes(from_seq)

    async def seq_before(self, table: Table, moment: datetime) -> int:
        """Raise Unsupported."""
        raise Unsupported(
            "from_time is for the events of a STREAM table; a view in memory has its rows as they are now"
        )

    async def last_of_keys(self, table: Table, told_seq: int) -> Replay:
        """Raise Unsupported."""
        raise Unsupported(
            "last_per_key is for the events of a STREAM table", hint="a live query of a view has its rows"
        )


class EphemeralUpkeep(DerivedUpkeep, SelectUpkeep):
    """Keeps views in memory as tables; an Upkeep."""

    def __init__(self, *parts: Any, rows: EphemeralRows, port: UnkeptPort) -> None:
        super().__init__(*parts)
        self._rows, self._port = rows, port

    @asynccontextmanager
    async def filling(self, definition: TableDefinition) -> AsyncIterator[Table]:
        """Raise Unsupported."""
        raise Unsupported(f"AS: {definition.name} is filled when somebody listens")
        yield  # which makes it a generator

    async def state(self, table: Table) -> list[tuple[str, Any]]:
        """Whether it is awake, and what it holds."""
        return [*self._rows.views.state(table), ("subject", self._port.subject(table))]
