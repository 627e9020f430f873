"""A condition over the versions of one table, and what of it a row's values alone decide."""

from __future__ import annotations

from dataclasses import dataclass, field

from kalam.rows.types import Row
from kalam.sql.queries.pins import Condition, PinValue


@dataclass(eq=False, slots=True, weakref_slot=True)
class Predicate:
    """A condition over the versions of one table; ``text`` is None where every row matches.

    ``guard`` are the policies that decide before it: it is asked of no version that they hide.
    """

    text: str | None
    parameters: tuple[object, ...]
    condition: Condition | None
    places: dict[str, int]
    guard: Predicate | None = None
    pins: tuple[tuple[int, frozenset[PinValue]], ...] = field(init=False)
    sees_deleted: bool = field(init=False)

    def __post_init__(self) -> None:
        pins = self.condition.pins if self.condition else ()
        own = tuple((self.places[pin.column], pin.values) for pin in pins)
        self.pins = own if self.guard is None else self.guard.pins + own
        self.sees_deleted = self.condition is not None and "_deleted" in self.condition.columns

    @property
    def columns(self) -> frozenset[str]:
        """The columns that it names, its guard apart."""
        return self.condition.columns if self.condition else frozenset()

    @property
    def asks(self) -> bool:
        """Whether the condition itself has to be judged, its guard apart."""
        return self.condition is not None and not self.condition.whole

    @property
    def needs_judge(self) -> bool:
        """Whether the pins alone do not decide."""
        return self.asks or (self.guard is not None and self.guard.asks)

    def may_match(self, version: Row) -> bool:
        """Whether a version has the pinned values."""
        return all(version[place] in values for place, values in self.pins)
