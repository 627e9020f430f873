"""How a value that is compared with a column is written in SQL, so that DataFusion reads it as an INSERT does."""

from __future__ import annotations

from typing import Any

from kalam.rows.column_types import TYPES
from kalam.schema import DataType

FORMED = frozenset(name for name, kind in TYPES.items() if kind.compared is not None)
"""The types whose values have a form of their own in a comparison."""


def own_form(kind: DataType, value: Any) -> str | None:
    """What is written for a value that is compared with a column of this type; None where it stays as it is.

    Raises InvalidValue for a text that can be no BLOB, which DataFusion would take for its bytes.
    """
    compared = TYPES[kind.name].compared
    return None if compared is None else compared(value, kind)


def unquoted(literal: str) -> str:
    """The text that a literal in single quotes is."""
    return literal[1:-1].replace("''", "'")
