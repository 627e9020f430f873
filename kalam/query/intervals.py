"""Intervals as PostgreSQL writes them: ``1 year 2 mons -3 days +04:05:06.789``."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

_MICROSECONDS_A_DAY = 86_400_000_000


def interval_text(months: int, days: int, microseconds: int) -> str:
    """An interval of so many months, days and microseconds.

    A part that follows a negative one and is not negative itself has a sign, as in PostgreSQL.
    """
    sign = -1 if months < 0 else 1
    counts = (sign * (abs(months) // 12), "year"), (sign * (abs(months) % 12), "mon"), (days, "day")
    texts: list[str] = []
    negative = False
    for count, unit in counts:
        if count:
            plus = "+" if negative and count > 0 else ""
            texts.append(f"{plus}{count} {unit}{'' if count == 1 else 's'}")
            negative = count < 0
    if microseconds or not texts:
        texts.append(_clock(microseconds, after_negative=negative))
    return " ".join(texts)


def _clock(microseconds: int, *, after_negative: bool) -> str:
    seconds, fraction = divmod(abs(microseconds), 1_000_000)
    sign = "-" if microseconds < 0 else "+" if after_negative else ""
    text = f"{sign}{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return text + (f".{fraction:06d}".rstrip("0") if fraction else "")


def shown_interval(value: Any) -> str:
    """The text of an interval of Arrow's, or of the time between two timestamps."""
    if isinstance(value, timedelta):
        micros = (value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds
        sign = -1 if micros < 0 else 1
        days, rest = divmod(abs(micros), _MICROSECONDS_A_DAY)
        return interval_text(0, sign * days, sign * rest)
    months, days, nanoseconds = value
    return interval_text(months, days, int(nanoseconds / 1_000))
