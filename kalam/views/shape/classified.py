"""Whether the groups of a SELECT can be kept one change at a time, and by which two texts.

Law: the SELECT over a source is the groups text over the groups that are made of the rows text's rows. The rows text
computes of each row what it is grouped by (``_k0`` …) and what its aggregates gather (``_a0`` …; a FILTER is a CASE
around it); the groups text is the user's select list with ``_k0`` … and the aggregates' values (``_v0`` …) in their
places. Both are made of the user's own words. What is not certain to be kept this way is run again.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final

import msgspec
from sqlglot import exp

from kalam.sql.queries.select import is_aggregate
from kalam.sql.tables.spelling import is_word
from kalam.sql.text.edits import Edits
from kalam.sql.text.lexer import fold
from kalam.sql.text.mentions import name_of
from kalam.sql.text.spans import Tree, read_tree
from kalam.views.shape.grouping import form_of, grouped_by

RELATION_NAMESPACE: Final = "_view"
ROWS: Final = f'"{RELATION_NAMESPACE}"."rows"'
GROUPS: Final = f'"{RELATION_NAMESPACE}"."groups"'
"""The relations of the rows text's rows and of the groups."""
PLACE: Final = "kalam_place"
"""The column of a batch that says which of its rows a row of the rows text is made of."""
_PARTS: Final = frozenset({"expressions", "from_", "where", "group", "having", "kind"})
_UNKEPT: Final = {
    "with_": "WITH", "joins": "a join", "laterals": "LATERAL", "distinct": "DISTINCT", "order": "ORDER BY",
    "limit": "LIMIT", "offset": "OFFSET", "qualify": "QUALIFY", "windows": "a window function",
}  # fmt: skip


_COPIED: Final = re.compile(r'"(_[kv]\d+)"')


class AggregateKind(enum.StrEnum):
    """What an aggregate makes of the values of a group."""

    COUNT_ROWS = "count(*)"
    COUNT = "count"
    COUNT_DISTINCT = "count(DISTINCT)"
    SUM = "sum"
    AVG = "avg"
    MIN = "min"
    MAX = "max"
    ALL = "bool_and"
    ANY = "bool_or"


class Call(msgspec.Struct, frozen=True):
    """One aggregate and what it gathers: None for ``count(*)`` of all rows."""

    kind: AggregateKind
    argument: str | None

    def over(self, column: str) -> str:
        """The aggregate of a column."""
        match self.kind:
            case AggregateKind.COUNT_ROWS:
                return "count(*)"
            case AggregateKind.COUNT_DISTINCT:
                return f'count(DISTINCT "{column}")'
        return f'{self.kind.value}("{column}")'


class Grouped(msgspec.Struct, frozen=True, kw_only=True):
    """A GROUP BY that is kept by its groups.

    ``keys`` are the expressions of the GROUP BY and ``key_places`` where each stands in the select list, None for one
    that does not stand there. ``source`` and ``where`` are texts, the FROM with its word; ``listed`` is the select
    list, and ``having`` the condition, over the groups. ``columns`` are, in their order, the columns of the source
    that the keys and the arguments of the aggregates are, None for one that is more than a column.
    """

    keys: tuple[str, ...]
    key_places: tuple[int | None, ...]
    calls: tuple[Call, ...]
    source: str
    where: str | None
    listed: tuple[str, ...]
    having: str | None
    columns: tuple[str | None, ...] = ()

    @property
    def copied_rows(self) -> dict[str, str] | None:
        """Of which column of the source each of the rows text is a copy; None where it is more than that."""
        names = [f"_k{number}" for number in range(len(self.keys))]
        names += [f"_a{number}" for number, call in enumerate(self.calls) if call.argument is not None]
        copied = {name: column for name, column in zip(names, self.columns, strict=True) if column is not None}
        return copied if copied and len(copied) == len(names) and self.where is None else None

    @property
    def copied_groups(self) -> list[str] | None:
        """Of which column of the groups each of the select list is a copy; None where it is more than that."""
        found = [_COPIED.fullmatch(text) for text in self.listed]
        copied = [match[1] for match in found if match is not None]
        return copied if len(copied) == len(found) and self.having is None else None

    def rows_text(self, *, with_place: bool) -> str:
        """The query for what the rows bring to their groups, over the source or a batch of its rows."""
        columns = [f'({key}) AS "_k{number}"' for number, key in enumerate(self.keys)]
        gathered = [(number, call.argument) for number, call in enumerate(self.calls)]
        columns += [f'({text}) AS "_a{number}"' for number, text in gathered if text is not None]
        columns += [f'"{PLACE}"'] if with_place else []
        # A row is a row although nothing is asked of it.
        listed = ", ".join(columns) or 'TRUE AS "_row"'
        text = f"SELECT {listed}\n{self.source}"
        return text if self.where is None else f"{text}\nWHERE {self.where}"

    def groups_text(self) -> str:
        """The query for the rows of the view, ``_c0`` … and ``_shown``, over groups."""
        columns = [f'({text}) AS "_c{number}"' for number, text in enumerate(self.listed)]
        columns.append(f'({self.having or "TRUE"}) AS "_shown"')
        return f'SELECT {", ".join(columns)}, "{PLACE}" FROM {GROUPS}'  # noqa: S608 - the user's own text, read only

    def types_text(self) -> str:
        """A query over the rows text's rows whose columns have the types of the keys and of the aggregates."""
        keys = ", ".join(f'"_k{number}"' for number in range(len(self.keys)))
        values = [f'{call.over(f"_a{number}")} AS "_v{number}"' for number, call in enumerate(self.calls)]
        listed = ", ".join([*([keys] if keys else []), *values])
        text = f"SELECT {listed} FROM {ROWS}"  # noqa: S608 - as above
        return f"{text} GROUP BY {keys}" if keys else text


