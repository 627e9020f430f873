"""Operators whose values DataFusion wraps, cuts or takes for something else."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
from sqlglot import exp

from kalam.errors import Unsupported
from kalam.query.exact.checked import ADD, MULTIPLY, SUBTRACT
from kalam.query.exact.floats import compute_float, float_function, make_room, settle
from kalam.query.exact.scopes import Scope
from kalam.query.exact.spans import is_interval, scale
from kalam.query.exact.times import at_midnight
from kalam.query.exact.types import (
    DIGITS_MAX,
    WIDE_DIGITS,
    Bounds,
    difference_bounds,
    digits_of,
    fits,
    is_decimal,
    is_float,
    is_text,
    is_whole,
    product_bounds,
    sum_bounds,
)

QUOTIENT_SCALE = 16
"""Digits behind the point of a quotient of DECIMALs, as in PostgreSQL, where there is room for them."""
_EXACT_SCALE = 20
_DAYS: Bounds = (-100_000_000, 100_000_000)
_CHECKED: dict[type[exp.Expr], tuple[str, Callable[[Bounds, Bounds], Bounds]]] = {
    exp.Add: (ADD, sum_bounds),
    exp.Sub: (SUBTRACT, difference_bounds),
    exp.Mul: (MULTIPLY, product_bounds),
}
ARITHMETIC = (exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.Pow)


def compute(scope: Scope, node: exp.Expr) -> None:
    """Make an operator's value exact."""
    if isinstance(node, exp.Pow):
        _raise_to(scope, node)
        return
    scope.take_numbers([node.this, node.expression])
    left, right = scope.type_of(node.this), scope.type_of(node.expression)
    if (is_interval(left) or is_interval(right)) and scale(scope, node, left, right):
        return
    kind = _float_of(left, right)
    if kind is not None:
        make_room(scope, node)
        compute_float(scope, node, kind)
        return
    settle(scope, node)
    if is_float(left) or is_float(right) or pa.null() in (left, right):
        return
    if left is None or right is None:
        text = scope.work.tree.slice(node)[:200]
        raise Unsupported(f"the types in {text!r} cannot be told; write them as CAST(… AS …)")
    if is_whole(left) and is_whole(right):
        _compute_whole(scope, node, left, right)
    elif (is_decimal(left) or is_whole(left)) and (is_decimal(right) or is_whole(right)):
        _compute_decimal(scope, node, left, right)
    elif pa.types.is_date(left) and pa.types.is_interval(right):
        at_midnight(scope, node.this, node)
    elif pa.types.is_date(right) and pa.types.is_interval(left) and isinstance(node, exp.Add):
        at_midnight(scope, node.expression, node)
    elif pa.types.is_date(left) and is_whole(right):
        _move_date(scope, node, node.this, node.expression)
    elif pa.types.is_date(right) and is_whole(left) and isinstance(node, exp.Add):
        _move_date(scope, node, node.expression, node.this)


def _float_of(left: pa.DataType | None, right: pa.DataType | None) -> pa.DataType | None:
    """The type of a value of DOUBLEs or FLOATs; None where it is none."""
    kinds = left, right
    if not any(map(is_float, kinds)):
        return None
    others = [kind for kind in kinds if not is_float(kind)]
    if any(kind is not None and not (is_whole(kind) or is_decimal(kind) or is_text(kind)) for kind in others):
        return None  # NULL, an interval
    single = all(is_whole(kind) or is_decimal(kind) or kind == pa.float32() for kind in kinds)
    return pa.float32() if single else pa.float64()


def _raise_to(scope: Scope, node: exp.Expr) -> None:
    """``^`` is a power, where DataFusion reads an exclusive OR."""
    if scope.work.tree.text[scope.work.span(node.this)[1] :].lstrip()[:1] != "^":
        float_function(scope, node)
        return
    make_room(scope, node)
    _call(scope, node, "power")
    compute_float(scope, node, pa.float64())


def _call(scope: Scope, node: exp.Expr, function: str) -> None:
    """Write ``function(left, right)`` for ``left operator right``."""
    work = scope.work
    start, end = work.span(node.this)[1], work.span(node.expression)[0]
    [operator] = work.tree.between(start, end)
    work.edits.replace((operator.start, operator.end + 1), ",")
    work.enclose(node, f"{function}(", ")")


