"""The index that finds the live queries which a row may concern.

A WHERE that pins a column (``column = value``, ``column IN (…)``) is found by the row's value in a dictionary, so that
ten thousand of them cost a batch no more than one. Where the pins are all that the WHERE says, the values alone
decide; the rest is judged by DataFusion, a batch at a time. Live queries with the same WHERE share one predicate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from kalam.query.predicate import Predicate
from kalam.rows.types import Row
from kalam.sql.queries.pins import PinValue


class PredicateIndex:
    """The predicates of one table, by the value that they pin. What it hands out never changes afterwards."""

    def __init__(self) -> None:
        self._pinned: dict[int, dict[PinValue, tuple[Predicate, ...]]] = {}
        self.unpinned: tuple[Predicate, ...] = ()
        self.judged = 0

    def add(self, predicate: Predicate) -> None:
        """Take in a predicate."""
        self.judged += predicate.needs_judge
        if not predicate.pins:
            self.unpinned += (predicate,)
            return
        place, values = predicate.pins[0]
        by_value = self._pinned.setdefault(place, {})
        for value in values:
            by_value[value] = (*by_value.get(value, ()), predicate)

    def remove(self, predicate: Predicate) -> None:
        """Let go of a predicate."""
        self.judged -= predicate.needs_judge
        if not predicate.pins:
            self.unpinned = tuple(other for other in self.unpinned if other is not predicate)
            return
        place, values = predicate.pins[0]
        by_value = self._pinned.get(place, {})
        for value in values:
            left = tuple(other for other in by_value[value] if other is not predicate)
            if left:
                by_value[value] = left
            else:
                del by_value[value]
        if not by_value:  # one that no value matches leaves nothing there
            self._pinned.pop(place, None)

    def candidates(self, versions: Sequence[Row | None]) -> dict[Predicate, list[int]]:
        """For each pinned predicate the places of the versions that have its values; those without any are left out."""
        found: defaultdict[Predicate, list[int]] = defaultdict(list)
        for column, by_value in tuple(self._pinned.items()):
            for place, version in enumerate(versions):
                if version is None:
                    continue
                for predicate in by_value.get(version[column], ()):
                    if len(predicate.pins) == 1 or predicate.may_match(version):
                        found[predicate].append(place)
        return found

    def __iter__(self) -> Iterator[Predicate]:
        yield from self.unpinned
        for by_value in self._pinned.values():
            for predicates in by_value.values():
                yield from predicates
