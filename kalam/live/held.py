"""What a live query holds while it is open: a table that is there only for as long as somebody listens."""

from __future__ import annotations

from typing import Protocol

from kalam.schema import Table


class Held(Protocol):
    """A table that is held; ``feed_id`` is the number by which its changes are known, in the place of its id."""

    feed_id: int

    def release(self) -> None:
        """Let go of it; the second time nothing."""


class Holding(Protocol):
    """Gives tables to be held."""

    async def hold(self, table: Table) -> Held | None:
        """Have a table there, and its rows in it; None for one that always is. Raises what keeps it from that."""
