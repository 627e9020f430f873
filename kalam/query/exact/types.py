"""What has to be known of types: their kinds, and the ranges of whole numbers."""

from __future__ import annotations

from typing import Any, TypeGuard

import pyarrow as pa
import pyarrow.types as arrow

DIGITS_MAX = 38
"""Of a DECIMAL that a column can have; DataFusion computes with twice as many."""
WIDE_DIGITS = 76

Bounds = tuple[int, int]
LONG: Bounds = (-(1 << 63), (1 << 63) - 1)


def is_whole(kind: Any) -> TypeGuard[Any]:
    """Whether these are integers."""
    return kind is not None and arrow.is_integer(kind)


def is_float(kind: Any) -> TypeGuard[Any]:
    """Whether these are binary fractions."""
    return kind is not None and arrow.is_floating(kind)


def is_text(kind: Any) -> bool:
    """Whether these are texts."""
    return kind is not None and (arrow.is_string(kind) or arrow.is_large_string(kind) or arrow.is_string_view(kind))


def is_decimal(kind: Any) -> TypeGuard[Any]:
    """Whether these are DECIMALs."""
    return kind is not None and arrow.is_decimal(kind)


def bounds_of(kind: pa.DataType) -> Bounds:
    """The least and the greatest value of a type of integers."""
    if arrow.is_unsigned_integer(kind):
        return 0, (1 << kind.bit_width) - 1
    return -(1 << kind.bit_width - 1), (1 << kind.bit_width - 1) - 1


def digits_of(kind: pa.DataType) -> tuple[int, int]:
    """Precision and scale of a DECIMAL, or of the DECIMAL that holds every value of a type of integers."""
    if is_decimal(kind):
        return kind.precision, kind.scale
    return len(str(bounds_of(kind)[1])), 0


def fits(bounds: Bounds, within: Bounds = LONG) -> bool:
    """Whether all of these values are within those bounds."""
    return within[0] <= bounds[0] and bounds[1] <= within[1]


def sum_bounds(left: Bounds, right: Bounds) -> Bounds:
    """The bounds of a sum."""
    return left[0] + right[0], left[1] + right[1]


def difference_bounds(left: Bounds, right: Bounds) -> Bounds:
    """The bounds of a difference."""
    return left[0] - right[1], left[1] - right[0]


def product_bounds(left: Bounds, right: Bounds) -> Bounds:
    """The bounds of a product."""
    corners = [a * b for a in left for b in right]
    return min(corners), max(corners)
