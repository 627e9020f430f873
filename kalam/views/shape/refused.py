"""What no view can hold, for its rows would not follow from the rows of its sources alone.

Law: of the same rows a view's SELECT has the same result whenever and by whomever it is run. Who asks, the clock,
chance, which rows a LIMIT happens to meet first, and what is kept for some time only, are no rows of a source.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlglot import exp

from kalam.schema import DELETED, UPDATED
from kalam.sql.text.lexer import fold
from kalam.sql.text.mentions import name_of

_NODES: Final[Mapping[type[exp.Expr], str]] = {
    exp.CurrentTimestamp: "now()",
    exp.CurrentDate: "current_date",
    exp.CurrentTime: "current_time",
    exp.Localtimestamp: "localtimestamp",
    exp.Localtime: "localtime",
    exp.Rand: "random()",
    exp.Uuid: "uuid()",
    exp.CurrentUser: "current_user()",
    exp.SessionUser: "session_user",
    exp.CurrentRole: "current_role",
}
_WORDS = """
    now today clock_timestamp transaction_timestamp statement_timestamp random uuid uuid_v7 snowflake_id gen_random_uuid
    current_user current_roles session_user current_role version
"""
_NAMES: Final = frozenset(_WORDS.split())
_IN_ORDER: Final = frozenset({"first_value", "last_value", "nth_value", "array_agg", "string_agg"})
_IN_ORDER_NODES: Final[Mapping[type[exp.Expr], str]] = {
    exp.FirstValue: "first_value",
    exp.LastValue: "last_value",
    exp.NthValue: "nth_value",
    exp.ArrayAgg: "array_agg",
    exp.GroupConcat: "string_agg",
}
_NUMBERING: Final = (exp.RowNumber, exp.Lag, exp.Lead, exp.Ntile, exp.FirstValue, exp.LastValue, exp.NthValue)
_SCHEMAS: Final = frozenset({"system", "information_schema"})


def refused(tree: exp.Expr) -> str | None:
    """What of a query no view can keep, in words that follow "a view cannot keep"; None where there is nothing."""
    for node in tree.walk():
        if (found := _of_node(node)) is not None:
            return found
    return None


def _of_node(node: exp.Expr) -> str | None:
    match node:
        case exp.Parameter() | exp.Placeholder():
            return "a parameter; write its value"
        case exp.Table():
            schema = node.args.get("db")
            if isinstance(schema, exp.Identifier) and name_of(schema) in _SCHEMAS:
                return f"{name_of(schema)}.{node.name}, which changes without any row"
            return "TABLESAMPLE, which picks other rows each time" if node.args.get("sample") else None
        case exp.Column(this=exp.Identifier()) if name_of(node.this) in (UPDATED, DELETED):
            return f"{name_of(node.this)}, which is not kept for ever"
        case exp.Query():
            return _of_query(node)
        case exp.Window():
            numbering = isinstance(node.this.unnest(), _NUMBERING) and not node.args.get("order")
            return "a window function that goes by an order, without ORDER BY in its OVER" if numbering else None
    return _of_call(node)


def _of_query(query: exp.Query) -> str | None:
    ordered = query.args.get("order")
    if not ordered and any(query.args.get(part) for part in ("limit", "offset")):
        return "LIMIT without ORDER BY, for which rows it leaves is by chance"
    distinct = query.args.get("distinct")
    if isinstance(distinct, exp.Distinct) and distinct.args.get("on") and not ordered:
        return "DISTINCT ON without ORDER BY, for which row it leaves is by chance"
    return None


def _of_call(node: exp.Expr) -> str | None:
    name = fold(node.name) if isinstance(node, exp.Anonymous) else ""
    found = _NODES.get(type(node)) or (f"{name}()" if name in _NAMES else None)
    if found is not None:
        return f"{found}, which does not follow from the rows"
    is_ordered = type(node) in _IN_ORDER_NODES or name in _IN_ORDER
    if is_ordered and not isinstance(node.parent, exp.Window) and node.find(exp.Order) is None:
        within = isinstance(node.parent, exp.WithinGroup)
        return None if within else f"{_called(node)}() without ORDER BY within its brackets"
    return None


def _called(node: exp.Expr) -> str:
    return fold(node.name) if isinstance(node, exp.Anonymous) else _IN_ORDER_NODES[type(node)]
