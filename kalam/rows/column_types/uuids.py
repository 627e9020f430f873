"""UUID: its canonical text."""

from __future__ import annotations

import uuid
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kalam.rows.column_types.arrow_kinds import is_bytes, is_text, refuse_unless
from kalam.rows.column_types.record import ColumnType, PostgreSQLType
from kalam.rows.values import Values
from kalam.schema import DataType, TypeName

_CANONICAL = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"


def uuid_text(text: str) -> str:
    """The one form of a UUID that a text names in any of its forms; a text that names none is given back."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return text


def _fix(values: Values) -> Values:
    return [None if value is None else str(value) for value in values]


def _assigned(value: Any) -> Any:
    return uuid.UUID(value) if isinstance(value, str) else value


def _from_arrow(values: pa.ChunkedArray, _: DataType) -> list[Any]:
    if is_bytes(values.type):
        return [None if value is None else uuid.UUID(bytes=value) for value in values.to_pylist()]
    refuse_unless(is_text(values.type), "UUIDs")
    return [None if text is None else uuid.UUID(text) for text in values.to_pylist()]


def _whole(values: pa.ChunkedArray, _: DataType) -> pa.ChunkedArray | None:
    """Texts that are all canonical."""
    if not is_text(values.type) or not pc.all(pc.match_substring_regex(values, _CANONICAL)).as_py():
        return None
    return values.cast(pa.string())


def _default(value: Any, _: DataType) -> str:
    if not isinstance(value, str):
        raise TypeError("expected a UUID as text")
    return str(uuid.UUID(value))


def _compared(value: Any, _: DataType) -> str | None:
    return f"'{uuid_text(value)}'" if isinstance(value, str) and uuid_text(value) != value else None


UUID = ColumnType(
    name=TypeName.UUID,
    words=("UUID",),
    postgresql=PostgreSQLType("uuid", 2950),
    is_key=True,
    decoded=lambda kind, how: uuid.UUID,
    fix=lambda kind: _fix,
    assigned=_assigned,
    from_arrow=_from_arrow,
    own_arrow=is_text,
    whole=_whole,
    arrow=lambda kind: pa.string(),
    default=_default,
    from_event=str,
    compared=_compared,
)
