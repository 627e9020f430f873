"""Each segment has the CRC-32 of its file.

NULL for the segments that were written before: those get one when a compaction writes them again.
"""

from __future__ import annotations

from typing import Any


def segment_checksums(db: Any) -> None:
    """Add the column."""
    db.execute("ALTER TABLE segments ADD COLUMN checksum INTEGER")
