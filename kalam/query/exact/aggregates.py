"""Aggregates whose sums DataFusion wraps, whose means lose digits, or that compare with NaN as IEEE does.

Of distinct values it takes 0 and -0 for two, where it does not make groups of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from sqlglot import exp

from kalam.query.exact.arithmetic import quotient_scale
from kalam.query.exact.float_programs import BOUNDED, BOUNDED_NAMES
from kalam.query.exact.floats import without_sign_of_nan
from kalam.query.exact.mixtures import without_sign_of_zero
from kalam.query.exact.scopes import Scope, arrow_name
from kalam.query.exact.types import DIGITS_MAX, WIDE_DIGITS, digits_of, is_decimal, is_float, is_whole

_SUM_DIGITS = 28
"""Digits of a DECIMAL of which 10^10 can be added up in 38."""
_PARTS = (exp.Filter, exp.Window, exp.IgnoreNulls, exp.RespectNulls, exp.WithinGroup)
_SPREADS = (exp.Variance, exp.VariancePop, exp.Stddev, exp.StddevPop, exp.StddevSamp)
_FINITE = {16: "65504", 32: "3.4028234663852886e38", 64: "1.7976931348623157e308"}
"""The largest finite number by the bits of its type."""
AGGREGATES = (exp.Sum, exp.Avg, exp.Max, exp.Min, *_SPREADS)


def is_aggregate(node: exp.Expr) -> bool:
    """Whether it is one whose value may have to be made exact."""
    if isinstance(node, exp.Anonymous):  # names that sqlglot does not know
        return node.name.lower() in BOUNDED_NAMES and len(node.expressions) == 1
    if isinstance(node, exp.Count):
        return isinstance(node.this, exp.Distinct)
    return isinstance(node, AGGREGATES)


def aggregate(scope: Scope, node: exp.Expr) -> None:
    """Make an aggregate's value exact."""
    if isinstance(node, exp.Count):
        _count_distinct(scope, node.this.expressions)
        scope.work.known[id(_with_parts(node))] = pa.int64()
        return
    listed = node if isinstance(node, exp.Anonymous) else node.this
    argument = listed.expressions[0] if isinstance(listed, (exp.Distinct, exp.Anonymous)) else listed
    if argument is None or scope.work.tree.span(argument) is None:
        return
    kind = scope.type_of(argument)
    whole = _with_parts(node)
    if is_float(kind) and isinstance(node, (exp.Sum, exp.Avg, exp.Anonymous, *_SPREADS)):
        if kind.bit_width == 64 or not isinstance(node, (exp.Sum, exp.Avg)):
            _bounded(scope, whole, argument)
        else:
            without_sign_of_nan(scope, whole, pa.float64())
    elif isinstance(node, exp.Sum):
        _sum(scope, whole, argument, kind)
    elif isinstance(node, exp.Avg) or (isinstance(node, exp.Anonymous) and node.name.lower() == "mean"):
        _mean(scope, whole, argument, kind)
    elif is_float(kind) and isinstance(whole, (exp.Max, exp.Min, exp.Filter)) and scope.select.args.get("group"):
        _extreme(scope, whole, argument, kind, greatest=isinstance(node, exp.Max))


def _count_distinct(scope: Scope, arguments: Sequence[exp.Expr]) -> None:
    for argument in arguments:
        if scope.work.tree.span(argument) is not None and is_float(scope.type_of(argument)):
            without_sign_of_zero(scope, argument)


def name_apart(scope: Scope, node: exp.Expr) -> None:
    """Give an aggregate of a CAST a name of its own, for DataFusion does not see a CAST in names.

    ``sum(x)`` and ``sum(CAST(x AS DOUBLE))`` were one column to it.
    """
    above: exp.Expr | None = node.parent
    while above is not None and not isinstance(above, (exp.AggFunc, exp.Query)):
        above = above.parent
    if not isinstance(above, exp.AggFunc) or not isinstance(scope.select, exp.Select):
        return
    kind = scope.type_of(node)
    if scope.aggregates > 1 and kind is not None and scope.work.tree.span(node) is not None:
        scope.work.enclose(node, "arrow_cast(", f", '{arrow_name(kind)}')")


def _with_parts(node: exp.Expr) -> exp.Expr:
    """The call with its FILTER and OVER."""
    while isinstance(node.parent, _PARTS) and node.parent.this is node:
        node = node.parent
    return node


