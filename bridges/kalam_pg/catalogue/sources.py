"""FROM of a catalogue query in SQLite's words: relations, sub-queries, tables of a WITH, functions, and their joins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlglot import exp

from kalam.errors import ColumnNotFound, TableNotFound, Unsupported
from kalam_pg.catalogue import relations
from kalam_pg.catalogue.calls import RETURNED
from kalam_pg.catalogue.coded import Coded, name
from kalam_pg.catalogue.coding import Coding, Expr
from kalam_pg.catalogue.expressions import identifier
from kalam_pg.catalogue.scopes import Column, Item, Scope, query_item, relation_item
from kalam_pg.catalogue.series import SERIES, Series, series

BESIDE_A_TABLE: Final = "relations of pg_catalog and information_schema cannot be joined to tables"
READ_APART: Final = "read them in a query of their own: they are not stored where tables are"
_TABLE_PARTS: Final = frozenset({"this", "db", "catalog", "alias", "joins", "ordinality"})


class Sources:
    """Puts what stands in FROM into SQLite's words, and into the scope."""

    def __init__(self, of: Coding) -> None:
        self._of = of
        self.read: set[str] = set()
        """The relations that were named, by the names of their tables."""
        self._numbered = 0

    def alias(self) -> str:
        """A name that nothing else has."""
        self._numbered += 1
        return f"k_s{self._numbered}"

    def joined(self, first: Expr, joins: Sequence[Expr], scope: Scope) -> str:
        """What stands in FROM, with its joins."""
        parts = [self._item(first, scope)]
        for join in joins:
            known = len(scope.items)
            item = self._item(join.this, scope)
            side = (join.args.get("side") or "").upper()
            condition = self._condition(join, scope, known)
            parts.append(f"{side} JOIN {item}{f' ON {condition}' if condition else ''}".strip())
        return " ".join(parts)

    def _condition(self, join: Expr, scope: Scope, known: int) -> str | None:
        on = join.args.get("on")
        if on is not None:
            return self._of.truth(on, scope)
        left, right = scope.items[:known], scope.items[known:]
        shared = [identifier(each) or "" for each in join.args.get("using") or ()]
        if (join.args.get("method") or "").upper() == "NATURAL":
            there = {column.name for item in left for column in item.columns}
            shared = [column.name for item in right for column in item.columns if column.name in there]
        conditions = []
        for wanted in shared:
            sides = [self._first(items, wanted, scope) for items in (left, right)]
            conditions.append(f"{sides[0].sql} = {sides[1].sql}")
            scope.merged |= {(item.alias, wanted) for item in right}
        return " AND ".join(conditions) or None

    def _first(self, items: Sequence[Item], wanted: str, scope: Scope) -> Coded:
        for item in items:
            found = item.column(wanted)
            if found is not None and (item.alias, wanted) not in scope.merged:
                return found
        raise ColumnNotFound(f'column "{wanted}" of a USING does not exist')

    def _item(self, node: Expr, scope: Scope) -> str:
        if isinstance(node, exp.Table):
            return self._table(node, scope)
        if isinstance(node, exp.Unnest):
            ordinal = node.args.get("offset")
            names = _column_names(node) + ([identifier(ordinal) or ""] if isinstance(ordinal, exp.Identifier) else [])
            return self._function("unnest", node.expressions, node, scope, names, bool(ordinal))
        if isinstance(node, exp.Lateral):
            return self._lateral(node, scope)
        if isinstance(node, exp.Values):
            return self._derived(node, node, scope)
        if isinstance(node, exp.Subquery):
            if isinstance(node.this, exp.Table):
                inner = node.this
                return f"({self.joined(inner, inner.args.get('joins') or (), scope)})"
            return self._derived(node.this, node, scope)
        raise Unsupported(f"{type(node).key.upper()} in FROM is not offered in catalogue queries")

    def _table(self, node: Expr, scope: Scope) -> str:
        odd = [part for part, value in node.args.items() if value and part not in _TABLE_PARTS]
        if odd:
            raise Unsupported(f"{odd[0]} of a table is not offered in catalogue queries")
        if isinstance(node.this, exp.Anonymous):
            ordinal = bool(node.args.get("ordinality"))
            return self._function(
                node.this.name.lower(), node.this.expressions, node, scope, _column_names(node), ordinal
            )
        called, schema = identifier(node.this) or "", identifier(node.args.get("db"))
        alias = alias_of(node) or called
        outputs = scope.defined(called) if schema is None else None
        if outputs is not None:
            scope.items.append(query_item(alias, outputs, _column_names(node)))
            return f"{name(called)} AS {name(alias)}"
        relation = relations.found(called, schema)
        if relation is None:
            if schema in relations.SCHEMAS:
                raise TableNotFound(f'relation "{schema}.{called}" does not exist')
            raise Unsupported(BESIDE_A_TABLE, hint=READ_APART)
        self.read.add(relation.stored_as)
        scope.items.append(_renamed(relation_item(relation, alias), _column_names(node)))
        return f"{name(relation.stored_as)} AS {name(alias)}"

    def _derived(self, query: Expr, node: Expr, scope: Scope) -> str:
        """A sub-query, which sees what is around the query and not what stands beside it."""
        coded = self._of.query(query, scope.outer or Scope())
        alias = alias_of(node) or self.alias()
        scope.items.append(query_item(alias, coded.outputs, _column_names(node)))
        return f"({coded.sql}) AS {name(alias)}"

    def _lateral(self, node: Expr, scope: Scope) -> str:
        inner = node.this
        ordinal = bool(node.args.get("ordinality"))
        if isinstance(inner, exp.Dot):
            inner = inner.expression
        if isinstance(inner, exp.Unnest):
            return self._function("unnest", inner.expressions, node, scope, _column_names(node), ordinal)
        if isinstance(inner, exp.Anonymous):
            return self._function(inner.name.lower(), inner.expressions, node, scope, _column_names(node), ordinal)
        if isinstance(inner, exp.Subquery):
            try:
                return self._derived(inner.this, node, scope)
            except (ColumnNotFound, TableNotFound):
                raise Unsupported("a LATERAL sub-query is not offered in catalogue queries") from None
        raise Unsupported("LATERAL is offered for functions in catalogue queries")

    def _function(
        self, function: str, arguments: Sequence[Expr], node: Expr, scope: Scope, names: list[str], ordinal: bool
    ) -> str:
        code = self._of.code
        alias = alias_of(node)
        if function not in SERIES and function in RETURNED:
            return self._one_row(function, arguments, alias, scope, names)
        read = self.alias()
        if function == "unnest" and len(arguments) > 1:
            found = [series(function, [code(each, scope)], self._of.parameters) for each in arguments]
            array = f"k_zip({', '.join(each.array for each in found)})"
            members = [
                (f"unnest{place}", each.element(f"json_extract({read}.value, '$[{place}]')"))
                for place, each in enumerate(found)
            ]
        else:
            one = series(function, [code(each, scope) for each in arguments], self._of.parameters)
            array, members = one.array, _members(one, read, alias or function)
        if ordinal:
            members.append(("ordinality", Coded(f"({read}.key + 1)", "int8")))
        columns = tuple(
            Column(names[place] if place < len(names) else called, coded)
            for place, (called, coded) in enumerate(members)
        )
        whole = columns[0].coded if len(columns) == 1 else None
        scope.items.append(Item(alias or function, columns, whole=whole))
        return f"json_each({array}) AS {read}"

    def _one_row(
        self, function: str, arguments: Sequence[Expr], alias: str | None, scope: Scope, names: list[str]
    ) -> str:
        """A function that gives one value, in FROM."""
        call = exp.Anonymous(this=function, expressions=list(arguments))
        coded = self._of.settled(call, scope.outer or Scope())
        read = self.alias()
        column = Column(names[0] if names else alias or function, Coded(f"{read}.c0", coded.type))
        scope.items.append(Item(alias or function, (column,), whole=column.coded))
        return f"(SELECT {coded.sql} AS c0) AS {read}"


def _members(found: Series, read: str, called: str) -> list[tuple[str, Coded]]:
    if not found.members:
        return [(called, found.element(f"{read}.value"))]
    return [(member, Coded(f"json_extract({read}.value, '$.{member}')", kind)) for member, kind in found.members]


def _renamed(item: Item, names: Sequence[str]) -> Item:
    if not names:
        return item
    columns = tuple(
        Column(names[place] if place < len(names) else column.name, column.coded)
        for place, column in enumerate(item.columns)
    )
    return Item(item.alias, columns, None, None, item.oid)


def alias_of(node: Expr) -> str | None:
    """What something in FROM is called."""
    alias = node.args.get("alias")
    return identifier(alias.this) if alias is not None else None


def _column_names(node: Expr) -> list[str]:
    """What an alias calls the columns."""
    alias = node.args.get("alias")
    listed = alias.args.get("columns") if alias is not None else None
    return [identifier(each.this if isinstance(each, exp.ColumnDef) else each) or "" for each in listed or ()]
