"""What is kept of each group for one aggregate, and the aggregate's value of it.

Law: the value of a group is that of its rows, in whatever order and batches they came and went. Counts and sums follow
by difference. Where that is not enough a group is ``stale``, and has to be made anew of the source's rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kalam.views.groups.batch import Batch, Flags, Ints, grown, present
from kalam.views.groups.sums import FloatSums, WholeSums, doubles

Values = tuple[pa.Array, Flags]
"""Values by slot, and for which slots there can be none: out of range."""


class Accumulator(Protocol):
    """The state of one aggregate for all groups."""

    stale: set[int]

    def grow(self, capacity: int) -> None:
        """Make room for so many slots."""

    def clear(self, slots: Ints) -> None:
        """Forget what these slots have."""

    def add(self, batch: Batch, values: pa.Array) -> None:
        """Count the values of a batch's rows in."""

    def merge(self, batch: Batch, columns: Sequence[pa.Array]) -> None:
        """Count in what was gathered of many rows (``gathering``), a row for each group of a batch."""

    def complete(self, batch: Batch, rest: pa.Array) -> None:
        """Take in what was left of values that were counted in as they were gathered."""

    def values(self, slots: Ints) -> Values:
        """The aggregate's values of these slots."""

    def dump(self, slots: Ints) -> list[pa.Array]:
        """What is kept of these slots, as columns."""

    def load(self, slots: Ints, columns: Sequence[pa.Array]) -> None:
        """Take over what ``dump`` gave."""


def none_fails(slots: Ints) -> Flags:
    """That each of these slots has a value."""
    return np.zeros(len(slots), np.bool_)


class Counts:
    """``count``: how many values there are that are not NULL."""

    def __init__(self, capacity: int) -> None:
        self.stale: set[int] = set()
        self.counts: Ints = np.zeros(capacity, np.int64)

    def grow(self, capacity: int) -> None:
        """Make room for so many slots."""
        self.counts = grown(self.counts, capacity)

    def clear(self, slots: Ints) -> None:
        """Forget what these slots have."""
        self.counts[slots] = 0

    def add(self, batch: Batch, values: pa.Array | None) -> None:
        """Count the values of a batch's rows in."""
        counted = batch if values is None or not values.null_count else batch.part(present(values))
        self.counts[batch.slots] += counted.number

    def merge(self, batch: Batch, columns: Sequence[pa.Array]) -> None:
        """Count in how many were gathered."""
        np.add.at(self.counts, batch.slots[batch.codes], columns[0].to_numpy())

    def complete(self, batch: Batch, rest: pa.Array) -> None:
        """Nothing is ever left."""

    def values(self, slots: Ints) -> Values:
        """The aggregate's values of these slots."""
        return pa.array(self.counts[slots]), none_fails(slots)

    def dump(self, slots: Ints) -> list[pa.Array]:
        """What is kept of these slots, as columns."""
        return [pa.array(self.counts[slots])]

    def load(self, slots: Ints, columns: Sequence[pa.Array]) -> None:
        """Take over what ``dump`` gave."""
        self.counts[slots] = columns[0].to_numpy()


class Sums:
    """``sum`` and ``avg``: of integers and DECIMALs exactly, of floats without anything that stays behind."""

    def __init__(self, kind: pa.DataType, result: pa.DataType, capacity: int, *, mean: bool) -> None:
        self.stale: set[int] = set()
        self._kind, self._result, self._mean = kind, result, mean
        self._counts = Counts(capacity)
        is_decimal = pa.types.is_decimal(kind)
        limbs = 4 if is_decimal else 2
        self._sums = FloatSums(capacity) if pa.types.is_floating(kind) else WholeSums(limbs, capacity)
        self._scale = kind.scale if is_decimal else 0

    def grow(self, capacity: int) -> None:
        """Make room for so many slots."""
        self._counts.grow(capacity)
        self._sums.grow(capacity)

    def clear(self, slots: Ints) -> None:
        """Forget what these slots have."""
        self._counts.clear(slots)
        self._sums.clear(slots)

    def add(self, batch: Batch, values: pa.Array) -> None:
        """Count the values of a batch's rows in."""
        self._counts.add(batch, values)
        self.complete(batch, values)

    def merge(self, batch: Batch, columns: Sequence[pa.Array]) -> None:
        """Count in how many were gathered, and the parts of their sums."""
        self._counts.merge(batch, columns[:1])
        if len(columns) > 1:
            self._sums.merge(batch, columns[1:])

    def complete(self, batch: Batch, rest: pa.Array) -> None:
        """Add values that are counted."""
        if rest.null_count:
            batch, rest = batch.part(present(rest)), rest.drop_null()
        if isinstance(self._sums, FloatSums):
            self._sums.add(batch, doubles(rest))
        else:
            self._sums.add(batch, rest)

    def values(self, slots: Ints) -> Values:
        """The aggregate's values of these slots."""
        counts = self._counts.counts[slots]
        if isinstance(self._sums, FloatSums):
            sums, failed = self._sums.floats(slots)
            with np.errstate(invalid="ignore", divide="ignore"):
                found = sums / counts if self._mean else sums
            return pa.array(found, mask=counts == 0).cast(self._result), failed & (counts != 0)
        if self._mean:
            return self._means(self._sums, slots, counts)
        low, high, failed = self._sums.words(slots)
        if pa.types.is_decimal(self._result):
            found, failed = _decimals(low, high, failed, self._result)
            return pc.if_else(pa.array(counts == 0), pa.scalar(None, self._result), found), failed & (counts != 0)
        return pa.array(np.where(failed, 0, low), mask=counts == 0).cast(self._result), failed & (counts != 0)

    def _means(self, sums: WholeSums, slots: Ints, counts: Ints) -> Values:
        if not pa.types.is_decimal(self._result):
            with np.errstate(invalid="ignore", divide="ignore"):
                return pa.array(sums.floats(slots) / counts, mask=counts == 0).cast(self._result), none_fails(slots)
        shift = 10 ** (self._result.scale - self._scale)
        found: list[int | None] = []
        for slot, count in zip(slots.tolist(), counts.tolist(), strict=True):
            total = sums.whole(slot) * shift
            nearest = (2 * abs(total) + count) // (2 * count) if count else 0
            found.append(None if not count else nearest if total >= 0 else -nearest)
        most = 10**self._result.precision
        failed = np.array([value is not None and abs(value) >= most for value in found], np.bool_)
        return _scaled([0 if out else value for out, value in zip(failed, found, strict=True)], self._result), failed

    def dump(self, slots: Ints) -> list[pa.Array]:
        """What is kept of these slots, as columns."""
        return [*self._counts.dump(slots), *self._sums.dump(slots)]

    def load(self, slots: Ints, columns: Sequence[pa.Array]) -> None:
        """Take over what ``dump`` gave."""
        self._counts.load(slots, columns[:1])
        self._sums.load(slots, list(columns[1:]))


