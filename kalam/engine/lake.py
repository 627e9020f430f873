"""SHOW LAKE, REFRESH LAKE, and what the Iceberg catalogue gives away: whose rows other engines may read.

Who may see the lake of a table is said in one place, ``LakeStatements.sees``. A USER table is one Iceberg table with
the rows of all users, so only an administrator sees it there: the one exception to administrators seeing nobody's rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import pyarrow as pa

from kalam.access.model import Privilege
from kalam.engine.access import Audited
from kalam.engine.gate import Gate
from kalam.engine.session import Session
from kalam.errors import TableNotFound
from kalam.lake.lake import Lake, Shown
from kalam.names import TableName
from kalam.query.queries import resolve
from kalam.query.results import Result, list_result
from kalam.schema import Table
from kalam.sql.text.statements import RefreshLake, ShowLake, TableRef
from kalam.storage.log.catalogue import Catalogue

LAKE_FIELDS = (
    ("namespace", pa.string()),
    ("table_name", pa.string()),
    ("snapshot_id", pa.int64()),
    ("seq", pa.int64()),
    ("rows", pa.int64()),
    ("metadata_bytes", pa.int64()),
    ("lag_s", pa.float64()),
    ("error", pa.string()),
)


class LakeStatements:
    """What callers ask of the lake."""

    def __init__(self, catalogue: Catalogue, gate: Gate, audited: Audited, lake: Lake) -> None:
        self._catalogue, self._gate, self._audited, self._lake = catalogue, gate, audited, lake

    def sees(self, table: Table, session: Session) -> bool:
        """Whether the caller may read the lake of a table."""
        identity = session.identity
        if table.per_user:
            return self._gate.administers(identity)
        return self._gate.rights.may(identity.rights_of, Privilege.SELECT, table)

    def listed(self, namespace: str, session: Session) -> list[TableName]:
        """The tables of a namespace whose lake the caller may read; raises NamespaceNotFound."""
        self._gate.namespace(namespace, session.identity)
        tables = self._catalogue.tables_in(namespace)
        return [table.name for table in tables if self._lake.covers(table) and self.sees(table, session)]

    async def metadata(self, name: TableName, session: Session) -> tuple[str, bytes]:
        """Where the Iceberg metadata of a table lies, and its JSON text; raises TableNotFound where it has none."""
        table = self._gate.named(name, session.identity)
        if not self._lake.covers(table) or not self.sees(table, session):
            raise TableNotFound(f"there is no table {name}")
        if table.per_user:
            self._audited.reads_all(table.name, session)
        return await self._lake.metadata(table)

    async def answer(self, statement: ShowLake | RefreshLake, session: Session) -> Result:
        """Carry out a statement."""
        match statement:
            case ShowLake():
                return self.show(session)
            case RefreshLake(ref):
                return await self.refresh(ref, session)

    def show(self, session: Session) -> Result:
        """A row for each table that has a lake and that the caller may read there."""
        return _result([shown for shown in self._lake.shown() if self.sees(shown.table, session)])

    async def refresh(self, ref: TableRef | None, session: Session) -> Result:
        """Bring one lake, or all of the caller's, to the last flush; raises what keeps the one from it."""
        if ref is not None:
            table = self._catalogue.table(resolve(ref, session.namespace))
            if not self.sees(table, session):
                raise TableNotFound(f"there is no table {table.name}")
            return _result([await self._lake.refresh(table)])
        done: list[Shown] = []
        for shown in self._lake.shown():
            if self.sees(shown.table, session) and self._gate.owns(session.identity, shown.table):
                with suppress(TableNotFound):  # it was dropped meanwhile
                    done.append(await self._lake.refresh(shown.table))
        return _result(done)


def _result(shown: Sequence[Shown]) -> Result:
    rows = [
        (
            one.table.name.namespace,
            one.table.name.table,
            one.head and one.head.snapshot_id,
            one.head and one.head.seq,
            one.head and one.head.row_count,
            one.head and one.head.metadata_bytes,
            one.lag_s,
            one.error,
        )
        for one in shown
    ]
    return list_result(LAKE_FIELDS, rows)
