"""DATE: a date."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kalam.rows.column_types.arrow_kinds import is_text, refuse_unless
from kalam.rows.column_types.record import ColumnType, PostgreSQLType
from kalam.schema import DataType, TypeName

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_FIRST_DAY, _LAST_DAY = ((day - date(1970, 1, 1)).days for day in (date.min, date.max))


def _assigned(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.date()
    return date.fromisoformat(value.strip()) if isinstance(value, str) else value


def _from_arrow(values: pa.ChunkedArray, _: DataType) -> list[Any]:
    fits = pa.types.is_date(values.type) or pa.types.is_timestamp(values.type) or is_text(values.type)
    refuse_unless(fits, "dates")
    return list(values.cast(pa.date32()).to_pylist())


def _whole(values: pa.ChunkedArray, _: DataType) -> pa.ChunkedArray | None:
    if not pa.types.is_date32(values.type):
        return None
    bounds = pc.min_max(values.cast(pa.int32())).as_py()
    if bounds["min"] is not None and not _FIRST_DAY <= bounds["min"] <= bounds["max"] <= _LAST_DAY:
        return None
    return values


def _default(value: Any, _: DataType) -> str:
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        raise TypeError("expected a text like '2024-01-31'")
    return date.fromisoformat(value).isoformat()


DATE = ColumnType(
    name=TypeName.DATE,
    words=("DATE",),
    postgresql=PostgreSQLType("date", 1082),
    literal="DATE",
    is_key=True,
    decoded=lambda kind, how: date,
    assigned=_assigned,
    from_arrow=_from_arrow,
    own_arrow=pa.types.is_date,
    whole=_whole,
    arrow=lambda kind: pa.date32(),
    stored=date | None,
    default=_default,
)
