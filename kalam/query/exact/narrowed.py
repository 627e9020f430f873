"""Where DataFusion brings a value into a narrower type without a word.

What a recursive query adds, a default of ``lag``, a number with a fraction beside ``&``, ``|``, ``<<``. A recursive
query has the types of its first part, and ``n * 1.5`` became a whole number again in each round. PostgreSQL refuses all
of it, too, or has the wider type.
"""

from __future__ import annotations

import pyarrow as pa
from sqlglot import exp

from kalam.errors import Unsupported
from kalam.query.exact.scopes import Scope, Work
from kalam.query.exact.types import digits_of, is_decimal, is_float, is_whole
from kalam.query.results import sql_type

_BITS = (exp.BitwiseAnd, exp.BitwiseOr, exp.BitwiseXor, exp.BitwiseLeftShift, exp.BitwiseRightShift)
NARROWING = (exp.Lag, exp.Lead, *_BITS)
HINT = "CAST both to one type, such as DOUBLE"


def refuse_narrower_rounds(work: Work, entry: exp.Expr, outer: Scope | None, withs: str) -> None:
    """Raise Unsupported where the first part of a recursive query cannot hold what the others add.

    ``withs`` is the WITH that they see.
    """
    union = entry.this
    if not any(table.name.lower() == entry.alias.lower() and not table.db for table in union.find_all(exp.Table)):
        return  # it is none
    scopes = [Scope(work, select, outer, withs) for select in _selects(union)]
    for column in zip(*(scope.select.expressions for scope in scopes), strict=False):
        first, *others = [scope.type_of(item.unalias()) for scope, item in zip(scopes, column, strict=True)]
        for other in others:
            if first is not None and other is not None and _loses(first, other):
                raise Unsupported(
                    f"a recursive query that begins with {_shown(first)} cannot go on with {_shown(other)}", hint=HINT
                )


def _selects(query: exp.Expr) -> list[exp.Select]:
    """Those that a UNION unites, in their order."""
    match query:
        case exp.Subquery() | exp.Paren():
            return _selects(query.this)
        case exp.SetOperation():
            return [*_selects(query.this), *_selects(query.expression)]
        case exp.Select() if not any(item.is_star for item in query.expressions):
            return [query]
    return []


def refuse_narrower(scope: Scope, node: exp.Expr) -> None:
    """Raise Unsupported where the default of ``lag`` or ``lead``, or what has bits, has digits that would be lost."""
    if isinstance(node, _BITS):
        for operand in (node.this, node.expression):
            kind = scope.type_of(operand)
            if is_float(kind) or is_decimal(kind):
                raise Unsupported(f"there are no bits of a {_shown(kind)}", hint="CAST it AS BIGINT")
        return
    default = node.args.get("default")
    if default is None:
        return
    kind, given = scope.type_of(node.this), scope.type_of(default)
    if kind is not None and given is not None and _loses(kind, given):
        raise Unsupported(f"the default of a {_shown(kind)} cannot be a {_shown(given)}", hint=HINT)


def _shown(kind: pa.DataType) -> str:
    return sql_type(pa.field("", kind))


def _loses(kind: pa.DataType, other: pa.DataType) -> bool:
    """Whether numbers of another type lose digits behind the point in this one."""
    if is_float(kind) or is_whole(other) or not (is_whole(kind) or is_decimal(kind)):
        return False
    return is_float(other) or (is_decimal(other) and digits_of(other)[1] > digits_of(kind)[1])
