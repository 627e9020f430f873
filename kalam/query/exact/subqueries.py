"""IN (SELECT …), of which DataFusion 55 forgets in places that NULL is neither TRUE nor FALSE.

It is right where IN is a condition of its own, joined to others by AND and OR, and where NOT IN is one, joined by AND
alone, does not name columns of an outer query, and what is looked for is no constant. Everywhere else the query asks
for the same by ``= ANY`` and ``<> ALL``, which DataFusion carries out by the rules of three values, and more slowly.
A row of several values, which it does not look for at all, is looked for by EXISTS.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from sqlglot import exp
from sqlglot.tokenizer_core import Token

from kalam.errors import SyntaxFault, Unsupported
from kalam.query.exact.scopes import Scope, own_columns
from kalam.sql.text.edits import Span


class Place(enum.Enum):
    """Where a condition stands."""

    ALONE = "it, and others, must hold"
    BESIDE = "it, or another, must hold"
    VALUE = "its value counts, NULL included"


def look_in(scope: Scope, node: exp.In) -> None:
    """Make an IN with a sub-query give SQL's answer."""
    query = node.args.get("query")
    if query is None:
        return
    place, negated = _place(node)
    work = scope.work
    start = work.span(node.this)[1]
    inner = work.tree.bracket_behind(start)
    if inner is None:
        raise Unsupported("a sub-query behind IN cannot be read; write it in brackets")
    schema = work.planner.schema(f"{scope.withs} {work.edits.part(inner)}")
    if (values := _row(node.this)) is not None:
        if schema is None:
            _refuse_correlated(scope, inner)
            return
        if len(schema) != len(values):
            raise SyntaxFault(f"the sub-query behind IN has {len(schema)} columns, and the row before it {len(values)}")
        _check_reachable(node)
        _by_exists(scope, node, inner, values, place=place, negated=negated)
        return
    uncorrelated = schema is not None
    if place is not Place.VALUE and not negated:
        if place is Place.BESIDE and not _is_plain_column(query):
            _name_column(scope, node, inner, uncorrelated=uncorrelated)
        return
    if place is Place.ALONE and uncorrelated and own_columns(node.this):
        return
    _by_comparison(scope, node, inner, uncorrelated=uncorrelated)


def _place(node: exp.Expr) -> tuple[Place, bool]:
    """Where it stands, and whether it is negated."""
    place, negated = Place.ALONE, False
    here: exp.Expr = node
    while (parent := here.parent) is not None:
        match parent:
            case exp.Paren():
                pass
            case exp.Not():
                negated = not negated
            case exp.Or() | exp.And():
                # Under a NOT an AND is an OR; which of them NOTs surround is known at the end only.
                place = Place.BESIDE
            case exp.Where() | exp.Having() | exp.Join() | exp.Qualify():
                return (Place.ALONE if place is Place.BESIDE and _only_and(node, here) else place), negated
            case _:
                return Place.VALUE, negated
        here = parent
    return Place.VALUE, negated


def _only_and(node: exp.Expr, top: exp.Expr) -> bool:
    """Whether nothing but AND and brackets stands between, and a NOT directly before the condition."""
    here = node
    while isinstance(here.parent, (exp.Not, exp.Paren)) and here is not top:
        here = here.parent
    while here is not top:
        if not isinstance(here.parent, (exp.And, exp.Paren)):
            return False
        here = here.parent
    return True


def _is_plain_column(query: exp.Expr) -> bool:
    select = query.unnest() if isinstance(query, exp.Subquery) else query
    return (
        isinstance(select, exp.Select)
        and len(select.expressions) == 1
        and isinstance(select.expressions[0].unalias(), exp.Column)
    )


def _name_column(scope: Scope, node: exp.In, inner: Span, *, uncorrelated: bool) -> None:
    """Beside OR DataFusion knows a sub-query's column by its name only, which two of them may share."""
    if not uncorrelated:
        _by_comparison(scope, node, inner, uncorrelated=False)
        return
    name = f"kalam_in_{inner[0]}"
    selected = f"SELECT {name} FROM ("  # noqa: S608 - around the user's own text, read only
    scope.work.edits.enclose(inner, selected, f") AS kalam_of_{inner[0]} ({name})")


def _by_comparison(scope: Scope, node: exp.In, inner: Span, *, uncorrelated: bool) -> None:
    """Write ``= ANY`` for IN, ``<> ALL`` for NOT IN."""
    if not uncorrelated and _is_one_row(node.args["query"]):
        raise Unsupported(
            "a sub-query behind IN that aggregates rows chosen by the outer query has no right answer here",
            hint="write the condition with EXISTS or NOT EXISTS, or give the sub-query a GROUP BY and join it",
        )
    work = scope.work
    words = _words(scope, node, inner)
    negated = words[0].text.upper() == "NOT"
    if uncorrelated and _is_told_by_three(scope, node):
        _by_three(scope, node, inner, negated=negated)
        return
    work.edits.replace((words[0].start, words[-1].end + 1), "<> ALL" if negated else "= ANY")


