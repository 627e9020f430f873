"""Of which types the parameters of a query are that nobody has declared.

As in PostgreSQL the place of a parameter says it: what it is cast to, what it is compared or computed with, the list
that it is looked for in, a LIMIT; and where nothing says it, a text. DataFusion's own word on this is had for a few
places only. A parameter in several places has the type of the first that says one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
from datafusion import DataFrame, SessionContext
from sqlglot import exp

from kalam.query.exact.rewrite import EXPLAIN
from kalam.query.exact.scopes import Planner, Scope, Work
from kalam.query.exact.types import is_decimal
from kalam.query.parameters import INTERVAL, null
from kalam.query.postgresql.spelling import in_datafusion_words
from kalam.query.wire import Untyped
from kalam.sql.text.edits import Edits
from kalam.sql.text.spans import read_tree

TEXT, LONG, TRUTH = pa.string(), pa.int64(), pa.bool_()
NUMBER = pa.decimal128(38, 10)
"""What a parameter is beside a DECIMAL: it may have more digits behind the point than that."""
GUESSES = (TEXT, LONG, pa.float64(), pa.timestamp("us", "UTC"), TRUTH)
"""What a parameter may be that nothing else says anything of, in this order."""
_TEXTS = (exp.Like, exp.ILike, exp.RegexpLike, exp.RegexpILike, exp.SimilarTo, exp.DPipe)
_COMPARING = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.In, exp.Between, exp.NullSafeEQ, exp.NullSafeNEQ)
_TRUTHS = (exp.Where, exp.Having, exp.Not, exp.And, exp.Or)
_CERTAIN = (((exp.Limit, exp.Offset, exp.Fetch), LONG), (_TEXTS, TEXT), (_TRUTHS, TRUTH))
"""What every parameter is that stands right below one of these."""
_WHOLE_ARGUMENTS = {
    **dict.fromkeys(("LEFT", "RIGHT", "LPAD", "RPAD", "PAD", "REPEAT", "ROUND", "TRUNC", "CHR"), (1,)),
    **dict.fromkeys(("SUBSTRING", "SUBSTR"), (1, 2)),
    "SPLIT_PART": (2,),
    "GENERATE_SERIES": (0, 1, 2),
}
"""The arguments of functions that are whole numbers."""


def described(
    ctx: SessionContext, text: str, untyped: Untyped, plan: Callable[[Mapping[str, pa.Scalar]], DataFrame]
) -> tuple[pa.Schema, DataFrame]:
    """The types of a query's parameters, under their numbers, and its ``plan`` with NULLs of these in their places."""
    numbers = range(1, untyped.count + 1)
    known = {int(field.name): field for field in _schema(untyped.declared) if int(field.name) in numbers}
    if len(known) < untyped.count:
        known = inferred(ctx, text, untyped, known) | known
    guessed = [number for number in numbers if number not in known]
    first: Exception | None = None
    for guess in GUESSES if guessed else GUESSES[:1]:
        fields = known | dict.fromkeys(guessed, pa.field("", guess))
        types = pa.schema([fields[number].with_name(str(number)) for number in numbers])
        try:
            return types, plan({field.name: null(field.type) for field in types})
        except Exception as exc:  # noqa: BLE001 - DataFusion raises plain Exceptions
            first = first or exc
    assert first is not None
    raise first


def inferred(ctx: SessionContext, text: str, untyped: Untyped, known: Mapping[int, pa.Field]) -> dict[int, pa.Field]:
    """The types of parameters by their numbers, as far as their places say them."""
    explained = EXPLAIN.match(text)
    tree = read_tree(in_datafusion_words(text[explained.end() :] if explained else text))
    numbers = range(1, untyped.count + 1)
    nulls = {str(number): null(known[number].type) if number in known else pa.scalar(None) for number in numbers}
    work = Work(tree, Edits(tree.text), Planner(ctx, nulls))
    return _inferred(work, {int(field.name): field for field in _schema(untyped.outputs)})


def _schema(told: bytes) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(told))


def _inferred(work: Work, outputs: Mapping[int, pa.Field]) -> dict[int, pa.Field]:
    """The same; ``outputs`` are the types of parameters that stand alone in the select list, by their places there."""
    found: dict[int, pa.Field] = {}
    root = work.tree.root
    if isinstance(root, exp.Select):
        for place, item in enumerate(root.expressions):
            node = item.unalias()
            if isinstance(node, exp.Parameter) and place in outputs:
                found.setdefault(_number(node), outputs[place])
    _look(work, root, None, "", found)
    return found


def _number(node: exp.Expr) -> int:
    return int(str(node.this.this))


def _look(work: Work, node: exp.Expr, scope: Scope | None, withs: str, found: dict[int, pa.Field]) -> None:
    if isinstance(node, exp.Parameter):
        field = None if scope is None else _field(scope, node)
        if field is not None:
            found.setdefault(_number(node), field)
        return
    if isinstance(node, (exp.Query, exp.Values)) and not isinstance(node, exp.Table):
        named = node.args.get("with_")
        for entry in named.expressions if named is not None else ():
            _look(work, entry.this, scope, withs, found)
            text = work.tree.slice(entry)
            withs = f"{withs}, {text}" if withs else f"WITH {text}"
        scope = Scope(work, node, scope, withs)
    for child in node.iter_expressions():
        if not isinstance(child, exp.With):
            _look(work, child, scope, withs, found)


