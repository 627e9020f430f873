"""What PostgreSQL calls a column of a select list that has no alias.

As there (``FigureColname``), a name is a firm one, of a column or a function, or a weak one, of a type or a CASE, which
gives way to what stands around it.
"""

from __future__ import annotations

from typing import Final

from sqlglot import exp

from kalam_pg.catalogue import pg_types

NAMELESS: Final = "?column?"
_FIRM, _WEAK, _NONE = 2, 1, 0
_CALLED: Final = {
    exp.Exists: "exists",
    exp.Array: "array",
    exp.Substring: "substring",
    exp.StrPosition: "position",
    exp.Extract: "extract",
    exp.CurrentUser: "current_user",
    exp.SessionUser: "session_user",
    exp.CurrentCatalog: "current_catalog",
    exp.CurrentSchema: "current_schema",
    exp.CurrentTimestamp: "current_timestamp",
    exp.CurrentDate: "current_date",
    exp.Tuple: "row",
}
_TRIMMED: Final = {"LEADING": "ltrim", "TRAILING": "rtrim"}


def output_name(node: exp.Expr) -> str:
    """The name of an expression: that of the column or function that it is about, or ``?column?``."""
    return _figured(node)[0]


def _figured(node: exp.Expr) -> tuple[str, int]:
    if type(node) in _CALLED:
        return _CALLED[type(node)], _FIRM
    match node:
        case exp.Column() | exp.Anonymous():
            return _name(node.this) if isinstance(node.this, exp.Identifier) else node.name.lower(), _FIRM
        case exp.Identifier():
            return _name(node), _FIRM
        case exp.Dot():
            return _figured(node.expression)
        case exp.Boolean():
            return "bool", _WEAK
        case exp.Trim():
            return _TRIMMED.get((node.args.get("position") or "").upper(), "btrim"), _FIRM
        case exp.Paren() | exp.Bracket() | exp.Filter() | exp.Window() | exp.Collate():
            return _figured(node.this)
        case exp.Cast():
            inner, known = _figured(node.this), pg_types.parsed(node.args["to"].sql("postgres"))
            return (known[0], _WEAK) if inner[1] < _FIRM and known is not None else inner
        case exp.Case():
            default = node.args.get("default")
            inner = _figured(default) if default is not None else (NAMELESS, _NONE)
            return inner if inner[1] == _FIRM else ("case", _WEAK)
        case exp.Subquery() if isinstance(node.this, exp.Select) and node.this.expressions:
            first = node.this.expressions[0]
            return (_name(first.args["alias"]) if isinstance(first, exp.Alias) else output_name(first)), _FIRM
    return NAMELESS, _NONE


def _name(node: exp.Expr) -> str:
    return node.name if node.args.get("quoted") else node.name.lower()