def _is_told_by_three(scope: Scope, node: exp.In) -> bool:
    """Whether what is looked for, and the sub-query, may be written several times."""
    inner = node.args["query"]
    once = (exp.Limit, exp.Offset, exp.Fetch, exp.Anonymous, exp.Rand)
    if any(isinstance(part, (exp.Query, *once)) for part in node.this.walk()):
        return False
    return not any(isinstance(part, (*once, exp.In)) for part in inner.walk())


def _by_three(scope: Scope, node: exp.In, inner: Span, *, negated: bool) -> None:
    """Write IN as the rules of three values have it, around an IN that a hash join answers.

    ``<> ALL`` compares each value with each, which takes minutes where this takes milliseconds.
    """
    edits, name = scope.work.edits, f"kalam_in_{inner[0]}"
    start = scope.work.span(node.this)[0]
    value, query = edits.part(scope.work.span(node.this)), edits.part(inner)
    source = f"FROM ({query}) AS kalam_of_{inner[0]} ({name})"
    found, missed = ("FALSE", "TRUE") if negated else ("TRUE", "FALSE")
    count, known = f"(SELECT count(*) {source})", f"(SELECT count({name}) {source})"
    among = f"(SELECT {name} {source} WHERE {name} IS NOT NULL)"
    rules = (
        f"WHEN {count} = 0 THEN {missed} WHEN ({value}) IS NULL THEN NULL WHEN ({value}) IN {among} THEN {found} "
        f"WHEN {count} > {known} THEN NULL ELSE {missed}"
    )
    edits.replace_whole((start, inner[1] + 1), f"(CASE {rules} END)")


def _row(node: exp.Expr) -> Sequence[exp.Expr] | None:
    """The values of ``(a, b)`` and ``ROW(a, b)``; None for a single value."""
    if isinstance(node, exp.Tuple):
        return node.expressions
    return node.expressions if isinstance(node, exp.Anonymous) and str(node.this).upper() == "ROW" else None


def _refuse_correlated(scope: Scope, inner: Span) -> None:
    """Raise Unsupported where the sub-query names columns of the query around it; its other faults DataFusion tells."""
    text = f"{scope.withs} SELECT 1 {scope.source()} WHERE EXISTS ({scope.work.edits.part(inner)})"
    if scope.work.planner.schema(text) is not None:
        raise Unsupported(
            "a row before IN is looked for in a sub-query that names no column of the query around it",
            hint="write the condition with EXISTS or NOT EXISTS",
        )


def _check_reachable(node: exp.In) -> None:
    """Raise Unsupported where DataFusion has no EXISTS, or its sub-query could not name the row's values."""
    inner: exp.Expr = node
    while isinstance(parent := inner.parent, exp.Expr) and not isinstance(inner, (exp.Where, exp.Query)):
        inner = parent
    if not isinstance(inner, exp.Where):
        raise Unsupported(
            "(a, b) IN (SELECT …) is a condition behind WHERE", hint="say it there, in a sub-query if need be"
        )


def _by_exists(
    scope: Scope, node: exp.In, inner: Span, values: Sequence[exp.Expr], *, place: Place, negated: bool
) -> None:
    """Write ``(a, b) IN (…)`` as whether a row of the sub-query is the same, or, where NULL counts, may be the same.

    Under an even number of NOTs a condition that is not known counts as FALSE, under an odd one as TRUE.
    """
    edits, start = scope.work.edits, scope.work.span(node.this)[0]
    names = [f"kalam_in_{inner[0]}_{number}" for number in range(len(values))]
    source = f"(SELECT 1 FROM ({edits.part(inner)}) AS kalam_of_{inner[0]} ({', '.join(names)}) WHERE "  # noqa: S608 - around the user's own text, read only
    pairs = [(name, f"({edits.part(scope.work.span(value))})") for name, value in zip(names, values, strict=True)]
    same = f"EXISTS {source}" + " AND ".join(f"{name} = {value}" for name, value in pairs) + ")"
    maybe = " AND ".join(f"({name} = {value} OR {name} IS NULL OR {value} IS NULL)" for name, value in pairs)
    possible = f"EXISTS {source}{maybe})"
    nots = "NOT " if _words(scope, node, inner)[0].text.upper() == "NOT" else ""
    written = f"{nots}{possible if negated else same}"
    if place is Place.VALUE:
        written = f"{nots}({same} OR ({possible} AND CAST(NULL AS BOOLEAN)))"
    edits.replace_whole((start, inner[1] + 1), f"({written})")


def _words(scope: Scope, node: exp.In, inner: Span) -> list[Token]:
    """The words IN or NOT IN."""
    between = scope.work.tree.between(scope.work.span(node.this)[1], inner[0])
    return [token for token in between if token.text.upper() in ("NOT", "IN")]


def _is_one_row(query: exp.Expr) -> bool:
    """Whether a query is an aggregate without groups, which DataFusion takes for no row where nothing is found."""
    select = query.unnest() if isinstance(query, exp.Subquery) else query
    if not isinstance(select, exp.Select) or select.args.get("group"):
        return False
    return any(isinstance(node, exp.AggFunc) for item in select.expressions for node in item.walk())