def _compute_whole(scope: Scope, node: exp.Expr, left: pa.DataType, right: pa.DataType) -> None:
    work = scope.work
    if type(node) not in _CHECKED:  # a quotient and a remainder are within the bounds, or an error
        for operand, kind in ((node.this, left), (node.expression, right)):
            _signed(scope, operand, kind)
        return
    function, combined = _CHECKED[type(node)]
    found = combined(scope.bounds(node.this), scope.bounds(node.expression))
    if pa.types.is_uint64(left) and isinstance(node.this, exp.Literal):
        work.enclose(node.this, "CAST(", " AS DECIMAL(20,0))")
        work.known[id(node)] = pa.decimal128(DIGITS_MAX, 0)
        return
    if pa.types.is_uint64(right) and isinstance(node.expression, exp.Literal):
        return  # DataFusion takes a DECIMAL
    _signed(scope, node.this, left)
    _signed(scope, node.expression, right)
    work.known[id(node)] = pa.int64()
    if not fits(found):
        _call(scope, node, function)
    elif left.bit_width < 64 and right.bit_width < 64:
        work.enclose(node.this, "CAST(", " AS BIGINT)")
    if fits(found):
        work.ranges[id(node)] = found


def _signed(scope: Scope, operand: exp.Expr, kind: pa.DataType) -> None:
    """DataFusion counts rows in unsigned integers, whose difference could not be negative."""
    if pa.types.is_unsigned_integer(kind) and not isinstance(operand, exp.Literal):
        scope.work.enclose(operand, "CAST(", " AS BIGINT)")


def _compute_decimal(scope: Scope, node: exp.Expr, left: pa.DataType, right: pa.DataType) -> None:
    (p1, s1), (p2, s2) = digits_of(left), digits_of(right)
    if isinstance(node, exp.Div):
        _divide(scope, node, (p1, s1), (p2, s2))
    elif isinstance(node, exp.Mul) and s1 + s2 > _EXACT_SCALE:
        _wide(scope, node, s1 + s2)
        scope.work.enclose(node.this, "CAST(", f" AS DECIMAL({WIDE_DIGITS},{s1}))")
        scope.work.enclose(node.expression, "CAST(", f" AS DECIMAL({WIDE_DIGITS},{s2}))")
    elif isinstance(node, exp.Mul) and max(p1, p2) > DIGITS_MAX:
        _wide(scope, node, s1 + s2)


def _wide(scope: Scope, node: exp.Expr, scale: int) -> None:
    if scale > WIDE_DIGITS:
        raise Unsupported(f"{scope.work.tree.slice(node)[:200]!r} has more than {WIDE_DIGITS} digits behind its point")
    scope.work.known[id(node)] = pa.decimal256(WIDE_DIGITS, scale)


def quotient_scale(left: tuple[int, int], right: tuple[int, int]) -> int:
    """How many digits a quotient gets behind its point."""
    whole = left[0] - left[1] + right[1]
    return max(left[1], right[1], min(QUOTIENT_SCALE, DIGITS_MAX - whole), 0)


def _divide(scope: Scope, node: exp.Expr, left: tuple[int, int], right: tuple[int, int]) -> None:
    """DataFusion cuts a quotient four digits behind those of the dividend; so it gets one too many, and is rounded."""
    work = scope.work
    scale = min(quotient_scale(left, right), DIGITS_MAX)
    work.enclose(node.this, "CAST(", f" AS DECIMAL({WIDE_DIGITS},{max(scale - 3, left[1])}))")
    work.enclose(node, "CAST(", f" AS DECIMAL({DIGITS_MAX},{scale}))")
    work.known[id(node)] = pa.decimal128(DIGITS_MAX, scale)


def _move_date(scope: Scope, node: exp.Expr, day: exp.Expr, days: exp.Expr) -> None:
    """A date and a number of days, of which DataFusion takes the lower 32 bits."""
    work = scope.work
    work.known[id(node)] = pa.date32()
    if isinstance(day, exp.Column) and fits(scope.bounds(days), _DAYS):
        return
    work.enclose(day, "CAST(", " AS INT)")
    _call(scope, node, SUBTRACT if isinstance(node, exp.Sub) else ADD)
    work.enclose(node, "CAST(CAST(", " AS INT) AS DATE)")
