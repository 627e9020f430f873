"""What of a group is known by its values one by one: the greatest, the least, the distinct ones.

Law: of a greatest or least value only that one is kept: where it is taken away the group is ``stale``. Distinct values
are kept with how often they are there, so that they can be taken away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kalam.errors import TooLarge
from kalam.views.groups.accumulators import Counts, Values, none_fails
from kalam.views.groups.batch import Batch, Flags, Ints, present
from kalam.views.groups.plain import as_numbers, from_plain, is_above, to_plain, unified

Found = npt.NDArray[Any]


class Extremes:
    """``max`` or ``min``: the value, and how many values there are; a value that is gone leaves its group stale.

    Values are kept as numbers where they are numbers or times, else as Python has them.
    """

    def __init__(self, kind: pa.DataType, capacity: int, *, greatest: bool) -> None:
        self.stale: set[int] = set()
        self._kind, self._greatest = kind, greatest
        self._counts = Counts(capacity)
        numbers = as_numbers(unified(pa.array([], kind)))
        self._found: Found = np.zeros(capacity, object if numbers is None else numbers.dtype)
        self._there: Flags = np.zeros(capacity, np.bool_)

    def grow(self, capacity: int) -> None:
        """Make room for so many slots."""
        self._counts.grow(capacity)
        more = capacity - len(self._found)
        self._found = np.append(self._found, np.zeros(more, self._found.dtype))
        self._there = np.append(self._there, np.zeros(more, np.bool_))

    def clear(self, slots: Ints) -> None:
        """Forget what these slots have."""
        self._counts.clear(slots)
        self._forget(slots)

    def _forget(self, slots: Ints) -> None:
        self._found[slots], self._there[slots] = 0, False
        self.stale.difference_update(slots.tolist())

    def add(self, batch: Batch, values: pa.Array) -> None:
        """Count the values of a batch's rows in."""
        self._counts.add(batch, values)
        batch, values = _net(batch, values)
        self._take(batch, values)
        if batch.takes_away:
            slots, found = self._extremes(batch, values, batch.weights < 0)
            self.stale.update(slots[~self._here_is_beyond(slots, found)].tolist())
        if self.stale:
            stale = np.fromiter(self.stale, np.int64, len(self.stale))
            self._forget(stale[self._counts.counts[stale] == 0])

    def merge(self, batch: Batch, columns: Sequence[pa.Array]) -> None:
        """Count in how many were gathered, and the extreme of them."""
        self._counts.merge(batch, columns[:1])
        self.complete(batch, columns[1])

    def complete(self, batch: Batch, rest: pa.Array) -> None:
        """Look at values that are counted."""
        self._take(*_net(batch, rest))

    def remake(self, batch: Batch, values: pa.Array, stale: Ints) -> None:
        """Find the values of these groups among all of their rows; how many there are is known."""
        self._forget(stale)
        self._take(*_net(batch, values))

    def _take(self, batch: Batch, values: pa.Array) -> None:
        slots, found = self._extremes(batch, values, batch.weights > 0)
        beyond = ~self._there[slots]
        known = np.flatnonzero(~beyond)
        beyond[known] = self._is_beyond(found[known], self._found[slots[known]])
        slots = slots[beyond]
        self._found[slots], self._there[slots] = found[beyond], True
        if self.stale:
            self.stale.difference_update(slots.tolist())

    def _here_is_beyond(self, slots: Ints, values: Found) -> Flags:
        """Where what is kept of slots is beyond these values."""
        beyond = self._there[slots]
        known = np.flatnonzero(beyond)
        beyond[known] = self._is_beyond(self._found[slots[known]], values[known])
        return beyond

    def _is_beyond(self, values: Found, others: Found) -> Flags:
        above = is_above(values, others) if self._greatest else is_above(others, values)
        return np.asarray(above, np.bool_)

    def _extremes(self, batch: Batch, values: pa.Array, chosen: Flags) -> tuple[Ints, Found]:
        """The slots of the groups of the chosen rows, and of each its own extreme."""
        if not chosen.any():
            return batch.slots[:0], self._found[:0]
        numbers = as_numbers(values)
        if numbers is not None:
            return self._extreme_numbers(batch, numbers, chosen)
        table = pa.table({"code": batch.codes[chosen], "value": values.filter(pa.array(chosen))})
        direction = "descending" if self._greatest else "ascending"
        order = pc.sort_indices(table, sort_keys=[("code", "ascending"), ("value", direction)])
        codes = table["code"].take(order).to_numpy()
        firsts = np.flatnonzero(np.diff(codes, prepend=-1))
        found = unified(table["value"].take(order.take(pa.array(firsts))))
        return batch.slots[codes[firsts]], _objects(to_plain(found))

    def _extreme_numbers(self, batch: Batch, numbers: Found, chosen: Flags) -> tuple[Ints, Found]:
        """The same of numbers, among which NaN is the greatest."""
        codes = batch.codes[chosen]
        there = np.flatnonzero(np.bincount(codes, minlength=len(batch.slots)))
        if numbers.dtype.kind == "f":
            # One of the two takes NaN wherever there is one, the other one wherever there is nothing else.
            beyond: np.ufunc = np.maximum if self._greatest else np.fmin
            start: float = -np.inf if self._greatest else np.nan
        else:
            beyond, bounds = np.maximum if self._greatest else np.minimum, np.iinfo(numbers.dtype)
            start = bounds.min if self._greatest else bounds.max
        found = np.full(len(batch.slots), start, numbers.dtype)
        with np.errstate(invalid="ignore"):  # NaN
            beyond.at(found, codes, numbers[chosen])
        return batch.slots[there], found[there]

    def values(self, slots: Ints) -> Values:
        """The aggregate's values of these slots."""
        found, there = self._found[slots], self._there[slots]
        if found.dtype != object:
            return pa.array(found, mask=~there).cast(self._kind), none_fails(slots)
        plain = [value if known else None for value, known in zip(found, there.tolist(), strict=True)]
        return from_plain(plain, self._kind), none_fails(slots)

    def dump(self, slots: Ints) -> list[pa.Array]:
        """What is kept of these slots, as columns."""
        return [*self._counts.dump(slots), self.values(slots)[0]]

    def load(self, slots: Ints, columns: Sequence[pa.Array]) -> None:
        """Take over what ``dump`` gave."""
        self._counts.load(slots, columns[:1])
        self._forget(slots)
        column = unified(columns[1])
        slots, column = slots[present(column)], column.drop_null()
        numbers = as_numbers(column)
        self._found[slots] = _objects(to_plain(column)) if numbers is None else numbers
        self._there[slots] = True


