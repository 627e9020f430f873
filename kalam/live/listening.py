"""Who is told of the events of a STREAM table by its follower."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Protocol

from kalam.live.live_query import Progress
from kalam.schema import Table
from kalam.tables.ports import StoredEvents
from kalam.tables.versions import ChangeBatch


class Listening(Protocol):
    """Takes events in, in order; ``keyed`` is not empty while their times are wanted, too."""

    table: Table
    progress: Progress

    @property
    def keyed(self) -> Sized:
        """Who wants to know the times of events."""

    def take_events(self, events: StoredEvents, make: Callable[[], ChangeBatch]) -> None:
        """Take in events that follow; ``make`` decodes them."""

    def then(self, step: Callable[[], None]) -> None:
        """Do something once all that was taken in before is worked off."""

    def lose(self, seq: int) -> None:
        """What lies before ``seq``, and was not taken in, cannot be told; a step for ``then``."""

    def lose_keyed(self) -> None:
        """The times of events that were taken in are not known; a step for ``then``."""

    def renumber(self, seq: int) -> None:
        """The events behind ``seq`` are numbered anew; a step for ``then``."""
