"""What a view follows: a source, seen from whoever brings its changes to the view.

Law: what is taken depends on the position alone. A position is advanced by the transaction of the rows that it stands
for and by nothing else, so what was taken and not committed is taken again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from kalam.schema import Table
from kalam.storage.log.view_positions import Position
from kalam.tables.kinds import Source
from kalam.views.method import Changes

Wake = Callable[[int], None]
"""Called where something came, with its size in bytes."""


class Taken(msgspec.Struct, frozen=True):
    """Changes behind a position, and the position behind them. ``missed`` says what is new of what was missed."""

    changes: Changes | None
    position: Position
    more: bool


class Lag(msgspec.Struct, frozen=True):
    """How many changes a view has not had yet."""

    rows: int


class RefillNeeded(Exception):
    """What comes behind a position is not there any more: the view is to be filled from a snapshot."""


class Followed(Protocol):
    """A source that is followed."""

    @property
    def table(self) -> Table:
        """The source as it is now."""

    @property
    def looks(self) -> bool:
        """Whether it has to be asked, because nobody tells of its changes."""

    @property
    def full(self) -> bool:
        """Whether so much of it waits that whoever writes into it had better wait."""

    @property
    def holds(self) -> bool:
        """Whether its log, if it has one, is to keep what the view has not had."""

    @property
    def is_copy(self) -> bool:
        """Whether a view is filled from a snapshot of it; of a stream it reads what there is."""

    async def snapshot(self) -> tuple[Position, Source] | None:
        """What there is now, and where to go on behind it; None for a copy, of which many are read at one moment.

        None, too, for a stream: what it holds is read as what comes.
        """

    async def begin(self, position: Position | None) -> Position:
        """Where to go on; None begins with what there is."""

    async def take(self, position: Position, rows_max: int) -> Taken | None:
        """What comes behind a position; None where nothing does now. Raises RefillNeeded and Stopped."""

    def lag(self, position: Position) -> Lag:
        """How far a position is behind."""

    def came(self, byte_count: int) -> None:
        """Take note of a change of this size that was committed."""

    def close(self) -> None:
        """Follow no more."""
