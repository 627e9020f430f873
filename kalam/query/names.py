"""Names of columns and tables that only a query's plan knows."""

from __future__ import annotations

HIDDEN_KEY, HIDDEN_SEQ = "_hidden_key", "_hidden_seq"
"""The columns of the keys that newer versions hide, and from which seq on they do not."""


def hidden_key(place: int) -> str:
    """The column of one part of such a key."""
    return f"{HIDDEN_KEY}_{place}"


DELETED_SUFFIX = "$deleted"
"""Behind the name of a table that is read with its deleted rows."""
