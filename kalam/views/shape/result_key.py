"""What tells the rows of a SELECT from one another, as far as its text says it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlglot import exp

from kalam.sql.queries.select import is_aggregate
from kalam.sql.text.dialect import parse_query
from kalam.sql.text.lexer import StatementText
from kalam.sql.text.mentions import name_of
from kalam.views.shape.grouping import form_of, grouped_by

_STRICT = (exp.DateBin, exp.DateTrunc, exp.TimestampTrunc)
"""Functions that give NULL for NULL alone."""


def result_key(text: str, source_key: Sequence[str], columns: Collection[str]) -> tuple[int, ...] | None:
    """The places in the result of what is unique together; () for a result of one row, None where it is not told.

    ``source_key`` is the key of the one source, empty where there are several or none, ``columns`` its columns.
    """
    tree = parse_query(StatementText(text), 0, len(text))
    if isinstance(tree, exp.SetOperation) and tree.args.get("distinct"):
        return tuple(range(len(tree.selects)))
    if not isinstance(tree, exp.Select):
        return None
    items = [item.unalias() for item in tree.expressions]
    if tree.args.get("distinct") and not tree.args["distinct"].args.get("on"):
        return tuple(range(len(items)))
    if tree.args.get("group"):
        keys = grouped_by(tree, columns)
        return None if keys is None else _places(items, keys)
    if any(_gathers(item) for item in items):
        return ()
    source = tree.args.get("from_")
    parts = ("joins", "laterals", "with_")
    alone = isinstance(source, exp.From) and isinstance(source.this, exp.Table) and not source.this.args.get("joins")
    if not source_key or not alone or any(tree.args.get(part) for part in parts) or tree.find(exp.Explode):
        return None
    return _places(items, [exp.column(exp.to_identifier(name, quoted=True)) for name in source_key])


def _places(items: Sequence[exp.Expr], keys: Sequence[exp.Expr]) -> tuple[int, ...] | None:
    forms = [form_of(item) for item in items]
    wanted = [form_of(key) for key in keys]
    return tuple(map(forms.index, wanted)) if all(form in forms for form in wanted) else None


def _gathers(item: exp.Expr) -> bool:
    """Whether an aggregate stands in it that is no window function and not in a query of its own."""
    todo = [item]
    while todo:
        node = todo.pop()
        if is_aggregate(node):
            return True
        if not isinstance(node, (exp.Window, exp.Query)):
            todo += node.iter_expressions()
    return False


def strictly_of(text: str) -> str | None:
    """The column of which an expression is NULL exactly where that is: the column itself, or its time in steps."""
    tree = parse_query(StatementText(f"SELECT {text}"), 0, len(text) + len("SELECT "))
    node = tree.expressions[0].unnest()
    if isinstance(node, _STRICT):
        columns = list(node.find_all(exp.Column))
        others = [part for part in node.find_all(exp.Func) if part is not node]
        if len(columns) != 1 or others:
            return None
        node = columns[0]
    return name_of(node.this) if isinstance(node, exp.Column) and isinstance(node.this, exp.Identifier) else None
