"""Functions that DataFusion lacks: sums of integers that are checked, and others, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datafusion import SessionContext, udf

MARK = "kalam: "
"""How the errors of these functions begin, by which they are told from the text around them."""

ADD, SUBTRACT, MULTIPLY = "kalam_add", "kalam_subtract", "kalam_multiply"
NEAREST, SINGLE = "kalam_nearest", "kalam_single"
_SIGNS = {ADD: "+", SUBTRACT: "-", MULTIPLY: "*"}
_BOUND = 1 << 63


class OutOfRange(ValueError):
    """A value does not fit its type."""


def _checked(name: str, compute: Callable[[Any, Any], Any], exact: Callable[[int, int], int]) -> Callable[..., Any]:
    def checked(left: pa.Array, right: pa.Array) -> pa.Array:
        try:
            return compute(left, right)
        except pa.ArrowInvalid:
            for a, b in zip(left.to_pylist(), right.to_pylist(), strict=True):
                if a is not None and b is not None and not -_BOUND <= exact(a, b) < _BOUND:
                    raise OutOfRange(f"{MARK}{a} {_SIGNS[name]} {b} is out of range of BIGINT;") from None
            raise

    return checked


def _nearest(values: pa.Array) -> pa.Array:
    """Whole numbers, of two that are as near the even one."""
    return pc.round(values, round_mode="half_to_even")


def _single(values: pa.Array) -> pa.Array:
    """As FLOAT, which has 32 bits."""
    with np.errstate(over="ignore"):
        narrow = values.cast(pa.float32(), safe=False)
    lost = pc.and_(pc.is_inf(narrow), pc.invert(pc.is_inf(values)))
    if pc.any(lost).as_py():
        [value, *_] = values.filter(lost).to_pylist()
        raise OutOfRange(f"{MARK}{value!r} is out of range of FLOAT;")
    return narrow


def register(ctx: SessionContext) -> None:
    """Make the functions known to a context."""
    long, double, single = pa.int64(), pa.float64(), pa.float32()
    two = {
        ADD: _checked(ADD, pc.add_checked, lambda a, b: a + b),
        SUBTRACT: _checked(SUBTRACT, pc.subtract_checked, lambda a, b: a - b),
        MULTIPLY: _checked(MULTIPLY, pc.multiply_checked, lambda a, b: a * b),
    }
    for name, function in two.items():
        ctx.register_udf(udf(function, [long, long], long, "immutable", name=name))
    ctx.register_udf(udf(_nearest, [double], double, "immutable", name=NEAREST))
    ctx.register_udf(udf(_single, [double], single, "immutable", name=SINGLE))
