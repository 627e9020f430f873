"""A table as the catalogue describes it, of whichever kind it is: Kalam's own, a system table, one of PostgreSQL's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
import pyarrow as pa

from kalam.access.model import Policy
from kalam.names import SYSTEM_NAMESPACE
from kalam.schema import DELETED, FIRST_OWNER, ROW_ID, UPDATED, DataType, SelectOptions, Table
from kalam_pg import types
from kalam_pg.catalogue import oids, pg_types
from kalam_pg.catalogue.oids import Part
from kalam_pg.catalogue.relations import SERVERS_OWN, Relation

TABLE: Final = "r"
VIEW: Final = "v"
MATERIALIZED: Final = "m"
_MADE_BY_THE_SERVER: Final = {ROW_ID: "snowflake_id()", UPDATED: "now()", DELETED: "false"}
_OF_TABLE: Final = 0


class DescribedColumn(msgspec.Struct, frozen=True):
    """A column; ``generated`` ones are the server's, and nobody writes them."""

    name: str
    type: pg_types.PgType
    typmod: int = -1
    nullable: bool = True
    default: str | None = None
    generated: bool = False
    comment: str | None = None


class Described(msgspec.Struct, frozen=True):
    """A table: ``of`` is its number in Kalam, 0 where it has none.

    ``key`` are the places of its key's columns, from 1; ``reads`` the numbers of the tables that a view reads.
    """

    oid: int
    schema: str
    name: str
    kind: str
    owner: str
    columns: tuple[DescribedColumn, ...]
    key: tuple[int, ...] = ()
    comment: str | None = None
    definition: str | None = None
    row_security: bool = False
    writable: bool = False
    of: int = SERVERS_OWN
    policies: tuple[Policy, ...] = ()
    reads: tuple[int, ...] = ()
    temporary: bool = False

    @property
    def schema_oid(self) -> int:
        """The OID of its namespace."""
        return oids.of_name("namespace", self.schema)

    def part(self, part: Part) -> int:
        """The OID of a part of it."""
        return oids.of_table(self.of, part)

    @property
    def key_name(self) -> str:
        """What the key's index and constraint are called."""
        return f"{self.name}_pkey"


def described_table(
    table: Table,
    definition: str | None,
    policies: Sequence[Policy],
    comments: Mapping[int, str],
    reads: Sequence[int] = (),
) -> Described:
    """One of Kalam's tables: ``definition`` is a view's SELECT, where that and the ``policies`` may be told.

    ``comments`` are what is said of its columns, by their ids, and of itself (0), ``reads`` the tables it reads.
    """
    columns = [
        DescribedColumn(
            column.name,
            *_typed(column.type),
            column.nullable and column.name not in table.key,
            _MADE_BY_THE_SERVER.get(column.name) if column.name == ROW_ID else _default(column.default),
            column.name == ROW_ID,
            comments.get(column.column_id),
        )
        for column in table.columns
        if column.name not in table.hidden_columns
    ]
    columns += [
        DescribedColumn(name, *_typed(DataType(name=kind)), True, _MADE_BY_THE_SERVER.get(name, "NULL"), True)
        for name, kind in table.system_columns.items()
        if name not in table.hidden_columns
    ]
    names = [column.name for column in columns]
    return Described(
        oids.of_table(table.table_id),
        table.name.namespace,
        table.name.table,
        _kind(table),
        table.owned_by,
        tuple(columns),
        tuple(names.index(name) + 1 for name in table.key if name in names),
        comments.get(_OF_TABLE) or _said_of_its_kind(table),
        f"{definition};" if definition is not None else None,
        table.row_security,
        table.is_stream or table.is_temporary or (table.is_stored and not table.is_view),
        table.table_id,
        tuple(policies),
        tuple(reads),
        table.is_temporary,
    )


def _kind(table: Table) -> str:
    if isinstance(table.options, SelectOptions):
        return VIEW
    return MATERIALIZED if table.is_view else TABLE


def _said_of_its_kind(table: Table) -> str | None:
    """What a tool that knows PostgreSQL would not expect of a table."""
    if table.is_foreign:
        return "STREAM table over what others made: read only"
    if table.is_stream:
        return "STREAM table: events, kept for a while"
    return "USER table: everybody sees rows of their own" if table.per_user else None


def _typed(kind: DataType) -> tuple[pg_types.PgType, int]:
    typed = types.typed_of_column(kind)
    return pg_types.by_oid()[typed.type.oid], typed.modifier


def _default(default: object) -> str | None:
    return None if default is None else str(default)


def described_system(name: str, fields: Iterable[tuple[str, pa.DataType]]) -> Described:
    """A table of the namespace ``system``."""
    columns = tuple(
        DescribedColumn(called, pg_types.by_oid()[types.typed_of(pa.field(called, kind)).type.oid])
        for called, kind in fields
    )
    oid = oids.of_name("system", name)
    return Described(
        oid, SYSTEM_NAMESPACE, name, VIEW, FIRST_OWNER, columns, definition=_view_of(SYSTEM_NAMESPACE, name)
    )


def described_relation(relation: Relation) -> Described:
    """A relation of PostgreSQL's own catalogue."""
    columns = tuple(
        DescribedColumn(name, pg_types.by_name()[kind], nullable=relation.is_view or kind.startswith(("_", "pg_node")))
        for name, kind in relation.columns
    )
    kind = VIEW if relation.is_view else TABLE
    definition = _view_of(relation.schema, relation.name) if relation.is_view else None
    return Described(relation.oid, relation.schema, relation.name, kind, FIRST_OWNER, columns, definition=definition)


def _view_of(schema: str, name: str) -> str:
    """What a view of the server's own is made of is not SQL: it is told as itself."""
    return f" SELECT * FROM {schema}.{name};"