def _field(scope: Scope, node: exp.Expr) -> pa.Field | None:
    child, parent = node, node.parent
    while isinstance(parent, (exp.Paren, exp.Neg)):
        child, parent = parent, parent.parent
    if parent is None:
        return None
    kind = _said(scope, child, parent)
    if kind is None:
        return None
    return pa.field("", NUMBER if is_decimal(kind) else kind, metadata=_metadata(scope, parent))


def _metadata(scope: Scope, parent: exp.Expr) -> Any:
    """What is known besides of the type of a column that a parameter is compared with: JSON and UUID are texts."""
    if isinstance(parent, (exp.Any, exp.All)) and parent.parent is not None:
        parent = parent.parent
    if not isinstance(parent, _COMPARING):
        return None
    text = next((scope.work.tree.slice(each) for each in parent.iter_expressions() if isinstance(each, exp.Column)), "")
    around: Scope | None = scope
    while text and around is not None:
        schema = scope.work.planner.schema(f"{around.withs} SELECT {text} AS kalam_0 {around.source()}")
        if schema is not None:
            return schema.field(0).metadata
        around = around.outer
    return None


def _said(scope: Scope, child: exp.Expr, parent: exp.Expr) -> pa.DataType | None:
    """What a parameter's place says of its type."""
    for parents, kind in _CERTAIN:
        if isinstance(parent, parents):
            return kind
    match parent:
        case exp.Cast():
            kind = scope.type_of(parent)
            return pa.float64() if kind == pa.float32() else kind  # PostgreSQL's FLOAT has 64 bits
        case exp.Any() | exp.All():
            comparison = parent.parent
            kind = scope.type_of(comparison.this) if isinstance(comparison, exp.Binary) else None
            return None if kind is None else pa.list_(kind)
        case exp.If():
            case = parent.parent if isinstance(parent.parent, exp.Case) else parent
            return TRUTH if child is parent.this and case.this is None else _branch(scope, child, parent, case)
        case exp.Case():
            return _branch(scope, child, parent, parent)
        case exp.Binary():
            other = parent.expression if parent.this is child else parent.this
            return _beside(scope.type_of(other), parent)
        case exp.In(this=node) if node is child and parent.args.get("query") is not None:
            return _only_column(scope, parent)
        case exp.Between() | exp.In() | exp.Coalesce() | exp.Nullif() | exp.Greatest() | exp.Least() | exp.Array():
            return _other(scope, child, parent)
        case exp.Func():
            return _argument(child, parent)
    return None


def _beside(kind: pa.DataType | None, parent: exp.Expr) -> pa.DataType | None:
    """What is compared or computed with a value of this type."""
    is_time = kind is not None and pa.types.is_temporal(kind)
    if is_time and isinstance(parent, exp.Add):
        return INTERVAL
    return kind if kind is None or not pa.types.is_null(kind) else None


def _other(scope: Scope, child: exp.Expr, parent: exp.Expr) -> pa.DataType | None:
    """The type of the first of the other operands that has one."""
    for other in parent.iter_expressions():
        if other is not child and not isinstance(other, exp.Parameter):
            kind = scope.type_of(other)
            if kind is not None and not pa.types.is_null(kind):
                return kind
    return None


def _branch(scope: Scope, child: exp.Expr, parent: exp.Expr, case: exp.Expr) -> pa.DataType | None:
    """What a CASE compares, or gives elsewhere."""
    if child is case.this:
        others = [branch.this for branch in case.args.get("ifs") or ()]
    elif isinstance(case, exp.Case) and child is parent.this:
        others = [case.this]
    else:
        branches = case.args.get("ifs") or [case]
        others = [branch.args.get("true") for branch in branches]
        others.append(case.args.get("default") or case.args.get("false"))
    for other in others:
        if other is not None and other is not child and not isinstance(other, exp.Parameter):
            return scope.type_of(other)
    return None


def _argument(child: exp.Expr, call: exp.Func) -> pa.DataType | None:
    name = str(call.name if isinstance(call, exp.Anonymous) else call.sql_name()).upper()
    arguments = list(call.iter_expressions())
    wholes = _WHOLE_ARGUMENTS.get(name, ())
    return LONG if any(place < len(arguments) and arguments[place] is child for place in wholes) else None


def _only_column(scope: Scope, membership: exp.In) -> pa.DataType | None:
    """The type of the column of the query behind an IN."""
    tree = scope.work.tree
    place = tree.span(membership.this)
    inner = None if place is None else tree.bracket_behind(place[1])
    if inner is None:
        return None
    schema = scope.work.planner.schema(f"{scope.withs} SELECT * FROM ({tree.text[slice(*inner)]}) AS kalam_0")  # noqa: S608
    return None if schema is None else schema.field(0).type