def _sum(scope: Scope, whole: exp.Expr, argument: exp.Expr, kind: pa.DataType | None) -> None:
    work = scope.work
    if is_whole(kind) and kind.bit_width == 64:
        work.enclose(argument, "CAST(", f" AS DECIMAL({DIGITS_MAX},0))")
        work.enclose(whole, "CAST(", " AS BIGINT)")
        work.known[id(whole)] = pa.int64()
    elif is_decimal(kind) and _SUM_DIGITS < kind.precision <= DIGITS_MAX:
        work.enclose(argument, "CAST(", f" AS DECIMAL({WIDE_DIGITS},{kind.scale}))")
        work.enclose(whole, "CAST(", f" AS DECIMAL({DIGITS_MAX},{kind.scale}))")
        work.known[id(whole)] = pa.decimal128(DIGITS_MAX, kind.scale)


def _mean(scope: Scope, whole: exp.Expr, argument: exp.Expr, kind: pa.DataType | None) -> None:
    """A mean is the sum, exactly, by the number; of integers it is a DOUBLE, as DataFusion has it."""
    work = scope.work
    if not (is_decimal(kind) or (is_whole(kind) and kind.bit_width == 64)):
        return
    span = work.span(whole)
    name = work.tree.name_token(*span)
    count = "count" + work.edits.part(span)[name.end + 1 - span[0] :]
    scale = digits_of(kind)[1]
    work.edits.replace((name.start, name.end + 1), "sum")
    if is_decimal(kind):
        # A CAST is not seen in the names by which DataFusion tells one sum from another.
        if kind.precision > _SUM_DIGITS:
            work.enclose(argument, "arrow_cast(", f", 'Decimal256({WIDE_DIGITS}, {scale})')")
        digits = max(scale, quotient_scale((DIGITS_MAX - scale, scale), (19, 0)), min(16, DIGITS_MAX))
        wide = f" AS DECIMAL({WIDE_DIGITS},{max(digits - 3, scale)})) / {count} AS DECIMAL({DIGITS_MAX},{digits}))"
        work.enclose(whole, "CAST(CAST(", wide)
        work.known[id(whole)] = pa.decimal128(DIGITS_MAX, digits)
    else:
        work.enclose(argument, "CAST(", f" AS DECIMAL({DIGITS_MAX},0))")
        work.enclose(whole, "(CAST(", f" AS DOUBLE) / CAST({count} AS DOUBLE))")
        work.known[id(whole)] = pa.float64()


def _bounded(scope: Scope, whole: exp.Expr, argument: exp.Expr) -> None:
    """An error where the numbers are finite and what is made of them is not: then their differences add up to zero."""
    work = scope.work
    start, end = work.span(whole)
    first, last = work.span(argument)
    value = work.edits.part((first, last))
    before, behind = work.edits.part((start, first)), work.edits.part((last, end))
    name = work.tree.name_token(start, end).text.lower()
    work.known[id(whole)] = pa.float64()
    work.enclose(whole, f"{BOUNDED}{name}(", f", {before}({value}) - ({value}){behind})")


def _extreme(scope: Scope, whole: exp.Expr, argument: exp.Expr, kind: pa.DataType, *, greatest: bool) -> None:
    """NaN is the greatest number; within groups DataFusion keeps whichever comes first.

    There it begins with the largest finite number for a least one, and with the smallest for a greatest one: a result
    that is this number, and none of the values, stands for values that all lie beyond it. What is counted are rows that
    hardly any group has, for a FILTER that nothing passes costs a third of an aggregate of conditions.
    """
    work = scope.work
    span = work.span(whole)
    first, last = work.span(argument)
    value = work.edits.part((first, last))
    before, behind = work.edits.part((span[0], first)), work.edits.part((last, span[1]))
    sql_type = "REAL" if kind.bit_width == 32 else "DOUBLE"
    infinity, nan = f"CAST('Infinity' AS {sql_type})", f"CAST('NaN' AS {sql_type})"
    begun = f"CAST('{'-' if greatest else ''}{_FINITE[kind.bit_width]}' AS {sql_type})"

    def some(condition: str) -> str:
        if isinstance(whole, exp.Filter):
            return f"count(nullif({condition}, FALSE){behind} > 0"
        return f"count(*) FILTER (WHERE {condition}) > 0"

    if greatest:
        found = f"{before}{value}{behind}"
        beyond = f"CAST('-Infinity' AS {sql_type})"
        opened = f"CASE WHEN {some(f'isnan({value})')} THEN {nan} WHEN "
    else:
        found = f"{before}nanvl({value}, {infinity}){behind}"
        beyond = f"CASE WHEN {some(f'({value}) = {infinity}')} THEN {infinity} ELSE {nan} END"
        work.enclose(argument, "nanvl(", f", {infinity})")
        opened = "CASE WHEN "
    opened += f"{found} = {begun} AND NOT {some(f'({value}) = {begun}')} THEN {beyond} ELSE "
    work.enclose(whole, opened, " END")
    work.known[id(whole)] = kind