class Truths:
    """``bool_and`` and ``bool_or``: by how many are true and how many false."""

    def __init__(self, capacity: int, *, every: bool) -> None:
        self.stale: set[int] = set()
        self._every = every
        self._counts: Ints = np.zeros((2, capacity), np.int64)

    def grow(self, capacity: int) -> None:
        """Make room for so many slots."""
        self._counts = grown(self._counts, capacity)

    def clear(self, slots: Ints) -> None:
        """Forget what these slots have."""
        self._counts[:, slots] = 0

    def add(self, batch: Batch, values: pa.Array) -> None:
        """Count the values of a batch's rows in."""
        for place, wanted in enumerate((False, True)):
            chosen = pc.equal(values, wanted).fill_null(False).to_numpy(zero_copy_only=False)
            self._counts[place, batch.slots] += batch.part(chosen).number

    def merge(self, batch: Batch, columns: Sequence[pa.Array]) -> None:
        """Count in how many false and true ones were gathered."""
        for place, column in enumerate(columns):
            np.add.at(self._counts[place], batch.slots[batch.codes], column.to_numpy())

    def complete(self, batch: Batch, rest: pa.Array) -> None:
        """Nothing is ever left."""

    def values(self, slots: Ints) -> Values:
        """The aggregate's values of these slots."""
        false, true = self._counts[:, slots]
        found = false == 0 if self._every else true > 0
        return pa.array(found, mask=(false + true) == 0), none_fails(slots)

    def dump(self, slots: Ints) -> list[pa.Array]:
        """What is kept of these slots, as columns."""
        return [pa.array(counts) for counts in self._counts[:, slots]]

    def load(self, slots: Ints, columns: Sequence[pa.Array]) -> None:
        """Take over what ``dump`` gave."""
        for place, column in enumerate(columns):
            self._counts[place, slots] = column.to_numpy()


def _decimals(low: Ints, high: Ints, failed: Flags, kind: pa.DataType) -> Values:
    """DECIMALs of two words each, and those that have too many digits."""
    words = np.empty(2 * len(low), np.int64)
    words[0::2], words[1::2] = np.where(failed, 0, low), np.where(failed, 0, high)
    near = np.abs(words[1::2].astype(np.float64)) * 2.0**64
    most = 10**kind.precision
    for place in np.flatnonzero(near >= 0.9 * most).tolist():
        whole = (int(words[2 * place + 1]) << 64) + int(words[2 * place].astype(np.uint64))
        if abs(whole) >= most:
            failed[place], words[2 * place], words[2 * place + 1] = True, 0, 0
    return pa.Array.from_buffers(kind, len(low), [None, pa.py_buffer(words)]), failed


def _scaled(values: list[int | None], kind: pa.DataType) -> pa.Array:
    """Whole numbers as the digits of DECIMALs."""
    plain = [0 if value is None else value for value in values]
    words = np.array([(value & ((1 << 64) - 1), (value >> 64) & ((1 << 64) - 1)) for value in plain], np.uint64)
    found = pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(words.reshape(-1)))])
    return pc.if_else(pa.array([value is None for value in values], pa.bool_()), pa.scalar(None, kind), found)
