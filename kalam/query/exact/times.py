"""Times: PostgreSQL's patterns of them and of numbers, their parts, their zones, and what DataFusion cuts off of them.

Every TIMESTAMP of a table is an instant, and so is what a TIMESTAMPTZ makes; ``AT TIME ZONE`` makes the time that
clocks show there, and reads one as an instant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
from sqlglot import exp

from kalam.errors import Unsupported
from kalam.query.exact.scopes import Scope
from kalam.query.exact.spans import MICROSECONDS, is_duration, is_interval
from kalam.query.exact.types import is_decimal, is_float, is_text, is_whole
from kalam.query.postgresql.functions import (
    DOUBLE_TEXT,
    EPOCH,
    EXACT_TEXT,
    SIMILAR,
    SINGLE_TEXT,
    TEXT_DATE,
    TEXT_TIME,
    TIME_TEXT,
)
from kalam.sql.text.lexer import StatementText, read_tokens

INSTANT = pa.timestamp("us", "UTC")
_INSTANT = "'Timestamp(Microsecond, Some(\"UTC\"))'"
_FRACTIONS = {
    **dict.fromkeys(("SECOND", "SECONDS", "SEC", "SECS"), 1_000_000),
    **dict.fromkeys(("MILLISECOND", "MILLISECONDS", "MS", "MSEC", "MSECS"), 1_000),
}
"""Parts of a time that have a fraction: how many microseconds are one."""
_US = f"{MICROSECONDS[0]}{{}}{MICROSECONDS[1]}"
_PARTS_OF_DURATIONS = {
    **{name: f"(CAST({_US} % 60000000 AS DOUBLE) / {by})" for name, by in _FRACTIONS.items()},
    **dict.fromkeys(("EPOCH",), f"(CAST({_US} AS DOUBLE) / 1000000)"),
    **dict.fromkeys(("MINUTE", "MINUTES"), f"({_US} / 60000000 % 60)"),
    **dict.fromkeys(("HOUR", "HOURS"), f"({_US} / 3600000000 % 24)"),
    **dict.fromkeys(("DAY", "DAYS"), f"({_US} / 86400000000)"),
}
"""Parts of a difference of times, of which DataFusion counts all hours, and whole seconds."""


def is_time(kind: Any) -> bool:
    """Whether these are dates or times."""
    return kind is not None and (pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _renamed(scope: Scope, node: exp.Expr, name: str) -> None:
    """Call another function."""
    token = scope.work.tree.name_token(*scope.work.span(node))
    scope.work.edits.replace((token.start, token.end + 1), name)


def _by_strftime(scope: Scope, node: exp.Expr) -> bool:
    """Whether a pattern is one of DataFusion's own, as in ``'%Y'``."""
    work = scope.work
    return "%" in work.tree.text[work.span(node.this)[1] : work.span(node)[1]]


def _show(scope: Scope, node: exp.Expr) -> None:
    """``to_char(time, pattern)``, or of a number."""
    kind = scope.type_of(node.this)
    scope.work.known[id(node)] = pa.string()
    if is_whole(kind) or is_float(kind) or is_decimal(kind):
        single = kind in (pa.float16(), pa.float32())
        _renamed(scope, node, SINGLE_TEXT if single else DOUBLE_TEXT if is_float(kind) else EXACT_TEXT)
        scope.work.enclose(node.this, "CAST(", " AS DOUBLE)" if is_float(kind) else " AS VARCHAR)")
        return
    if not is_time(kind) and kind != pa.null():
        told = "the types in it cannot be told" if kind is None else "it takes numbers, dates and times"
        raise Unsupported(f"to_char is not supported here: {told}", hint="CAST(… AS TEXT) shows what it is")
    if not _by_strftime(scope, node):
        _renamed(scope, node, TIME_TEXT)
        scope.work.enclose(node.this, "arrow_cast(", f", {_INSTANT})")


def _read(scope: Scope, node: exp.Expr) -> None:
    """``to_timestamp(text, pattern)`` and ``to_date(text, pattern)``."""
    if not _by_strftime(scope, node):
        is_date = isinstance(node, exp.StrToDate)
        _renamed(scope, node, TEXT_DATE if is_date else TEXT_TIME)
        scope.work.known[id(node)] = pa.date32() if is_date else INSTANT


