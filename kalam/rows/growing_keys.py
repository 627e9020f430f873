"""Keys that grow from row to row, as those of a load mostly do: numbers that stay numbers.

The law: an object of Python for each of a million keys takes half a second to make, to put into an index and to let
go of again, and 200 bytes meanwhile. What grows needs none of them: it differs, its bounds are its ends, and a key is
found by halving.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalam.schema import Key


class GrowingKeys(Sequence[Key]):
    """Keys of one column of integers, one at least, each greater than the one before it."""

    def __init__(self, numbers: range | array[int]) -> None:
        self._numbers = numbers
        self.first, self.last = numbers[0], numbers[-1]

    @classmethod
    def of(cls, column: pa.Array | pa.ChunkedArray) -> Self | None:
        """The keys of a column; None where they are no integers or do not grow."""
        if not len(column) or column.null_count or not pa.types.is_integer(column.type):
            return None
        numbers = np.asarray(column.to_numpy(), np.int64)
        return cls.of_numbers(numbers) if (numbers[1:] > numbers[:-1]).all() else None

    @classmethod
    def of_keys(cls, keys: Sequence[Key]) -> Self | None:
        """Those keys, whatever they are; None where they are no integers or do not grow."""
        return cls.of(pa.array(keys, pa.int64())) if len(keys) and isinstance(keys[0], int) else None

    @classmethod
    def of_numbers(cls, numbers: npt.NDArray[np.int64]) -> Self:
        """Numbers that grow."""
        first, last = int(numbers[0]), int(numbers[-1])
        return cls(range(first, last + 1) if last - first == len(numbers) - 1 else array("q", numbers.tobytes()))

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._numbers)

    @overload
    def __getitem__(self, place: int) -> Key: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Key]: ...
    def __getitem__(self, place: int | slice) -> Key | Sequence[Key]:
        return self._numbers[place]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        numbers = self._numbers
        if isinstance(numbers, range):  # what is behind the last one may be no number of 64 bits
            whole = np.arange(len(numbers), dtype=np.int64) + np.int64(self.first)
        else:
            whole = np.frombuffer(numbers, np.int64)
        return whole if dtype is None else whole.astype(dtype)

    def place(self, key: int) -> int | None:
        """Where a key is; None where it is not."""
        if not self.first <= key <= self.last:
            return None
        place = bisect_left(self._numbers, key)
        return place if self._numbers[place] == key else None

    def behind(self, place: int) -> GrowingKeys:
        """Those from a place on, which is not behind the last."""
        return GrowingKeys(self._numbers[place:])


def bounds_of(keys: Sequence[Key]) -> tuple[Key, Key]:
    """The least and the greatest of keys, of which there is one at least."""
    return (keys.first, keys.last) if isinstance(keys, GrowingKeys) else (min(keys), max(keys))


def together(parts: Sequence[Sequence[Key]]) -> Sequence[Key]:
    """Keys one after another."""
    if len(parts) == 1:
        return parts[0]
    growing = [part for part in parts if isinstance(part, GrowingKeys)]
    if len(growing) < len(parts) or any(before.last >= after.first for before, after in pairwise(growing)):
        return list(chain.from_iterable(parts))
    return GrowingKeys.of_numbers(np.concatenate([np.asarray(part) for part in growing]))
