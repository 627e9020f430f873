"""A query in words that DataFusion and DuckDB understand alike, or None.

Law: what is not listed here is not handed on. Texts and whole numbers are compared, counted and computed with alike;
a divisor is a number that is not 0, for DuckDB gives NULL where SQL has an error. Numbers and texts say their
types, so that DuckDB computes in 64 bits and refuses to compare a text with a number. Columns of other types may be
shown by ``*``, and nothing else. A name has one spelling and one meaning in the whole query: DuckDB knows no case, and
lets an alias, a table or its own ``rowid`` stand for a column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import pyarrow as pa
from sqlglot import exp

from kalam.query.wire import Bound
from kalam.rows.columns import TYPE_METADATA
from kalam.sql.text.spans import read_tree

SCHEMA = "kalam_bound"
"""The schema in which the tables are, each under its place: ``t0``."""

_AGGREGATES = (exp.Count, exp.Sum, exp.Avg, exp.Min, exp.Max)
_NODES = frozenset(
    {
        *(exp.Select, exp.From, exp.Join, exp.Where, exp.Group, exp.Having, exp.Order, exp.Ordered, exp.Limit),
        *(exp.Offset, exp.Union, exp.Intersect, exp.Except, exp.Subquery, exp.Paren, exp.Distinct, exp.With, exp.CTE),
        *(exp.Table, exp.TableAlias, exp.Alias, exp.Column, exp.Identifier, exp.Star, exp.Literal, exp.Null),
        *(exp.And, exp.Or, exp.Not, exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.Is, exp.In, exp.Between),
        *(exp.Exists, exp.Case, exp.If, exp.Coalesce, exp.Abs, *_AGGREGATES, exp.Parameter),
        *(exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.Neg),
    }
)
_ARGUMENTS: dict[type[exp.Expr], set[str]] = {
    exp.Join: {"this", "on", "side", "kind"},
    exp.Group: {"expressions"},
    exp.With: {"expressions"},
    exp.TableAlias: {"this"},
    exp.Table: {"this", "db", "alias"},
    exp.Column: {"this", "table"},
    exp.Limit: {"expression"},
    exp.Offset: {"expression"},
    exp.Between: {"this", "low", "high"},
    exp.In: {"this", "expressions", "query"},
    exp.Star: set(),
}
_SELECT = {"expressions", "from_", "joins", "where", "group", "having", "order", "limit", "offset", "distinct", "with_"}
_SHOWN_AS_THEY_ARE = (
    pa.types.is_boolean,
    pa.types.is_date32,
    pa.types.is_floating,
    pa.types.is_decimal128,
    pa.types.is_binary,
)
_WHOLE = re.compile(r"\d{1,18}")
_MOST = (1 << 63) - 1


class Handed(msgspec.Struct, frozen=True):
    """DuckDB's text of a query, and which columns of each relation it reads."""

    text: str
    columns: Sequence[Sequence[str]]


def in_shared_words(
    text: str, relations: Sequence[tuple[Bound, pa.Schema]], values: Mapping[str, pa.Scalar]
) -> Handed | None:
    """The query for DuckDB; None where one of its words, types or names may mean something else there."""
    root = read_tree(text).root
    nodes = list(root.walk())
    if not isinstance(root, exp.Query) or not all(map(_is_shared, nodes)):
        return None
    columns = _columns_read(nodes, [schema for _, schema in relations])
    if columns is None or not _names_are_plain(nodes, columns):
        return None
    if not _aggregates_are_plain(nodes, relations) or not _products_are_whole(nodes, columns):
        return None
    if not _bind(nodes, [bound for bound, _ in relations]):
        return None
    for node in nodes:
        if isinstance(node, (exp.Literal, exp.Parameter)) and not _is_place(node):
            typed = _typed(node, values)
            if typed is None:
                return None
            node.replace(typed)
    return Handed(root.sql(dialect="duckdb"), columns)


def _is_shared(node: exp.Expr) -> bool:
    if type(node) not in _NODES:
        return False
    given = {name for name, value in node.args.items() if value not in (None, [], False)}
    if not given <= _ARGUMENTS.get(type(node), given):
        return False
    match node:
        case exp.Div() | exp.Mod():
            divisor = node.expression.unnest()
            return isinstance(divisor, exp.Literal) and not divisor.is_string and bool(int_of(divisor))
        case exp.Distinct():
            count = len(node.expressions)
            return node.args.get("on") is None and count == (1 if isinstance(node.parent, _AGGREGATES) else 0)
        case exp.Count() | exp.Min() | exp.Max():
            return not node.expressions
        case exp.Is():
            return isinstance(node.expression, exp.Null)
        case exp.Paren():
            return not (isinstance(node.parent, (exp.Ordered, exp.Group)) and isinstance(node.unnest(), exp.Literal))
        case exp.Star():
            return isinstance(node.parent, (exp.Count, exp.Select, exp.Column))
        case exp.Select():
            return not given - _SELECT
    return True


def int_of(literal: exp.Literal) -> int | None:
    """The whole number that a literal is."""
    return int(literal.this) if not literal.is_string and _WHOLE.fullmatch(literal.this) else None


