"""What the names in a query mean: the columns of what stands in FROM, inside out.

A column is known by the SQL that reads it, so that a function in FROM, whose table in SQLite has columns of other
names, is one like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from kalam.errors import ColumnNotFound, InvalidValue, TableNotFound
from kalam_pg.catalogue import relations
from kalam_pg.catalogue.coded import Coded, name

HIDDEN: Final = {"tableoid": "oid", "xmin": "xid", "xmax": "xid", "cmin": "cid", "cmax": "cid", "ctid": "tid"}
"""Columns that every relation has and ``*`` does not mean."""


class Column(msgspec.Struct, frozen=True):
    """A column of an item: its name there, and what reads it."""

    name: str
    coded: Coded


class Item(msgspec.Struct, frozen=True):
    """Something in FROM: ``whole`` is what the alias alone means, for a function."""

    alias: str
    columns: tuple[Column, ...]
    schema: str | None = None
    whole: Coded | None = None
    oid: int | None = None

    def column(self, wanted: str) -> Coded | None:
        """What reads a column; None if there is none of this name."""
        for column in self.columns:
            if column.name == wanted:
                return column.coded
        if self.oid is not None and wanted in HIDDEN:
            value = {"tableoid": str(self.oid), "ctid": "'(0,1)'"}.get(wanted, "1")
            return Coded(value, HIDDEN[wanted])
        return None


class Output(msgspec.Struct, frozen=True):
    """A column that a query gives."""

    name: str
    type: str
    typmod: int = -1
    record: tuple[tuple[str, str], ...] = ()


class Scope:
    """The items that a query's expressions may name, and those of the queries around it."""

    def __init__(self, outer: Scope | None = None, tables: Mapping[str, Sequence[Output]] | None = None) -> None:
        self.outer = outer
        self.items: list[Item] = []
        self.series: list[str] | None = None
        """The arrays over which a select list runs, while it is put into words."""
        self.merged: set[tuple[str, str]] = set()
        """The columns, by alias and name, that a USING has made one with an earlier one."""
        self._tables = dict(tables or {})

    def inner(self) -> Scope:
        """A scope within this one."""
        return Scope(self)

    def define(self, table: str, outputs: Sequence[Output]) -> None:
        """Have a table of a WITH."""
        self._tables[table] = outputs

    def defined(self, table: str) -> Sequence[Output] | None:
        """The columns of a table of a WITH, here or around."""
        if table in self._tables:
            return self._tables[table]
        return self.outer.defined(table) if self.outer is not None else None

    def column(self, wanted: str, alias: str | None, schema: str | None) -> Coded:
        """What reads a column; raises ColumnNotFound or TableNotFound."""
        found = self.looked_up(wanted, alias, schema)
        if found is not None:
            return found
        if alias is not None and not self.has(alias):
            raise TableNotFound(f'missing FROM-clause entry for table "{alias}"')
        raise ColumnNotFound(f'column "{f"{alias}." if alias else ""}{wanted}" does not exist')

    def looked_up(self, wanted: str, alias: str | None, schema: str | None) -> Coded | None:
        """The same; None where there is none."""
        found = [
            coded
            for item in self.items
            if (alias is None or item.alias == alias)
            and (schema is None or item.schema == schema)
            and (alias is not None or (item.alias, wanted) not in self.merged)
            and (coded := item.column(wanted)) is not None
        ]
        if len(found) > 1 and wanted not in HIDDEN:
            raise InvalidValue(f'column reference "{wanted}" is ambiguous')
        if found:
            return found[0]
        if alias is None:
            whole = next((item.whole for item in self.items if item.alias == wanted and item.whole), None)
            if whole is not None:
                return whole
        return self.outer.looked_up(wanted, alias, schema) if self.outer is not None else None

    def has(self, alias: str) -> bool:
        """Whether something here or around is called so."""
        if any(item.alias == alias for item in self.items):
            return True
        return self.outer is not None and self.outer.has(alias)

    def starred(self, alias: str | None) -> Iterator[Column]:
        """The columns that ``*`` or ``alias.*`` means."""
        if alias is not None and not any(item.alias == alias for item in self.items):
            raise TableNotFound(f'missing FROM-clause entry for table "{alias}"')
        for item in self.items:
            if alias is None or item.alias == alias:
                for column in item.columns:
                    if alias is not None or (item.alias, column.name) not in self.merged:
                        yield column


def relation_item(relation: relations.Relation, alias: str) -> Item:
    """A relation of the catalogue in FROM."""
    columns = tuple(Column(column, Coded(f"{name(alias)}.{name(column)}", kind)) for column, kind in relation.columns)
    return Item(alias, columns, relation.schema, oid=relation.oid)


def query_item(alias: str, outputs: Sequence[Output], names: Sequence[str] = ()) -> Item:
    """A sub-query or a table of a WITH in FROM; ``names`` are what its alias calls the first columns."""
    columns = []
    for place, output in enumerate(outputs):
        called = names[place] if place < len(names) else output.name
        read = Coded(f"{name(alias)}.{name(f'c{place}')}", output.type, output.typmod, record=output.record)
        columns.append(Column(called, read))
    return Item(alias, tuple(columns))
