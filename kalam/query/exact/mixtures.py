"""Values of which one is chosen or compared, and casts.

Of a DOUBLE and a DECIMAL DataFusion makes a DECIMAL, which loses digits of the DOUBLE and cannot hold NaN. As in SQL
such values are compared, and given back, as DOUBLEs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlglot import exp

from kalam.query.exact.checked import NEAREST, SINGLE
from kalam.query.exact.scopes import Scope
from kalam.query.exact.types import is_decimal, is_float

COMPARISONS = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.NullSafeEQ, exp.NullSafeNEQ)
CHOICES = (exp.Between, exp.In, exp.Case, exp.Coalesce, exp.Nullif, exp.Greatest, exp.Least, exp.Array)
CASTS = (exp.Cast, exp.TryCast)
_SINGLE = re.compile(r"[\s)]*(?:AS|::)\s*(?:FLOAT4?|REAL)\b", re.IGNORECASE)
_WHOLE = frozenset({exp.DType.SMALLINT, exp.DType.INT, exp.DType.BIGINT, exp.DType.TINYINT})


def mix(scope: Scope, node: exp.Expr) -> None:
    """Give the values of a comparison or a choice one type."""
    match node:
        case exp.Between():
            _as_one(scope, [node.this, node.args["low"], node.args["high"]])
        case exp.In() if node.expressions:
            _as_one(scope, [node.this, *node.expressions])
        case exp.Case():
            branches = node.args["ifs"]
            default = node.args.get("default")
            _as_one(scope, [*(branch.args["true"] for branch in branches), *([default] if default else [])])
            if node.this is not None:
                _as_one(scope, [node.this, *(branch.this for branch in branches)])
        case exp.Coalesce() | exp.Greatest() | exp.Least():
            _as_one(scope, [node.this, *node.expressions])
        case exp.Array():
            _as_one(scope, node.expressions)
        case exp.Nullif() | exp.Binary():
            _as_one(scope, [node.this, node.expression])


def _as_one(scope: Scope, members: Sequence[exp.Expr]) -> None:
    scope.take_numbers(members)
    kinds = [scope.type_of(member) for member in members]
    floats = [kind for kind in kinds if is_float(kind)]
    if not floats or not any(map(is_decimal, kinds)):
        return
    sql_type = "REAL" if all(kind.bit_width == 32 for kind in floats) else "DOUBLE"
    for member, kind in zip(members, kinds, strict=True):
        if is_decimal(kind):
            as_float(scope, member, sql_type)


def as_float(scope: Scope, member: exp.Expr, sql_type: str) -> None:
    """Write a DECIMAL as a binary fraction; a literal by its text, for it has more digits than a DOUBLE of integers."""
    inner = member
    while isinstance(inner, (exp.Paren, exp.Neg)):
        inner = inner.this
    if isinstance(inner, exp.Literal):
        scope.work.edits.replace(scope.work.span(inner), f"CAST('{inner.this}' AS {sql_type})")
    else:
        scope.work.enclose(member, "CAST(", f" AS {sql_type})")


def cast(scope: Scope, node: exp.Expr) -> None:
    """Round what is cast to an integer, and refuse what a FLOAT cannot hold."""
    target, inner = node.args["to"].this, scope.work.tree.span(node.this)
    if inner is None:
        return  # a typed literal
    is_single = _SINGLE.match(scope.work.tree.text, inner[1]) is not None
    if target not in _WHOLE and not is_single:
        return
    kind = scope.type_of(node.this)
    if is_single:
        if is_float(kind) and kind.bit_width == 64:
            scope.work.enclose(node.this, f"{SINGLE}(", ")")
    elif is_decimal(kind):
        scope.work.enclose(node.this, "round(", ")")
    elif is_float(kind):
        scope.work.enclose(node.this, f"{NEAREST}(", ")")
