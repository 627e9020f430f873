"""The index of a copy's hot keys: each with the seq of its newest version, negative for a deleted row.

The law: a *run* is the rows of one INSERT whose keys grow, which is numbered on from its first seq; runs never overlap,
so that a key's is found by halving. Every other version is in a dictionary, which is asked first: what supersedes a
row of a run is there.

Only the writer's thread changes it. Others look keys up meanwhile: ``Runs`` is replaced and never changed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

import msgspec

from kalam.rows.growing_keys import GrowingKeys, bounds_of
from kalam.schema import Key


class Run(msgspec.Struct, frozen=True):
    """Rows whose versions count on from ``first_seq``."""

    keys: GrowingKeys
    first_seq: int

    def behind(self, seq: int) -> Run | None:
        """What of it is newer than a version."""
        place = max(0, seq + 1 - self.first_seq)
        if place >= len(self.keys):
            return None
        return Run(self.keys.behind(place), self.first_seq + place) if place else self


class Runs(msgspec.Struct, frozen=True):
    """Runs in the order of their keys; ``lasts`` are the last keys of them."""

    lasts: Sequence[Key] = ()
    runs: Sequence[Run] = ()

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Runs:
        """Runs that are in order."""
        return cls([run.keys.last for run in runs], runs)

    def find(self, key: Key) -> int | None:
        """The seq of a key."""
        at = bisect_left(self.lasts, key)
        place = self.runs[at].keys.place(key) if at < len(self.runs) else None
        return None if place is None else self.runs[at].first_seq + place

    def meet(self, first: Key, last: Key) -> bool:
        """Whether the range of a run meets this one."""
        at = bisect_left(self.lasts, first)
        return at < len(self.runs) and self.runs[at].keys.first <= last

    def having(self, run: Run) -> Runs:
        """With one more, whose range meets no other."""
        at = bisect_left(self.lasts, run.keys.first)
        return Runs.of([*self.runs[:at], run, *self.runs[at:]])

    def behind(self, seq: int) -> Runs:
        """What of them is newer than a version."""
        return Runs.of([part for run in self.runs if (part := run.behind(seq)) is not None])

    def without_own(self, first_seqs: Sequence[int]) -> list[int]:
        """The places of those chunks, which begin with these seqs, of which no run has the rows."""
        ends = {run.first_seq: run.first_seq + len(run.keys) for run in self.runs}
        firsts = sorted(ends)
        before = [bisect_right(firsts, seq) - 1 for seq in first_seqs]
        pairs = enumerate(zip(first_seqs, before, strict=True))
        return [place for place, (seq, at) in pairs if at < 0 or seq >= ends[firsts[at]]]


class HotKeys:
    """The newest version of each key; ``single`` are those that are in no run, or that supersede one that is."""

    def __init__(self, single: dict[Key, int] | None = None, runs: Runs | None = None) -> None:
        self.single: dict[Key, int] = {} if single is None else single
        self.runs = runs or Runs()

    def get(self, key: Key) -> int | None:
        """The version of a key; None where it has none."""
        seq = self.single.get(key)
        return self.runs.find(key) if seq is None and self.runs.runs else seq

    def of(self, keys: Sequence[Key]) -> list[int | None]:
        """The versions of these keys."""
        return list(map(self.get if self.runs.runs else self.single.get, keys))

    def live_count(self) -> int:
        """How many rows live; for any thread."""
        runs, single = self.runs, list(self.single.items())
        hidden = sum(runs.find(key) is not None for key, _ in single) if runs.runs else 0
        return sum(len(run.keys) for run in runs.runs) - hidden + sum(seq > 0 for _, seq in single)

    def has_none(self, distinct: set[Key]) -> bool:
        """Whether none of these keys has a version."""
        if not self.single.keys().isdisjoint(distinct):
            return False
        if not (self.runs.runs and distinct and self.runs.meet(min(distinct), max(distinct))):
            return True
        return all(self.runs.find(key) is None for key in distinct)

    def are_new(self, keys: Sequence[Key]) -> bool:
        """Whether keys differ and none has a version; of growing ones among the keys of a run it is not looked for."""
        if isinstance(keys, GrowingKeys):
            is_apart = not self.runs.meet(*bounds_of(keys))
            return is_apart and (not self.single or self.single.keys().isdisjoint(keys))
        distinct = set(keys)
        return len(distinct) == len(keys) and self.has_none(distinct)

    def add(self, keys: Sequence[Key], first_seq: int) -> None:
        """Take in the rows of an INSERT, which are numbered from ``first_seq`` on."""
        if isinstance(keys, GrowingKeys) and self.are_new(keys):
            self.runs = self.runs.having(Run(keys, first_seq))
        else:
            self.single.update(zip(keys, range(first_seq, first_seq + len(keys)), strict=True))

    def update(self, versions: Iterable[tuple[Key, int]]) -> None:
        """Take in versions of keys that may be there already."""
        self.single.update(versions)
