"""Changes of large statements are laid down beside the log, in pieces, before the one transaction that counts them.

A row of ``log`` that names a row of ``staged`` has its rows there. Rows of ``staged`` that no row of ``log`` names
belong to a statement that is not done, or are over.
"""

from __future__ import annotations

from typing import Any


def staged_changes(db: Any) -> None:
    """Make the table."""
    db.execute(
        """CREATE TABLE staged (
            staged_id INTEGER PRIMARY KEY AUTOINCREMENT,
            stage TEXT NOT NULL,
            payload BLOB NOT NULL,
            old BLOB,
            old_updated BLOB
        )"""
    )
    db.execute("ALTER TABLE log ADD COLUMN staged_id INTEGER")
    db.execute("CREATE INDEX log_staged ON log (staged_id) WHERE staged_id IS NOT NULL")
