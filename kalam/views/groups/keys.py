"""Which group a row belongs to, and where what is known of the group is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from kalam.errors import TooLarge
from kalam.views.groups.batch import Ints
from kalam.views.groups.plain import to_plain, unified

GroupKey = tuple[Any, ...]
_FIRST_CAPACITY: Final = 64


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

    def all_slots(self) -> Ints:
        """The slots of all groups."""
        return np.fromiter(self._slots.values(), np.int64, len(self._slots))

    def give_back(self, slots: Ints) -> None:
        """Forget groups."""
        for slot in slots.tolist():
            key = self.keys[slot]
            if key is not None:
                del self._slots[key]
                self.keys[slot] = None
                self._free.append(slot)

    def _new(self, key: GroupKey) -> int:
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
