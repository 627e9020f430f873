"""What no view can hold because it goes by the order in which rows happen to be met.

Law: of the same rows a view's SELECT has the same result whenever it is run. What reads a clock, chance or who asks is
refused where the SELECT is read (``kalam.sql.queries.views``); this is what is left: rows picked, numbered or gathered
in an order that the text does not say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlglot import exp

from kalam.sql.text.lexer import fold

_IN_ORDER: Final = frozenset({"first_value", "last_value", "nth_value", "array_agg", "string_agg"})
_IN_ORDER_NODES: Final[Mapping[type[exp.Expr], str]] = {
    exp.FirstValue: "first_value",
    exp.LastValue: "last_value",
    exp.NthValue: "nth_value",
    exp.ArrayAgg: "array_agg",
    exp.GroupConcat: "string_agg",
}
_NUMBERING: Final = (exp.RowNumber, exp.Lag, exp.Lead, exp.Ntile, exp.FirstValue, exp.LastValue, exp.NthValue)


def refused(tree: exp.Expr) -> str | None:
    """What of a query no view can keep, in words that follow "a view cannot keep"; None where there is nothing."""
    for node in tree.walk():
        if (found := _of_node(node)) is not None:
            return found
    return None


def _of_node(node: exp.Expr) -> str | None:
    match node:
        case exp.Table():
            return "TABLESAMPLE, which picks other rows each time" if node.args.get("sample") else None
        case exp.Query():
            return _of_query(node)
        case exp.Window():
            numbering = isinstance(node.this.unnest(), _NUMBERING) and not node.args.get("order")
            return "a window function that goes by an order, without ORDER BY in its OVER" if numbering else None
    return _of_call(node)


def _of_query(query: exp.Query) -> str | None:
    ordered = query.args.get("order")
    if not ordered and any(query.args.get(part) for part in ("limit", "offset")):
        return "LIMIT or OFFSET without ORDER BY, for which rows it leaves is by chance"
    distinct = query.args.get("distinct")
    if isinstance(distinct, exp.Distinct) and distinct.args.get("on") and not ordered:
        return "DISTINCT ON without ORDER BY, for which row it leaves is by chance"
    return None


def _of_call(node: exp.Expr) -> str | None:
    name = fold(node.name) if isinstance(node, exp.Anonymous) else _IN_ORDER_NODES.get(type(node), "")
    if name not in _IN_ORDER or isinstance(node.parent, (exp.Window, exp.WithinGroup)):
        return None
    return f"{name}() without ORDER BY within its brackets" if node.find(exp.Order) is None else None
