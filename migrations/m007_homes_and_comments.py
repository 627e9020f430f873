"""The folder of a table that has not the name of its folder, and what is said of tables and columns.

``home`` is NULL where the folder is called as the table. ``column_id`` is 0 for what is said of the table itself.
"""

from __future__ import annotations

from typing import Any


def homes_and_comments(db: Any) -> None:
    """Add the column, and make the table."""
    db.execute("ALTER TABLE tables ADD COLUMN home TEXT")
    db.execute(
        """CREATE TABLE comments (
            table_id INTEGER NOT NULL,
            column_id INTEGER NOT NULL,
            comment TEXT NOT NULL,
            PRIMARY KEY (table_id, column_id)
        ) WITHOUT ROWID"""
    )
