"""FLOAT (32 bits) and DOUBLE: a float, of which NaN and the infinities are texts in JSON."""

from __future__ import annotations

import math
import struct
from decimal import Decimal, InvalidOperation
from math import isfinite, isnan, nan
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kalam.rows.column_types.arrow_kinds import is_number, is_text, refuse_unless
from kalam.rows.column_types.integers import NUMBER
from kalam.rows.column_types.record import ColumnType, PostgreSQLType
from kalam.rows.values import NONFINITE_TEXTS, BadValue, Fix, Values, each, nonfinite_text, shorten
from kalam.schema import DataType, TypeName

_FLOAT_MAX: Final = 3.4028234663852886e38


def float_of(text: str) -> float:
    """The number that a text is; raises ValueError also for one that only an infinity would stand for."""
    number = float(text)
    if math.isinf(number) and "inf" not in text.lower():
        raise ValueError(f"{text[:40]} is out of range")
    return number


def _fix_doubles(values: Values) -> Values:
    """The texts NaN, Infinity and -Infinity to their floats; of NaN the one that SQL knows."""
    if str in set(map(type, values)):
        values = [float(value) if type(value) is str else value for value in values]
    return [nan if value != value else value for value in values] if _some_nan(values) else values


def _some_nan(values: Values) -> bool:
    """Whether there may be a NaN: processors make such ones with a sign, which DataFusion takes for another number."""
    try:
        return isnan(sum(filter(None, values)))
    except TypeError:  # a value that was not given
        return True


def _fix_floats(values: Values) -> Values:
    """Floats rounded to 32 bits."""
    return each(_fix_doubles(values), _float32, "a FLOAT (32 bits)")


def _float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def _lossless_fix(kind: DataType) -> Fix:
    def fix(values: Values) -> Values:
        fixed = []
        for index, value in enumerate(values):
            try:
                fixed.append(None if value is None else _lossless(value))
            except (ValueError, OverflowError, InvalidOperation) as exc:
                raise BadValue(index, str(kind), shorten(value)) from exc
        return fixed

    return fix


def _lossless(value: float | str) -> float | str:
    if not isinstance(value, str) or value in NONFINITE_TEXTS:
        return value
    if not NUMBER.fullmatch(value.strip()):
        raise ValueError(value)
    return float_of(value)


def _assigned(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    return float_of(str(value)) if isinstance(value, str | int | Decimal) else value


def _doubles(values: pa.ChunkedArray, _: DataType) -> list[Any]:
    refuse_unless(is_number(values.type) or is_text(values.type), "numbers")
    if is_text(values.type):
        try:
            numbers = values.cast(pa.float64())
        except pa.ArrowInvalid:  # Arrow reads fewer forms, and those much faster
            numbers = None
        if numbers is None or pc.any(pc.is_inf(numbers)).as_py():  # some of which may only be too large
            return [None if text is None else float_of(text) for text in values.to_pylist()]
        return list(numbers.to_pylist())
    if pa.types.is_decimal(
        values.type
    ):  # multiplied by a power of ten, as Arrow does it, 1.9 is not the nearest DOUBLE
        values = values.cast(pa.string())
    return list(values.cast(pa.float64()).to_pylist())


def _floats(values: pa.ChunkedArray, kind: DataType) -> list[Any]:
    if pa.types.is_float32(values.type):
        return list(values.to_pylist())
    wide = pa.chunked_array([pa.array(_doubles(values, kind), pa.float64())])
    narrow = wide.cast(pa.float32())
    if pc.any(pc.and_not(pc.is_inf(narrow), pc.is_inf(wide))).as_py():
        raise ValueError("a value does not fit 32 bits")
    return list(narrow.to_pylist())


def _whole_doubles(values: pa.ChunkedArray, _: DataType) -> pa.ChunkedArray | None:
    if not (pa.types.is_float32(values.type) or pa.types.is_float64(values.type)):
        return None
    return _without_signs_of_nan(values.cast(pa.float64()))


def _whole_floats(values: pa.ChunkedArray, _: DataType) -> pa.ChunkedArray | None:
    return _without_signs_of_nan(values) if pa.types.is_float32(values.type) else None


def _without_signs_of_nan(values: pa.ChunkedArray) -> pa.ChunkedArray:
    undefined = pc.is_nan(values)
    return pc.if_else(undefined, pa.scalar(nan, values.type), values) if pc.any(undefined).as_py() else values


def _default(value: Any, kind: DataType) -> float | str:
    if isinstance(value, str) and value in NONFINITE_TEXTS:
        return value
    if isinstance(value, (bool, str)):
        raise TypeError("expected a number, 'NaN', 'Infinity' or '-Infinity'")
    number = float(value)
    if math.isinf(number) or (kind.name is TypeName.FLOAT and abs(number) > _FLOAT_MAX):
        raise ValueError("the number is too large")
    return number


def _show_doubles(values: Values) -> Values:
    if isfinite(sum(filter(None, values))):  # NaN and the infinities survive a sum
        return values
    return [value if value is None or isfinite(value) else nonfinite_text(value) for value in values]


def _show_floats(values: Values) -> Values:
    """0.1 and not 0.10000000149011612: the shortest text that reads back as the same 32 bits."""
    return _show_doubles([None if value is None else float(str(np.float32(value))) for value in values])


def _compared(value: Any, _: DataType) -> str | None:
    """A number of more than 32 bits as what the column holds of it."""
    if isinstance(value, float) and not isfinite(value):
        return None
    return f"arrow_cast('{value!s}', 'Float32')" if isinstance(value, float | Decimal) else None


FLOAT = ColumnType(
    name=TypeName.FLOAT,
    words=("FLOAT", "REAL", "FLOAT4"),
    postgresql=PostgreSQLType("float4", 700),
    decoded=lambda kind, how: float | Literal["NaN", "Infinity", "-Infinity"],
    fix=lambda kind: _fix_floats,
    lossless=lambda raw: float | str,
    lossless_fix=_lossless_fix,
    assigned=_assigned,
    from_arrow=_floats,
    own_arrow=is_number,
    arrow_as_is=True,
    whole=_whole_floats,
    arrow=lambda kind: pa.float32(),
    default=_default,
    in_json=_show_floats,
    compared=_compared,
)
DOUBLE = ColumnType(
    name=TypeName.DOUBLE,
    words=("DOUBLE", "FLOAT8"),
    postgresql=PostgreSQLType("float8", 701),
    decoded=FLOAT.decoded,
    fix=lambda kind: _fix_doubles,
    lossless=FLOAT.lossless,
    lossless_fix=_lossless_fix,
    assigned=_assigned,
    from_arrow=_doubles,
    own_arrow=is_number,
    arrow_as_is=True,
    whole=_whole_doubles,
    arrow=lambda kind: pa.float64(),
    default=_default,
    in_json=_show_doubles,
)
