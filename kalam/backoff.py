"""Pauses between tries: each twice as long as the one before, up to a bound."""

from __future__ import annotations

import time
from collections.abc import Iterator


class Backoff:
    """The pause after each failure in a row, in seconds: ``first_s``, then twice the last one, at most ``max_s``."""

    def __init__(self, first_s: float, max_s: float) -> None:
        self._first_s, self._max_s = first_s, max_s
        self._next_s = min(first_s, max_s)

    def failed(self) -> float:
        """How long to wait after one more failure."""
        pause_s, self._next_s = self._next_s, min(2 * self._next_s, self._max_s)
        return pause_s

    def reset(self) -> None:
        """It went well."""
        self._next_s = min(self._first_s, self._max_s)


class Backoffs:
    """When what failed for one of many may be tried again, by its id."""

    def __init__(self, first_s: float, max_s: float) -> None:
        self._first_s, self._max_s = first_s, max_s
        self._failing: dict[int, tuple[Backoff, float]] = {}

    def is_due(self, failed_id: int) -> bool:
        """Whether it may be tried: it did not fail the last time, or the pause is over."""
        failing = self._failing.get(failed_id)
        return failing is None or time.monotonic() >= failing[1]

    def failed(self, failed_id: int) -> float:
        """The pause, in seconds, before the next try."""
        backoff, _ = self._failing.get(failed_id) or (Backoff(self._first_s, self._max_s), 0.0)
        pause_s = backoff.failed()
        self._failing[failed_id] = backoff, time.monotonic() + pause_s
        return pause_s

    def succeeded(self, done_id: int) -> None:
        """It went well."""
        self._failing.pop(done_id, None)

    def __iter__(self) -> Iterator[int]:
        """What failed the last time."""
        return iter(self._failing)
