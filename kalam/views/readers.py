"""Which keepers read what: each is told of what comes to its sources."""

from __future__ import annotations

from collections.abc import Sequence

from kalam.schema import Table
from kalam.storage.log.writes import Announcement
from kalam.table_options import How
from kalam.tables.ephemeral_rows import is_nameless
from kalam.tables.ports import Acked
from kalam.views.at_hand import AtHand
from kalam.views.held_source import HeldSource
from kalam.views.keeper import Keeper
from kalam.views.standing import Standing
from kalam.views.stream_source import StreamSource


class Readers:
    """The keepers that run, by the ids of what they read. Told of every change, in order; has rows kept ``at_hand``."""

    def __init__(self, at_hand: AtHand) -> None:
        self._at_hand = at_hand
        self._readers: dict[int, list[Keeper]] = {}

    def add(self, keeper: Keeper) -> None:
        """From now on a keeper is told."""
        for source in keeper.view.view_options.reads:
            self._readers.setdefault(source.table_id, []).append(keeper)

    def remove(self, keeper: Keeper) -> None:
        """It is told no more."""
        for source in keeper.view.view_options.reads:
            readers = self._readers.get(source.table_id, [])
            if keeper in readers:
                readers.remove(keeper)
            if not readers:
                self._readers.pop(source.table_id, None)

    def announce(self, announcement: Announcement) -> None:
        """A chunk was committed, for those that see its copy."""
        keepers = self._of(announcement.table.table_id)
        told = [keeper for keeper in keepers if announcement.copy.user in ("", keeper.sight.user)]
        if any(keeper.view.view_options.how is not How.RERUN for keeper in told):
            self._at_hand.keep(announcement)
        for keeper in told:
            for source in keeper.sources:
                if isinstance(source, HeldSource) and source.table.table_id == announcement.table.table_id:
                    source.hold(announcement)
            keeper.announce(announcement.table, announcement.chunk.byte_count)

    def interested(self, table: Table) -> bool:
        """Whether a view follows a STREAM table: then its events are wanted, though nobody listens."""
        return bool(self._of(table.table_id))

    def is_full(self, table: Table) -> bool:
        """Whether so much of a table waits for a view that goes on that whoever writes had better wait a little.

        They do not wait for a view without a name, which everybody makes who may read: that is filled anew.
        """
        return any(
            source.full and source.table.table_id == table.table_id
            for keeper in self._of(table.table_id)
            if keeper.kept.standing in (Standing.FILLING, Standing.RUNNING) and not is_nameless(keeper.view)
            for source in keeper.sources
        )

    def announce_events(self, table: Table, payloads: Sequence[bytes], acked: Acked) -> None:
        """Events were stored."""
        for source in self._streams(table):
            source.announce(payloads, acked)

    def _of(self, table_id: int) -> Sequence[Keeper]:
        return self._readers.get(table_id, ())

    def _streams(self, table: Table) -> list[StreamSource]:
        return [
            source
            for keeper in self._of(table.table_id)
            for source in keeper.sources
            if isinstance(source, StreamSource) and source.table.table_id == table.table_id
        ]
