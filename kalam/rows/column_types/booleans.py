"""BOOLEAN: a bool."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from kalam.rows.column_types.arrow_kinds import is_text, refuse_unless
from kalam.rows.column_types.record import ColumnType, PostgreSQLType
from kalam.schema import DataType, TypeName

_TRUTHS = dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True)
_TRUTHS |= dict.fromkeys(("false", "f", "no", "n", "off", "0"), False)


def boolean_of(text: str) -> bool:
    """The truth value that a text is, in PostgreSQL's spellings; raises ValueError."""
    truth = _TRUTHS.get(text.strip().lower())
    if truth is None:
        raise ValueError(f"{text[:40]!r} is no truth value")
    return truth


def _assigned(value: Any) -> Any:
    return boolean_of(value) if isinstance(value, str) else value


def _from_arrow(values: pa.ChunkedArray, _: DataType) -> list[Any]:
    if is_text(values.type):
        return [None if text is None else boolean_of(text) for text in values.to_pylist()]
    refuse_unless(pa.types.is_boolean(values.type), "truth values")
    return list(values.to_pylist())


def _default(value: Any, _: DataType) -> bool:
    if isinstance(value, str):
        return boolean_of(value)
    if not isinstance(value, bool):
        raise TypeError("expected TRUE or FALSE")
    return value


def _compared(value: Any, _: DataType) -> str | None:
    if not isinstance(value, str):
        return None
    try:
        return "TRUE" if boolean_of(value) else "FALSE"
    except ValueError:
        return None


BOOLEAN = ColumnType(
    name=TypeName.BOOLEAN,
    words=("BOOLEAN", "BOOL"),
    postgresql=PostgreSQLType("bool", 16),
    decoded=lambda kind, how: bool,
    assigned=_assigned,
    from_arrow=_from_arrow,
    own_arrow=pa.types.is_boolean,
    arrow_as_is=True,
    whole=lambda values, kind: values if pa.types.is_boolean(values.type) else None,
    arrow=lambda kind: pa.bool_(),
    default=_default,
    compared=_compared,
)
