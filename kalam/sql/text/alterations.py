"""What an ALTER TABLE can do to its table: one frozen value for each action."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from kalam.foreign import ColumnSource
from kalam.schema import DataType, Default


class AddColumn(msgspec.Struct, frozen=True):
    name: str
    type: DataType
    nullable: bool
    default: Default | None
    source: ColumnSource | None = None


class DropColumn(msgspec.Struct, frozen=True):
    name: str


class RenameColumn(msgspec.Struct, frozen=True):
    name: str
    new_name: str


class RenameTable(msgspec.Struct, frozen=True):
    """The table stays in its namespace."""

    new_name: str


class SetDefault(msgspec.Struct, frozen=True):
    """``text`` is the default as it is written, which only the column's type makes a value; None for none."""

    name: str
    text: str | None


class DropNotNull(msgspec.Struct, frozen=True):
    name: str


class SetType(msgspec.Struct, frozen=True):
    name: str
    type: DataType


class SetOptions(msgspec.Struct, frozen=True):
    options: Mapping[str, Any]


class ChangeColumns(msgspec.Struct, frozen=True):
    """Several columns are added and dropped, each named once: one new version."""

    actions: tuple[AddColumn | DropColumn, ...]


OfColumn = SetDefault | DropNotNull | SetType
Action = AddColumn | DropColumn | ChangeColumns | RenameColumn | RenameTable | OfColumn | SetOptions
