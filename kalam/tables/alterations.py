"""ALTER TABLE on SHARED and USER tables: a new schema version.

The law: an ALTER changes the catalogue and nothing else. Columns are matched by id, so what was written before is read
under the new version as it lies there (``kalam.rows.versions``), hot or cold, and a statement that began under the old
version ends under it: each chunk and segment says which version it was written under. A flush in progress is waited
for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from kalam.errors import AlreadyExists, ColumnNotFound, TableInUse, Unsupported
from kalam.names import listed
from kalam.rows.lone_values import timestamp_text
from kalam.schema import ROW_ID, Column, Default, DefaultKind, StoredOptions, Table, TableOptions
from kalam.sql import table_options
from kalam.sql.tables.columns import COLUMNS_MAX
from kalam.sql.text.alterations import (
    Action,
    AddColumn,
    ChangeColumns,
    DropColumn,
    DropNotNull,
    OfColumn,
    RenameColumn,
    RenameTable,
    SetDefault,
    SetOptions,
    SetType,
)
from kalam.tables.columns_altered import with_column

ColumnUsers = Callable[[Table, str], Sequence[str]]
"""The ids of the open live queries that use a column of a table."""


class Altered(msgspec.Struct, frozen=True):
    """What an ALTER makes of a table, and what it tells the user."""

    columns: tuple[Column, ...]
    key: tuple[str, ...]
    options: TableOptions
    message: str


def altered(
    table: Table,
    action: Action,
    *,
    user: str,
    now: datetime,
    used_ids: Sequence[int],
    column_users: ColumnUsers,
) -> Altered:
    """The table after the action; ``used_ids`` are the column ids that it ever had. Raises what refuses it."""
    match action:
        case AddColumn():
            if action.source is not None and not table.is_foreign:
                raise Unsupported(
                    f"column {action.name}: FROM {action.source.place} is for tables over others' streams"
                )
            return _added(table, action, max(used_ids) + 1, user, now)
        case DropColumn(name):
            return _dropped(table, name, column_users)
        case ChangeColumns(actions):
            done = []
            for each in actions:
                new = altered(table, each, user=user, now=now, used_ids=used_ids, column_users=column_users)
                used_ids = [*used_ids, *(column.column_id for column in new.columns)]
                table = replace(table, columns=new.columns)
                done.append(new.message)
            return Altered(table.columns, table.key, table.options, ", ".join(done))
        case RenameColumn(name, new_name):
            return _renamed(table, name, new_name)
        case SetDefault() | DropNotNull() | SetType():
            return _column_altered(table, action)
        case RenameTable():
            raise AssertionError("another name is no new version of the columns")
        case SetOptions():
            return _set(table, action)


def _added(table: Table, action: AddColumn, column_id: int, user: str, now: datetime) -> Altered:
    _check_new(table, action.name)
    if len(table.columns) >= COLUMNS_MAX:
        raise Unsupported(f"a table has at most {COLUMNS_MAX:,} columns")
    column = Column(
        column_id=column_id,
        name=action.name,
        type=action.type,
        nullable=action.nullable,
        default=action.default,
        fill=_evaluated(action.default, user, now),
        source=action.source,
    )
    declared, own = table.declared_columns, tuple(c for c in table.columns if c.name == ROW_ID)
    return Altered((*declared, column, *own), table.key, table.options, f"column {action.name} added")


def _evaluated(default: Default | None, user: str, now: datetime) -> Any:
    """The value, as JSON would carry it, that a default has for the rows that are there."""
    if default is None:
        return None
    match default.kind:
        case DefaultKind.LITERAL:
            return default.literal
        case DefaultKind.NOW:
            return timestamp_text(now)
        case DefaultKind.CURRENT_USER:
            return user
        case DefaultKind.SNOWFLAKE_ID | DefaultKind.UUID_V7:
            raise Unsupported(f"{default} would give all old rows the same value")


def _dropped(table: Table, name: str, column_users: ColumnUsers) -> Altered:
    column = _column(table, name)
    if name in table.key:
        part = "the key" if len(table.key) == 1 else "part of the key"
        raise Unsupported(f"column {name} is {part} of table {table.name} and cannot be dropped")
    if name == table.options.subject_key:
        raise Unsupported(f"column {name} is the SUBJECT_KEY of table {table.name} and cannot be dropped")
    if len(table.declared_columns) == 1:
        raise Unsupported(f"column {name} is the only one of table {table.name}; drop the table instead")
    users = column_users(table, name)
    if users:
        raise TableInUse(f"column {name} of table {table.name} is used by the live queries {', '.join(users[:50])}")
    left = tuple(other for other in table.columns if other is not column)
    return Altered(left, table.key, table.options, f"column {name} dropped")


def _renamed(table: Table, name: str, new_name: str) -> Altered:
    column = _column(table, name)
    _check_new(table, new_name)
    columns = tuple(replace(other, name=new_name) if other is column else other for other in table.columns)
    options = table.options
    if options.subject_key == name:
        options = replace(options, subject_key=new_name)
    key = tuple(new_name if part == name else part for part in table.key)
    return Altered(columns, key, options, f"column {name} renamed to {new_name}")


def _column_altered(table: Table, action: OfColumn) -> Altered:
    column = _column(table, action.name)
    new, done = with_column(table, column, action)
    columns = tuple(new if other is column else other for other in table.columns)
    return Altered(columns, table.key, table.options, done)


def _set(table: Table, action: SetOptions) -> Altered:
    options = table_options(table.kind, action.options, table.columns, current=table.options)
    if options.subject_key != table.options.subject_key:
        raise Unsupported("SUBJECT_KEY cannot be altered: the changes that are kept for replay have their subjects")
    if isinstance(options, StoredOptions) and options.location != table.stored_options.location:
        raise Unsupported("LOCATION cannot be altered; create a new table there and INSERT INTO it … SELECT")
    named = ", ".join(name.upper() for name in action.options)
    return Altered(table.columns, table.key, options, f"{named} set")


def _column(table: Table, name: str) -> Column:
    column = table.column(name)
    if column is None or name == ROW_ID:
        known = listed([column.name for column in table.declared_columns])
        raise ColumnNotFound(f"table {table.name} has no column {name!r}; it has {known}")
    return column


def _check_new(table: Table, name: str) -> None:
    if table.column(name) is not None:
        raise AlreadyExists(f"table {table.name} has a column {name} already")
