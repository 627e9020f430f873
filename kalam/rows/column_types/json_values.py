"""JSON: the compact text of any JSON value; a JSON null is NULL."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa

from kalam.rows.column_types.arrow_kinds import is_text
from kalam.rows.column_types.record import ColumnType, PostgreSQLType
from kalam.rows.values import Values, each
from kalam.schema import DataType, TypeName

_JSON = msgspec.json.Encoder()


def _fix(values: Values) -> Values:
    return each(values, _text, "a JSON value, in which NaN and the infinities have no place")


def _text(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    if "null" in text and _has_nonfinite(value):  # msgspec writes them as null
        raise ValueError(value)
    return text


def _has_nonfinite(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_nonfinite, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_nonfinite, value))
    return isinstance(value, float) and not math.isfinite(value)


def _assigned(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, str | bytes) else value


def _from_arrow(values: pa.ChunkedArray, _: DataType) -> list[Any]:
    texts = values.cast(pa.string()).to_pylist()
    return [None if text is None else msgspec.json.decode(text) for text in texts]


def _default(value: Any, _: DataType) -> Any:
    if not isinstance(value, str):
        return float(value) if isinstance(value, Decimal) else value
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError as exc:
        raise ValueError(str(exc)) from None


def _show(values: Values) -> Values:
    return [None if value is None else msgspec.Raw(value.encode()) for value in values]


def _unpack(values: Values) -> Values:
    return [None if value is None else msgspec.json.decode(value) for value in values]


def _compared(value: Any, _: DataType) -> str | None:
    try:
        document = msgspec.json.decode(value) if isinstance(value, str) else value
        text = msgspec.json.encode(document).decode()
    except (msgspec.DecodeError, TypeError, RecursionError):
        return None
    return None if value is None or text == value else "'" + text.replace("'", "''") + "'"


JSON = ColumnType(
    name=TypeName.JSON,
    words=("JSON", "JSONB"),
    postgresql=PostgreSQLType("json", 114),
    decoded=lambda kind, how: Any,
    fix=lambda kind: _fix,
    assigned=_assigned,
    from_arrow=_from_arrow,
    own_arrow=is_text,
    arrow=lambda kind: pa.string(),
    default=_default,
    in_json=_show,
    in_msgpack=_unpack,
    from_event=lambda shown: _JSON.encode(shown).decode(),
    compared=_compared,
)
