"""DOUBLEs as PostgreSQL writes them: the shortest digits that read back as the same number."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa

_LEAST_EXPONENT, _EXPONENT_FROM = -4, 15
"""Beyond these a number is written with its exponent; Python's own bound is 16."""


def float_texts(values: pa.Array) -> pa.Array:
    """The texts of a column."""
    return pa.array([None if value is None else float_text(value) for value in values.to_pylist()], pa.string())


def float_text(value: float) -> str:
    """The text of one number."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    text = repr(value)
    exact = Decimal(text)
    exponent = exact.adjusted()
    if not exact or _LEAST_EXPONENT <= exponent < _EXPONENT_FROM:
        return text.removesuffix(".0")
    digits = "".join(map(str, exact.as_tuple().digits)).rstrip("0")
    mantissa = f"{digits[0]}.{digits[1:]}" if len(digits) > 1 else digits
    return f"{'-' if value < 0 else ''}{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):02}"
