"""The groups of a view: what is kept of each, changed by signed rows, and what the view's rows are made of.

Law: after any batches of signed rows the groups are those of the rows that are left, but for groups that are stale: of
these only the number of rows and the counts are right until they are made anew. A group without rows is gone; where
there are no keys there is one group from the beginning, which never goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kalam.views.groups.accumulators import Accumulator, Counts, Sums, Truths
from kalam.views.groups.batch import SLICE_ROWS, Batch, Flags, Ints
from kalam.views.groups.calls import KeptCall
from kalam.views.groups.extremes import DistinctCounts, Extremes
from kalam.views.groups.gathering import TIMES, Gathering
from kalam.views.groups.keys import GroupIndex, GroupKey, Naming, encoded
from kalam.views.groups.plain import joined, unified
from kalam.views.shape.classified import PLACE, AggregateKind

PAIRS_MAX: Final = 1_000_000


class GroupValues(msgspec.Struct, frozen=True):
    """Groups as a relation, ``_k0`` … ``_v0`` … and ``_place``, their slots; and the slots of those without a value."""

    rows: pa.Table
    failed: dict[int, str]


class GroupTable:
    """All groups of one view."""

    def __init__(
        self, keys: Sequence[pa.DataType], calls: Sequence[KeptCall], groups_max: int, pairs_max: int = PAIRS_MAX
    ) -> None:
        self._keys, self._calls = tuple(keys), tuple(calls)
        self._index = GroupIndex(groups_max)
        self._called: tuple[Ints, Mapping[str, pa.Array]] | None = None
        self._rows = Counts(self._index.capacity)
        self._kept = [_accumulator(call, self._index.capacity, pairs_max) for call in calls]
        if not keys:
            self._index.slots_of([()])

    def __len__(self) -> int:
        return len(self._index)

    def gathering(self, *, careful: bool = False) -> Gathering:
        """The texts for what ``merge`` takes; ``careful`` ones take any values and groups of any size."""
        return Gathering(len(self._keys), self._calls, careful=careful)

    @property
    def key_types(self) -> Sequence[pa.DataType]:
        """The types of what is grouped by."""
        return self._keys

    @property
    def stale(self) -> Ints:
        """The groups that have to be made anew of the source's rows."""
        return np.array(sorted(set().union(*(kept.stale for kept in self._kept))), np.int64)

    def take(self, rows: pa.Table, weights: Ints | None = None) -> Ints:
        """Change the groups by rows of the rows text, each with its sign; without signs all are new.

        Returns of each row the slot of its group.
        """
        slots = [
            self._take(
                rows.slice(start, SLICE_ROWS),
                np.ones(min(SLICE_ROWS, rows.num_rows - start), np.int64)
                if weights is None
                else weights[start : start + SLICE_ROWS],
            )
            for start in range(0, rows.num_rows, SLICE_ROWS)
        ]
        return np.concatenate(slots) if slots else np.zeros(0, np.int64)

    def _take(self, rows: pa.Table, weights: Ints) -> Ints:
        batch = self._batch(rows, weights)
        self._rows.add(batch, None)
        for number, (call, kept) in enumerate(zip(self._calls, self._kept, strict=True)):
            # What only counts or adds up takes any zero and NaN.
            single = unified if isinstance(kept, (Extremes, DistinctCounts)) else joined
            kept.add(batch, None if call.argument is None else single(rows[f"_a{number}"]))
        return batch.slots[batch.codes]

    def _batch(self, rows: pa.Table, weights: Ints) -> Batch:
        found = self._index.find(unified(rows["_k0"])) if len(self._keys) == 1 else None
        if found is not None:
            return Batch(*found, weights)
        codes, keys = encoded([rows[f"_k{number}"] for number in range(len(self._keys))], rows.num_rows)
        return Batch(codes, self._slots(keys), weights)

    def merge(self, gathered: pa.Table) -> dict[int, int]:
        """Count in what was gathered of rows, none of which is known yet (``gathering``).

        Returns for each aggregate of how many rows something is left to ``complete``.
        """
        codes, keys = encoded([gathered[f"_k{number}"] for number in range(len(self._keys))], gathered.num_rows)
        batch = Batch(codes, self._slots(keys), np.ones(gathered.num_rows, np.int64))
        self._rows.merge(batch, [unified(gathered["_n"])])
        rest: dict[int, int] = {}
        for number, kept in enumerate(self._kept):
            prefix = f"_g{number}_"
            columns = [unified(gathered[name]) for name in gathered.column_names if name.startswith(prefix)]
            if columns:
                kept.merge(batch, columns)
            if (name := f"_r{number}") in gathered.column_names:
                rest[number] = pc.sum(gathered[name]).as_py() or 0
        return {number: count for number, count in rest.items() if count}

    def complete(self, rows: pa.Table) -> None:
        """Take in what was left of values, and distinct ones, of the aggregates of which there are columns."""
        for start in range(0, rows.num_rows, SLICE_ROWS):
            part = rows.slice(start, SLICE_ROWS)
            codes, keys = encoded([part[f"_k{number}"] for number in range(len(self._keys))], part.num_rows)
            times = part[TIMES].to_numpy() if TIMES in part.column_names else np.ones(part.num_rows, np.int64)
            batch = Batch(codes, self._slots(keys), times)
            for number, kept in enumerate(self._kept):
                if (name := f"_a{number}") in part.column_names:
                    kept.complete(batch, unified(part[name]))

    def is_stale(self, rows: pa.Table) -> Flags:
        """Which rows belong to groups that are stale."""
        codes, slots, _ = self._stale_groups(rows)
        return slots[codes] >= 0 if len(slots) else np.zeros(rows.num_rows, np.bool_)

    def _stale_groups(self, rows: pa.Table) -> tuple[Ints, Ints, Ints]:
        """The groups of rows as numbers, their slots, -1 for one that is not stale, and all stale ones."""
        stale = self.stale
        wanted = set(stale.tolist())
        codes, keys = encoded([rows[f"_k{number}"] for number in range(len(self._keys))], rows.num_rows)
        slots = [slot if slot in wanted else -1 for slot in map(self._index.slot, keys)]
        return codes, np.array(slots, np.int64), stale

    def remake(self, rows: pa.Table, weights: Ints) -> None:
        """Make stale groups anew of their rows, all of them, with signs that leave just those that are to be."""
        codes, slots, stale = self._stale_groups(rows)
        chosen = slots[codes] >= 0 if len(slots) else np.zeros(rows.num_rows, np.bool_)
        batch, mask = Batch(codes, slots, weights).part(chosen), pa.array(chosen)
        for number, kept in enumerate(self._kept):
            if isinstance(kept, Extremes):
                kept.remake(batch, unified(rows[f"_a{number}"]).filter(mask), stale)

    def _slots(self, keys: Sequence[GroupKey]) -> Ints:
        before = self._index.capacity
        slots = self._index.slots_of(keys)
        if self._index.capacity != before:
            for kept in (self._rows, *self._kept):
                kept.grow(self._index.capacity)
        return slots

    def keys_of(self, slots: Ints) -> list[GroupKey]:
        """The keys of these groups."""
        return self._index.keys_of(slots)

    def slots_of(self, keys: Sequence[GroupKey]) -> Ints:
        """The slots of those of these groups that there are."""
        found = (self._index.slot(key) for key in keys)
        return np.array([slot for slot in found if slot is not None], np.int64)

    def all_slots(self) -> Ints:
        """The slots of all groups."""
        return self._index.all_slots()

    def gone(self, slots: Ints) -> Ints:
        """Those of these groups that have no rows any more."""
        return slots[self._rows.counts[slots] <= 0] if self._keys else slots[:0]

    def empty(self, slots: Ints) -> None:
        """Let these groups have no rows: what is taken away from them later was forgotten already."""
        for kept in (self._rows, *self._kept):
            kept.clear(slots)

    def forget(self, slots: Ints) -> None:
        """Let go of groups."""
        if self._keys:
            self.empty(slots)
            self._index.give_back(slots)
            self._called = None

    def values(self, slots: Ints) -> GroupValues:
        """The keys and values of these groups; of one whose value is out of range only why."""
        columns = dict(self.key_columns(slots))
        failed: dict[int, str] = {}
        for number, (call, kept) in enumerate(zip(self._calls, self._kept, strict=True)):
            columns[f"_v{number}"], out = kept.values(slots)
            failed |= dict.fromkeys(slots[out].tolist(), f"{call.kind}() is out of range of {_named(call.value)}")
        rows = pa.table({**columns, PLACE: pa.array(slots)})
        if failed:
            rows = rows.filter(pa.array(~np.isin(slots, list(failed))))
        return GroupValues(rows, failed)

    def rows_of(self, slots: Ints) -> Ints:
        """How many rows these groups have."""
        return self._rows.counts[slots]

    def dump(self, slots: Ints) -> pa.RecordBatch:
        """All that is kept of these groups."""
        columns = [*self.key_columns(slots).values(), *self._rows.dump(slots)]
        columns += [column for kept in self._kept for column in kept.dump(slots)]
        return pa.record_batch(columns, [str(number) for number in range(len(columns))])

    def load(self, dumped: pa.RecordBatch) -> None:
        """Take over what ``dump`` gave, in the place of what is known of these groups; those without rows are gone."""
        columns = dumped.columns
        codes, keys = encoded(columns[: len(self._keys)], dumped.num_rows)
        keys = [keys[code] for code in codes.tolist()]
        slots = self._slots(keys)
        place = len(self._keys)
        self._rows.load(slots, columns[place : place + 1])
        place += 1
        for kept in self._kept:
            width = len(kept.dump(slots[:0]))
            kept.load(slots, columns[place : place + width])
            place += width
        self.forget(self.gone(slots))

    def key_columns(self, slots: Ints) -> Mapping[str, pa.Array]:
        """The keys of these groups, ``_k0`` …; they are asked for twice in a refresh, and made once."""
        if self._called is not None and np.array_equal(self._called[0], slots):
            return self._called[1]
        columns = {f"_k{number}": column for number, column in enumerate(self._index.columns(slots, self._keys))}
        self._called = (slots, columns) if len(slots) <= SLICE_ROWS else None
        return columns

    def named(self, slots: Ints, name: Naming) -> list[str]:
        """What these groups are called by ``name``, always the same one: the same objects each time."""
        return self._index.named(slots, name)


def _accumulator(call: KeptCall, capacity: int, pairs_max: int) -> Accumulator:
    kind = call.argument
    if kind is None or call.kind in (AggregateKind.COUNT, AggregateKind.COUNT_ROWS):
        return Counts(capacity)
    match call.kind:
        case AggregateKind.SUM | AggregateKind.AVG:
            return Sums(kind, call.value, capacity, mean=call.kind is AggregateKind.AVG)
        case AggregateKind.MIN | AggregateKind.MAX:
            return Extremes(kind, capacity, greatest=call.kind is AggregateKind.MAX)
        case AggregateKind.ALL | AggregateKind.ANY:
            return Truths(capacity, every=call.kind is AggregateKind.ALL)
    return DistinctCounts(kind, capacity, pairs_max)


def _named(kind: pa.DataType) -> str:
    if pa.types.is_decimal(kind):
        return f"DECIMAL({kind.precision},{kind.scale})"
    return "DOUBLE" if pa.types.is_floating(kind) else "BIGINT"
