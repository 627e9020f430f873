"""The one call: a query's plan, of a text that gives SQL's answer where DataFusion's alone would be another.

Law: the text that is run is the user's own, with something written around operands of it; what is written depends on
the types of the operands, and these are asked of DataFusion. Where a type is needed and cannot be told the query is
refused. A text in which nothing of the kind stands is not even read.
"""

from __future__ import annotations

import math
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa
from datafusion import DataFrame, SessionConfig, SessionContext, col
from sqlglot import exp

from kalam.errors import InvalidValue, SyntaxFault
from kalam.query.exact.aggregates import AGGREGATES, aggregate, is_aggregate, name_apart
from kalam.query.exact.arithmetic import ARITHMETIC, compute
from kalam.query.exact.checked import register
from kalam.query.exact.float_programs import register as register_floats
from kalam.query.exact.floats import FUNCTIONS, float_function, negate
from kalam.query.exact.guards import CHAINS, guard, guard_branches
from kalam.query.exact.intervals import with_intervals
from kalam.query.exact.mixtures import CASTS, CHOICES, COMPARISONS, as_float, cast, mix, nearest
from kalam.query.exact.narrowed import NARROWING, refuse_narrower, refuse_narrower_rounds
from kalam.query.exact.scopes import READ_ONLY, Planner, Scope, Work, chooses, coming_schema, own_columns
from kalam.query.exact.spans import register as register_spans
from kalam.query.exact.subqueries import look_in
from kalam.query.exact.times import TIMES, time
from kalam.query.exact.types import is_decimal, is_float, is_text
from kalam.query.postgresql.functions import register as register_postgresql
from kalam.query.postgresql.spelling import in_datafusion_words
from kalam.sql.queries.select_names import names_of
from kalam.sql.text.edits import Edits
from kalam.sql.text.spans import read_tree

TEXTS_MAX = 512
CHARACTERS_MAX = 1 << 16
_STRINGS = re.compile(
    r"'(?:[^']|'')*+'|\"(?:[^\"]|\"\")*+\"|--[^\n]*+|/\*.*?\*/|\bCOUNT\s*\(\s*\*\s*\)", re.DOTALL | re.IGNORECASE
)
_WITH_FLOATS = re.compile(r"'\s*[+-]?[\d.]+[eE]\+?\d\d+\s*'|\bIN\s*\(", re.IGNORECASE)
EXPLAIN = re.compile(r"\s*EXPLAIN\s+(?:ANALYZE\s+)?(?:VERBOSE\s+)?", re.IGNORECASE)
_CONCERNED = re.compile(
    r"[+/%^]|-|\*\s*[\w(.$]|[\w)\]]\s*\*|\d\.|\.\d|\d[eE][+-]?\d|#>"
    r"|(?:,[^()]*|\))\)\s*(?:[=<>!]|(?:NOT\s+)?IN\b)|\bFETCH\s|\bOFFSET\s+\S+\s+ROWS?\b|\bAT\s+TIME\b|\bSIMILAR\s|&|<<|>>|(?<!\|)\|(?!\|)"
    r"|\b(?:EXP|LN|LOG\w*|SQRT|SINH|A?COSH|ASIN|ACOS|DEGREES|ROUND|TRUNC|POW|POWER)\s*\("
    r"|\b(?:CASE|NULLIF|SUM|AVG|MEAN|LAG|LEAD|RECURSIVE|VAR\w*|STDDEV\w*|MAX|MIN|CAST|TRY_CAST|DECIMAL|NUMERIC)\b|::"
    r"|\bIN\s*\(\s*(?:SELECT|WITH|VALUES|\()|\(\s*ALL\b|\bCOLLATE\s"
    r"|\b(?:TO_CHAR|TO_TIMESTAMP|TO_DATE|EXTRACT|DATE_PART|DATE_TRUNC|INTERVAL|ENCODE)\b"
    r"|\b(?:CEILING|SIGN|EVERY|VARIANCE|MOD|UUID|JSONB?|TIMESTAMP|TIMESTAMPTZ|GENERATE_SERIES)\b",
    re.IGNORECASE,
)
_DECIMALS = re.compile(
    r"[=<>]|\b(?:IN|BETWEEN|CASE|COALESCE|NULLIF|NVL|GREATEST|LEAST|UNION|ARRAY|DISTINCT)\b|\[", re.IGNORECASE
)
_CONCERNED_NODES = (*TIMES, *ARITHMETIC, *FUNCTIONS, *COMPARISONS, *CHOICES, *CASTS, *AGGREGATES, *NARROWING)


class _Exact(msgspec.Struct, frozen=True):
    text: str
    names: tuple[str, ...] | None