class Rerun(msgspec.Struct, frozen=True):
    """A SELECT that is kept by running it again; ``reason`` names what cannot be kept by changes."""

    reason: str


class _NotKept(Exception):
    """Why groups cannot be kept one change at a time."""


def classified(text: str, columns: Collection[str]) -> Grouped | Rerun:
    """What a SELECT over one source with these columns is, where it is not row-wise.

    The text is in order: DataFusion would take it. Anything that is not kept by its groups is run again.
    """
    tree = read_tree(text)
    try:
        return _grouped(tree, columns)
    except _NotKept as exc:
        return Rerun(str(exc))


def _grouped(tree: Tree, columns: Collection[str]) -> Grouped:
    select = _only_select(tree)
    keys = grouped_by(select, columns)
    if keys is None:
        raise _NotKept("GROUP BY ALL, ROLLUP, CUBE or GROUPING SETS")
    work = _Work(tree, {form_of(key): number for number, key in enumerate(keys)}, columns)
    listed = tuple(work.over_groups(item.unalias()) for item in select.expressions)
    having = select.args.get("having")
    shown = work.over_groups(having.this) if having is not None else None
    if not keys and not work.calls:
        raise _NotKept("a SELECT without GROUP BY and without an aggregate")
    forms = [form_of(item.unalias()) for item in select.expressions]
    source, where = tree.from_span(select), select.args.get("where")
    assert source is not None
    return Grouped(
        keys=tuple(map(work.slice, keys)),
        key_places=tuple(forms.index(form) if (form := form_of(key)) in forms else None for key in keys),
        calls=tuple(work.calls.values()),
        source=tree.text[slice(*source)],
        where=None if where is None else work.slice(where.this),
        listed=listed,
        having=shown,
        columns=(*map(work.column, keys), *work.columns),
    )


def _only_select(tree: Tree) -> exp.Select:
    """The one SELECT over one table that the text has to be."""
    select = tree.root
    if not isinstance(select, exp.Select):
        raise _NotKept("UNION, INTERSECT or EXCEPT" if isinstance(select, exp.SetOperation) else "a query in brackets")
    for part, value in select.args.items():
        if value and part not in _PARTS:
            raise _NotKept(_UNKEPT.get(part, part.strip("_").upper()))
    source = select.args.get("from_")
    table = source.this if source is not None else None
    if not isinstance(table, exp.Table) or not isinstance(table.this, exp.Identifier):
        raise _NotKept("a FROM of something else than one table")
    if table.args.get("joins") or table.args.get("laterals"):
        raise _NotKept("a join")
    if any(
        isinstance(node, (exp.Query, exp.Values)) for node in select.walk() if node is not select and node is not table
    ):
        raise _NotKept("a sub-query")
    if any(isinstance(node, exp.Window) for node in select.walk()):
        raise _NotKept("a window function")
    return select


