"""Which tables a query names, where in its text, and which of them show their deleted rows.

Laws. A name that a WITH of an enclosing query defines is no table: in a plain WITH for the entries after it and for the
query itself, in a WITH RECURSIVE also for its own entry. A table sees its deleted rows exactly if the WHERE of the
SELECT that has it in its FROM names ``_deleted``, qualified by that table's name or alias, or unqualified; an
unqualified name in a sub-query belongs to the innermost SELECT that has a FROM.

What is not found here is never registered for DataFusion, so a mistake here is an error and never a leak.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from sqlglot import exp

from kalam.errors import Unsupported
from kalam.schema import DELETED
from kalam.sql.text.lexer import StatementText, fold
from kalam.sql.text.statements import TableRef, TableUse

TABLE_FUNCTIONS = frozenset({"generate_series", "range", "unnest"})
# For each SELECT, by its identity: the sources of its FROM, each with the names it goes by.
_Froms = dict[int, list[tuple[frozenset[str], exp.Expr]]]
_SERIES = (exp.GenerateSeries, exp.ExplodingGenerateSeries)


class Sources(msgspec.Struct):
    """What the FROM clauses of a tree hold, gathered by its one walk: tables, and what else has an alias there."""

    tables: list[exp.Table] = msgspec.field(default_factory=list)
    derived: list[exp.Expr] = msgspec.field(default_factory=list)
    deleted_columns: list[exp.Column] = msgspec.field(default_factory=list)


def name_of(identifier: exp.Expr) -> str:
    """The name that an identifier means: folded unless it is quoted."""
    text = str(identifier.this)
    return text if identifier.args.get("quoted") else fold(text)


def table_uses(sources: Sources, statement: StatementText, start: int) -> tuple[TableUse, ...]:
    """The mentions of tables, in the order of the text.

    ``start`` is where the tree's text begins in the statement; the positions of the result count from there. Raises
    Unsupported for files and foreign table functions.
    """
    tables = [table for table in sources.tables if not _is_function(table, statement, start)]
    real = [table for table in tables if not _is_cte(table)]
    shown = _showing_deleted(sources, tables)
    uses = [_use(table, statement, start, id(table) in shown) for table in real]
    return tuple(sorted(uses, key=lambda use: use.start))


def _is_function(table: exp.Table, statement: StatementText, start: int) -> bool:
    named = table.this
    if isinstance(named, (exp.Identifier, exp.Dot)):
        return False
    known = isinstance(named, _SERIES) or (
        isinstance(named, exp.Anonymous) and not table.args.get("db") and fold(named.name) in TABLE_FUNCTIONS
    )
    if not known:
        where = (named or table).meta.get("start", 0)
        line, column = statement.place(start + where)
        raise Unsupported(
            f"only tables, sub-queries and the functions {', '.join(sorted(TABLE_FUNCTIONS))} can stand in FROM",
            line=line,
            column=column,
        )
    return True


def _use(table: exp.Table, statement: StatementText, start: int, sees_deleted: bool) -> TableUse:
    parts = table.parts
    spans = [(part.meta.get("start"), part.meta.get("end")) for part in parts]
    first, last = spans[0][0], spans[-1][1]
    if first is None or last is None:
        raise statement.fault("a table's name cannot be read here; write it in double quotes", start)
    names = [name_of(part) for part in parts]
    _check_no_file(statement, start + first, names)
    if len(names) > 2:  # namespace and table
        raise statement.fault("a table is named 'table' or 'namespace.table'", start + first)
    ref = TableRef(names[0] if len(names) > 1 else None, names[-1])
    return TableUse(ref, first, last + 1, aliased=_alias(table) is not None, sees_deleted=sees_deleted)


def _check_no_file(statement: StatementText, position: int, names: list[str]) -> None:
    quoted = statement.text[position] == "'"
    if quoted or any(mark in name for name in names for mark in "/.:\\"):
        line, column = statement.place(position)
        raise Unsupported(
            "a query reads tables only; files and addresses cannot stand in FROM",
            line=line,
            column=column,
            hint="a table is written ns.table, without quotes around the whole",
        )


def _is_cte(table: exp.Table) -> bool:
    if table.args.get("db") or not isinstance(table.this, exp.Identifier):
        return False
    name = name_of(table.this)
    node: exp.Expr = table
    while (parent := node.parent) is not None:
        if isinstance(parent, exp.With):
            own = next(place for place, entry in enumerate(parent.expressions) if entry is node)
            visible = parent.expressions[: own + bool(parent.args.get("recursive"))]
        else:
            entries = parent.args.get("with_")
            visible = entries.expressions if entries is not None and entries is not node else []
        if any(_alias(entry) == name for entry in visible):
            return True
        node = parent
    return False


def _alias(node: exp.Expr) -> str | None:
    alias = node.args.get("alias")
    named = alias.this if isinstance(alias, exp.TableAlias) else alias
    return name_of(named) if isinstance(named, exp.Identifier) else None


def _showing_deleted(sources: Sources, tables: list[exp.Table]) -> set[int]:
    """The identities of the tables whose deleted rows are asked for."""
    if not sources.deleted_columns:
        return set()
    froms: _Froms = {}
    for node in (*tables, *sources.derived):
        froms.setdefault(id(node.find_ancestor(exp.Select)), []).append((_names(node), node))
    return {id(node) for column in sources.deleted_columns for node in _shown_by(column, froms)}


def _names(node: exp.Expr) -> frozenset[str]:
    """The names by which a source of a FROM can be called: its alias, else its name; and those of its brackets."""
    alias, namespace = _alias(node), node.args.get("db")
    names = {alias} if alias else set()
    if isinstance(node, exp.Table) and not alias:
        names |= {name_of(node.this)} | ({f"{name_of(namespace)}.{name_of(node.this)}"} if namespace else set())
    around = node.parent
    while isinstance(around, (exp.Subquery, exp.Join, exp.Table)):
        names |= {bracket} if isinstance(around, exp.Subquery) and (bracket := _alias(around)) else set()
        around = around.parent
    return frozenset(names)


def _shown_by(column: exp.Column, froms: _Froms) -> Iterator[exp.Expr]:
    """What the mention ``[[ns.]t.]_deleted`` refers to, if it stands in the WHERE of the SELECT that has that."""
    qualifier = ".".join(name_of(part) for part in column.parts[:-1] if isinstance(part, exp.Identifier))
    node: exp.Expr = column
    while (parent := node.parent) is not None:
        here = froms.get(id(parent), []) if isinstance(parent, exp.Select) else []
        meant = [source for names, source in here if not qualifier or qualifier in names]
        if meant:
            yield from meant if isinstance(node, exp.Where) else ()
            return
        node = parent


def is_deleted_column(node: exp.Expr) -> bool:
    """Whether the node names the column ``_deleted``."""
    return isinstance(node, exp.Column) and isinstance(node.this, exp.Identifier) and name_of(node.this) == DELETED
