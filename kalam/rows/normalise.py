"""From what a decoder gave to a row's one form, a column at a time.

The typed decoder has already refused wrong types, so what is left is little: clocks and number formats, which are the
type's own matter, and defaults. Most columns need nothing and are not touched.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from kalam.rows.column_types import TYPES
from kalam.rows.ids import SnowflakeIds, UuidV7s
from kalam.rows.values import Fix, Values
from kalam.schema import Column, DefaultKind


class Generators(msgspec.Struct, frozen=True):
    """Where generated values come from."""

    snowflakes: SnowflakeIds
    uuids: UuidV7s


def column_fix(column: Column, *, bigint_texts: bool = False) -> Fix | None:
    """What the values of this column need after decoding; None for nothing, which is the common case."""
    kind = TYPES[column.type.name]
    if bigint_texts and kind.text_fix is not None:
        return kind.text_fix
    return None if kind.fix is None else kind.fix(column.type)


def fill_default(column: Column, values: Values, user: str, now: datetime, generators: Generators) -> Values:
    """Replace each UNSET by the column's default, generated ones as one batch."""
    unset = msgspec.UNSET
    missing = sum(value is unset for value in values)
    if not missing or column.default is None:
        return values
    match column.default.kind:
        case DefaultKind.LITERAL:
            fill = iter([column.default.literal] * missing)
        case DefaultKind.NOW:
            fill = iter([now] * missing)
        case DefaultKind.CURRENT_USER:
            fill = iter([user] * missing)
        case DefaultKind.SNOWFLAKE_ID:
            fill = iter(generators.snowflakes.take(missing))
        case DefaultKind.UUID_V7:
            fill = iter(generators.uuids.take(missing))
    if missing == len(values):
        return list(fill)
    return [next(fill) if value is unset else value for value in values]
