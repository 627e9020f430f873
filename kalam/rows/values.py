"""A column's values on their way: what fits, what does not, and how it is shown in an error."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

Values = Sequence[Any]
Fix = Callable[[Values], Values]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NONFINITE_TEXTS: Final = ("NaN", "Infinity", "-Infinity")


class BadValue(Exception):
    """The value at ``index`` of a column does not fit: ``expected`` and ``found`` say how, ``hint`` what to do."""

    def __init__(self, index: int, expected: str, found: str, hint: str | None = None) -> None:
        super().__init__(expected)
        self.index, self.expected, self.found, self.hint = index, expected, found, hint


def shorten(value: Any) -> str:
    """A value as an error shows it, cut: a text in quotes, and what has a text of its own without Python's words."""
    text = str(value) if isinstance(value, date | Decimal) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def each(values: Values, fix: Callable[[Any], Any], expected: str) -> list[Any]:
    """Apply ``fix`` to every value but NULL; a ValueError and its like become a BadValue with the place."""
    fixed = []
    for index, value in enumerate(values):
        try:
            fixed.append(None if value is None else fix(value))
        except (ValueError, TypeError, OverflowError, InvalidOperation, RecursionError, struct.error) as exc:
            raise BadValue(index, expected, shorten(value)) from exc
    return fixed


def nonfinite_text(value: float) -> str:
    """The text that stands for NaN or an infinity in JSON."""
    return NONFINITE_TEXTS[0] if value != value else NONFINITE_TEXTS[1 if value > 0 else 2]
