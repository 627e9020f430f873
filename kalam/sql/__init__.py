"""Text → statement values. Pure: nothing here knows whether a table exists."""

from __future__ import annotations

from kalam.sql.grammar import parse, parse_live, parse_statement
from kalam.sql.tables.options import table_options, view_options
from kalam.sql.tables.spelling import create_table_sql, describe_options, options_sql
from kalam.sql.text.lexer import StatementText, split

__all__ = [
    "StatementText",
    "create_table_sql",
    "describe_options",
    "options_sql",
    "parse",
    "parse_live",
    "parse_statement",
    "split",
    "table_options",
    "view_options",
]
