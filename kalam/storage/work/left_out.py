"""Versions of a copy, by their seqs, as a file of bits: those that a statement changes, and a merge leaves out.

A bit for each change that the copy has had: 1.25 MB for ten million.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalam.schema import SEQ

Seqs = npt.NDArray[np.int64]


class SeqBits:
    """A set of seqs up to ``last_seq``, in memory."""

    def __init__(self, last_seq: int) -> None:
        self._bits = np.zeros(last_seq // 8 + 1, np.uint8)

    def add(self, seqs: Seqs) -> None:
        """Take in seqs."""
        np.bitwise_or.at(self._bits, seqs >> 3, np.left_shift(1, seqs & 7).astype(np.uint8))

    def write(self, path: Path) -> None:
        """Write them for another process; they need not survive a crash."""
        path.write_bytes(self._bits.tobytes())


class LeftOut:
    """The same in a file."""

    def __init__(self, path: Path) -> None:
        self._bits: Any = np.memmap(path, np.uint8, mode="r")

    def has(self, seqs: Seqs) -> npt.NDArray[np.bool_]:
        """Which of the seqs are in it; larger ones than it knows are not."""
        places = seqs >> 3
        bits = np.asarray(self._bits[np.minimum(places, len(self._bits) - 1)])
        there: npt.NDArray[np.bool_] = np.right_shift(bits, (seqs & 7).astype(np.uint8)) & 1 == 1
        return there & (places < len(self._bits))

    def without(self, rows: pa.Table) -> pa.Table:
        """The rows, which have their seqs, without those that are in it."""
        gone = self.has(rows.column(SEQ).to_numpy())
        return rows.filter(pa.array(~gone)) if gone.any() else rows
