"""What a live query holds while it is open: a table that is there only for as long as somebody listens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from kalam.errors import CursorExpired, TooBusy
from kalam.live.live_request import LiveRequest
from kalam.live.reads import Read, as_seen
from kalam.schema import Table
from kalam.storage.log.catalogue import Catalogue


class Held(Protocol):
    """A table that is held; ``feed_id`` is the number by which its changes are known, in the place of its id."""

    feed_id: int

    def release(self) -> None:
        """Let go of it; the second time nothing."""


class Nameless(Held, Protocol):
    """One that no catalogue has, but live queries alone: what is kept of a SELECT that groups."""

    table: Table
    reads: Sequence[Read]

    def standing(self) -> Mapping[str, Any]:
        """How it stands, and what it costs, by name."""


class Holding(Protocol):
    """Gives tables to be held."""

    async def hold(self, table: Table) -> Held | None:
        """Have a table there, and its rows in it; None for one that always is. Raises what keeps it from that."""


class Keeping(Protocol):
    """Gives what is kept of SELECTs that group."""

    async def keep(self, request: LiveRequest) -> Nameless:
        """Have the rows of a request's SELECT there; one for all that ask the same with the same rights.

        Raises Unsupported and InvalidOption for a SELECT that cannot be kept, TooBusy at the limits or where it cannot
        be filled now, and what a SELECT raises.
        """


def unchanged(nameless: Nameless, catalogue: Catalogue) -> Table:
    """What is kept of a SELECT, of which the tables are as they were; raises TooBusy where they are not."""
    for read in nameless.reads:
        current = catalogue.by_id.get(read.table.table_id)
        if current is None or current.name != read.table.name or as_seen(current) != as_seen(read.table):
            raise TooBusy(f"table {read.table.name} is another one by now; ask again")
    return nameless.table


def check_resumed(request: LiveRequest, table: Table, held: Held | None, nameless: Nameless | None) -> None:
    """Raise CursorExpired where what was seen earlier was not of the changes that are told now."""
    if nameless is not None:
        if request.from_seq is not None and request.table_id != nameless.feed_id:
            raise CursorExpired("changes of groups are kept no longer than somebody listens; begin with a snapshot")
    elif request.table_id not in (None, table.table_id if held is None else held.feed_id):
        raise CursorExpired(f"table {table.name} has been created again since; its changes are numbered anew")
