"""How a number of rows is said."""

from __future__ import annotations


def counted(rows: int, verb: str = "") -> str:
    """So many rows, and with a verb (``are``, ``were``) that it fits."""
    if rows == 1:
        return f"1 row {'is' if verb == 'are' else 'was'}" if verb else "1 row"
    return f"{rows:,} rows {verb}".rstrip()
