"""Arithmetic of DOUBLEs and FLOATs, of which DataFusion makes infinities and NaN where SQL has an error.

A tree of operators is looked at as a whole: an infinity or NaN that arises in it shows in its value, or in a divisor or
exponent within it. So DataFusion computes it, one comparison tells whether there is anything to judge, and only rows
where there is are computed again, by ``float_programs``. A tree over more than columns and numbers is computed there at
once, for its text would have to be written several times, and would grow with each level.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pyarrow as pa
from sqlglot import exp

from kalam.query.exact.float_programs import ARGUMENTS_MAX, COMPUTE, COMPUTE_IN_PLACE, FAILING
from kalam.query.exact.scopes import Scope
from kalam.query.exact.types import is_float

_BINARY: dict[type[exp.Expr], str] = {
    exp.Add: "+",
    exp.Sub: "-",
    exp.Mul: "*",
    exp.Div: "/",
    exp.Mod: "%",
    exp.Pow: "^",
    exp.Log: "log",
    exp.Round: "round",
    exp.Trunc: "trunc",
}
_UNARY: dict[type[exp.Expr], str] = {
    exp.Exp: "exp",
    exp.Ln: "ln",
    exp.Log: "log10",
    exp.Sqrt: "sqrt",
    exp.Sinh: "sinh",
    exp.Cosh: "cosh",
    exp.Asin: "asin",
    exp.Acos: "acos",
    exp.Acosh: "acosh",
    exp.Degrees: "degrees",
}
FUNCTIONS = tuple({*_UNARY, exp.Round, exp.Trunc})
_TREE = (*_BINARY, *_UNARY)
_ONCE = (exp.Query, exp.Subquery, exp.Exists, exp.AggFunc, exp.Window, exp.Anonymous, exp.Rand)
"""What is not to be computed twice, or may then be another value."""
_TEXT_MAX = 2_000
_ADDED_MAX = 1e20
"""So little, added to the greatest number, is lost in rounding."""
INFINITY = "CAST('Infinity' AS DOUBLE)"


class _Program(msgspec.Struct):
    """The tree of one node, as it is built."""

    scope: Scope
    steps: list[str] = msgspec.field(default_factory=list)
    leaves: dict[str, str] = msgspec.field(default_factory=dict)
    """The texts of arguments, and what each is called."""
    hidden: list[str] = msgspec.field(default_factory=list)
    """The texts of parts whose infinity the value of the whole need not show."""
    simple: bool = True
    safe: bool = True
    """Nothing in it can leave the range."""


def compute_float(scope: Scope, node: exp.Expr, kind: pa.DataType) -> None:
    """Note an operator whose value is of this type; the outermost one of a tree is written."""
    scope.work.known[id(node)] = kind
    scope.work.floats.add(id(node))
    above = _above(node)
    if not (isinstance(above, _TREE) and any(_bare(operand) is node for operand in _operands(above))):
        _write(scope, node)


def make_room(scope: Scope, node: exp.Expr) -> None:
    """Make an operator ready, before anything is written around it.

    Operands are settled that would have too many arguments together, and the texts of all are noted.
    """
    if len(set(_leaves(scope, node))) > ARGUMENTS_MAX:
        settle(scope, node)
    work = scope.work
    for operand in _operands(node):
        for part in (operand, _bare(operand)):
            if work.tree.span(part) is not None:
                work.texts[id(part)] = work.edits.part(work.span(part))


def settle(scope: Scope, node: exp.Expr) -> None:
    """Write the trees of operands, which are no part of a larger one."""
    for operand in _operands(node):
        inner = _bare(operand)
        if id(inner) in scope.work.floats:
            _write(scope, inner)


def float_function(scope: Scope, node: exp.Expr) -> None:
    """Look at a call whose value may be out of range, or not defined."""
    make_room(scope, node)
    kind = scope.type_of(node)
    if is_float(kind) and not (isinstance(node, (exp.Round, exp.Trunc)) and _digits(node) is None):
        compute_float(scope, node, kind)
    else:
        settle(scope, node)


def negate(scope: Scope, node: exp.Neg) -> None:
    """Have a NaN without a sign, which the others of its tree's operators see to for themselves."""
    if number_of(node) is not None or isinstance(node.parent, exp.Neg) or isinstance(_above(node), _TREE):
        return
    kind = scope.type_of(_bare(node))
    if is_float(kind) and scope.work.tree.span(node) is not None and not _only_orders(scope, node):
        without_sign_of_nan(scope, node, kind)


