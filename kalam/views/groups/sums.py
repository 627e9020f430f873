"""Exact sums by slot, of integers, DECIMALs and DOUBLEs alike: whole numbers in limbs of 32 bits.

Law: what was added and taken away again leaves nothing behind. A DOUBLE is a whole number times a power of two, so its
sum is exact too; a sum that a DOUBLE can hold is given back as it is, and any other one as near as one rounding of each
limb allows. Infinities and NaN are counted apart, so that they can be taken away. Between two batches all limbs of a
slot but the last are within 0 … 2^32 - 1, and the last has the sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalam.views.groups.batch import Batch, Flags, Ints, grown

_LIMB = 32
_MASK = (1 << _LIMB) - 1
_LEAST = -1_088
"""The power of two of the lowest limb that there can be: below 2^-1074, and a multiple of 32."""
UNITS = (12, -20, -52, -84)
"""The powers of two in whole numbers of which sums of any DOUBLEs are gathered."""
Floats = npt.NDArray[np.float64]


class WholeSums:
    """Sums of integers (2 limbs) or DECIMALs (4 limbs): more rows than can be counted fit into them."""

    def __init__(self, limbs: int, capacity: int) -> None:
        self.limbs: Ints = np.zeros((limbs, capacity), np.int64)

    def grow(self, capacity: int) -> None:
        """Make room for so many slots."""
        self.limbs = grown(self.limbs, capacity)

    def clear(self, slots: Ints) -> None:
        """Forget the sums of these slots."""
        self.limbs[:, slots] = 0

    def add(self, batch: Batch, values: pa.Array) -> None:
        """Add the values, none of them NULL, of the rows of a batch."""
        for place, limb in enumerate(_limbs_of(values, len(self.limbs))):
            self.limbs[place, batch.slots] += batch.total(limb * batch.weights)
        _settle(self.limbs, batch.slots)

    def merge(self, batch: Batch, columns: Sequence[pa.Array]) -> None:
        """Add sums: of integers that of their lower 32 bits and that of the rest, of DECIMALs the sum."""
        if len(self.limbs) == 2:
            low, high = map(_whole, columns)
            parts = [low & _MASK, (low >> _LIMB) + high]
        else:
            [values] = columns
            parts = _limbs_of(values.fill_null(pa.scalar(Decimal(0), values.type)), len(self.limbs))
        for place, part in enumerate(parts):
            np.add.at(self.limbs[place], batch.slots[batch.codes], part)
        _settle(self.limbs, batch.slots)

    def dump(self, slots: Ints) -> list[pa.Array]:
        """The limbs of these slots as columns."""
        return [_packed(self.limbs[:, slots])]

    def load(self, slots: Ints, columns: list[pa.Array]) -> None:
        """Take over what ``dump`` gave."""
        self.limbs[:, slots] = _unpacked(columns[0])

    def words(self, slots: Ints) -> tuple[Ints, Ints, Flags]:
        """The sums as two words of 64 bits, the lower one without a sign; and which of them do not fit there."""
        limbs = self.limbs[:, slots]
        low = limbs[0] | (limbs[1] << _LIMB)
        if len(limbs) == 2:
            top = limbs[1]
            return low, top >> (_LIMB - 1), (top < -(1 << 31)) | (top >= 1 << 31)
        return low, limbs[2] | (limbs[3] << _LIMB), (limbs[3] < -(1 << 31)) | (limbs[3] >= 1 << 31)

    def whole(self, slot: int) -> int:
        """The sum of one slot."""
        return sum(int(limb) << (_LIMB * place) for place, limb in enumerate(self.limbs[:, slot]))

    def floats(self, slots: Ints) -> Floats:
        """The sums as DOUBLEs."""
        return _floats(self.limbs[:, slots], 0)


class FloatSums:
    """Sums of DOUBLEs. The limbs are those that the values so far need, the same ones for all slots."""

    def __init__(self, capacity: int) -> None:
        self.limbs: Ints = np.zeros((0, capacity), np.int64)
        self.lowest = 0
        """The number of the lowest limb, from that of ``_LEAST`` on."""
        self.special: Ints = np.zeros((3, capacity), np.int64)
        """How many NaN, infinities and negative infinities there are."""

    def grow(self, capacity: int) -> None:
        """Make room for so many slots."""
        self.limbs, self.special = grown(self.limbs, capacity), grown(self.special, capacity)

    def clear(self, slots: Ints) -> None:
        """Forget the sums of these slots."""
        self.limbs[:, slots], self.special[:, slots] = 0, 0

    def add(self, batch: Batch, values: Floats) -> None:
        """Add the values of the rows of a batch."""
        finite = np.isfinite(values)
        if not finite.all():
            for place, test in enumerate((np.isnan(values), values == np.inf, values == -np.inf)):
                chosen = batch.part(test)
                self.special[place, batch.slots] += chosen.number
            batch, values = batch.part(finite), values[finite]
        chosen = values != 0
        if not chosen.all():
            batch, values = batch.part(chosen), values[chosen]
        if len(values):
            self._add(batch, values)

    def _add(self, batch: Batch, values: Floats) -> None:
        fractions, exponents = np.frexp(np.abs(values))
        whole = np.ldexp(fractions, 53).astype(np.uint64)
        signs = np.where(values < 0, -batch.weights, batch.weights)
        powers = exponents.astype(np.int64) - 53 - _LEAST
        # A number below 2^-1035 has fewer digits, but its power may be below the lowest limb.
        small = np.maximum(-powers, 0).astype(np.uint64)
        whole, powers = whole >> small, np.maximum(powers, 0)
        places, shifts = powers // _LIMB, (powers % _LIMB).astype(np.uint64)
        low, high = (whole & np.uint64(_MASK)) << shifts, (whole >> np.uint64(_LIMB)) << shifts
        mask, by = np.uint64(_MASK), np.uint64(_LIMB)
        parts = (low & mask, (low >> by) + (high & mask), high >> by)
        first, last = int(places.min()), int(places.max()) + 3
        self._reach(first, last + 1)
        span = last - first
        sums = np.zeros(len(batch.slots) * span)
        for behind, part in enumerate(parts):
            where = batch.codes * span + (places - first + behind)
            sums += np.bincount(where, weights=part.astype(np.int64) * signs, minlength=len(sums))
        start = first - self.lowest
        self.limbs[start : start + span, batch.slots] += sums.reshape(-1, span).T.astype(np.int64)
        _settle(self.limbs, batch.slots)

    def merge(self, batch: Batch, columns: Sequence[pa.Array]) -> None:
        """Add sums: DOUBLEs as they are, whole numbers of each of ``UNITS`` as these."""
        if pa.types.is_floating(columns[0].type):
            values = np.concatenate([doubles(column.fill_null(0)) for column in columns])
            codes, weights = (np.tile(each, len(columns)) for each in (batch.codes, batch.weights))
            self.add(Batch(codes, batch.slots, weights), values)
            return
        for power, column in zip(UNITS, columns, strict=True):
            whole = _whole(column)
            if not whole.any():
                continue
            place, shift = divmod(power - _LEAST, _LIMB)
            low, high = (whole & _MASK) << shift, (whole >> _LIMB) << shift
            self._reach(place, place + 4)
            for behind, part in enumerate((low & _MASK, (low >> _LIMB) + (high & _MASK), high >> _LIMB)):
                np.add.at(self.limbs[place + behind - self.lowest], batch.slots[batch.codes], part)
            _settle(self.limbs, batch.slots)

    def _reach(self, first: int, last: int) -> None:
        """Have the limbs from ``first`` to before ``last``."""
        count, capacity = self.limbs.shape
        if not count:
            self.lowest = first
        below, above = max(self.lowest - first, 0), max(last - self.lowest - count, 0)
        if below or above:
            wide = np.zeros((below + count + above, capacity), np.int64)
            wide[below : below + count] = self.limbs
            self.limbs, self.lowest = wide, self.lowest - below
        if above and count:  # what was the last limb had the sign, which goes on into the new ones
            _settle(self.limbs, np.arange(capacity))

    def dump(self, slots: Ints) -> list[pa.Array]:
        """The limbs of these slots as columns."""
        lowest = pa.array(np.full(len(slots), self.lowest), pa.int64())
        return [_packed(self.limbs[:, slots]), lowest, _packed(self.special[:, slots])]

    def load(self, slots: Ints, columns: list[pa.Array]) -> None:
        """Take over what ``dump`` gave."""
        limbs, self.special[:, slots] = _unpacked(columns[0]), _unpacked(columns[2])
        self.limbs[:, slots] = 0
        if len(limbs) and len(slots):
            first = columns[1][0].as_py()
            self._reach(first, first + len(limbs))
            self.limbs[first - self.lowest : first - self.lowest + len(limbs), slots] = limbs
            _settle(self.limbs, slots)

    def floats(self, slots: Ints) -> tuple[Floats, Flags]:
        """The sums, and which of them no DOUBLE can hold although all values were finite."""
        with np.errstate(over="ignore"):
            sums = _floats(self.limbs[:, slots], self.lowest * _LIMB + _LEAST)
        special = self.special[:, slots]
        if not special.any():
            return sums, np.isinf(sums)
        nan, up, down = special > 0
        too_large = np.isinf(sums) & ~(nan | up | down)
        sums = np.where(up, np.inf, np.where(down, -np.inf, sums))
        return np.where(nan | (up & down), np.nan, sums), too_large


def _settle(limbs: Ints, slots: Ints) -> None:
    """Carry what is too large for a limb into the next one."""
    here = limbs[:, slots]
    for place in range(len(here) - 1):
        carried = here[place] >> _LIMB
        here[place] -= carried << _LIMB
        here[place + 1] += carried
    limbs[:, slots] = here


def _floats(limbs: Ints, lowest: int) -> Floats:
    """Settled limbs as DOUBLEs: of the number without its sign, the small limbs first, which rounds the least."""
    total: Floats = np.zeros(limbs.shape[1])
    if not len(limbs):
        return total
    negative = limbs[-1] < 0
    has_negative = bool(negative.any())
    if has_negative:
        limbs = np.where(negative, -limbs, limbs)
        _settle(limbs, np.arange(limbs.shape[1]))
    for place, limb in enumerate(limbs):
        total += np.ldexp(limb.astype(np.float64), lowest + place * _LIMB)
    return np.where(negative, -total, total) if has_negative else total


def _limbs_of(values: pa.Array, count: int) -> list[npt.NDArray[Any]]:
    """The values in limbs, of which the last has the sign."""
    if count == 2:
        words = _as(values, pa.int64()).to_numpy(zero_copy_only=False)
        return [words & _MASK, words >> _LIMB]
    wide = values.cast(pa.decimal128(38, values.type.scale))
    words = np.frombuffer(wide.buffers()[1], np.int64)[2 * wide.offset : 2 * (wide.offset + len(wide))]
    low, high = words[0::2], words[1::2]
    return [low & _MASK, (low >> _LIMB) & _MASK, high & _MASK, high >> _LIMB]


def _whole(column: pa.Array) -> Ints:
    """Whole numbers, 0 where nothing was added up."""
    return np.asarray(column.fill_null(0).to_numpy(zero_copy_only=False), np.int64)


def doubles(values: pa.Array) -> Floats:
    """The values, none of them NULL, as DOUBLEs."""
    assert not values.null_count
    return np.asarray(_as(values, pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def _as(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Values in a type; a cast to the type that they have costs, too."""
    return values if values.type == kind else values.cast(kind)


def _packed(numbers: Ints) -> pa.Array:
    """For each slot its numbers side by side."""
    count, slots = numbers.shape
    buffer = pa.py_buffer(np.ascontiguousarray(numbers.T))
    return pa.Array.from_buffers(pa.binary(8 * count), slots, [None, buffer])


def _unpacked(column: pa.Array) -> Ints:
    """What ``_packed`` put together."""
    count = column.type.byte_width // 8
    numbers = np.frombuffer(column.buffers()[1] or b"", np.int64)[count * column.offset :]
    return numbers[: count * len(column)].reshape(len(column), count).T
