"""What the expressions of one SELECT are of: their types, as DataFusion itself tells them.

A column is looked up in the FROM of its SELECT, then in those around it; any other expression is planned as it reads
after the changes within it, over that same FROM. Nothing is run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa
from datafusion import DataFrame, SessionContext, SQLOptions
from sqlglot import exp

from kalam.errors import InvalidValue, Unsupported
from kalam.query.exact.types import LONG, WIDE_DIGITS, Bounds, bounds_of, fits, is_decimal, is_float, is_whole
from kalam.sql.text.edits import Edits
from kalam.sql.text.spans import Tree

READ_ONLY = SQLOptions().with_allow_ddl(allow=False).with_allow_dml(allow=False).with_allow_statements(allow=False)
_POINT = re.compile(r"(\d*)\.(\d*)")
_AGGREGATES = (exp.AggFunc,)
_PARAMETER_SCALE = 20


_CHOOSING = re.compile(r"\b(?:CASE|UNION|INTERSECT|EXCEPT|VALUES)\b", re.IGNORECASE)
"""Where DataFusion, before it runs a plan, says the type of the first of several values for that of all."""


def chooses(text: str) -> bool:
    """Whether the columns of a query may come in other types than its plan has them."""
    return _CHOOSING.search(text) is not None


def coming_schema(ctx: SessionContext, plan: DataFrame) -> pa.Schema:
    """The columns of a plan as they come when it is run."""
    try:
        return ctx.create_dataframe_from_logical_plan(plan.optimized_logical_plan()).schema()
    except Exception:  # noqa: BLE001 - DataFusion raises plain Exceptions; what is wrong is told when it is run
        return plan.schema()


class Planner(msgspec.Struct):
    """Asks DataFusion for the columns that a query would have."""

    ctx: SessionContext
    values: Mapping[str, Any]

    def schema(self, text: str) -> pa.Schema | None:
        """The columns of a query; None where it cannot be planned."""
        try:
            plan = self.ctx.sql_with_options(text, READ_ONLY, param_values=dict(self.values) or None)
            return coming_schema(self.ctx, plan) if chooses(text) else plan.schema()
        except Exception:  # noqa: BLE001 - DataFusion raises plain Exceptions; what is wrong is told of the whole query
            return None


class Work(msgspec.Struct):
    """One text on its way."""

    tree: Tree
    edits: Edits
    planner: Planner
    known: dict[int, pa.DataType] = msgspec.field(default_factory=dict)
    """The types of nodes, by their identities."""
    ranges: dict[int, Bounds] = msgspec.field(default_factory=dict)
    """The bounds of nodes that are integers, where they are narrower than their types."""
    floats: set[int] = msgspec.field(default_factory=set)
    """Operators on DOUBLEs that are not written yet, for they may be part of a larger tree."""
    written: set[int] = msgspec.field(default_factory=set)
    """Those that are."""
    texts: dict[int, str] = msgspec.field(default_factory=dict)
    """How their operands read."""

    def span(self, node: exp.Expr) -> tuple[int, int]:
        """Where a node stands; Unsupported where that is not known."""
        span = self.tree.span(node)
        if span is None:
            raise Unsupported(f"{node.sql()[:100]!r} cannot be computed exactly where it stands; write it in brackets")
        return span

    def enclose(self, node: exp.Expr, before: str, behind: str) -> None:
        """Write something around a node."""
        self.edits.enclose(self.span(node), before, behind)


class Scope(msgspec.Struct):
    """One SELECT, or what has no FROM at all."""

    work: Work
    select: exp.Expr
    outer: Scope | None
    withs: str
    """The WITH that its FROM sees, or the empty text."""
    columns: dict[str, pa.DataType | None] = msgspec.field(default_factory=dict)
    aggregates: int = 0
    """How many it has of its own."""

    def __post_init__(self) -> None:
        todo = list(self.select.iter_expressions())
        while todo:
            node = todo.pop()
            self.aggregates += isinstance(node, _AGGREGATES)
            if not isinstance(node, exp.Query):
                todo += node.iter_expressions()

    def source(self) -> str:
        """The FROM as it reads now."""
        span = self.work.tree.from_span(self.select) if isinstance(self.select, exp.Select) else None
        return self.work.edits.part(span) if span else ""

    def look_up(self, columns: list[exp.Column]) -> None:
        """Learn the types of these columns at once."""
        texts = list(dict.fromkeys(self.work.tree.slice(column) for column in columns))
        texts = [text for text in texts if text and text not in self.columns and not text.endswith("*")]
        if not texts:
            return
        found = self._planned(texts)
        if found is None and len(texts) > 1:
            found = [kind for text in texts for kind in (self._planned([text]) or [None])]
        for text, kind in zip(texts, found or [None], strict=True):
            self.columns[text] = kind

    def _planned(self, texts: list[str]) -> list[pa.DataType | None] | None:
        listed = ", ".join(f"{text} AS kalam_{number}" for number, text in enumerate(texts))
        schema = self.work.planner.schema(f"{self.withs} SELECT {listed} {self.source()}")
        return None if schema is None else [known.type for known in schema]

    def column(self, node: exp.Column) -> pa.DataType | None:
        """The type of a column, here or around here."""
        text = self.work.tree.slice(node)
        if text not in self.columns:
            self.look_up([node])
        kind = self.columns.get(text)
        if kind is not None or not text:
            return kind
        alias = self._alias(node)
        if alias is not None:
            return self.type_of(alias)
        return self.outer.column(node) if self.outer is not None else None

    def _alias(self, node: exp.Column) -> exp.Expr | None:
        """What a name of the select list stands for."""
        if node.table or not isinstance(self.select, exp.Select):
            return None
        for item in self.select.expressions:
            if isinstance(item, exp.Alias) and item.alias.lower() == node.name.lower():
                return None if any(inner is node for inner in item.walk()) else item.this
        return None

    def type_of(self, node: exp.Expr) -> pa.DataType | None:
        """The type of an expression as it reads now; None where that cannot be said."""
        known = self.work.known.get(id(node))
        if known is None:
            known = self._find_type(node)
            if known is not None:
                self.work.known[id(node)] = known
        return known

    def _find_type(self, node: exp.Expr) -> pa.DataType | None:
        match node:
            case exp.Paren() | exp.Alias():
                return self.type_of(node.this)
            case exp.Literal() if node.is_string:
                return pa.string()
            case exp.Literal():
                return number_type(str(node.this))
            case exp.Column():
                return self.column(node)
            case exp.Parameter():
                value = self.work.planner.values.get(str(node.this.this))
                return value.type if isinstance(value, pa.Scalar) else None
        span = self.work.tree.span(node)
        if span is None:
            return None
        text = self._with_known_columns(node, span)
        schema = self.work.planner.schema(f"{self.withs} SELECT ({text}) AS kalam_0 {self.source()}")
        return None if schema is None else schema.field(0).type

    def _with_known_columns(self, node: exp.Expr, span: tuple[int, int]) -> str:
        """The text of an expression that can be planned alone: with columns of outer queries as NULLs of their types.

        Beside an aggregate a column stands for any of its values.
        """
        edits = self.work.edits
        is_aggregated = any(isinstance(inner, _AGGREGATES) and not _is_over(inner) for inner in node.walk())
        probe = Edits(edits.part(span))
        offset = _Offsets(edits, span)
        for column in own_columns(node):
            text = self.work.tree.slice(column)
            place = self.work.tree.span(column)
            if place is None or not text:
                continue
            if self.columns.get(text) is None and (kind := self.column(column)) is not None:
                probe.replace(offset.of(place), f"arrow_cast(NULL, '{arrow_name(kind)}')")
            elif is_aggregated and not _in_aggregate(column, node):
                probe.enclose(offset.of(place), "first_value(", ")")
        return probe.whole

    def take_numbers(self, members: Sequence[exp.Expr]) -> None:
        """Let a number that came as a parameter be a DECIMAL of its own digits beside DECIMALs.

        A parameter with a fraction comes as a DOUBLE, which has fewer digits than what it is compared with or added to.
        """
        kinds = [self.type_of(member) for member in members]
        numbers = [member for member in members if isinstance(member, exp.Parameter)]
        others = [kind for member, kind in zip(members, kinds, strict=True) if member not in numbers]
        if not numbers or not any(map(is_decimal, others)) or any(map(is_float, others)):
            return
        for member in numbers:
            if is_float(self.type_of(member)):
                self.work.enclose(member, "CAST(CAST(", f" AS TEXT) AS DECIMAL({WIDE_DIGITS},{_PARAMETER_SCALE}))")
                self.work.known[id(member)] = pa.decimal256(WIDE_DIGITS, _PARAMETER_SCALE)

    def bounds(self, node: exp.Expr) -> Bounds:
        """The least and the greatest value that an integer can have here."""
        while isinstance(node, exp.Paren):
            node = node.this
        known = self.work.ranges.get(id(node))
        if known is not None:
            return known
        if isinstance(node, exp.Literal) and not node.is_string and str(node.this).isdecimal():
            return int(node.this), int(node.this)
        if isinstance(node, exp.Neg):
            least, greatest = self.bounds(node.this)
            return -greatest, -least
        kind = self.type_of(node)
        return bounds_of(kind) if is_whole(kind) else LONG


class _Offsets:
    """Where places of the text are in a changed part of it."""

    def __init__(self, edits: Edits, span: tuple[int, int]) -> None:
        self._edits, self._start = edits, span[0]

    def of(self, place: tuple[int, int]) -> tuple[int, int]:
        part = self._edits.part((self._start, place[1]))
        own = self._edits.part(place)
        return len(part) - len(own), len(part)


def own_columns(node: exp.Expr) -> list[exp.Column]:
    """The columns in an expression, without those of the queries in it."""
    found: list[exp.Column] = []
    todo = [node]
    while todo:
        inner = todo.pop()
        if isinstance(inner, exp.Column):
            found.append(inner)
        elif not isinstance(inner, (exp.Query, exp.Values)):
            todo += inner.iter_expressions()
    return found


def _is_over(node: exp.Expr) -> bool:
    """Whether an aggregate is a window function."""
    parent = node.parent
    while isinstance(parent, (exp.Filter, exp.IgnoreNulls, exp.WithinGroup)):
        parent = parent.parent
    return isinstance(parent, exp.Window)


def _in_aggregate(column: exp.Expr, within: exp.Expr) -> bool:
    node: exp.Expr | None = column
    while node is not None and node is not within.parent:
        if isinstance(node, _AGGREGATES) and not _is_over(node):
            return True
        node = node.parent
    return False


def number_type(text: str) -> pa.DataType:
    """The type of a number: with a point it is a DECIMAL, with an exponent a DOUBLE."""
    if text.isdecimal():
        value = int(text)
        if fits((value, value)):
            return pa.int64()
        return pa.uint64() if value < 1 << 64 else pa.decimal128(min(len(text.lstrip("0")), 38), 0)
    point = _POINT.fullmatch(text)
    if point is None:
        return pa.float64()
    digits = len(point[1].lstrip("0")) + len(point[2])
    if digits > 38:
        raise InvalidValue(f"the number {text[:60]} has more than 38 digits")
    return pa.decimal128(max(digits, 1), len(point[2]))


def arrow_name(kind: pa.DataType) -> str:
    """DataFusion's name of a type that a column can have."""
    if pa.types.is_decimal(kind):
        return f"Decimal{kind.bit_width}({kind.precision}, {kind.scale})"
    if pa.types.is_timestamp(kind):
        unit = {"s": "Second", "ms": "Millisecond", "us": "Microsecond", "ns": "Nanosecond"}[kind.unit]
        return f"Timestamp({unit}, " + (f'Some("{kind.tz}"))' if kind.tz else "None)")
    names = {
        pa.string(): "Utf8",
        pa.string_view(): "Utf8View",
        pa.bool_(): "Boolean",
        pa.date32(): "Date32",
        pa.float64(): "Float64",
        pa.float32(): "Float32",
        pa.binary(): "Binary",
    }
    return names.get(kind) or str(kind).capitalize().replace("Ui", "UI")
