"""Texts of a COPY as columns of a table's types: by Arrow's casts, or where one fails by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kalam.rows.types import arrow_type
from kalam.schema import Column, TypeName
from kalam_pg.errors import SqlError
from kalam_pg.types import typed_of_column
from kalam_pg.values.parameters import from_text

_CAST = frozenset(
    {
        TypeName.SMALLINT,
        TypeName.INT,
        TypeName.BIGINT,
        TypeName.FLOAT,
        TypeName.DOUBLE,
        TypeName.DATE,
        TypeName.DECIMAL,
        TypeName.TIMESTAMP,
    }
)


def typed_table(
    texts: Sequence[Sequence[bytes | None] | pa.ChunkedArray], columns: Sequence[Column], first: int
) -> pa.Table:
    """A table of values that are written as text; ``first`` is how many lines came before. Raises SqlError."""
    arrays = [_typed(each, column, first) for each, column in zip(texts, columns, strict=True)]
    return pa.table(arrays, names=[column.name for column in columns])


def _typed(texts: Sequence[bytes | None] | pa.ChunkedArray, column: Column, first: int) -> pa.ChunkedArray:
    written = texts if isinstance(texts, pa.ChunkedArray) else pa.chunked_array([pa.array(texts, pa.binary())])
    if column.type.name in (TypeName.TEXT, TypeName.JSON):
        try:
            checked = written.cast(pa.string())
        except pa.ArrowInvalid:
            checked = _one_by_one(written, column, first)
        if pc.any(pc.match_substring(checked, "\0")).as_py():
            return _one_by_one(written, column, first)
        return checked
    if column.type.name in _CAST:
        kind = arrow_type(column.type)
        try:
            return pc.ascii_trim(written.cast(pa.string()), " ").cast(kind)
        except pa.ArrowInvalid:
            pass
    return _one_by_one(written, column, first)


def _one_by_one(written: pa.ChunkedArray, column: Column, first: int) -> pa.ChunkedArray:
    kind = typed_of_column(column.type).type
    values: list[Any] = []
    for place, value in enumerate(written.to_pylist(), 1):
        try:
            values.append(None if value is None else from_text(value, kind))
        except SqlError as exc:
            raise SqlError(exc.sqlstate, f"{exc.detail} (line {first + place}, column {column.name})") from None
    return as_column(values, column)


def as_column(values: Sequence[Any], column: Column) -> pa.ChunkedArray:
    """Python values as a column of this type; raises SqlError for what does not fit."""
    try:
        return pa.chunked_array([pa.array(values, arrow_type(column.type))])
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as exc:
        raise SqlError("22003", f"a value does not fit column {column.name} ({column.type}): {exc}") from None
