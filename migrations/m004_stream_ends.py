"""How far each stream of the broker was seen to go, and what it has lost since.

``table_id`` is 0 for a change feed, and ``lost_us`` the time at which events were missed last.
"""

from __future__ import annotations

from typing import Any


def stream_ends(db: Any) -> None:
    """Make the table."""
    db.execute(
        """CREATE TABLE stream_ends (
            stream TEXT PRIMARY KEY,
            table_id INTEGER NOT NULL,
            created TEXT NOT NULL,
            first_seq INTEGER NOT NULL,
            last_seq INTEGER NOT NULL,
            messages INTEGER NOT NULL,
            doubtful_seq INTEGER NOT NULL,
            holes INTEGER NOT NULL,
            lost INTEGER NOT NULL,
            lost_us INTEGER NOT NULL
        )"""
    )
