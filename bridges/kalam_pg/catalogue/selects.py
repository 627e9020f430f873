"""Queries about the catalogue in SQLite's words, with the names and types of what they give.

Every query calls its columns ``c0``, ``c1``, … in SQLite, so that two of one name are no trouble, and the names that
PostgreSQL would give are told beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from sqlglot import exp

from kalam.errors import InvalidValue, SyntaxFault, Unsupported
from kalam.sql.text.limits import TOO_DEEP
from kalam_pg.catalogue import pg_types
from kalam_pg.catalogue.coded import UNKNOWN, Coded, Parameters, as_type, cast, name
from kalam_pg.catalogue.coding import Expr, Query
from kalam_pg.catalogue.expressions import Expressions, direction, identifier
from kalam_pg.catalogue.output_names import output_name
from kalam_pg.catalogue.scopes import Output, Scope
from kalam_pg.catalogue.series import RUNNING
from kalam_pg.catalogue.sources import Sources

_SELECT_PARTS: Final = frozenset(
    {"expressions", "from_", "joins", "where", "group", "having", "order", "limit", "offset", "distinct", "with_"}
)
_SETS: Final = {exp.Union: "UNION", exp.Intersect: "INTERSECT", exp.Except: "EXCEPT"}


class Question(msgspec.Struct, frozen=True):
    """A whole statement, put into words: ``read`` are the relations that it names, by their tables."""

    sql: str
    outputs: tuple[Output, ...]
    parameters: tuple[str, ...]
    read: frozenset[str]

    @property
    def asks_rights(self) -> bool:
        """Whether it may depend on what the user may do with tables, and not only on which she sees."""
        return "k_has_" in self.sql or any(relation.endswith(("privileges", "grants")) for relation in self.read)


def put(tree: Expr, declared: Sequence[int]) -> Question:
    """A statement's tree in SQLite's words; ``declared`` are the OIDs that a client gave for parameters (0: none).

    Raises what the statement has wrong, and Unsupported for what is not offered.
    """
    parameters = Parameters(declared)
    selects = Selects(parameters)
    try:
        query = selects.query(tree, Scope())
    except RecursionError:
        raise SyntaxFault(TOO_DEEP) from None
    return Question(query.sql, query.outputs, parameters.types(), frozenset(selects.sources.read))


class Selects:
    """Puts queries into words."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.expressions = Expressions(self.query, parameters)
        self.sources = Sources(self.expressions)

    def query(self, node: Expr, scope: Scope) -> Query:
        """A query, in a scope around it."""
        while isinstance(node, exp.Subquery) and not node.args.get("with_"):
            node = node.this
        defined = node.args.get("with_")
        if defined is not None:
            scope = scope.inner()
            words = self._defined(defined, scope)
            query = self._bare(node, scope)
            return Query(f"{words} {query.sql}", query.outputs)
        return self._bare(node, scope)

    def _bare(self, node: Expr, scope: Scope) -> Query:
        if isinstance(node, exp.Select):
            return self._select(node, scope)
        if isinstance(node, exp.SetOperation):
            return self._set(node, scope)
        if isinstance(node, exp.Values):
            return self._values(node, scope)
        raise Unsupported(f"{type(node).key.upper()} is not offered in catalogue queries")

    def _defined(self, node: Expr, scope: Scope) -> str:
        """The tables of a WITH."""
        words = []
        for each in node.expressions:
            called = identifier(each.args["alias"].this) or ""
            names = [identifier(column) or "" for column in each.args["alias"].args.get("columns") or ()]
            if node.args.get("recursive") and isinstance(each.this, exp.Union):
                scope.define(called, _called(self.query(each.this.this, scope).outputs, names))
            query = self.query(each.this, scope)
            scope.define(called, _called(query.outputs, names))
            words.append(f"{name(called)}({_numbered(len(query.outputs))}) AS ({query.sql})")
        return f"WITH {'RECURSIVE ' if node.args.get('recursive') else ''}{', '.join(words)}"

    def _values(self, node: Expr, scope: Scope) -> Query:
        rows = [
            [
                self.expressions.code(value, scope)
                for value in (row.expressions if isinstance(row, exp.Tuple) else [row])
            ]
            for row in node.expressions
        ]
        if len({len(row) for row in rows}) != 1:
            raise InvalidValue("VALUES lists must all be the same length")
        columns = [self.expressions.of_one_type(column) for column in zip(*rows, strict=True)]
        words = [
            "SELECT " + ", ".join(f"{values[place].sql} AS c{number}" for number, (values, _) in enumerate(columns))
            for place in range(len(rows))
        ]
        outputs = tuple(Output(f"column{number}", kind) for number, (_, kind) in enumerate(columns, 1))
        return Query(" UNION ALL ".join(words), outputs)

    def _set(self, node: Expr, scope: Scope) -> Query:
        sides = [self._side(node.this, scope, left=True), self._side(node.expression, scope, left=False)]
        if len(sides[0].outputs) != len(sides[1].outputs):
            raise InvalidValue("each side of a UNION must have the same number of columns")
        outputs = tuple(
            right if left.type == UNKNOWN else left
            for left, right in zip(sides[0].outputs, sides[1].outputs, strict=True)
        )
        outputs = tuple(
            msgspec.structs.replace(kept, name=left.name) for kept, left in zip(outputs, sides[0].outputs, strict=True)
        )
        kind = next(word for each, word in _SETS.items() if isinstance(node, each))
        every = "" if node.args.get("distinct") else " ALL"
        if every and kind != "UNION":
            raise Unsupported(f"{kind} ALL is not offered in catalogue queries")
        sql = f"{sides[0].sql} {kind}{every} {sides[1].sql}"
        return Query(sql + self._ends(node, scope, outputs), outputs)

    def _side(self, node: Expr, scope: Scope, *, left: bool) -> Query:
        """A side of a UNION; SQLite knows no brackets there."""
        query = self.query(node, scope)
        while isinstance(node, exp.Subquery):
            node = node.this
        bare = isinstance(node, exp.Select) or (left and isinstance(node, exp.SetOperation))
        if bare and not any(node.args.get(part) for part in ("order", "limit", "offset", "with_")):
            return query
        return Query(f"SELECT * FROM ({query.sql})", query.outputs)

    def _select(self, node: Expr, around: Scope) -> Query:
        odd = [part for part, value in node.args.items() if value and part not in _SELECT_PARTS]
        if odd:
            raise Unsupported(f"{odd[0].upper()} of a SELECT is not offered in catalogue queries")
        scope = around.inner()
        source = node.args.get("from_")
        words = [self.sources.joined(source.this, node.args.get("joins") or (), scope)] if source is not None else []
        scope.series = []
        listed = self._listed(node, scope)
        arrays, scope.series = scope.series, None
        if arrays:
            words.append(f"json_each(k_zip({', '.join(arrays)})) AS {RUNNING}")
        outputs = tuple(Output(called, coded.type, coded.typmod, coded.record) for called, coded in listed)
        values = ", ".join(f"{coded.sql} AS c{place}" for place, (_, coded) in enumerate(listed))
        distinct = node.args.get("distinct")
        if distinct is not None and distinct.args.get("on") is not None:
            raise Unsupported("DISTINCT ON is not offered in catalogue queries")
        sql = f"SELECT {'DISTINCT ' if distinct is not None else ''}{values}"
        if words:
            sql += f" FROM {' JOIN '.join(words)}"
        if node.args.get("where") is not None:
            sql += f" WHERE {self.expressions.truth(node.args['where'].this, scope)}"
        if node.args.get("group") is not None:
            sql += f" GROUP BY {self._grouped(node.args['group'], scope, listed)}"
        if node.args.get("having") is not None:
            sql += f" HAVING {self.expressions.truth(node.args['having'].this, scope)}"
        return Query(sql + self._ends(node, scope, outputs), outputs)

    def _listed(self, node: Expr, scope: Scope) -> list[tuple[str, Coded]]:
        """The select list: names and values."""
        listed: list[tuple[str, Coded]] = []
        for each in node.expressions:
            starred = each.this if isinstance(each, exp.Column) else each
            if isinstance(starred, exp.Star):
                alias = identifier(each.args.get("table")) if isinstance(each, exp.Column) else None
                listed += [(column.name, column.coded) for column in scope.starred(alias)]
                continue
            inner = each.this if isinstance(each, exp.Alias) else each
            coded = self.expressions.settled(inner, scope)
            called = identifier(each.args["alias"]) if isinstance(each, exp.Alias) else output_name(inner)
            listed.append((called or "?column?", coded))
        if not listed:
            raise Unsupported("a SELECT without columns is not offered in catalogue queries")
        return listed

    def _grouped(self, node: Expr, scope: Scope, listed: Sequence[tuple[str, Coded]]) -> str:
        if any(value for part, value in node.args.items() if part != "expressions"):
            raise Unsupported("GROUP BY in catalogue queries has plain expressions")
        terms = []
        for each in node.expressions:
            if isinstance(each, exp.Literal) and not each.is_string:
                terms.append(each.this)
                continue
            called = identifier(each.this) if isinstance(each, exp.Column) and not each.args.get("table") else None
            if called is not None and scope.looked_up(called, None, None) is None:
                names = [each_name for each_name, _ in listed]
                if called in names:
                    terms.append(str(names.index(called) + 1))
                    continue
            terms.append(self.expressions.settled(each, scope).sql)
        return ", ".join(terms)

    def _ends(self, node: Expr, scope: Scope, outputs: Sequence[Output]) -> str:
        """ORDER BY, LIMIT and OFFSET."""
        sql = ""
        order, limit, offset = (node.args.get(part) for part in ("order", "limit", "offset"))
        if order is not None:
            terms = [f"{self._term(each.this, scope, outputs)} {direction(each)}" for each in order.expressions]
            sql += f" ORDER BY {', '.join(terms)}"
        if limit is not None:
            count = limit.args.get("count") if isinstance(limit, exp.Fetch) else limit.expression
            sql += f" LIMIT {self._count(count, scope) if count is not None else 1}"
        if offset is not None:
            sql += f"{'' if limit is not None else ' LIMIT -1'} OFFSET {self._count(offset.expression, scope)}"
        return sql

    def _count(self, node: Expr, scope: Scope) -> str:
        if isinstance(node, (exp.Null, exp.Column)):  # LIMIT NULL, LIMIT ALL
            return "-1"
        coded = as_type(self.expressions.code(node, scope), "int8", self.parameters)
        return cast(coded, "int8", -1, self.parameters).sql

    def _term(self, node: Expr, scope: Scope, outputs: Sequence[Output]) -> str:
        """A term of ORDER BY: a column of the result by its place or name comes before all others."""
        if isinstance(node, exp.Literal) and not node.is_string:
            return node.name
        if isinstance(node, exp.Column) and not node.args.get("table"):
            names = [output.name for output in outputs]
            called = identifier(node.this)
            if called in names:
                return str(names.index(called) + 1)
        return self.expressions.settled(node, scope).sql


def _numbered(count: int) -> str:
    return ", ".join(f"c{place}" for place in range(count))


def _called(outputs: Sequence[Output], names: Sequence[str]) -> tuple[Output, ...]:
    """The columns of a table of a WITH, by the names that it gives them."""
    return tuple(
        msgspec.structs.replace(output, name=names[place]) if place < len(names) else output
        for place, output in enumerate(outputs)
    )


def shown_type(output: Output) -> str:
    """The type that a client is told."""
    known = output.type in pg_types.by_name() and output.type != UNKNOWN
    return output.type if known else "text"
