"""Durations as settings have them: ``30s``, ``1min``, ``500`` (milliseconds)."""

from __future__ import annotations

import re
from typing import Final

from kalam.errors import InvalidOption

_DURATION: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s|min|h|d)?\s*")
_MILLISECONDS: Final = {"us": 0.001, "ms": 1.0, "s": 1_000.0, "min": 60_000.0, "h": 3_600_000.0, "d": 86_400_000.0}


def milliseconds(written: str) -> float:
    """The duration in milliseconds; raises InvalidOption for what is none."""
    found = _DURATION.fullmatch(written)
    if found is None:
        raise InvalidOption(f"{written[:40]!r} is no duration", hint="Valid units are us, ms, s, min, h and d.")
    return float(found[1]) * _MILLISECONDS[found[2] or "ms"]