def exact_config(config: SessionConfig) -> SessionConfig:
    """The configuration of a context whose queries are planned here: a literal with a point is a DECIMAL."""
    return config.set("datafusion.sql_parser.parse_float_as_decimal", "true")


class ExactQueries:
    """Plans the queries of one context; keeps what it made of the texts that came last."""

    def __init__(self, ctx: SessionContext) -> None:
        self._ctx = ctx
        register(ctx)
        register_floats(ctx)
        register_postgresql(ctx)
        register_spans(ctx)
        self._texts: OrderedDict[Any, _Exact] = OrderedDict()
        self._lock = threading.Lock()

    def plan(self, text: str, values: Mapping[str, Any], schemas: Sequence[pa.Schema]) -> DataFrame:
        """The plan of a query over what is registered in the context.

        ``values`` are the parameters by number, as Arrow's scalars; ``schemas`` are those of the registered relations:
        what is kept of a text counts for the same ones only.
        """
        plan = self._plan(text, values, schemas)
        return _as_it_comes(plan, coming_schema(self._ctx, plan)) if chooses(text) else plan

    def _plan(self, text: str, values: Mapping[str, Any], schemas: Sequence[pa.Schema]) -> DataFrame:
        text = with_intervals(text, values)
        if not concerns(text, schemas) and not _compares_floats(text, schemas, values):
            return self._sql(text, values)
        key = (text, tuple(value.type for value in values.values()), tuple(map(_columns, schemas)))
        with self._lock:
            exact = self._texts.get(key)
            if exact is not None:
                self._texts.move_to_end(key)
        if exact is None:
            exact = _made_exact(self._ctx, text, values)
            self._keep(key, exact)
        plan = self._sql(exact.text, values)
        return plan if exact.names is None else _renamed(plan, exact.names)

    def _keep(self, key: Any, exact: _Exact) -> None:
        if len(key[0]) > CHARACTERS_MAX:
            return
        with self._lock:
            self._texts[key] = exact
            if len(self._texts) > TEXTS_MAX:
                self._texts.popitem(last=False)

    def _sql(self, text: str, values: Mapping[str, Any]) -> DataFrame:
        return self._ctx.sql_with_options(text, READ_ONLY, param_values=dict(values) or None)


def _columns(schema: pa.Schema) -> tuple[Any, ...]:
    return tuple(schema.names), tuple(schema.types)


def concerns(text: str, schemas: Sequence[pa.Schema]) -> bool:
    """Whether there may be something in a text that DataFusion takes otherwise than SQL."""
    plain = _STRINGS.sub(" ", text)
    if _CONCERNED.search(plain):
        return True
    kinds = [kind for schema in schemas for kind in schema.types]
    return any(map(is_decimal, kinds)) and any(map(is_float, kinds)) and _DECIMALS.search(plain) is not None


def _compares_floats(text: str, schemas: Sequence[pa.Schema], values: Mapping[str, Any]) -> bool:
    """Whether the text of a number, or a list of numbers, may be compared with a DOUBLE."""
    if not any(is_float(kind) for schema in schemas for kind in schema.types):
        return False
    return _WITH_FLOATS.search(text) is not None or any(is_text(value.type) for value in values.values())


def _renamed(plan: DataFrame, names: Sequence[str]) -> DataFrame:
    """The plan with the names of columns that the text as it was written would have."""
    found = plan.schema().names
    if len(found) != len(names) or list(names) == found or len(set(found)) < len(found):
        return plan
    if len(set(names)) < len(names):
        return plan
    return plan.select(*(col(own).alias(name) for own, name in zip(_quoted(found), names, strict=True)))


def _as_it_comes(plan: DataFrame, schema: pa.Schema) -> DataFrame:
    """The plan with the types that its columns come in."""
    told = plan.schema()
    if told.types == schema.types or len(set(told.names)) < len(told.names):
        return plan
    columns = zip(_quoted(told.names), told, schema, strict=True)
    return plan.select(
        *(col(name) if one.type == two.type else col(name).cast(two.type).alias(one.name) for name, one, two in columns)
    )


def _quoted(names: Sequence[str]) -> list[str]:
    return ['"' + name.replace('"', '""') + '"' for name in names]


def _made_exact(ctx: SessionContext, text: str, values: Mapping[str, Any]) -> _Exact:
    explained = EXPLAIN.match(text)
    if explained:
        inner = _made_exact(ctx, text[explained.end() :], values)
        return _Exact(explained[0] + inner.text, None)
    planner = Planner(ctx, values)
    spelled = in_datafusion_words(text)
    tree = read_tree(spelled)
    work = Work(tree, Edits(spelled), planner)
    try:
        _rewrite_query(work, tree.root, None, "")
    except RecursionError:
        raise SyntaxFault("the statement is nested too deeply") from None
    if not work.edits.changed and spelled == text:
        return _Exact(text, None)
    schema = planner.schema(text)
    names = names_of(text) if schema is None else schema.names
    return _Exact(work.edits.whole, None if names is None else tuple(names))


