"""Texts whose form tells enough, so that they need not be parsed.

Each of these is strict: a text that means the same and is written otherwise is not recognised, and goes the long way.
"""

from __future__ import annotations

import re
from typing import Final

from kalam.sql.text.statements import QueryText

EXCLUDED: Final = "excluded"
"""What ON CONFLICT calls the row that was to be inserted."""
_COUNT: Final = re.compile(r"\s*SELECT\s+COUNT\s*\(\s*\*\s*\)\s*(?:AS\s+([a-z_][a-z0-9_]*)\s+)?FROM\s+", re.IGNORECASE)
_VALUES: Final = re.compile(r"\s*INSERT\s+INTO\s+[\w.\"]+\s*(?:\([^()]*\)\s*)?VALUES\b", re.IGNORECASE)
_PROPOSED: Final = re.compile(rf'\s*{EXCLUDED}\s*\.\s*(?:"([^"]+)"|([a-z_][a-z0-9_]*))\s*', re.IGNORECASE)
_NEGATIVE_ZERO: Final = re.compile(r"\s*-\s*(?:0+\.0*|\.0+)\s*")
_STAR: Final = re.compile(r"\.\s*\*")
_LAST_WORD: Final = re.compile(r"\w+$")
_LOOKED_BACK: Final = 300
"""So many characters before a star hold the name that it is of."""


def counted_as(query: QueryText) -> str | None:
    """The column's name if the query counts all rows of one table and does nothing else; None for any other query."""
    if len(query.tables) != 1 or query.tables[0].sees_deleted or query.text[query.tables[0].end :].strip():
        return None
    head = _COUNT.fullmatch(query.text[: query.tables[0].start])
    return None if head is None else (head[1] or "count(*)").lower()


def is_values_insert(text: str) -> bool:
    """Whether a statement inserts a list of rows."""
    return _VALUES.match(text) is not None


def has_plain_columns(select_list: str, names: set[str]) -> bool:
    """Whether a select list is ``*`` or nothing but these columns."""
    return select_list.strip() == "*" or {name.strip().lower() for name in select_list.split(",")} <= names


def proposed_column(expression: str) -> str | None:
    """The column whose value the row had that was to be inserted: ``c`` of ``excluded.c``."""
    named = _PROPOSED.fullmatch(expression)
    return None if named is None else named[1] or named[2].lower()


def is_negative_zero(expression: str) -> bool:
    """Whether it is ``-0.0``, of which a DECIMAL has no sign."""
    return _NEGATIVE_ZERO.fullmatch(expression) is not None


def starred(text: str) -> frozenset[str]:
    """The names, in lower case, that stand before ``.*`` in a text; it is gone through once, from the stars."""
    found: set[str] = set()
    for star in _STAR.finditer(text):
        before = text[max(0, star.start() - _LOOKED_BACK) : star.start()].rstrip().removesuffix('"')
        named = _LAST_WORD.search(before)
        if named is not None:
            found.add(named[0].lower())
    return frozenset(found)
