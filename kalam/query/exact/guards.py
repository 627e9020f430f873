"""Conditions that keep others from being computed: ``b <> 0 AND a / b > 2``.

DataFusion computes both sides of AND and OR for all rows of a batch, and so divides by the zeros that the first
condition is there to leave out. A condition that divides is therefore written as one of a CASE behind those before it.
"""

from __future__ import annotations

import pyarrow as pa
from sqlglot import exp

from kalam.query.exact.floats import number_of
from kalam.query.exact.scopes import Scope

_DIVIDING = (exp.Div, exp.Mod, exp.Ln, exp.Log, exp.Sqrt, exp.Acos, exp.Asin, exp.Acosh, exp.Cast)
_TEXT_MAX = 20_000
CHAINS = (exp.And, exp.Or)


def guard(scope: Scope, node: exp.Expr) -> None:
    """Guard each condition of a chain that may fail by those before it that cannot."""
    if _is_part(node):
        return
    work = scope.work
    guards: list[str] = []
    word, passing = ("AND", "FALSE") if isinstance(node, exp.And) else ("OR", "TRUE")
    for member in _members(node, type(node)):
        if any(isinstance(part, exp.Query) for part in member.walk()):
            continue
        if not _may_fail(member):
            guards.append(f"({work.edits.part(work.span(member))})")
        elif guards and sum(map(len, guards)) <= _TEXT_MAX:
            before = f" {word} ".join(guards)
            # Of a CASE WHEN with conditions behind THEN DataFusion makes an AND again.
            work.enclose(member, f"(CASE ({before}) WHEN {passing} THEN NULL ELSE ", " END)")


def guard_branches(scope: Scope, node: exp.Case) -> None:
    """Have each branch of a CASE computed only where its condition holds: of one of conditions DataFusion makes AND."""
    branches = node.args["ifs"]
    default = node.args.get("default")
    members = [*(branch.args["true"] for branch in branches), *([default] if default is not None else [])]
    if not any(map(_may_fail, members)) or any(isinstance(part, exp.Query) for part in node.walk()):
        return
    if node.this is not None or scope.type_of(node) != pa.bool_():
        return
    work = scope.work
    conditions = [f"({work.edits.part(work.span(branch.this))})" for branch in branches]
    if sum(map(len, conditions)) > _TEXT_MAX:
        return
    for member, condition in zip(members, conditions, strict=False):
        if _may_fail(member):
            work.enclose(member, f"(CASE {condition} WHEN TRUE THEN ", " END)")
    if default is not None and _may_fail(default):
        work.enclose(default, f"(CASE ({' OR '.join(conditions)}) WHEN TRUE THEN NULL ELSE ", " END)")


def _is_part(node: exp.Expr) -> bool:
    above = node.parent
    while isinstance(above, exp.Paren):
        above = above.parent
    return type(above) is type(node)


def _members(node: exp.Expr, kind: type[exp.Expr]) -> list[exp.Expr]:
    """The conditions of a chain, in the order in which they are written."""
    found: list[exp.Expr] = []
    todo = [node]
    while todo:
        inner = todo.pop()
        bare = inner
        while isinstance(bare, exp.Paren):
            bare = bare.this
        if type(bare) is kind:
            todo += [bare.expression, bare.this]
        else:
            found.append(inner)
    return found


def _may_fail(member: exp.Expr) -> bool:
    for part in member.walk():
        if isinstance(part, exp.Cast):
            if not isinstance(part, exp.TryCast) and not isinstance(part.this, exp.Literal):
                return True
        elif isinstance(part, _DIVIDING) and not (isinstance(part, (exp.Div, exp.Mod)) and number_of(part.expression)):
            return True
    return False
