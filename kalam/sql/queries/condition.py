"""What a condition over one table says at a glance: the columns that it names, and those that it pins to values.

Law: a pin is only what DataFusion, too, decides by plain equality of two values of one type, so that whoever looks the
value up in a dictionary gets exactly what SELECT would. Whatever is not certain to be so is no pin, which costs speed
and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import date

from sqlglot import exp

from kalam.rows.column_types import TYPES
from kalam.schema import TableDefinition, TypeName
from kalam.sql.queries.pins import Condition, Pin, PinValue
from kalam.sql.text.dialect import parse_expression
from kalam.sql.text.lexer import StatementText
from kalam.sql.text.mentions import name_of
from kalam.sql.text.statements import QueryText

_CLOCK = re.compile(
    r"\b(now|today|current_date|current_time|current_timestamp|localtime|localtimestamp)\b", re.IGNORECASE
)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TEXTS = frozenset({TypeName.TEXT, TypeName.UUID})
_INTEGER_MAX = 1 << 63


def read_shape(where: QueryText, table: TableDefinition, parameters: tuple[object, ...] = ()) -> Condition:
    """The parts of a condition over a table; ``parameters`` are the values of ``$1 …``."""
    tree = parse_expression(StatementText(where.text), 0, len(where.text))
    pins: list[Pin] = []
    whole = True
    for conjunct in _conjuncts(tree):
        pin = _pin(conjunct, table, parameters)
        if pin is None:
            whole = False
        else:
            pins.append(pin)
    columns = frozenset(
        name_of(node.this) for node in tree.find_all(exp.Column) if isinstance(node.this, exp.Identifier)
    )
    return Condition(columns, tuple(pins), whole, bool(_CLOCK.search(where.text)))


def _conjuncts(tree: exp.Expr) -> Iterator[exp.Expr]:
    todo = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, exp.Paren):
            todo.append(node.this)
        elif isinstance(node, exp.And):
            todo += [node.expression, node.this]
        else:
            yield node


def _pin(node: exp.Expr, table: TableDefinition, parameters: tuple[object, ...]) -> Pin | None:
    if isinstance(node, exp.EQ):
        left, right = node.this, node.expression
        column, values = (left, [right]) if isinstance(left, exp.Column) else (right, [left])
    elif isinstance(node, exp.In) and node.expressions and not node.args.get("query"):
        column, values = node.this, node.expressions
    else:
        return None
    if not isinstance(column, exp.Column) or not isinstance(column.this, exp.Identifier):
        return None
    named = table.column(name_of(column.this))
    if named is None:
        return None
    found = [_value(value, named.type.name, parameters) for value in values]
    plain = [value for value in found if value is not None]
    return Pin(named.name, frozenset(plain)) if len(plain) == len(found) else None


def _value(node: exp.Expr, kind: TypeName, parameters: tuple[object, ...]) -> PinValue | None:
    """The value of a literal if it is one of the column's type; None if that is not certain."""
    if kind is TypeName.DATE:
        return _date(_constant(node.this if _is_date(node) else node, parameters))
    value = _constant(node, parameters)
    if isinstance(value, str):
        return value if kind in _TEXTS and "\\" not in value else None
    if isinstance(value, bool):
        return value if kind is TypeName.BOOLEAN else None
    if isinstance(value, int):
        return value if TYPES[kind].bits is not None and -_INTEGER_MAX < value < _INTEGER_MAX else None
    return None


def _is_date(node: exp.Expr) -> bool:
    """Whether it is ``DATE '…'``."""
    return isinstance(node, exp.Cast) and isinstance(node.to, exp.DataType) and node.to.is_type("date")


def _date(text: object) -> date | None:
    """The day of a text as an INSERT writes it."""
    with suppress(ValueError):  # a day that no calendar has
        return date.fromisoformat(text) if isinstance(text, str) and _DATE.fullmatch(text) else None
    return None


def _constant(node: exp.Expr, parameters: tuple[object, ...]) -> object:
    match node:
        case exp.Boolean():
            return bool(node.this)
        case exp.Literal() if node.is_string:
            return str(node.this)
        case exp.Literal():
            return int(node.this) if str(node.this).isdecimal() else None
        case exp.Neg(this=exp.Literal() as inner) if not inner.is_string and str(inner.this).isdecimal():
            return -int(inner.this)
        case exp.Parameter(this=exp.Literal() as number):
            index = int(number.this)
            return parameters[index - 1] if 0 < index <= len(parameters) else None
        case _:
            return None
