"""ALTER COLUMN: another default, NULL allowed, a wider type.

The law: a type is wider if every value of the former one is a value of it, so that rows which were written before read
the same. What tells rows apart or makes subjects (the key, the SUBJECT_KEY) stays in its own form besides: keys lie
hashed and sorted in files.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

from msgspec.structs import replace

from kalam.errors import InvalidValue, Unsupported
from kalam.rows.column_types import TYPES
from kalam.rows.versions import fill_value
from kalam.schema import Column, DataType, Default, DefaultKind, Table, TypeName
from kalam.sql.tables.defaults import parse_default
from kalam.sql.text.alterations import DropNotNull, OfColumn, SetDefault, SetType

_INTEGERS: Final[Mapping[TypeName, int]] = {TypeName.SMALLINT: 5, TypeName.INT: 10, TypeName.BIGINT: 19}
"""The integer types from the narrowest to the widest, and the decimal digits of their values."""


def with_column(table: Table, column: Column, action: OfColumn) -> tuple[Column, str]:
    """A column after the action, and what was done to it in words; raises what refuses it."""
    match action:
        case SetDefault(name, text):
            default = None if text is None else parse_default(text, column.type)
            return replace(column, default=default), f"default of column {name} {'set' if default else 'dropped'}"
        case DropNotNull(name):
            if name in table.key:
                raise Unsupported(f"column {name} is part of the key of table {table.name}, which is never NULL")
            return replace(column, nullable=True), f"column {name} may be NULL"
        case SetType(name, data_type):
            return _widened(table, column, data_type), f"column {name} has the type {data_type}"


def _widened(table: Table, column: Column, data_type: DataType) -> Column:
    if not is_wider(column.type, data_type):
        raise Unsupported(
            f"column {column.name} is {column.type} and cannot become {data_type}, which does not hold all its values",
            hint="SMALLINT, INT, BIGINT, DECIMAL; FLOAT, DOUBLE; a longer VARCHAR or TEXT; a DECIMAL of more digits",
        )
    own_form = data_type.name is TypeName.DECIMAL and data_type != column.type
    if own_form and column.name in (*table.key, table.options.subject_key):
        what = "part of the key" if column.name in table.key else "the SUBJECT_KEY"
        raise Unsupported(f"column {column.name} is {what} of table {table.name}, which keeps its digits as they are")
    return replace(column, type=data_type, default=_default_of(column, data_type), fill=_fill_of(column, data_type))


def is_wider(former: DataType, newer: DataType) -> bool:
    """Whether every value of a type is a value of another one, or they are the same."""
    match former.name, newer.name:
        case ((TypeName.SMALLINT | TypeName.INT | TypeName.BIGINT), TypeName.DECIMAL):
            return _whole_digits(newer) >= _INTEGERS[former.name]
        case ((TypeName.SMALLINT | TypeName.INT | TypeName.BIGINT), _):
            return _INTEGERS.get(newer.name, 0) >= _INTEGERS[former.name]
        case TypeName.FLOAT, TypeName.DOUBLE:
            return True
        case TypeName.DECIMAL, TypeName.DECIMAL:
            return (newer.scale or 0) >= (former.scale or 0) and _whole_digits(newer) >= _whole_digits(former)
        case TypeName.TEXT, TypeName.TEXT:
            return newer.length_max is None or (former.length_max or newer.length_max + 1) <= newer.length_max
    return former.name is newer.name


def _whole_digits(decimal: DataType) -> int:
    return (decimal.precision or 0) - (decimal.scale or 0)


def _default_of(column: Column, data_type: DataType) -> Default | None:
    default = column.default
    if default is None or data_type == column.type:
        return default
    if default.kind is not DefaultKind.LITERAL:
        if data_type.name is not column.type.name:
            raise InvalidValue(f"column {column.name} has the default {default}, which is no {data_type}")
        return default
    return replace(default, literal=TYPES[data_type.name].default(default.literal, data_type))


def _fill_of(column: Column, data_type: DataType) -> Any:
    """The value for the rows from before the column, which a FLOAT has rounded to its 32 bits."""
    if (column.type.name, data_type.name) != (TypeName.FLOAT, TypeName.DOUBLE):
        return column.fill
    value = fill_value(column)
    return value if value is not None and isfinite(value) else column.fill