def _since_epoch(scope: Scope, node: exp.Expr) -> None:
    """``to_timestamp(seconds)``, or of a text or time."""
    kind = scope.type_of(node.this)
    scope.work.known[id(node)] = INSTANT
    if is_whole(kind) or is_float(kind) or is_decimal(kind):
        _renamed(scope, node, EPOCH)
        scope.work.enclose(node.this, "CAST(", " AS DOUBLE)")
    elif is_time(kind) or is_text(kind) or kind == pa.null():
        _renamed(scope, node, "arrow_cast")
        scope.work.enclose(node.this, "", f", {_INSTANT}")
    else:
        raise Unsupported("to_timestamp takes numbers of seconds and texts, and the types here cannot be told")


def _part(scope: Scope, node: exp.Expr) -> None:
    """``extract(second FROM time)``, of which DataFusion gives whole seconds."""
    work, kind, part = scope.work, scope.type_of(node.expression), str(node.this.name).upper()
    microseconds = _FRACTIONS.get(part)
    if is_duration(kind):
        written = _PARTS_OF_DURATIONS.get(part)
    elif microseconds is not None and is_interval(kind):
        written = f"(date_part('epoch', {{}}) % 60 * {1_000_000 // microseconds})"
    elif microseconds is not None and is_time(kind):
        written = f"(CAST(date_part('microsecond', {{}}) AS DOUBLE) / {microseconds})"
    else:
        written = None
    if written is not None:
        of = work.edits.part(work.span(node.expression))
        work.edits.replace_whole(work.span(node), written.format(of))
        work.known[id(node)] = pa.float64() if "DOUBLE" in written or "epoch" in written else pa.int64()


def _at_zone(scope: Scope, node: exp.Expr) -> None:
    """``instant AT TIME ZONE 'zone'`` is what clocks show there."""
    kind = scope.type_of(node.this)
    if kind is None or not pa.types.is_timestamp(kind):
        return
    work = scope.work
    if kind.tz is None:
        work.known[id(node)] = pa.timestamp("ns", str(node.args["zone"].name))
    else:
        work.enclose(node, "to_local_time(", ")")
        work.known[id(node)] = pa.timestamp("ns")


def _truncated(scope: Scope, node: exp.Expr) -> None:
    """``date_trunc(unit, date)`` is an instant."""
    kind = scope.type_of(node.this)
    if kind is not None and pa.types.is_date(kind):
        scope.work.enclose(node.this, "arrow_cast(", f", {_INSTANT})")


def _similar(scope: Scope, node: exp.Expr) -> None:
    """``text SIMILAR TO pattern ESCAPE character``."""
    work, kind = scope.work, scope.type_of(node.this)
    if kind is not None and not is_text(kind) and kind != pa.null():
        raise Unsupported("SIMILAR TO compares texts", hint="CAST(… AS TEXT) makes one")
    whole = node.parent if isinstance(node.parent, exp.Escape) else node
    first, pattern, last = work.span(node.this), work.span(node.expression), work.span(whole.expression)
    between = StatementText(work.tree.text[first[1] : pattern[0]])
    negated = "NOT " if any(token.word == "NOT" for token in read_tokens(between)) else ""
    operands = [work.edits.part(first), work.edits.part(pattern)]
    operands.append(r"'\'" if whole is node else work.edits.part(last))
    work.edits.replace_whole((first[0], last[1]), f"({negated}{SIMILAR}({', '.join(operands)}))")
    work.known[id(node)] = work.known[id(whole)] = pa.bool_()


def _series(scope: Scope, node: exp.Expr) -> None:
    """``SELECT generate_series(…)`` gives rows, and no list."""
    if isinstance(node.parent, (exp.Select, exp.Alias)):
        scope.work.enclose(node, "unnest(", ")")


_WRITERS: dict[type[exp.Expr], Callable[[Scope, exp.Expr], None]] = {
    exp.TimeToStr: _show,
    exp.StrToTime: _read,
    exp.StrToDate: _read,
    exp.UnixToTime: _since_epoch,
    exp.Extract: _part,
    exp.AtTimeZone: _at_zone,
    exp.TimestampTrunc: _truncated,
    exp.SimilarTo: _similar,
    exp.ExplodingGenerateSeries: _series,
}
TIMES = tuple(_WRITERS)


def time(scope: Scope, node: exp.Expr) -> None:
    """Write what PostgreSQL means by a function or operator of times."""
    _WRITERS[type(node)](scope, node)


def at_midnight(scope: Scope, day: exp.Expr, node: exp.Expr) -> None:
    """A date with an interval is a time, of which DataFusion keeps the date."""
    scope.work.enclose(day, "CAST(", " AS TIMESTAMP)")
    scope.work.known[id(node)] = pa.timestamp("ns")
