"""The log keeps ``_updated`` of the version before a change, as ``kalam.storage.log.former_times`` writes it.

NULL in what was written before: there the time of the change stands for it.
"""

from __future__ import annotations

from typing import Any


def former_times(db: Any) -> None:
    """Add the column."""
    db.execute("ALTER TABLE log ADD COLUMN old_updated BLOB")
