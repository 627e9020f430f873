"""What is counted of the lake, for those who only read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from kalam.latency import Latency


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The lakes of all tables.

    ``lag_s`` is of the one that is furthest behind its last flush, in seconds; ``kept_bytes`` are the replaced segments
    that stay for other engines, as of the last commit.
    """

    tables: int
    lag_s: float
    metadata_bytes: int
    kept_bytes: int


class Work:
    """What was done since the start: how long commits took, and how many failed."""

    def __init__(self) -> None:
        self.durations = Latency()
        self.failures = 0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the block as a commit if it comes to its end."""
        since = time.perf_counter()
        yield
        self.durations.record(time.perf_counter() - since)
