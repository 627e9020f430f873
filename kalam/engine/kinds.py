"""What statements are called in words: in the audit, and where they are described."""

from __future__ import annotations

import re

from kalam.sql.text.statements import CreateSelect, DropSelect, Select, Statement
from kalam.sql.text.view_statements import AlterView, CreateView, DropView, RefreshView

_WORD = re.compile(r"(?<!^)(?=[A-Z])")
_READING = ("SELECT", "EXPLAIN", "SHOW", "DESCRIBE", "USE", "SUBSCRIBE")


def kind_of(statement: Statement) -> str:
    """A statement in words."""
    if isinstance(statement, Select) and statement.query.text[:7].upper() == "EXPLAIN":
        return "EXPLAIN"
    if isinstance(statement, (CreateSelect, DropSelect)):
        return "CREATE VIEW" if isinstance(statement, CreateSelect) else "DROP VIEW"
    if isinstance(statement, CreateView | DropView | AlterView | RefreshView):
        return f"{type(statement).__name__.removesuffix('View').upper()} MATERIALIZED VIEW"
    return _WORD.sub(" ", type(statement).__name__).upper()


def writes(kind: str) -> bool:
    """Whether a statement of this kind changes anything."""
    return not kind.startswith(_READING)
