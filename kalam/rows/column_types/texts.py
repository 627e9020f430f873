"""TEXT, of which VARCHAR(n) is one with a length: a str."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Meta

from kalam.rows.column_types.arrow_kinds import is_text
from kalam.rows.column_types.record import ColumnType, Decoding, PostgreSQLType
from kalam.rows.lone_values import json_default
from kalam.schema import DataType, TypeName

_JSON = msgspec.json.Encoder()


def _decoded(kind: DataType, _: Decoding) -> Any:
    return Annotated[str, Meta(max_length=kind.length_max)] if kind.length_max else str


def _assigned(value: Any) -> Any:
    """A text as it is; a number, truth value or time in the text that an answer shows, as PostgreSQL assigns it."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() | Decimal() | datetime() | date():
            shown = json_default(value)
            return shown if isinstance(shown, str) else _JSON.encode(shown).decode().strip('"')
    return value


def _from_arrow(values: pa.ChunkedArray, kind: DataType) -> list[Any]:
    texts = list(values.cast(pa.string()).to_pylist())
    if kind.length_max and any(len(text) > kind.length_max for text in texts if text):
        raise ValueError(f"a text is longer than {kind.length_max} characters")
    return texts


def _whole(values: pa.ChunkedArray, kind: DataType) -> pa.ChunkedArray | None:
    if not is_text(values.type):
        return None
    if kind.length_max and (pc.max(pc.utf8_length(values)).as_py() or 0) > kind.length_max:
        return None
    return values.cast(pa.string())


def _default(value: Any, kind: DataType) -> str:
    if not isinstance(value, str):
        raise TypeError("expected a text in single quotes")
    if kind.length_max and len(value) > kind.length_max:
        raise ValueError(f"expected at most {kind.length_max} characters")
    return value


TEXT = ColumnType(
    name=TypeName.TEXT,
    words=("TEXT", "STRING", "VARCHAR", "CHARACTER", "CHAR", "BPCHAR"),
    postgresql=PostgreSQLType("text", 25),
    is_key=True,
    decoded=_decoded,
    assigned=_assigned,
    from_arrow=_from_arrow,
    own_arrow=is_text,
    arrow_as_is=True,
    whole=_whole,
    arrow=lambda kind: pa.string(),
    default=_default,
    from_event=str,
)
