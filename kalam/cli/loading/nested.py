"""Columns of Arrow that no table has: lists, structs and maps become JSON texts, times of day become texts."""

from __future__ import annotations

import datetime
from typing import Any, Final

import msgspec
import pyarrow as pa

from kalam.rows.formats.foreign_arrow import plain_batch

JSON_FIELD: Final = {b"kalam": b"json"}
"""What is noted of a column whose texts are JSON."""
_ENCODE = msgspec.json.Encoder(enc_hook=str).encode


def readable_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch whose buffers were checked, with columns of types that a table can have; raises TooLarge."""
    if not any(map(_is_foreign, batch.schema.types)):
        return plain_batch(batch)
    types = batch.schema.types
    plain = plain_batch(pa.RecordBatch.from_arrays(list(map(_readable, batch.columns)), names=batch.schema.names))
    fields = [
        field.with_metadata(JSON_FIELD) if is_json(kind) else field
        for field, kind in zip(plain.schema, types, strict=True)
    ]
    return pa.RecordBatch.from_arrays(plain.columns, schema=pa.schema(fields))


def readable_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of such a batch."""
    empty = pa.RecordBatch.from_arrays([pa.nulls(0, kind) for kind in schema.types], names=schema.names)
    return readable_batch(empty).schema


def is_json(kind: pa.DataType) -> bool:
    """Whether a column of this type becomes JSON."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if isinstance(kind, pa.DictionaryType | pa.RunEndEncodedType):
        return is_json(kind.value_type)
    return bool(pa.types.is_nested(kind))


def _is_foreign(kind: pa.DataType) -> bool:
    return is_json(kind) or bool(pa.types.is_time(kind))


def _readable(array: pa.Array) -> pa.Array:
    if pa.types.is_time(array.type):
        return pa.array([_time_text(value) for value in array.to_pylist()], pa.string())
    if not is_json(array.type):
        return array
    values = array.to_pylist(maps_as_pydicts="lossy")
    return pa.array([None if value is None else _ENCODE(value).decode() for value in values], pa.string())


def _time_text(value: Any) -> str | None:
    return value.isoformat() if isinstance(value, datetime.time) else None
