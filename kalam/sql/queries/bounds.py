"""What the WHERE of a query says at most of the rows of its one table that can be in the answer.

Law: a bound never leaves out a row for which the WHERE is true; it may let in others, for the WHERE is asked again of
what was read. So what is not certain to be a bound is none. Only a query of one SELECT over one table has bounds: what
stands in a join or a sub-query may be true of rows that are not there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from msgspec.structs import replace
from sqlglot import exp

from kalam.rows.timestamp_text import read_utc_timestamp
from kalam.rows.values import EPOCH
from kalam.schema import REVISION, SEQ, STREAM_KEY
from kalam.sql.queries.points import constant_of
from kalam.sql.queries.scan_bounds import NO_BOUNDS, ScanBounds
from kalam.sql.text.dialect import parse_query
from kalam.sql.text.lexer import StatementText
from kalam.sql.text.mentions import name_of
from kalam.sql.text.statements import Literal, QueryText

TIME: Final = "_time"
_MIRRORED: Final[Mapping[type[exp.Expr], type[exp.Expr]]] = {
    exp.EQ: exp.EQ, exp.GT: exp.LT, exp.GTE: exp.LTE, exp.LT: exp.GT, exp.LTE: exp.GTE
}  # fmt: skip
_CLOCKS: Final = (exp.CurrentTimestamp, exp.Now) if hasattr(exp, "Now") else (exp.CurrentTimestamp,)
_CLOCK_NAMES: Final = frozenset({"now", "current_timestamp"})
_UNITS: Final = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400, "week": 604_800}
_SPAN: Final = re.compile(r"\s*(\d{1,9})\s*([a-z]+?)s?\s*", re.IGNORECASE)
_CLOCK_SLACK: Final = timedelta(seconds=5)
"""What the clock of whoever runs the query may be behind ours, and what passes until it is read there."""


def read_bounds(query: QueryText, tokens: Mapping[str, int], parameters: Sequence[Any]) -> ScanBounds:
    """The bounds of a query; ``tokens`` gives the TEXT columns of its table that are tokens of the subject."""
    if len(query.tables) != 1 or not query.text[:6].upper().startswith("SELECT"):
        return NO_BOUNDS
    tree = parse_query(StatementText(query.text), 0, len(query.text))
    where = tree.args.get("where")
    if not isinstance(tree, exp.Select) or where is None or not _is_of_one_table(tree):
        return NO_BOUNDS
    bounds = NO_BOUNDS
    for comparison, name, value in _comparisons(where.this):
        found = _value(value, parameters)
        if name in (SEQ, REVISION) and isinstance(found, int) and not isinstance(found, bool):
            bounds = _by_seq(bounds, comparison, found)
        elif name == TIME:
            bounds = _by_time(bounds, comparison, _moment(value, found))
        elif name == STREAM_KEY and comparison is exp.EQ and isinstance(found, str):
            bounds = _with_key(bounds, found)
        elif name in tokens and comparison is exp.EQ and isinstance(found, str) and _is_token(found):
            bounds = _with_token(bounds, tokens[name], found)
    return bounds


def _is_of_one_table(tree: exp.Expr) -> bool:
    source = tree.args.get("from_")
    plain = isinstance(source, exp.From) and isinstance(source.this, exp.Table) and not source.this.args.get("joins")
    others = (exp.Query, exp.Values, exp.Join, exp.Lateral, exp.Unnest, exp.Exists)
    return plain and not any(isinstance(node, others) for node in tree.walk() if node is not tree)


def _comparisons(tree: exp.Expr) -> Iterator[tuple[type[exp.Expr], str, exp.Expr]]:
    """The conditions of an AND that compare a column with something: how, which column, with what."""
    todo = [tree]
    while todo:
        node = todo.pop()
        match node:
            case exp.Paren():
                todo.append(node.this)
            case exp.And():
                todo += [node.expression, node.this]
            case exp.Between() if not node.args.get("symmetric") and (name := _column(node.this)) is not None:
                yield exp.GTE, name, node.args["low"]
                yield exp.LTE, name, node.args["high"]
            case _ if type(node) in _MIRRORED:
                if (name := _column(node.this)) is not None:
                    yield type(node), name, node.expression
                elif (name := _column(node.expression)) is not None:
                    yield _MIRRORED[type(node)], name, node.this


def _column(node: exp.Expr) -> str | None:
    if isinstance(node, exp.Column) and isinstance(node.this, exp.Identifier):
        return name_of(node.this)
    return None


def _value(node: exp.Expr, parameters: Sequence[Any]) -> Any:
    """The value of a literal or parameter; None for anything else."""
    constant = constant_of(node)
    if constant is None:
        return None
    if isinstance(constant, Literal):
        return constant.value
    return parameters[constant.index - 1] if 0 < constant.index <= len(parameters) else None


def _by_seq(bounds: ScanBounds, comparison: type[exp.Expr], seq: int) -> ScanBounds:
    if comparison in (exp.EQ, exp.GTE, exp.GT):
        bounds = replace(bounds, after_seq=max(bounds.after_seq, seq if comparison is exp.GT else seq - 1))
    if comparison in (exp.EQ, exp.LTE, exp.LT):
        upto = seq - 1 if comparison is exp.LT else seq
        bounds = replace(bounds, upto_seq=upto if bounds.upto_seq is None else min(bounds.upto_seq, upto))
    return bounds


def _by_time(bounds: ScanBounds, comparison: type[exp.Expr], moment: tuple[datetime, bool] | None) -> ScanBounds:
    if moment is None:
        return bounds
    at, by_clock = moment
    slack = _CLOCK_SLACK if by_clock else timedelta()
    if comparison in (exp.EQ, exp.GTE, exp.GT):
        us = _us(at - slack)
        bounds = replace(bounds, from_us=us if bounds.from_us is None else max(bounds.from_us, us))
    if comparison in (exp.EQ, exp.LTE, exp.LT) and not by_clock:
        us = _us(at)
        bounds = replace(bounds, upto_us=us if bounds.upto_us is None else min(bounds.upto_us, us))
    return bounds


def _us(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def _moment(node: exp.Expr, value: Any) -> tuple[datetime, bool] | None:
    """The time that something stands for, and whether it is told from the clock; None where that is not certain."""
    try:
        if isinstance(node, exp.Cast) and node.is_type("timestamp", "timestamptz"):
            node = node.this
            value = _value(node, ())
        if isinstance(value, str):
            return read_utc_timestamp(value), False
        if isinstance(value, datetime):
            return value, False
        if isinstance(node, exp.Paren):
            return _moment(node.this, None)
        if _is_clock(node):
            return datetime.now(UTC), True
        if isinstance(node, exp.Sub) and _is_clock(node.this) and isinstance(node.expression, exp.Interval):
            span = _span(node.expression)
            return None if span is None else (datetime.now(UTC) - span, True)
    except (ValueError, OverflowError, TypeError):
        return None
    return None


def _is_clock(node: exp.Expr) -> bool:
    if isinstance(node, _CLOCKS):
        return True
    return isinstance(node, exp.Anonymous) and node.name.lower() in _CLOCK_NAMES and not node.expressions


def _span(interval: exp.Interval) -> timedelta | None:
    """The length of an INTERVAL of one unit that has one length."""
    text = str(interval.this.this) if isinstance(interval.this, exp.Literal) else ""
    unit = interval.args.get("unit")
    match = _SPAN.fullmatch(text if unit is None else f"{text} {unit.name}")
    seconds = _UNITS.get(match[2].lower()) if match else None
    return None if match is None or seconds is None else timedelta(seconds=int(match[1]) * seconds)


def _with_key(bounds: ScanBounds, key: str) -> ScanBounds:
    if bounds.key not in (None, key) or not all(map(_is_token, key.split("."))):  # no key is two, or is spelt so
        return replace(bounds, upto_seq=0)
    return replace(bounds, key=key)


def _is_token(text: str) -> bool:
    return bool(text) and not re.search(r"[\s.*>\x00]", text)


def _with_token(bounds: ScanBounds, number: int, text: str) -> ScanBounds:
    known = dict(bounds.tokens)
    if known.setdefault(number, text) != text:  # two texts at once: no message has them
        return replace(bounds, upto_seq=0)
    return replace(bounds, tokens=tuple(sorted(known.items())))
