"""A TIMESTAMP as text, and more digits than microseconds: one rule at every door.

What is finer than a microsecond is rounded to the nearest one, and half of one to the later, as msgspec does where it
reads JSON; PostgreSQL rounds, too. What that carries beyond the year 9999 is refused.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

_FINER = re.compile(r"([.,][0-9]{6})([0-9]+)")
_MICROSECOND = timedelta(microseconds=1)


def read_timestamp(text: str) -> datetime:
    """The instant that an ISO 8601 text names, without an offset as it is; raises ValueError and OverflowError."""
    text = text.strip()
    finer = _FINER.search(text)
    if finer is None:
        return datetime.fromisoformat(text)
    moment = datetime.fromisoformat(text[: finer.start(2)] + text[finer.end(2) :])
    return moment + _MICROSECOND if finer[2][0] >= "5" else moment


def read_utc_timestamp(text: str) -> datetime:
    """The same in UTC, which a text without an offset means in SQL."""
    moment = read_timestamp(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def rounded_micros(nanoseconds: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Nanoseconds as microseconds."""
    whole, rest = np.divmod(nanoseconds, 1_000)
    return np.asarray(whole + (rest >= 500), np.int64)