def without_sign_of_nan(scope: Scope, node: exp.Expr, kind: pa.DataType) -> None:
    """Write the NaN that SQL knows in the place of any; the value is of this type."""
    scope.work.enclose(node, "nanvl(", f", CAST('NaN' AS {'REAL' if kind.bit_width == 32 else 'DOUBLE'}))")
    scope.work.known[id(node)] = kind


def _digits(node: exp.Expr) -> exp.Expr | None:
    digits = node.args.get("decimals")
    return digits if isinstance(digits, exp.Expr) and number_of(digits) is not None else None


def _operands(node: exp.Expr) -> list[exp.Expr]:
    if isinstance(node, (exp.Round, exp.Trunc)):
        return [node.this]
    return [operand for operand in (node.this, node.args.get("expression")) if isinstance(operand, exp.Expr)]


def _bare(node: exp.Expr) -> exp.Expr:
    while isinstance(node, (exp.Paren, exp.Neg)):
        node = node.this
    return node


def _above(node: exp.Expr) -> exp.Expr | None:
    above = node.parent
    while isinstance(above, (exp.Paren, exp.Neg)):
        above = above.parent
    return above


def _leaves(scope: Scope, node: exp.Expr) -> Iterator[str]:
    """The texts of what a tree is computed of."""
    todo = [node]
    while todo:
        for operand in _operands(todo.pop()):
            inner = _bare(operand)
            if id(inner) in scope.work.floats:
                todo.append(inner)
            elif number_of(inner) is None:
                yield scope.work.tree.slice(inner)


def number_of(node: exp.Expr) -> float | None:
    """The number that a node is as it is written."""
    sign = 1.0
    while isinstance(node, (exp.Paren, exp.Neg)):
        sign = -sign if isinstance(node, exp.Neg) else sign
        node = node.this
    return sign * float(str(node.this)) if isinstance(node, exp.Literal) and not node.is_string else None


def _write(scope: Scope, node: exp.Expr) -> None:
    """Write the check around the outermost operator of a tree."""
    work = scope.work
    program = _Program(scope)
    _add(program, node)
    work.floats.discard(id(node))
    work.written.add(id(node))
    if program.safe or _only_orders(scope, node):
        return  # what rows are ordered by is not told
    kind = work.known[id(node)]
    may_fail = any(step[:-1] in FAILING for step in program.steps)
    family = COMPUTE_IN_PLACE if may_fail and _is_selected_within(scope, node) else COMPUTE
    called = f"{family}{len(program.leaves)}('{' '.join(program.steps)}'"
    called = ", ".join([called, *program.leaves]) + ")"
    if kind.bit_width == 32:
        called = f"CAST({called} AS REAL)"
    text = work.edits.part(work.span(node))
    if not program.simple or len(text) > _TEXT_MAX or _is_in_window_alone(scope, node):
        work.edits.replace_whole(work.span(node), called)
    else:
        test = " OR ".join(f"abs({part}) >= {INFINITY}" for part in (text, *program.hidden))
        work.enclose(node, f"(CASE WHEN {test} THEN {called} ELSE ", " END)")


