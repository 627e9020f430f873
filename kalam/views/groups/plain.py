"""Values of Arrow columns as Python values that are equal exactly where SQL groups them together, and back.

Times are whole numbers here, 0.0 and -0.0 one number, and every NaN the same object: Python finds it again in a dict.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

NAN: Final = float("nan")
_types = pa.types


def joined(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One array without views and dictionaries."""
    column = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    if _types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if _types.is_string_view(column.type) or _types.is_large_string(column.type):
        column = column.cast(pa.string())
    elif _types.is_binary_view(column.type) or _types.is_large_binary(column.type):
        column = column.cast(pa.binary())
    return column


def unified(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The same, with one zero and one NaN."""
    column = joined(values)
    if _types.is_floating(column.type):
        column = pc.add(column, pa.scalar(0.0, column.type))
        is_nan = pc.is_nan(column)
        if pc.any(is_nan).as_py():  # NaN has many forms, and Arrow tells them apart
            column = pc.if_else(is_nan, pa.scalar(NAN, column.type), column)
    return column


def is_kept(kind: pa.DataType) -> bool:
    """Whether values of a type can be kept as plain values."""
    tests = (
        *(
            _types.is_integer,
            _types.is_boolean,
            _types.is_timestamp,
            _types.is_date32,
            _types.is_string,
            _types.is_binary,
        ),
        *(_types.is_float32, _types.is_float64, _types.is_decimal128, _types.is_string_view, _types.is_binary_view),
    )
    return any(test(kind) for test in tests)


def to_plain(column: pa.Array) -> list[Any]:
    """The values of a unified column."""
    if _types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    elif _types.is_date32(column.type):
        column = column.cast(pa.int32())
    values: list[Any] = column.to_pylist()
    if _types.is_floating(column.type):
        return [NAN if value is not None and math.isnan(value) else value for value in values]
    return values


def as_numbers(column: pa.Array) -> npt.NDArray[Any] | None:
    """The values of a unified column without NULLs, where they are numbers or times; else None."""
    if _types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    elif _types.is_date32(column.type):
        column = column.cast(pa.int32())
    if not _types.is_integer(column.type) and not _types.is_floating(column.type):
        return None
    numbers: npt.NDArray[Any] = column.to_numpy()
    return numbers


def from_plain(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Plain values as a column of their type."""
    if _types.is_timestamp(kind):
        return pa.array(values, pa.int64()).cast(kind)
    if _types.is_date32(kind):
        return pa.array(values, pa.int32()).cast(kind)
    return pa.array(values, kind)


def is_above(values: npt.NDArray[Any], others: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Which values come after others, as ORDER BY has it: NaN is the greatest number."""
    above: npt.NDArray[Any] = values > others
    if values.dtype.kind == "f":
        above |= np.isnan(values) & ~np.isnan(others)
    return above
