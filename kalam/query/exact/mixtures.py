"""Values of which one is chosen or compared, and casts.

Of a DOUBLE and a DECIMAL DataFusion makes a DECIMAL, which loses digits of the DOUBLE and cannot hold NaN. As in SQL
such values are compared, and given back, as DOUBLEs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
from sqlglot import exp

from kalam.query.exact.checked import NEAREST, SINGLE
from kalam.query.exact.float_programs import DOUBLE_TEXT, OR_NULL, SINGLE_TEXT, check_number
from kalam.query.exact.scopes import Scope
from kalam.query.exact.spans import compare_whole
from kalam.query.exact.types import is_decimal, is_float, is_text
from kalam.query.postgresql.functions import FLOAT_TEXT

COMPARISONS = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.NullSafeEQ, exp.NullSafeNEQ)
CHOICES = (exp.Between, exp.In, exp.Case, exp.Coalesce, exp.Nullif, exp.Greatest, exp.Least, exp.Array)
CASTS = (exp.Cast, exp.TryCast)
_COMPARED_MAX = 3
"""A longer list is looked up by DataFusion, and not compared with one by one."""
_SINGLE = re.compile(r"[\s)]*(?:AS|::)\s*(?:FLOAT4?|REAL)\b", re.IGNORECASE)
_TEXTS = frozenset({exp.DType.TEXT, exp.DType.VARCHAR})
_WHOLE = frozenset({exp.DType.SMALLINT, exp.DType.INT, exp.DType.BIGINT, exp.DType.TINYINT})


def mix(scope: Scope, node: exp.Expr) -> None:
    """Give the values of a comparison or a choice one type."""
    if isinstance(node, (*COMPARISONS, exp.Between, exp.In)) and compare_whole(scope, node):
        return
    match node:
        case exp.Between():
            _as_one(scope, [node.this, node.args["low"], node.args["high"]])
        case exp.In() if node.expressions:
            _as_one(scope, [node.this, *node.expressions])
            if len(node.expressions) > _COMPARED_MAX:
                _without_signs_of_zero(scope, [node.this, *node.expressions])
        case exp.Case():
            branches = node.args["ifs"]
            default = node.args.get("default")
            _as_one(scope, [*(branch.args["true"] for branch in branches), *([default] if default else [])])
            if node.this is not None:
                _as_one(scope, [node.this, *(branch.this for branch in branches)])
                _without_signs_of_zero(scope, [node.this, *(branch.this for branch in branches)])
        case exp.Coalesce() | exp.Greatest() | exp.Least():
            _as_one(scope, [node.this, *node.expressions])
        case exp.Array():
            _as_one(scope, node.expressions)
        case exp.Nullif() | exp.Binary():
            _as_one(scope, [node.this, node.expression])
            if isinstance(node, exp.Nullif):
                _without_signs_of_zero(scope, [node.this, node.expression])


def _as_one(scope: Scope, members: Sequence[exp.Expr]) -> None:
    scope.take_numbers(members)
    kinds = [scope.type_of(member) for member in members]
    floats = [kind for kind in kinds if is_float(kind)]
    if floats:
        _check_texts(scope, members, "FLOAT" if all(kind.bit_width == 32 for kind in floats) else "DOUBLE")
    if not floats or not any(map(is_decimal, kinds)):
        return
    sql_type = "REAL" if all(kind.bit_width == 32 for kind in floats) else "DOUBLE"
    for member, kind in zip(members, kinds, strict=True):
        if is_decimal(kind):
            as_float(scope, member, sql_type)


def _check_texts(scope: Scope, members: Sequence[exp.Expr], sql_type: str) -> None:
    """Refuse texts of numbers that are too large, of which DataFusion would make infinities."""
    for member in members:
        if not is_text(scope.type_of(member)):
            continue
        if isinstance(member, exp.Literal):
            check_number(str(member.this), sql_type)
        else:
            scope.work.enclose(member, (DOUBLE_TEXT if sql_type == "DOUBLE" else SINGLE_TEXT) + "(", ")")


def as_float(scope: Scope, member: exp.Expr, sql_type: str) -> None:
    """Write a DECIMAL as a binary fraction; a literal by its text, for it has more digits than a DOUBLE of integers."""
    inner = member
    while isinstance(inner, (exp.Paren, exp.Neg)):
        inner = inner.this
    if isinstance(inner, exp.Literal):
        scope.work.edits.replace(scope.work.span(inner), f"CAST('{inner.this}' AS {sql_type})")
    else:
        scope.work.enclose(member, "CAST(", f" AS {sql_type})")


def _without_signs_of_zero(scope: Scope, members: Sequence[exp.Expr]) -> None:
    """Make 0 of each -0, which are equal, but not where DataFusion looks up a value in a CASE, nullif or long list."""
    if not any(is_float(scope.type_of(member)) for member in members) or not any(map(_may_be_zero, members[1:])):
        return
    for member in members:
        without_sign_of_zero(scope, member)


def without_sign_of_zero(scope: Scope, member: exp.Expr) -> None:
    """Make 0 of a -0."""
    kind = scope.type_of(member)
    if _may_be_zero(member) and not pa.types.is_null(kind or pa.null()):
        zero = f" + CAST('0' AS {'REAL' if kind == pa.float32() else 'DOUBLE'})"
        scope.work.enclose(member, "(", zero + ")")


def _may_be_zero(member: exp.Expr) -> bool:
    while isinstance(member, (exp.Paren, exp.Neg)):
        member = member.this
    return not isinstance(member, exp.Literal) or (not member.is_string and not float(str(member.this)))


def nearest(scope: Scope, node: exp.Expr) -> None:
    """``round`` of a DOUBLE takes of two whole numbers that are as near the even one."""
    work = scope.work
    token = work.tree.name_token(*work.span(node))
    work.edits.replace((token.start, token.end + 1), NEAREST)
    work.known[id(node)] = pa.float64()


def cast(scope: Scope, node: exp.Expr) -> None:
    """Round what is cast to an integer, and refuse what a FLOAT cannot hold."""
    target, inner = node.args["to"].this, scope.work.tree.span(node.this)
    if inner is None:  # a typed literal
        if isinstance(node.this, exp.Literal) and target in (exp.DType.DOUBLE, exp.DType.FLOAT):
            check_number(str(node.this.this), "DOUBLE" if target is exp.DType.DOUBLE else "FLOAT")
        return
    is_single = _SINGLE.match(scope.work.tree.text, inner[1]) is not None
    length = node.args["to"].expressions if target in (*_TEXTS, exp.DType.CHAR) else ()
    if length:
        scope.work.enclose(node, "left(", f", {int(length[0].name)})")
    if target in _TEXTS and scope.type_of(node.this) == pa.float64():
        scope.work.enclose(node.this, f"{FLOAT_TEXT}(", ")")
    if target not in _WHOLE and not is_single and target is not exp.DType.DOUBLE:
        return
    kind = scope.type_of(node.this)
    if is_text(kind) and target not in _WHOLE:
        check = DOUBLE_TEXT if target is exp.DType.DOUBLE and not is_single else SINGLE_TEXT
        scope.work.enclose(node.this, (check + OR_NULL if isinstance(node, exp.TryCast) else check) + "(", ")")
        return
    if target not in _WHOLE and not is_single:
        return
    if is_single:
        if is_float(kind) and kind.bit_width == 64:
            scope.work.enclose(node.this, f"{SINGLE}(", ")")
    elif is_decimal(kind):
        scope.work.enclose(node.this, "round(", ")")
    elif is_float(kind):
        scope.work.enclose(node.this, f"{NEAREST}(", ")")