def _columns_read(nodes: Sequence[exp.Expr], schemas: Sequence[pa.Schema]) -> list[list[str]] | None:
    """The columns that are named or shown, by relation; None where one has a type that is not shared."""
    named = {node.name.lower() for node in nodes if isinstance(node, exp.Column)}
    stars = any(isinstance(node, exp.Star) and not isinstance(node.parent, exp.Count) for node in nodes)
    if stars and any(isinstance(node, (exp.Distinct, exp.SetOperation)) for node in nodes):
        return None
    found = []
    for schema in schemas:
        read = [field for field in schema if stars or field.name.lower() in named]
        if not all(_is_computed(field) or (field.name.lower() not in named and _is_shown(field)) for field in read):
            return None
        found.append([field.name for field in read])
    return found


def _is_computed(field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_string(kind) or pa.types.is_string_view(kind) or pa.types.is_large_string(kind):
        said = (field.metadata or {}).get(TYPE_METADATA, b"TEXT").partition(b"(")[0]
        return said in (b"TEXT", b"VARCHAR")
    return bool(pa.types.is_signed_integer(kind))


def _is_shown(field: pa.Field) -> bool:
    kind = field.type
    return any(test(kind) for test in _SHOWN_AS_THEY_ARE) or (pa.types.is_timestamp(kind) and kind.unit == "us")


def _names_are_plain(nodes: Sequence[exp.Expr], columns: Sequence[Sequence[str]]) -> bool:
    own = {name for names in columns for name in names}
    spelled = own | {_folded(node) for node in nodes if isinstance(node, exp.Identifier)}
    if len({name.lower() for name in spelled}) < len(spelled) or "rowid" in spelled:
        return False
    new = [node.alias for node in nodes if isinstance(node, exp.Alias) and node.alias.lower() != node.this.name.lower()]
    tables = {name.lower() for node in nodes for name in _table_names(node)}
    known = {name.lower() for name in own} | {name.lower() for name in new}
    return len(known) == len({name.lower() for name in own}) + len(new) and not tables & known


def _folded(name: exp.Identifier) -> str:
    return str(name.this) if name.args.get("quoted") else str(name.this).lower()


def _table_names(node: exp.Expr) -> Iterator[str]:
    if isinstance(node, exp.Table):
        yield node.name
    elif isinstance(node, exp.TableAlias):
        yield node.alias_or_name


def _aggregates_are_plain(nodes: Sequence[exp.Expr], relations: Sequence[tuple[Bound, pa.Schema]]) -> bool:
    """Whether what sub-queries gather is of their own tables: a sum of outer columns is the outer query's in SQL."""
    schemas = {(bound.namespace, bound.table): schema for bound, schema in relations}
    for node in nodes:
        select = node.parent_select if isinstance(node, _AGGREGATES) else None
        if select is None or select.parent_select is None:
            continue
        joined = [join.this for join in select.args.get("joins") or ()]
        sources = [select.args["from_"].this, *joined] if select.args.get("from_") else []
        own = {source.alias_or_name.lower() for source in sources}
        known = {
            name.lower()
            for source in sources
            if isinstance(source, exp.Table)
            for name in schemas.get((source.db, source.name), pa.schema([])).names
        }
        for column in node.find_all(exp.Column):
            if (column.table.lower() not in own) if column.table else (column.name.lower() not in known):
                return False
    return True


def _products_are_whole(nodes: Sequence[exp.Expr], columns: Sequence[Sequence[str]]) -> bool:
    """Whether no mean is multiplied: a DOUBLE that leaves its range would be an infinity in DuckDB."""
    own = {name.lower() for names in columns for name in names}
    factors = (part for node in nodes if isinstance(node, exp.Mul) for part in node.find_all(exp.Avg, exp.Column))
    return all(isinstance(part, exp.Column) and part.name.lower() in own for part in factors)


def _bind(nodes: Sequence[exp.Expr], bound: Sequence[Bound]) -> bool:
    """Have each mention of a table mean the one that was handed over for it."""
    places = {(each.namespace, each.table): place for place, each in enumerate(bound)}
    for node in nodes:
        if isinstance(node, exp.Table) and node.db:
            place = places.get((node.db, node.name))
            if place is None:
                return False
            alias = node.args.get("alias") or exp.TableAlias(this=node.this.copy())
            node.set("alias", alias)
            node.set("this", exp.to_identifier(f"t{place}"))
            node.set("db", exp.to_identifier(SCHEMA))
    return True


def _is_place(node: exp.Expr) -> bool:
    """Whether a number counts rows or columns, or is the number of a parameter."""
    counts_rows = isinstance(node, exp.Literal) and isinstance(node.parent, (exp.Limit, exp.Offset))
    return counts_rows or isinstance(node.parent, (exp.Ordered, exp.Group, exp.Parameter))


def _typed(node: exp.Expr, values: Mapping[str, pa.Scalar]) -> exp.Expr | None:
    """A number or text that says its type; None for a value of another type."""
    if isinstance(node, exp.Parameter):
        scalar = values.get(node.name)
        value = None if scalar is None else scalar.as_py()
    else:
        assert isinstance(node, exp.Literal)
        value = node.this if node.is_string else int_of(node)
    if isinstance(value, str) and "\0" not in value:
        return exp.cast(exp.Literal.string(value), "TEXT")
    if type(value) is int and abs(value) <= _MOST:
        return exp.paren(exp.cast(exp.Literal.number(str(value)), "BIGINT"), copy=False)
    return None
