"""What integers count that are given for times."""

from __future__ import annotations

import enum


class TimestampUnit(enum.StrEnum):
    """What an integer counts that is given for a TIMESTAMP, since 1970."""

    SECONDS = "s"
    MILLISECONDS = "ms"
    MICROSECONDS = "us"
    NANOSECONDS = "ns"

    @property
    def words(self) -> str:
        """``seconds`` and so on."""
        return self.name.lower()
