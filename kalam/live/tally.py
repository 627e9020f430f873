"""What became of live queries since the start, in numbers that only grow."""

from __future__ import annotations

from kalam.live.live_query import LiveQuery


class Tally:
    """Counts what was opened, and what those delivered that have ended; the open ones count for themselves."""

    def __init__(self) -> None:
        self.opened = 0
        self._delivered = self._resyncs = 0

    def note_end(self, query: LiveQuery | None) -> None:
        """A live query has ended, if it had not before."""
        if query is not None:
            self._delivered += query.delivered
            self._resyncs += query.resyncs

    def delivered(self, opened: list[LiveQuery]) -> int:
        """The changes that were delivered, by the open live queries and those before them."""
        return self._delivered + sum(query.delivered for query in opened)

    def resyncs(self, opened: list[LiveQuery]) -> int:
        """How often one had to be told to begin anew."""
        return self._resyncs + sum(query.resyncs for query in opened)