def _rewrite_query(work: Work, query: exp.Expr, outer: Scope | None, withs: str) -> None:
    """A query with all queries in it; ``withs`` is the WITH that it sees."""
    named = query.args.get("with_")
    if named is not None:
        withs = _rewrite_withs(work, named, outer, withs)
    match query:
        case exp.Subquery() | exp.Paren():
            _rewrite_query(work, query.this, outer, withs)
        case exp.SetOperation():
            for side in (query.this, query.expression):
                _rewrite_query(work, side, outer, withs)
            _unite(work, query, outer, withs)
            _rewrite_rest(work, query, outer, withs, {"this", "expression", "with_"})
        case exp.Values():
            _rewrite_values(work, query, outer, withs)
        case exp.Select():
            scope = Scope(work, query, outer, withs)
            for source in _sources(query):
                _rewrite_query(work, source, scope, withs)
            _rewrite_expressions(scope, query, {"with_"})
            _name_what_orders(work, query)
        case _:
            _rewrite_rest(work, query, outer, withs, {"with_"})


def _name_what_orders(work: Work, select: exp.Select) -> None:
    """By its place DataFusion orders by what has an aggregate in it only where that has a name."""
    order = select.args.get("order")
    keys = {str(key.this.this) for key in order.expressions if isinstance(key.this, exp.Literal)} if order else set()
    if not keys or any(item.is_star for item in select.expressions):
        return
    for place, item in enumerate(select.expressions, 1):
        named = isinstance(item, (exp.Alias, exp.Column)) or item.find(exp.AggFunc) is None
        if str(place) in keys and not named and work.tree.span(item) is not None:
            work.edits.enclose(work.span(item), "", f' AS "kalam_place_{place}"')


def _rewrite_withs(work: Work, named: exp.Expr, outer: Scope | None, withs: str) -> str:
    """The queries of a WITH; what they make of the WITH that the query behind it sees."""
    before = withs
    recursive = bool(named.args.get("recursive")) or before.startswith("WITH RECURSIVE")
    for entry in named.expressions:
        seen = before
        if named.args.get("recursive"):
            seen = _joined(before, work.edits.part(work.span(entry)), recursive=True)
        _rewrite_query(work, entry.this, outer, seen)
        if seen != before:
            refuse_narrower_rounds(work, entry, outer, seen)
        before = _joined(before, work.edits.part(work.span(entry)), recursive=recursive)
    return before


def _joined(withs: str, entry: str, *, recursive: bool) -> str:
    body = withs.removeprefix("WITH ").removeprefix("RECURSIVE ")
    return ("WITH RECURSIVE " if recursive else "WITH ") + (f"{body}, {entry}" if body else entry)


def _sources(select: exp.Select) -> list[exp.Expr]:
    """The queries in the FROM of a SELECT."""
    found: list[exp.Expr] = []
    todo = [select.args.get("from_"), *select.args.get("joins", ()), *select.args.get("laterals", ())]
    while todo:
        node = todo.pop()
        if isinstance(node, (exp.Query, exp.Values)) and not isinstance(node, exp.Table):
            found.append(node)
            if isinstance(node, exp.Subquery):  # a bracket around joins
                todo += node.args.get("joins", ())
        elif isinstance(node, (exp.From, exp.Join, exp.Lateral, exp.Table)):
            todo += [node.this, *node.args.get("joins", ()), *node.args.get("laterals", ())]
    return found


def _rewrite_rest(work: Work, query: exp.Expr, outer: Scope | None, withs: str, without: set[str]) -> None:
    """The expressions of a query that has no FROM of its own."""
    _rewrite_expressions(Scope(work, query, outer, withs), query, without)


def _rewrite_values(work: Work, values: exp.Values, outer: Scope | None, withs: str) -> None:
    scope = Scope(work, values, outer, withs)
    _rewrite_expressions(scope, values, set())
    rows = [row.expressions for row in values.expressions if isinstance(row, exp.Tuple)]
    for column in zip(*rows, strict=False):
        _as_float_where_mixed([(scope, member) for member in column])


