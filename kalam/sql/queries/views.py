"""The SELECT of a materialized view: what may not stand in it, and what it makes of each row of its source.

Its rows are kept, so it says the same whenever and for whomever it is asked: nothing of it reads a clock, chance or who
asks. A SELECT is *row-wise* where each row of its one table makes one row or none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

import msgspec
from sqlglot import exp

from kalam.errors import InvalidName, Unsupported
from kalam.names import check_name
from kalam.sql.queries.select import is_aggregate, read_query
from kalam.sql.queries.select_names import list_places
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.dialect import parse_query
from kalam.sql.text.edits import Edits
from kalam.sql.text.lexer import Kind, StatementText, Token, read_tokens
from kalam.sql.text.mentions import name_of
from kalam.sql.text.statements import QueryText

PLACE = "kalam_place"
"""The column by which a row of the result tells of which row of a batch it was made."""
_CHANGING = frozenset(
    {
        *("now", "current_timestamp", "current_date", "current_time", "localtime", "localtimestamp", "today"),
        *("random", "rand", "uuid", "uuidv4", "uuidv7", "gen_random_uuid", "uuid_v7", "snowflake_id"),
        *("current_user", "current_roles", "session_user"),
    }
)
_WITHOUT_BRACKETS = frozenset({"CURRENT_TIMESTAMP", "CURRENT_DATE", "CURRENT_TIME", "LOCALTIME", "LOCALTIMESTAMP"})
_OWN_EXCEPT = re.compile(r' EXCEPT \("_[^)]*\)')
"""What ``read_query`` writes behind a ``*`` beside which hidden columns are named."""
_OF_SERVER = frozenset({"_updated", "_deleted"})
_MANY_ROWS = frozenset({"unnest", "generate_series", "range"})
_PARTS = {
    "group": "GROUP BY",
    "having": "HAVING",
    "order": "ORDER BY",
    "limit": "LIMIT",
    "offset": "OFFSET",
    "distinct": "DISTINCT",
    "joins": "a join",
    "with_": "WITH",
    "qualify": "QUALIFY",
    "windows": "WINDOW",
    "laterals": "LATERAL",
}


class ResultColumn(msgspec.Struct, frozen=True):
    """A column of a SELECT: its name, and the column of the source that it is, if it is one and nothing else."""

    name: str
    column: str | None


class ViewShape(msgspec.Struct, frozen=True):
    """What a SELECT is made of: the names of columns in it, its result, and the part that is not row-wise, if any."""

    names: frozenset[str]
    results: tuple[ResultColumn, ...]
    not_row_wise: str | None


def read_view_query(cursor: Cursor) -> QueryText:
    """Read the SELECT of a view up to the end of the statement; raises Unsupported for what may not stand in one."""
    start = cursor.token.start
    query = read_query(cursor)
    line, column = cursor.statement.place(start)
    statement = StatementText(query.text, line=line, column=column)
    _refuse_tokens(statement)
    tree = parse_query(statement, 0, len(query.text))
    for node in tree.walk():
        if isinstance(node, (exp.Select, exp.SetOperation)) and node.args.get("limit") and not node.args.get("order"):
            raise Unsupported(
                "LIMIT without ORDER BY cannot stand in a view: it says something else each time it is asked",
                line=line,
                column=column,
            )
    return query


def _refuse_tokens(statement: StatementText) -> None:
    for token, following in pairwise(read_tokens(statement)):
        name = token.name.lower()
        if token.kind is Kind.PARAMETER:
            raise _refusal(statement, token, "a view has no parameters: nobody gives any when it is kept up")
        called = name in _CHANGING and following.text == "("
        if called or token.word in _WITHOUT_BRACKETS:
            raise _refusal(
                statement, token, f"{name}() cannot stand in a view: it says something else each time it is asked"
            )
        if name in _OF_SERVER:
            raise _refusal(statement, token, f"{name} cannot stand in a view: it is what Kalam notes of a row")


def _refusal(statement: StatementText, token: Token, detail: str) -> Unsupported:
    line, column = statement.place(token.start)
    return Unsupported(detail, line=line, column=column)


def with_columns(query: QueryText, columns: Sequence[str]) -> QueryText:
    """The query over one table in which ``*`` is written as the columns that it means now; raises Unsupported."""
    tree = parse_query(StatementText(query.text), 0, len(query.text))
    if not isinstance(tree, exp.Select):
        return query
    edits = Edits(query.text)
    for node in tree.expressions:
        star = node.this if isinstance(node, exp.Column) else node
        if not isinstance(star, exp.Star):
            continue
        end = star.meta["end"] + 1
        own = _OWN_EXCEPT.match(query.text, end)
        if own is None and any(star.args.values()):
            raise Unsupported("* EXCEPT and * REPLACE cannot stand in a view", hint="name the columns")
        qualifier = node.args.get("table") if isinstance(node, exp.Column) else None
        between = ", " if qualifier is None else f', "{name_of(qualifier)}".'
        named = between.join(f'"{name}"' for name in columns)
        edits.replace((star.meta["start"], end if own is None else own.end()), named)
    return edits.applied(query)


def view_shape(text: str) -> ViewShape:
    """What a SELECT that ``with_columns`` has written is made of; raises InvalidName for a result without a name."""
    tree = parse_query(StatementText(text), 0, len(text))
    names = frozenset(name_of(node.this) for node in tree.find_all(exp.Column) if isinstance(node.this, exp.Identifier))
    first = _first_select(tree)
    results = () if first is None else tuple(_results(first, is_of_rows=first is tree and _is_of_rows(first)))
    return ViewShape(names, results, _not_row_wise(tree))


def _first_select(tree: exp.Expr) -> exp.Select | None:
    """The SELECT that names the columns of a query: of a UNION its first one."""
    while isinstance(tree, (exp.SetOperation, exp.Subquery)):
        tree = tree.this
    return tree if isinstance(tree, exp.Select) else None


def _is_of_rows(tree: exp.Select) -> bool:
    """Whether a column of the one table in it has, where it stands in the result, a value that a row has there."""
    source, group = tree.args.get("from_"), tree.args.get("group")
    alone = source is not None and isinstance(source.this, exp.Table) and not source.this.args.get("joins")
    plain = group is None or (
        not any(value for part, value in group.args.items() if part != "expressions")
        and not any(isinstance(node.unnest(), (exp.Cube, exp.Rollup, exp.GroupingSets)) for node in group.expressions)
    )
    return alone and plain and not any(tree.args.get(part) for part in ("joins", "laterals", "with_"))


def _results(tree: exp.Select, *, is_of_rows: bool) -> Iterator[ResultColumn]:
    seen: set[str] = set()
    for number, node in enumerate(tree.expressions, 1):
        if isinstance(node.this if isinstance(node, exp.Column) else node, exp.Star):
            raise Unsupported("* over more than one table cannot stand in a view", hint="name the columns")
        inner = node.this if isinstance(node, exp.Alias) else node
        plain = (
            name_of(inner.this) if isinstance(inner, exp.Column) and isinstance(inner.this, exp.Identifier) else None
        )
        alias = node.args["alias"] if isinstance(node, exp.Alias) else None
        name = name_of(alias) if isinstance(alias, exp.Identifier) else plain
        if name is None:
            raise Unsupported(f"column {number} of the SELECT has no name; write: {node.sql()[:60]} AS name")
        if name.startswith("_"):
            raise InvalidName(f"column name {name[:80]!r} is reserved; write {name[:80]} AS another name")
        if name in seen:
            raise InvalidName(f"two columns of the SELECT are called {name!r}; write AS another name behind one")
        seen.add(name)
        yield ResultColumn(check_name(name, "column"), plain if is_of_rows else None)


def _not_row_wise(tree: exp.Expr) -> str | None:
    """The part because of which a row of the source does not make one row or none; None where each does."""
    if not isinstance(tree, exp.Select):
        return "UNION" if isinstance(tree, exp.SetOperation) else "VALUES"
    for part, called in _PARTS.items():
        if tree.args.get(part):
            return called
    source = tree.args.get("from_")
    if source is None:
        return "a SELECT without FROM"
    if not isinstance(source.this, exp.Table) or not isinstance(source.this.this, exp.Identifier):
        return "a sub-query in FROM"
    if source.this.args.get("joins"):
        return "a join"
    for node in tree.walk():
        if isinstance(node, exp.Window):
            return f"the window function {node.this.sql()[:60]}"
        if is_aggregate(node):
            return f"the aggregate {node.sql()[:60]}"
        if node is not tree and isinstance(node, (exp.Query, exp.Exists)):
            return "a sub-query"
        if isinstance(node, (exp.Explode, exp.Unnest, exp.GenerateSeries)) or (
            isinstance(node, exp.Anonymous) and node.name.lower() in _MANY_ROWS
        ):
            return "unnest"
    return None


def with_place(query: QueryText) -> QueryText:
    """A row-wise query whose result begins with ``PLACE``."""
    span = next(iter(list_places(StatementText(query.text))))
    edits = Edits(query.text)
    edits.enclose(span, before=f'"{PLACE}", ')
    return edits.applied(query)


def with_result(query: QueryText, expression: str, name: str) -> QueryText:
    """The query with one more column behind the others."""
    *_, last = list_places(StatementText(query.text))
    edits = Edits(query.text)
    edits.enclose(last, behind=f', {expression} AS "{name}"')
    return edits.applied(query)
