"""Segments that were replaced and whose files other engines may still read.

``path`` is relative to the folder of the user's copy. ``unnamed_us`` is the commit of the lake from which on none names
the file; NULL before it.
"""

from __future__ import annotations

from typing import Any


def replaced_segments(db: Any) -> None:
    """Make the table."""
    db.execute(
        """CREATE TABLE replaced_segments (
            replaced_id INTEGER PRIMARY KEY AUTOINCREMENT,
            table_id INTEGER NOT NULL,
            user_id TEXT NOT NULL,
            path TEXT NOT NULL,
            byte_count INTEGER NOT NULL,
            replaced_us INTEGER NOT NULL,
            unnamed_us INTEGER
        )"""
    )
    db.execute("CREATE INDEX replaced_segments_of_table ON replaced_segments (table_id)")
