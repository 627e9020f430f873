"""Rows on their way into groups: each with the slot of its group, and with a sign.

A row that is new counts once, one that is gone minus once (``weights``), so the order of the rows of a batch does not
count. ``codes`` number the groups of the batch from 0, of which some may have no row; ``slots`` are the places at which
these groups are kept.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
SLICE_ROWS = 1 << 16
"""Rows of a batch at most: sums of 32 bits a row then stay within the 53 that a DOUBLE counts exactly."""


class Batch(msgspec.Struct, frozen=True, dict=True):
    """Signed rows of at most ``SLICE_ROWS``."""

    codes: Ints
    slots: Ints
    weights: Ints

    @cached_property
    def takes_away(self) -> bool:
        """Whether one of its rows is gone."""
        return bool((self.weights < 0).any())

    def part(self, chosen: Flags) -> Batch:
        """The rows that are chosen, with the groups of all."""
        return Batch(self.codes[chosen], self.slots, self.weights[chosen])

    def total(self, values: npt.NDArray[Any]) -> Ints:
        """For each group the sum of a whole number of at most 32 bits a row, signs apart."""
        return np.bincount(self.codes, weights=values, minlength=len(self.slots)).astype(np.int64)

    @cached_property
    def number(self) -> Ints:
        """For each group its rows, those that are gone taken off."""
        return self.total(self.weights)


def present(values: pa.Array) -> Flags:
    """Which values are not NULL."""
    return np.asarray(values.is_valid().to_numpy(zero_copy_only=False), np.bool_)


def grown(kept: Ints, capacity: int) -> Ints:
    """An array with room for so many slots in its last dimension, zeros behind what is kept."""
    wide = np.zeros((*kept.shape[:-1], capacity), np.int64)
    wide[..., : kept.shape[-1]] = kept
    return wide
