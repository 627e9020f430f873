"""The relations of ``pg_catalog`` and ``information_schema``: their columns, and their tables in SQLite.

What they are called and which columns they have is PostgreSQL 15's, in ``relations.txt``. Each is one table in SQLite,
with a column ``_of`` behind PostgreSQL's: the id of the table of Kalam's that the row tells of, by which the rows of a
table that has changed are found.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

import msgspec

from kalam_pg.catalogue import pg_types

INFORMATION_SCHEMA: Final = "information_schema"
PG_CATALOG: Final = "pg_catalog"
SCHEMAS: Final = (PG_CATALOG, INFORMATION_SCHEMA)
OF: Final = "_of"
SERVERS_OWN: Final = 0
"""The ``_of`` of rows that belong to no table."""

_FIRST_VIEW: Final = 12_000
"""Views have other numbers in every PostgreSQL, so here they are counted from this one."""
_INDEXES: Final = {
    "pg_class": ("oid", "relname"),
    "pg_attribute": ("attrelid",),
    "pg_type": ("oid",),
    "pg_namespace": ("oid",),
    "pg_index": ("indrelid",),
    "pg_constraint": ("conrelid",),
    "pg_description": ("objoid",),
    "pg_attrdef": ("adrelid",),
    "pg_proc": ("oid",),
    "information_schema.columns": ("table_name",),
}


class Relation(msgspec.Struct, frozen=True):
    """A relation: ``columns`` are its columns' names and types."""

    schema: str
    name: str
    oid: int
    is_view: bool
    columns: tuple[tuple[str, str], ...]

    @property
    def stored_as(self) -> str:
        """The name of its table in SQLite."""
        return self.name if self.schema == PG_CATALOG else f"{self.schema}.{self.name}"

    def row(self, values: Mapping[str, Any], of: int = SERVERS_OWN) -> tuple[Any, ...]:
        """A row of its table: what is not named is NULL."""
        return (*(values.get(name) for name, _ in self.columns), of)


def _read(line: str, number: int) -> Relation:
    name, oid, *columns = line.split()
    schema, _, short = name.rpartition(".")
    is_view = oid == "0"
    pairs = tuple((column, kind) for column, _, kind in (each.partition(":") for each in columns))
    return Relation(schema or PG_CATALOG, short, _FIRST_VIEW + number if is_view else int(oid), is_view, pairs)


@cache
def relations() -> dict[str, Relation]:
    """The relations by the names of their tables in SQLite."""
    lines = files(__package__).joinpath("relations.txt").read_text().splitlines()
    read = [_read(line, number) for number, line in enumerate(lines) if not line.startswith("#")]
    return {relation.stored_as: relation for relation in read}


def found(name: str, schema: str | None) -> Relation | None:
    """The relation that a query names; without a schema one of ``pg_catalog`` is meant."""
    if schema in (None, PG_CATALOG):
        return relations().get(name) if "." not in name else None
    return relations().get(f"{schema}.{name}") if schema == INFORMATION_SCHEMA else None


def _affinity(kind: str) -> str:
    if kind in pg_types.INTEGERS or kind in pg_types.NAMED or kind == "bool":
        return "INTEGER"
    return "REAL" if kind in pg_types.FLOATS else "TEXT"


def definition() -> str:
    """What makes the tables in SQLite. Columns need affinities, or a number compared with a text is never equal."""
    made = []
    for stored_as, relation in relations().items():
        columns = ", ".join(f'"{name}" {_affinity(kind)}' for name, kind in relation.columns)
        made.append(f'CREATE TABLE "{stored_as}" ({columns}, {OF} INTEGER);')
        made += [
            f'CREATE INDEX "{stored_as} by {column}" ON "{stored_as}" ("{column}");'
            for column in _INDEXES.get(stored_as, ())
        ]
    return "\n".join(made)
