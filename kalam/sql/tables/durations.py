"""Spans of time as options write them: `'10s'`, `'5m'`, `'1h'`, `'7d'`, or a whole number of seconds."""

from __future__ import annotations

import re
from typing import Any

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"([0-9]{1,12})([smhd]?)", re.IGNORECASE | re.ASCII)


def seconds(value: Any, units: str = "smhd") -> int | None:
    """The seconds that ``value`` means, None where it is no duration.

    ``units`` are the letters that are allowed; a number without a unit is seconds, allowed where ``s`` is.
    """
    match = _DURATION.fullmatch(str(value)) if isinstance(value, (int, str)) and not isinstance(value, bool) else None
    if match is None:
        return None
    unit = match[2].lower() or "s"
    return int(match[1]) * _UNITS[unit] if unit in units else None


def duration_text(span_s: int, units: str = "dhms") -> str:
    """The shortest text that means so many seconds, in the largest of ``units`` that divides them, else the last."""
    unit = next((unit for unit in units if span_s % _UNITS[unit] == 0), units[-1])
    return f"{span_s // _UNITS[unit]}{unit}"