def _objects(values: list[Any]) -> Found:
    """Values as an array, each as it is."""
    found = np.empty(len(values), object)
    found[:] = values
    return found


def _net(batch: Batch, values: pa.Array) -> tuple[Batch, pa.Array]:
    """The values that are there, once for each group, without those that came and went in the same batch."""
    if values.null_count:
        batch, values = batch.part(present(values)), values.drop_null()
    if not len(values) or not batch.takes_away:
        return batch, values
    coded = values.dictionary_encode()
    count = len(coded.dictionary)
    pairs, codes = np.unique(batch.codes * count + coded.indices.to_numpy().astype(np.int64), return_inverse=True)
    times = np.bincount(codes, weights=batch.weights).astype(np.int64)
    pairs, times = pairs[times != 0], times[times != 0]
    return Batch(pairs // count, batch.slots, np.sign(times)), coded.dictionary.take(pa.array(pairs % count))


class DistinctCounts:
    """``count(DISTINCT)``: every value with how often it is there, at most ``pairs_max`` of them in all groups."""

    def __init__(self, kind: pa.DataType, capacity: int, pairs_max: int) -> None:
        self.stale: set[int] = set()
        self._kind, self._max, self._pairs = kind, pairs_max, 0
        self._times: list[dict[Any, int]] = [{} for _ in range(capacity)]

    def grow(self, capacity: int) -> None:
        """Make room for so many slots."""
        self._times += [{} for _ in range(capacity - len(self._times))]

    def clear(self, slots: Ints) -> None:
        """Forget what these slots have."""
        for slot in slots.tolist():
            self._pairs -= len(self._times[slot])
            self._times[slot] = {}

    def add(self, batch: Batch, values: pa.Array) -> None:
        """Count the values of a batch's rows in."""
        if values.null_count:
            batch, values = batch.part(present(values)), values.drop_null()
        if not len(values):
            return
        coded = unified(values).dictionary_encode()
        kinds, count = to_plain(coded.dictionary), len(coded.dictionary)
        pairs, codes = np.unique(batch.codes * count + coded.indices.to_numpy().astype(np.int64), return_inverse=True)
        times = np.bincount(codes, weights=batch.weights).astype(np.int64)
        slots = batch.slots[pairs // count]
        for slot, kind, number in zip(slots.tolist(), (pairs % count).tolist(), times.tolist(), strict=True):
            self._count(self._times[slot], kinds[kind], number)
        if self._pairs > self._max:
            raise TooLarge(
                f"the view would keep more than {self._max:,} distinct values for count(DISTINCT)",
                hint="maintain = 'rerun' keeps none of them",
            )

    def merge(self, batch: Batch, columns: Sequence[pa.Array]) -> None:
        """Nothing is gathered of them."""

    def complete(self, batch: Batch, rest: pa.Array) -> None:
        """Count the values in, which weigh as often as they are there."""
        self.add(batch, rest)

    def _count(self, times: dict[Any, int], value: Any, number: int) -> None:
        before = times.get(value, 0)
        now = before + number
        if now:
            times[value] = now
        elif before:
            del times[value]
        self._pairs += bool(now) - bool(before)

    def values(self, slots: Ints) -> Values:
        """The aggregate's values of these slots."""
        return pa.array([len(self._times[slot]) for slot in slots.tolist()], pa.int64()), none_fails(slots)

    def dump(self, slots: Ints) -> list[pa.Array]:
        """What is kept of these slots, as columns."""
        times = [self._times[slot] for slot in slots.tolist()]
        ends = np.cumsum([0, *map(len, times)])
        values = from_plain([value for each in times for value in each], self._kind)
        numbers = pa.array([number for each in times for number in each.values()], pa.int64())
        offsets = pa.array(ends, pa.int32())
        return [pa.ListArray.from_arrays(offsets, column) for column in (values, numbers)]

    def load(self, slots: Ints, columns: Sequence[pa.Array]) -> None:
        """Take over what ``dump`` gave."""
        values, numbers = columns
        self.clear(slots)
        for slot, row in zip(slots.tolist(), range(len(values)), strict=True):
            kept = to_plain(unified(values[row].values))
            self._times[slot] = dict(zip(kept, numbers[row].values.to_pylist(), strict=True))
            self._pairs += len(kept)
