"""How long something took: counts by fixed bounds, as Prometheus's histograms have them, for a fraction of the cost."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

BOUNDS_S: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""The upper ends of the buckets, in seconds; a last bucket takes what is above."""


class Latency:
    """The durations of one kind of work since the start."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.total_s = 0.0

    def record(self, seconds: float, times: int = 1) -> None:
        """Count ``times`` pieces of work that each took ``seconds``."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += times
        self.total_s += seconds * times


def quantile(counts: Sequence[int], q: float) -> float | None:
    """The duration in seconds under which the share ``q`` of ``counts`` lies; None where nothing was counted.

    Within a bucket the durations are taken to be spread evenly, as ``histogram_quantile`` of Prometheus does; above the
    last bound it is that bound.
    """
    total = sum(counts)
    if not total:
        return None
    rank = q * total
    below, lower = 0, 0.0
    for upper, count in zip(BOUNDS_S, counts, strict=False):
        if count and below + count >= rank:
            return lower + (upper - lower) * max(rank - below, 0.0) / count
        below, lower = below + count, upper
    return BOUNDS_S[-1]
