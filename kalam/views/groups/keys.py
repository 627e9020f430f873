"""Which group a row belongs to, and where what is known of the group is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kalam.errors import TooLarge
from kalam.views.groups.batch import Ints
from kalam.views.groups.plain import from_plain, to_plain, unified

GroupKey = tuple[Any, ...]
Naming = Callable[[Sequence[GroupKey]], list[str]]
"""Makes texts of the keys of groups, one of each."""
_FIRST_CAPACITY: Final = 64
_FEW: Final = 4
"""Groups are few where they are at most so many times the rows that are looked up among them."""
_CALLED: Final = 65_536
"""Of so many groups it is kept what they are called."""


def encoded(columns: Sequence[pa.Array | pa.ChunkedArray], rows: int) -> tuple[Ints, list[GroupKey]]:
    """The groups of so many rows: a number for each row, and the key of each number."""
    if not columns:
        return np.zeros(rows, np.int64), [()] if rows else []
    plain = [unified(column).dictionary_encode("encode") for column in columns]
    if len(plain) == 1:
        return _places(plain[0]), [(value,) for value in to_plain(plain[0].dictionary)]
    codes = _places(plain[0])
    for column in plain[1:]:
        codes = codes * len(column.dictionary) + _places(column)
        _, codes = np.unique(codes, return_inverse=True)  # so that the product stays within bounds
    _, firsts = np.unique(codes, return_index=True)
    values = [to_plain(column.dictionary.take(column.indices.take(pa.array(firsts)))) for column in plain]
    return codes, list(zip(*values, strict=True))


def _places(column: pa.DictionaryArray) -> Ints:
    return np.asarray(column.indices.to_numpy(zero_copy_only=False), np.int64)


class GroupIndex:
    """Slots by key. A slot that was given back is taken again first."""

    def __init__(self, groups_max: int) -> None:
        self._max = groups_max
        self._slots: dict[GroupKey, int] = {}
        self._free: list[int] = []
        self.keys: list[GroupKey | None] = []
        self.capacity = _FIRST_CAPACITY
        self._column: pa.Array | None = None
        self._places = self._all = np.zeros(0, np.int64)
        self._changed = True
        self._names = np.empty(0, object)

    def __len__(self) -> int:
        return len(self._slots)

    def slot(self, key: GroupKey) -> int | None:
        """The slot of a group that there is."""
        return self._slots.get(key)

    def slots_of(self, keys: Sequence[GroupKey]) -> Ints:
        """The slots of these groups, new ones for those that are new. Raises TooLarge where there would be too many."""
        found = list(map(self._slots.get, keys))
        if None in found:
            new = found.count(None)
            if len(self._slots) + new > self._max:
                raise TooLarge(
                    f"the view would have more than {self._max:,} groups",
                    hint="group by fewer values, leave rows out in its WHERE, or raise view_groups_max",
                )
            found = [self._new(key) if slot is None else slot for key, slot in zip(keys, found, strict=True)]
        return np.array(found, np.int64)

    def find(self, column: pa.Array) -> tuple[Ints, Ints] | None:
        """The groups of the rows with these keys of one column, and their slots, as a batch has them.

        None where they are better looked up one by one: where there are many groups, or some are new.
        """
        kind, changed, self._changed = column.type, self._changed, False
        if changed or len(self) > _FEW * len(column) or not (pa.types.is_string(kind) or pa.types.is_integer(kind)):
            return None
        if self._column is None:
            self._column, self._all = from_plain([value for (value,) in self._slots], kind), self.all_slots()
            self._places = np.zeros(len(self.keys), np.int64)
            self._places[self._all] = np.arange(len(self._all))
        places = pc.index_in(column, value_set=self._column)
        if places.null_count:
            return None
        codes = places.to_numpy().astype(np.int64)
        if len(self._all) <= len(codes):
            return codes, self._all
        there, codes = np.unique(codes, return_inverse=True)
        return codes, self._all[there]

    def columns(self, slots: Ints, types: Sequence[pa.DataType]) -> list[pa.Array]:
        """The keys of these groups as columns of these types."""
        if self._column is not None and [self._column.type] == list(types):
            return [self._column.take(pa.array(self._places[slots]))]
        keys = self.keys_of(slots)
        return [from_plain([key[number] for key in keys], kind) for number, kind in enumerate(types)]

    def keys_of(self, slots: Ints) -> list[GroupKey]:
        """The keys of these groups."""
        return [key for slot in slots.tolist() if (key := self.keys[slot]) is not None]

    def named(self, slots: Ints, name: Naming) -> list[str]:
        """What these groups are called by ``name``, always the same one: the same objects each time."""
        if len(self) > _CALLED:
            self._names = np.empty(0, object)
            return name(self.keys_of(slots))
        if len(self._names) < len(self.keys):
            more = self.capacity - len(self._names)
            self._names = np.append(self._names, np.empty(more, object))
        found: list[Any] = self._names[slots].tolist()
        if None in found:
            new = slots[[each is None for each in found]]
            self._names[new] = name(self.keys_of(new))
            found = self._names[slots].tolist()
        return found

    def all_slots(self) -> Ints:
        """The slots of all groups."""
        return np.fromiter(self._slots.values(), np.int64, len(self._slots))

    def give_back(self, slots: Ints) -> None:
        """Forget groups."""
        if len(slots):
            self._column, self._changed = None, True
            self._names[slots[slots < len(self._names)]] = None
        for slot in slots.tolist():
            key = self.keys[slot]
            if key is not None:
                del self._slots[key]
                self.keys[slot] = None
                self._free.append(slot)

    def _new(self, key: GroupKey) -> int:
        self._column, self._changed = None, True
        if self._free:
            slot = self._free.pop()
            self.keys[slot] = key
        else:
            slot = len(self.keys)
            self.keys.append(key)
            while slot >= self.capacity:
                self.capacity *= 2
        self._slots[key] = slot
        return slot
