"""The readers of queries and expressions that need a tree, under one roof and without it.

sqlglot, which makes the trees, takes a tenth of a second to import. So the commands import it with the first text that
has a query or an expression, and a server by ``import_readers`` while its broker starts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from kalam.schema import TableDefinition
from kalam.sql.queries.pins import Condition
from kalam.sql.queries.scan_bounds import ScanBounds
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.limits import KEPT_CHARACTERS_MAX
from kalam.sql.text.statements import QueryText, Select

if TYPE_CHECKING:
    from kalam.sql.queries.policy import PolicyText


_INNER = re.compile(r"\(\s*select\b", re.IGNORECASE)


def import_readers() -> None:
    """Import what the functions below would import; takes some 0.1 s of CPU."""
    for name in ("select", "select_names", "inner_names", "condition", "policy", "bounds", "views"):
        import_module(f"{__package__}.{name}")


def select(cursor: Cursor) -> Select:
    """``select.select``."""
    from kalam.sql.queries.select import select

    return select(cursor)


def read_query(cursor: Cursor, *, before_conflict: bool = False) -> QueryText:
    """``select.read_query``."""
    from kalam.sql.queries.select import read_query

    return read_query(cursor, before_conflict=before_conflict)


def read_expression(cursor: Cursor, *stops: str) -> QueryText:
    """``select.read_expression``."""
    from kalam.sql.queries.select import read_expression

    return read_expression(cursor, *stops)


def read_condition(cursor: Cursor, *stops: str) -> QueryText:
    """``select.read_condition``."""
    from kalam.sql.queries.select import read_condition

    return read_condition(cursor, *stops)


def read_select_list(cursor: Cursor) -> QueryText:
    """``select.read_select_list``."""
    from kalam.sql.queries.select import read_select_list

    return read_select_list(cursor)


def read_sources(cursor: Cursor, *stops: str) -> QueryText:
    """``select.read_sources``."""
    from kalam.sql.queries.select import read_sources

    return read_sources(cursor, *stops)


def read_view_query(cursor: Cursor) -> QueryText:
    """``views.read_view_query``."""
    from kalam.sql.queries.views import read_view_query

    return read_view_query(cursor)


def with_distinct_names(query: QueryText) -> tuple[QueryText, list[str]] | None:
    """``select_names.with_distinct_names``."""
    from kalam.sql.queries.select_names import with_distinct_names

    return with_distinct_names(query)


def may_have_inner_names(text: str) -> bool:
    """Whether a text may have sub-queries whose columns have names in PostgreSQL only."""
    return _INNER.search(text) is not None


def with_inner_names(query: QueryText) -> QueryText:
    """``inner_names.with_inner_names``."""
    from kalam.sql.queries.inner_names import with_inner_names

    return with_inner_names(query)


def postgresql_names(query: QueryText, names: Sequence[str]) -> list[str]:
    """``select_names.postgresql_names``; of short texts it is kept."""
    kept = len(query.text) <= KEPT_CHARACTERS_MAX
    return list((_names if kept else _names.__wrapped__)(query.text, tuple(names)))


@lru_cache(maxsize=512)
def _names(text: str, names: tuple[str, ...]) -> tuple[str, ...]:
    from kalam.sql.queries.select_names import postgresql_names

    return tuple(postgresql_names(text, names))


def read_shape(where: QueryText, table: TableDefinition, parameters: tuple[object, ...] = ()) -> Condition:
    """``condition.read_shape``."""
    from kalam.sql.queries.condition import read_shape

    return read_shape(where, table, parameters)


def read_bounds(query: QueryText, tokens: Mapping[str, int], parameters: Sequence[Any]) -> ScanBounds:
    """``bounds.read_bounds``."""
    from kalam.sql.queries.bounds import read_bounds

    return read_bounds(query, tokens, parameters)


def read_policy(text: str, table: TableDefinition) -> PolicyText:
    """``policy.read_policy``."""
    from kalam.sql.queries.policy import read_policy

    return read_policy(text, table)


def with_column_renamed(text: str, name: str, new_name: str) -> str:
    """``policy.with_column_renamed``."""
    from kalam.sql.queries.policy import with_column_renamed

    return with_column_renamed(text, name, new_name)
