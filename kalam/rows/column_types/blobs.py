r"""BLOB: bytes, which is base64 wherever bytes come as text, or PostgreSQL's ``\x…``."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import pyarrow as pa

from kalam.errors import InvalidValue
from kalam.rows.column_types.arrow_kinds import is_bytes, is_text, refuse_unless
from kalam.rows.column_types.record import ColumnType, PostgreSQLType
from kalam.rows.values import Values, each
from kalam.schema import DataType, TypeName


def _fix(values: Values) -> Values:
    """Base64 texts, which msgpack and SQL may carry, to bytes."""
    if all(type(value) is bytes or value is None for value in values):
        return values
    return each(values, _blob, "a BLOB, which is bytes or base64 text")


def _blob(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise TypeError(value)
    return bytes_of(value)


def bytes_of(text: str) -> bytes:
    r"""The bytes of a text: base64, or PostgreSQL's ``\x…``; raises ValueError."""
    try:
        return bytes.fromhex(text[2:]) if text.startswith("\\x") else base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise ValueError(text) from exc


def _from_arrow(values: pa.ChunkedArray, _: DataType) -> list[Any]:
    refuse_unless(is_bytes(values.type) or is_text(values.type), "bytes")
    return list(values.to_pylist())


def _default(value: Any, _: DataType) -> str:
    if not isinstance(value, str):
        raise TypeError("expected X'…' or a base64 text")
    return base64.b64encode(bytes_of(value)).decode()


def _from_event(shown: Any) -> bytes:
    return bytes(shown) if isinstance(shown, bytes | bytearray | memoryview) else base64.b64decode(shown, validate=True)


def _compared(value: Any, _: DataType) -> str | None:
    """Raises InvalidValue for a text that can be none, which DataFusion would take for its bytes."""
    if not isinstance(value, str):
        return None
    try:
        return f"X'{bytes_of(value).hex()}'"
    except ValueError:
        told = "a text that is compared with a BLOB is base64, or '\\x…' with hexadecimal digits"
        raise InvalidValue(f"{told}, and {value[:60]!r} is neither") from None


BLOB = ColumnType(
    name=TypeName.BLOB,
    words=("BLOB", "BYTEA", "BYTES", "BINARY", "VARBINARY"),
    postgresql=PostgreSQLType("bytea", 17),
    literal="X",
    decoded=lambda kind, how: Any if how.native else bytes,
    fix=lambda kind: _fix,
    assigned=lambda value: value,
    from_arrow=_from_arrow,
    own_arrow=is_bytes,
    arrow_as_is=True,
    arrow=lambda kind: pa.binary(),
    default=_default,
    from_event=_from_event,
    compared=_compared,
)
