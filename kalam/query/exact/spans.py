"""Lengths of time, and rows of values: what is compared as a whole, where DataFusion compares part by part.

An interval has months, days and nanoseconds, and DataFusion compares these in this order, so that 36 hours are less
than a day; a difference of times has no days at all. As in PostgreSQL a month has 30 days here and a day 24 hours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pyarrow as pa
from datafusion import SessionContext, udf
from sqlglot import exp

from kalam.query.exact.checked import MARK, OutOfRange
from kalam.query.exact.scopes import Scope
from kalam.query.exact.types import is_decimal, is_float, is_text, is_whole

INTERVAL = pa.month_day_nano_interval()
SPAN, TIMES_SPAN = "kalam_span", "kalam_times_span"
MICROSECONDS = "arrow_cast(arrow_cast(", ", 'Duration(Microsecond)'), 'Int64')"
"""What stands around a difference of times to be its microseconds."""
_DAY_US = 86_400_000_000
_ORDERS: dict[type[exp.Expr], tuple[str, str]] = {
    exp.LT: ("<", "<"),
    exp.LTE: ("<", "<="),
    exp.GT: (">", ">"),
    exp.GTE: (">", ">="),
}


def is_interval(kind: Any) -> bool:
    """Whether these are intervals."""
    return kind is not None and pa.types.is_interval(kind)


def is_duration(kind: Any) -> bool:
    """Whether these are differences of times."""
    return kind is not None and pa.types.is_duration(kind)


def _microseconds(intervals: pa.Array) -> pa.Array:
    """How long intervals are."""
    return pa.array(
        [
            None if each is None else (each[0] * 30 + each[1]) * _DAY_US + each[2] // 1000
            for each in intervals.to_pylist()
        ],
        pa.int64(),
    )


def _times(intervals: pa.Array, factors: pa.Array) -> pa.Array:
    """Intervals so many times as long; what is less than a month goes on in days, and of a day in its time."""
    pairs = zip(intervals.to_pylist(), factors.to_pylist(), strict=True)
    return pa.array(
        [None if each is None or factor is None else _scaled(each, factor) for each, factor in pairs], INTERVAL
    )


def _scaled(interval: Sequence[int], factor: float) -> Sequence[int]:
    if not math.isfinite(factor):
        raise OutOfRange(f"{MARK}an interval cannot be {factor!r} times as long;")
    exact = Fraction(factor).limit_denominator(10**12)
    months = interval[0] * exact
    days = interval[1] * exact + (months - int(months)) * 30
    microseconds = Fraction(interval[2], 1000) * exact + (days - int(days)) * _DAY_US
    found = int(months), int(days), round(microseconds) * 1000
    if not (abs(found[0]) < 1 << 31 and abs(found[1]) < 1 << 31 and abs(found[2]) < 1 << 63):
        raise OutOfRange(f"{MARK}the interval is out of range;")
    return found


def register(ctx: SessionContext) -> None:
    """Make the functions known to a context."""
    ctx.register_udf(udf(_microseconds, [INTERVAL], pa.int64(), "immutable", name=SPAN))
    ctx.register_udf(udf(_times, [INTERVAL, pa.float64()], INTERVAL, "immutable", name=TIMES_SPAN))


def scale(scope: Scope, node: exp.Expr, left: Any, right: Any) -> bool:
    """Write an interval times a number, or by one, as DataFusion has neither; whether it is that."""
    if isinstance(node, exp.Mul) and is_interval(right):
        interval, number, kind = node.expression, node.this, left
    else:
        interval, number, kind = node.this, node.expression, right
    is_one = is_interval(scope.type_of(interval)) and (is_whole(kind) or is_float(kind) or is_decimal(kind))
    if not is_one or not isinstance(node, (exp.Mul, exp.Div)):
        return False
    work = scope.work
    factor = f"CAST({work.edits.part(work.span(number))} AS DOUBLE)"
    if isinstance(node, exp.Div):
        factor = f"(1 / {factor})"
    of = work.edits.part(work.span(interval))
    work.edits.replace_whole(work.span(node), f"{TIMES_SPAN}({of}, {factor})")
    work.known[id(node)] = INTERVAL
    return True


def compare_whole(scope: Scope, node: exp.Expr) -> bool:
    """Write a comparison of rows value by value, and one of lengths of time by their microseconds; whether it did."""
    members = _members(node)
    if any(isinstance(member, exp.Tuple) for member in members):
        return _compare_rows(scope, node, members)
    kinds = [scope.type_of(member) for member in members]
    others = [kind for kind in kinds if not is_interval(kind) and not is_duration(kind)]
    if len(others) == len(kinds) or not all(map(is_text, others)) or (not others and all(map(is_duration, kinds))):
        return False
    for member, kind in zip(members, kinds, strict=True):
        if is_duration(kind):
            scope.work.enclose(member, *MICROSECONDS)
        elif is_interval(kind):
            scope.work.enclose(member, f"{SPAN}(", ")")
        else:
            scope.work.enclose(member, f"{SPAN}(CAST(", " AS INTERVAL))")
    return True


def _members(node: exp.Expr) -> Sequence[exp.Expr]:
    if isinstance(node, exp.Between):
        return [node.this, node.args["low"], node.args["high"]]
    if isinstance(node, exp.In):
        return [node.this, *node.expressions]
    return [node.this, node.expression]


def _compare_rows(scope: Scope, node: exp.Expr, members: Sequence[exp.Expr]) -> bool:
    """``(a, b) = (c, d)``, which is not known where one of the values is not."""
    work = scope.work
    rows = [
        [work.edits.part(work.span(value)) for value in member.expressions]
        for member in members
        if isinstance(member, exp.Tuple)
    ]
    if len(rows) != len(members) or len({len(row) for row in rows}) != 1:
        return False
    match node:
        case exp.EQ() | exp.In():
            written = " OR ".join(_equal(rows[0], row) for row in rows[1:])
        case exp.NEQ():
            written = f"NOT {_equal(*rows)}"
        case _ if type(node) in _ORDERS:
            written = _ordered(rows[0], rows[1], *_ORDERS[type(node)])
        case _:
            return False
    whole, written = node, f"({written})"
    if isinstance(node, exp.In) and work.tree.span(node) is None and isinstance(node.parent, exp.Not):
        whole, written = node.parent, f"NOT {written}"  # in ``x NOT IN (…)`` it stands around the NOT
    work.edits.replace_whole(work.span(whole), written)
    work.known[id(whole)] = pa.bool_()
    return True


def _equal(left: Sequence[str], right: Sequence[str]) -> str:
    return "(" + " AND ".join(f"({one}) = ({other})" for one, other in zip(left, right, strict=True)) + ")"


def _ordered(left: Sequence[str], right: Sequence[str], before: str, last: str) -> str:
    if len(left) == 1:
        return f"({left[0]}) {last} ({right[0]})"
    behind = _ordered(left[1:], right[1:], before, last)
    return f"(({left[0]}) {before} ({right[0]}) OR (({left[0]}) = ({right[0]}) AND ({behind})))"
