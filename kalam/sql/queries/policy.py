"""The expression of a policy: what may stand in it, and the columns that it names.

It is judged over one row at a time and for whoever asks, so it has columns of its table, literals, CURRENT_USER(),
CURRENT_ROLES() and functions, and nothing that looks at other rows or turns out otherwise for the same row.
"""

from __future__ import annotations

from itertools import pairwise

import msgspec
from sqlglot import exp

from kalam.errors import ColumnNotFound, SyntaxFault, Unsupported
from kalam.names import listed
from kalam.schema import TableDefinition
from kalam.sql.queries.select import is_aggregate, read_expression
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.dialect import parse_expression
from kalam.sql.text.edits import Edits
from kalam.sql.text.lexer import Kind, StatementText, Token, read_tokens
from kalam.sql.text.mentions import name_of
from kalam.sql.text.statements import QueryText

_VOLATILE = frozenset({"random", "rand", "uuid", "uuidv4", "uuidv7", "gen_random_uuid", "uuid_v7", "snowflake_id"})


class PolicyText(msgspec.Struct, frozen=True):
    """The expression of a policy as it was written, and the columns that it names."""

    query: QueryText
    columns: frozenset[str]


def read_policy(text: str, table: TableDefinition) -> PolicyText:
    """Read the expression of a policy on a table.

    Raises SyntaxFault, Unsupported for what cannot stand in one, and ColumnNotFound.
    """
    statement = StatementText(text)
    _refuse_tokens(statement)
    cursor = Cursor(statement)
    query = read_expression(cursor)
    cursor.expect_end()
    tree = parse_expression(statement, 0, len(text))
    for node in tree.walk():
        _refuse(node)
    columns = frozenset(_column(node, table) for node in tree.find_all(exp.Column))
    return PolicyText(query, columns)


def with_column_renamed(text: str, name: str, new_name: str) -> str:
    """The expression of a policy in which a column has its new name."""
    edits = Edits(text)
    for node in parse_expression(StatementText(text), 0, len(text)).find_all(exp.Column):
        if isinstance(node.this, exp.Identifier) and name_of(node.this) == name:
            edits.replace((node.this.meta["start"], node.this.meta["end"] + 1), f'"{new_name}"')
    return edits.whole


def _refuse_tokens(statement: StatementText) -> None:
    tokens = list(read_tokens(statement))
    for token, following in pairwise(tokens):
        if token.kind is Kind.PARAMETER:
            raise _refusal(statement, token, "a policy has no parameters: it is asked when nobody gives any")
        if token.name.lower() in _VOLATILE and following.text == "(":
            raise _refusal(
                statement,
                token,
                f"{token.name.lower()}() cannot stand in a policy: it says something else each time it is asked",
            )


def _refusal(statement: StatementText, token: Token, detail: str) -> Unsupported:
    line, column = statement.place(token.start)
    return Unsupported(detail, line=line, column=column)


def _refuse(node: exp.Expr) -> None:
    if isinstance(node, (exp.Query, exp.Values, exp.Exists, exp.Table)):
        raise Unsupported("a policy cannot hold a sub-query: it is judged over one row")
    if isinstance(node, exp.Window) or is_aggregate(node):
        raise Unsupported("a policy cannot hold an aggregate or window function: it is judged over one row")


def _column(node: exp.Column, table: TableDefinition) -> str:
    if not isinstance(node.this, exp.Identifier):
        raise SyntaxFault("'*' is no value")
    name = name_of(node.this)
    if node.args.get("table") is not None:
        raise Unsupported(
            f"{node.sql()}: the columns of a policy are those of its table, and stand by themselves",
            hint=f"write {name}",
        )
    if name not in (declared := [column.name for column in table.declared_columns]):
        raise ColumnNotFound(f"table {table.name} has no column {name!r} for a policy; it has {listed(declared)}")
    return name
