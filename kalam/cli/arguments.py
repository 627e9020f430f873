"""What several commands take alike, read once; WrongUsage says what is wrong with it."""

from __future__ import annotations

from kalam.cli.failure import WrongUsage
from kalam.names import NAME_PATTERN, TableName


def table_name(text: str) -> TableName:
    """The table of ``namespace.table``, in whatever case it is written."""
    namespace, dot, table = text.lower().partition(".")
    if not dot or not NAME_PATTERN.fullmatch(namespace) or not NAME_PATTERN.fullmatch(table):
        raise WrongUsage(f"{text!r} is no table: give it as namespace.table")
    return TableName(namespace, table)