class _Work:
    """The select list on its way: the aggregates that were met, each once."""

    def __init__(self, tree: Tree, keys: dict[exp.Expr, int], columns: Collection[str]) -> None:
        self._tree, self._keys, self._of_source = tree, keys, columns
        self.columns: list[str | None] = []
        self.calls: dict[tuple[AggregateKind, exp.Expr | None, exp.Expr | None], Call] = {}

    def slice(self, node: exp.Expr) -> str:
        """The text of an expression."""
        text = self._tree.slice(node)
        if not text:
            raise _NotKept(f"{node.sql(dialect='postgres')[:60]}, whose place in the text is not known")
        return text

    def column(self, node: exp.Expr) -> str | None:
        """The column of the source that an expression is; None for anything else, or what may be a word of SQL."""
        if not isinstance(node, exp.Column) or not isinstance(node.this, exp.Identifier):
            return None
        name = name_of(node.this)
        is_name = bool(node.this.args.get("quoted")) or not is_word(name)
        return name if is_name and name in self._of_source else None

    def over_groups(self, node: exp.Expr) -> str:
        """An expression of the select list as one over groups."""
        text = self.slice(node)
        span = self._tree.span(node)
        assert span is not None
        edits = Edits(text)
        for part, name in self._parts(node):
            place = self._tree.span(part)
            if place is None:
                raise _NotKept(f"{part.sql(dialect='postgres')[:60]}, whose place in the text is not known")
            edits.replace((place[0] - span[0], place[1] - span[0]), f'"{name}"')
        return edits.whole

    def _parts(self, node: exp.Expr) -> Iterator[tuple[exp.Expr, str]]:
        """The aggregates and the keys in an expression, the outermost of each, with their names."""
        todo = [node]
        while todo:
            part = todo.pop()
            number = self._keys.get(form_of(part))
            if number is not None:
                yield part, f"_k{number}"
            elif isinstance(part, exp.Filter) or is_aggregate(part) or _name(part) in _BY_NAME:
                yield part, f"_v{self._called(part)}"
            elif isinstance(part, (exp.Column, exp.Star)):
                raise _NotKept(f"{self._tree.slice(part) or '*'}, which the GROUP BY does not have")
            elif isinstance(part, (exp.Explode, exp.Unnest)):
                raise _NotKept("unnest outside of the GROUP BY")
            else:
                todo += part.iter_expressions()

    def _called(self, node: exp.Expr) -> int:
        """The number of an aggregate."""
        condition = node.expression.this if isinstance(node, exp.Filter) else None
        inner = node.this if isinstance(node, exp.Filter) else node
        kind, argument = _kind_of(inner, self._tree.slice(node))
        named = (
            kind,
            None if argument is None else form_of(argument),
            None if condition is None else form_of(condition),
        )
        if named not in self.calls:
            gathered = None if argument is None else self.slice(argument)
            if condition is not None:
                gathered = f"CASE WHEN {self.slice(condition)} THEN {gathered or 'TRUE'} END"
                kind = AggregateKind.COUNT if kind is AggregateKind.COUNT_ROWS else kind
            self.calls[named] = Call(kind, gathered)
            if gathered is not None:
                self.columns.append(None if argument is None or condition is not None else self.column(argument))
        return list(self.calls).index(named)


_BY_NODE: Final[Mapping[type[exp.Expr], AggregateKind]] = {
    exp.Sum: AggregateKind.SUM, exp.Avg: AggregateKind.AVG, exp.Min: AggregateKind.MIN, exp.Max: AggregateKind.MAX,
    exp.LogicalAnd: AggregateKind.ALL, exp.LogicalOr: AggregateKind.ANY, exp.Count: AggregateKind.COUNT,
}  # fmt: skip
_BY_NAME: Final = {"mean": AggregateKind.AVG, "every": AggregateKind.ALL}


def _name(node: exp.Expr) -> str:
    return fold(node.name) if isinstance(node, exp.Anonymous) else ""


def _kind_of(node: exp.Expr, text: str) -> tuple[AggregateKind, exp.Expr | None]:
    """The kind of an aggregate, and its argument."""
    kind = _BY_NODE.get(type(node)) or _BY_NAME.get(_name(node))
    if kind is None:
        raise _NotKept(f"{text[:60] or node.sql(dialect='postgres')[:60]}")
    further = node.expressions[1:] if isinstance(node, exp.Anonymous) else node.expressions
    argument = node.expressions[0] if isinstance(node, exp.Anonymous) else node.this
    if further:
        raise _NotKept(f"{text[:60]}, which has more than one argument")
    if isinstance(argument, exp.Distinct):
        if len(argument.expressions) != 1 or kind not in (AggregateKind.COUNT, AggregateKind.MIN, AggregateKind.MAX):
            raise _NotKept(text[:60])
        kind = AggregateKind.COUNT_DISTINCT if kind is AggregateKind.COUNT else kind
        argument = argument.expressions[0]
    if isinstance(argument, (exp.Order, exp.Tuple, exp.HavingMax)):
        raise _NotKept(text[:60])
    if isinstance(argument, exp.Star):
        return AggregateKind.COUNT_ROWS, None
    if any(is_aggregate(inner) for inner in argument.walk()):
        raise _NotKept(f"{text[:60]}, an aggregate of an aggregate")
    return kind, argument