def _has_ancestor_part(node: exp.Expr, kind: type[exp.Expr]) -> bool:
    """Whether it is in an ORDER BY, or among what a window is made of.

    Of a window DataFusion loses the order when it computes a part of an expression but once.
    """
    here = node
    while here.parent is not None and not isinstance(here.parent, exp.Query):
        if isinstance(here.parent, kind) and not (kind is exp.Window and here.arg_key == "this"):
            return True
        here = here.parent
    return False


def _only_orders(scope: Scope, node: exp.Expr) -> bool:
    return _has_ancestor_part(node, exp.Order) and not _names_groups(scope)


def _is_in_window_alone(scope: Scope, node: exp.Expr) -> bool:
    return _has_ancestor_part(node, exp.Window) and not _names_groups(scope)


def _names_groups(scope: Scope) -> bool:
    """Whether an expression in an ORDER BY may stand for one that rows are grouped by."""
    return isinstance(scope.select, exp.Select) and any(scope.select.args.get(part) for part in ("group", "distinct"))


def _is_selected_within(scope: Scope, node: exp.Expr) -> bool:
    """Whether it is a column of a query that another one reads, and may have conditions on."""
    here = node
    while here.parent is not None and here.parent is not scope.select:
        here = here.parent
        if isinstance(here, (exp.Window, exp.AggFunc)):
            return False
    select = scope.select
    if not isinstance(select, exp.Select) or select.parent is None or select.args.get("group"):
        return False
    return here.arg_key == "expressions" and not select.args.get("distinct")


def _add(program: _Program, node: exp.Expr) -> None:
    """Add the steps of an operator, behind those of its operands."""
    operands = _operands(node)
    name = (_UNARY if len(operands) == 1 and type(node) in _UNARY else _BINARY)[type(node)]
    for operand in operands:
        _add_operand(program, operand)
    if len(operands) == 1 and name in ("round", "trunc"):
        program.steps.append(f"#{number_of(node.args['decimals'])!r}")
    width = program.scope.work.known[id(node)].bit_width
    program.steps.append(name + ("s" if width == 32 else "d"))
    program.safe = program.safe and _is_safe(name, operands)
    for operand in operands[0 if name in ("exp", "^", "log") else 1 :] if name in ("exp", "^", "log", "/", "%") else ():
        if id(_bare(operand)) in program.scope.work.floats:
            program.hidden.append(program.scope.work.texts[id(operand)])


def _add_operand(program: _Program, operand: exp.Expr) -> None:
    work = program.scope.work
    inner, negated = operand, False
    while isinstance(inner, (exp.Paren, exp.Neg)):
        negated ^= isinstance(inner, exp.Neg)
        inner = inner.this
    if id(inner) in work.floats:
        _add(program, inner)
    elif (number := number_of(inner)) is not None:
        program.steps.append(f"#{number!r}")
    else:
        _add_leaf(program, inner)
    if negated:
        program.steps.append("negd")
        program.safe = program.safe and number_of(inner) is not None  # NaN would get a sign


def _add_leaf(program: _Program, node: exp.Expr) -> None:
    work = program.scope.work
    work.span(node)  # it has one, or is refused
    text = f"CAST({work.texts[id(node)]} AS DOUBLE)"
    program.leaves.setdefault(text, f"${len(program.leaves)}")
    program.steps.append(program.leaves[text])
    program.simple = program.simple and not any(
        isinstance(part, _ONCE) or id(part) in work.written for part in node.walk()
    )


def _is_safe(name: str, operands: list[exp.Expr]) -> bool:
    """Whether a finite value stays finite, for the other operand is a number that is small enough."""
    if len(operands) != 2:
        return False
    numbers = [number_of(operand) for operand in operands]
    match name, numbers:
        case (("+" | "-"), ([None, float(number)] | [float(number), None])):
            return abs(number) <= _ADDED_MAX
        case "*", ([None, float(number)] | [float(number), None]):
            return 0 < abs(number) <= 1  # an infinity times 0 is NaN
        case ("/", [None, float(number)]):
            return abs(number) >= 1
    return False