def _unite(work: Work, query: exp.Expr, outer: Scope | None, withs: str) -> None:
    """The columns of a UNION are DOUBLEs where one of them is."""
    selects: list[exp.Select] = []
    todo: list[exp.Expr] = [query]
    while todo:
        node = todo.pop()
        if isinstance(node, exp.SetOperation):
            todo += [node.expression, node.this]
        elif isinstance(node, (exp.Subquery, exp.Paren)):
            todo.append(node.this)
        elif isinstance(node, exp.Select):
            selects.append(node)
    if any(item.is_star for select in selects for item in select.expressions):
        return
    scopes = [Scope(work, select, outer, withs) for select in selects]
    for column in zip(*(select.expressions for select in selects), strict=False):
        _as_float_where_mixed([(scope, item.unalias()) for scope, item in zip(scopes, column, strict=True)])


def _as_float_where_mixed(members: Sequence[tuple[Scope, exp.Expr]]) -> None:
    kinds = [scope.type_of(member) for scope, member in members]
    if any(map(is_float, kinds)):
        for (scope, member), kind in zip(members, kinds, strict=True):
            if is_decimal(kind):
                as_float(scope, member, "DOUBLE")
                scope.work.known[id(member)] = pa.float64()


def _rewrite_expressions(scope: Scope, query: exp.Expr, without: set[str]) -> None:
    """Everything of a query but what is in its FROM, the innermost first."""
    order: list[exp.Expr] = []
    todo = [
        child
        for part, value in query.args.items()
        if part not in without and part != "from_"
        for child in (value if isinstance(value, list) else [value])
        if isinstance(child, exp.Expr)
    ]
    sources = {id(source) for source in _sources(query)} if isinstance(query, exp.Select) else set()
    while todo:
        node = todo.pop()
        if id(node) in sources:
            continue
        order.append(node)
        if not isinstance(node, (exp.Query, exp.Values)) or isinstance(node, exp.Table):
            todo += node.iter_expressions()
    todo_from = _join_conditions(query)
    order = [*todo_from, *order]
    concerned = [node for node in order if isinstance(node, (exp.Neg, *_CONCERNED_NODES))]
    if concerned:
        scope.look_up(list({id(c): c for node in concerned for c in own_columns(node)}.values()))
    for node in reversed(order):
        _rewrite_node(scope, node)


def _join_conditions(query: exp.Expr) -> list[exp.Expr]:
    """The conditions of joins that stand within brackets or behind the first table of a FROM."""
    found: list[exp.Expr] = []
    source = query.args.get("from_")
    todo = [source.this] if source is not None else []
    while todo:
        node = todo.pop()
        for join in node.args.get("joins", ()) or ():
            todo.append(join.this)
            if join.args.get("on") is not None:
                inner = [join.args["on"]]
                while inner:
                    part = inner.pop()
                    found.append(part)
                    if not isinstance(part, (exp.Query, exp.Values)):
                        inner += part.iter_expressions()
        if isinstance(node, exp.Subquery) and isinstance(node.this, exp.Table):
            todo.append(node.this)
    return found


def _rewrite_node(scope: Scope, node: exp.Expr) -> None:
    if isinstance(node, (exp.Query, exp.Values)) and not isinstance(node, exp.Table):
        _rewrite_query(scope.work, node, scope, scope.withs)
    elif isinstance(node, exp.In) and node.args.get("query") is not None:
        look_in(scope, node)
    elif isinstance(node, (*ARITHMETIC, *TIMES, *FUNCTIONS)):
        _compute(scope, node)
    elif isinstance(node, exp.Neg):
        negate(scope, node)
    elif isinstance(node, (*COMPARISONS, *CHOICES)):
        mix(scope, node)
        if isinstance(node, exp.Case):
            guard_branches(scope, node)
    elif isinstance(node, CASTS):
        cast(scope, node)
        name_apart(scope, node)
    elif isinstance(node, CHAINS):
        guard(scope, node)
    elif isinstance(node, NARROWING):
        refuse_narrower(scope, node)
    elif is_aggregate(node):
        aggregate(scope, node)
    elif isinstance(node, exp.Literal) and not node.is_string:
        _number(scope, node)


def _compute(scope: Scope, node: exp.Expr) -> None:
    """An operator of numbers or times, or a function of them."""
    if isinstance(node, TIMES):
        time(scope, node)
    elif isinstance(node, ARITHMETIC):
        compute(scope, node)
    elif isinstance(node, exp.Round) and node.args.get("decimals") is None and is_float(scope.type_of(node.this)):
        nearest(scope, node)
    else:
        float_function(scope, node)


def _number(scope: Scope, node: exp.Literal) -> None:
    """A number with an exponent is a DOUBLE, where DataFusion would make a DECIMAL of it."""
    text = str(node.this)
    if "e" not in text.lower():
        return
    if math.isinf(float(text)):
        raise InvalidValue(f"the number {text[:60]} is out of range of DOUBLE")
    scope.work.edits.replace(scope.work.span(node), f"CAST('{text}' AS DOUBLE)")
    scope.work.known[id(node)] = pa.float64()
