"""What can be answered by looking one row up: ``column = value`` conditions, constants, and plain select lists."""

from __future__ import annotations

from msgspec.structs import replace
from sqlglot import exp

from kalam.sql.text.mentions import name_of
from kalam.sql.text.statements import Equality, Literal, Parameter, PointQuery

INTEGER_DIGITS = 18  # that surely fit 64 bits
_POINT_PARTS = {"expressions", "from_", "where"}


def constant_of(node: exp.Expr) -> Literal | Parameter | None:
    """The text, integer or parameter that the node is, and nothing else."""
    match node:
        case exp.Parameter() if isinstance(node.this, exp.Literal):
            return Parameter(int(node.this.this))
        case exp.Neg() if _is_integer(node.this):
            return Literal(-int(node.this.this))
        case exp.Literal() if node.is_string:
            return Literal(str(node.this))
        case exp.Literal() if _is_integer(node):
            return Literal(int(node.this))
    return None


def _is_integer(node: exp.Expr) -> bool:
    text = str(node.this) if isinstance(node, exp.Literal) and not node.is_string else ""
    return text.isdecimal() and len(text) <= INTEGER_DIGITS


def equality_of(node: exp.Expr) -> Equality | None:
    """The condition ``column = constant`` that the node is, in either order."""
    if not isinstance(node, exp.EQ):
        return None
    for column, other in ((node.this, node.expression), (node.expression, node.this)):
        value = constant_of(other)
        if value is not None and isinstance(column, exp.Column):
            qualifier = column.args.get("table")
            if column.args.get("db") or not isinstance(column.this, exp.Identifier):
                return None
            return Equality(name_of(column.this), name_of(qualifier) if qualifier else None, value)
    return None


def equalities_of(node: exp.Expr) -> tuple[Equality, ...]:
    """The conditions ``column = constant`` that the node joins by AND, or is the one of; none for any other node."""
    if isinstance(node, exp.And):
        left, right = equalities_of(node.this), equalities_of(node.expression)
        return (*left, *right) if left and right else ()
    equality = equality_of(node)
    return () if equality is None else (equality,)


def point_of(tree: exp.Expr) -> PointQuery | None:
    """What a plain query asks of one row; None for any that needs more than its columns and equalities."""
    where = tree.args.get("where")
    if {part for part, value in tree.args.items() if value} != _POINT_PARTS or where is None:
        return None
    equalities = equalities_of(where.this)
    source = tree.args["from_"].this
    if not equalities or {part for part, value in source.args.items() if value} - {"this", "db", "alias"}:
        return None
    alias = source.args.get("alias")
    if alias is not None and alias.args.get("columns"):
        return None
    called = name_of(alias.this) if alias is not None else name_of(source.this)
    if any(equality.qualifier not in (None, called) for equality in equalities):
        return None
    columns = _plain_columns(tree.expressions, called)
    return None if columns is None else PointQuery(columns, tuple(replace(each, qualifier=None) for each in equalities))


def is_literals(tree: exp.Expr) -> bool:
    """Whether a query gives one row of texts, integers, truths and NULLs that stand in it, and has nothing else."""
    if not isinstance(tree, exp.Select) or {part for part, value in tree.args.items() if value} != {"expressions"}:
        return False
    nodes = [node.this if isinstance(node, exp.Alias) else node for node in tree.expressions]
    return all(isinstance(node, exp.Boolean | exp.Null) or isinstance(constant_of(node), Literal) for node in nodes)


def _plain_columns(expressions: list[exp.Expr], called: str) -> tuple[tuple[str, str], ...] | None:
    """Each column with the name that it gets; empty for ``*``, None where there is anything else."""
    if len(expressions) == 1 and isinstance(expressions[0], exp.Star) and not any(expressions[0].args.values()):
        return ()
    columns: list[tuple[str, str]] = []
    for expression in expressions:
        column = expression.this if isinstance(expression, exp.Alias) else expression
        if not isinstance(column, exp.Column) or not isinstance(column.this, exp.Identifier) or column.args.get("db"):
            return None
        qualifier = column.args.get("table")
        if qualifier is not None and name_of(qualifier) != called:
            return None
        name = name_of(column.this)
        columns.append((name, name_of(expression.args["alias"]) if isinstance(expression, exp.Alias) else name))
    return tuple(columns) if len({name for _, name in columns}) == len(columns) else None
