"""The WHERE of a live query, and the index that finds those which a row may concern.

A WHERE that pins a column (``column = value``, ``column IN (…)``) is found by the row's value in a dictionary, so that
ten thousand of them cost a batch no more than one. Where the pins are all that the WHERE says, the values alone
decide; the rest is judged by DataFusion, a batch at a time. Live queries with the same WHERE share one predicate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from kalam.rows.types import Row
from kalam.sql.queries.pins import Condition, PinValue


@dataclass(eq=False, slots=True, weakref_slot=True)
class Predicate:
    """A WHERE over the versions of one table; ``text`` is None where every row matches."""

    text: str | None
    parameters: tuple[object, ...]
    condition: Condition | None
    places: dict[str, int]
    pins: tuple[tuple[int, frozenset[PinValue]], ...] = field(init=False)
    sees_deleted: bool = field(init=False)

    def __post_init__(self) -> None:
        pins = self.condition.pins if self.condition else ()
        self.pins = tuple((self.places[pin.column], pin.values) for pin in pins)
        self.sees_deleted = self.condition is not None and "_deleted" in self.condition.columns

    @property
    def needs_judge(self) -> bool:
        """Whether the pins alone do not decide."""
        return self.condition is not None and not self.condition.whole

    def may_match(self, version: Row) -> bool:
        """Whether a version has the pinned values."""
        return all(version[place] in values for place, values in self.pins)


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
        by_value = self._pinned[place]
        for value in values:
            left = tuple(other for other in by_value[value] if other is not predicate)
            if left:
                by_value[value] = left
            else:
                del by_value[value]
        if not by_value:
            del self._pinned[place]

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
