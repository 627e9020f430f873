"""What a live query reads: on this its rights count, and with this it ends."""

from __future__ import annotations

import msgspec

from kalam.schema import DataType, Table


class Read(msgspec.Struct, frozen=True):
    """A table that is read, as it was when the live query was opened.

    ``columns`` are those that it shows or judges by, ``guard`` the condition of the policies that decide which rows.
    """

    table: Table
    columns: frozenset[str]
    guard: str | None

    def is_of(self, table: Table) -> bool:
        """Whether it is of this table, whatever that is called by now."""
        return self.table.table_id == table.table_id


def as_seen(table: Table) -> list[tuple[int, str, DataType]]:
    """What a live query sees of columns: not their defaults, and not whether they may be NULL."""
    return [(column.column_id, column.name, column.type) for column in table.columns]
