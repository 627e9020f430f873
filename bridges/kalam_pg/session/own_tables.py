"""Which statements change nothing but the session's own temporary tables, which ROLLBACK takes back as it should."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from kalam.errors import KalamError
from kalam.sql.tables.temporary import at_temporary
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.lexer import StatementText
from kalam.sql.text.statements import TableRef

OwnWrite = Literal["rows", "tables"]
_CHANGING: Final = (("INSERT", "INTO"), ("UPDATE",), ("DELETE", "FROM"), ("MERGE", "INTO"))
_DEFINING: Final = (
    ("TRUNCATE", "TABLE"),
    ("TRUNCATE",),
    ("DROP", "TABLE", "IF", "EXISTS"),
    ("DROP", "TABLE"),
)


def own_write(statement: StatementText, is_own: Callable[[TableRef], bool]) -> OwnWrite | None:
    """What of the temporary tables a statement changes, and nothing else: rows, or which there are; else None."""
    cursor = Cursor(statement)
    if cursor.take("CREATE"):
        return "tables" if at_temporary(cursor) else None
    try:
        if any(cursor.take(*words) for words in _CHANGING):
            return "rows" if is_own(cursor.table()) else None
        if any(cursor.take(*words) for words in _DEFINING):
            return "tables" if is_own(cursor.table()) else None
    except KalamError:  # which the statement's reader tells
        pass
    return None
