"""Events of a STREAM table that are in hand and cannot be told yet, because one before them is not in hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from itertools import count

from kalam.tables.ports import StoredEvents

UNKNOWN_US = 0
"""The time of an event whose ack has come: the broker tells it to those who read the stream, not to who publishes."""


class HeldEvents:
    """Events by their sequences; some may be there twice, from an ack and from the stream."""

    def __init__(self) -> None:
        # Of two runs that begin alike the one whose times are known comes first.
        self._runs: list[tuple[int, bool, int, StoredEvents]] = []
        self._numbers = count()
        self.byte_count = 0
        self.last_start = 0

    def __bool__(self) -> bool:
        return bool(self._runs)

    @property
    def first_seq(self) -> int:
        """The sequence of the first of them; there is one."""
        return self._runs[0][0]

    def add(self, events: StoredEvents) -> None:
        """Take in events, in any order."""
        for run in _runs(events):
            first = run.seqs[0]
            heappush(self._runs, (first, run.stored_us[0] == UNKNOWN_US, next(self._numbers), run))
            self.byte_count += _bytes(run)
            self.last_start = max(self.last_start, first)

    def take(self, after_seq: int, upto_seq: int | None = None) -> Iterator[StoredEvents]:
        """Those that follow a sequence without a gap, in order and each once, up to ``upto_seq`` if it is given.

        What lies before is dropped.
        """
        while self._runs and self._runs[0][0] <= min(after_seq + 1, after_seq + 1 if upto_seq is None else upto_seq):
            run = heappop(self._runs)[-1]
            self.byte_count -= _bytes(run)
            if upto_seq is not None and run.seqs[-1] > upto_seq:
                count = upto_seq + 1 - run.seqs[0]
                self.add(_part(run, count, len(run.seqs)))
                run = _part(run, 0, count)
            told = after_seq + 1 - run.seqs[0]
            if told < len(run.seqs):
                after_seq = run.seqs[-1]
                yield _part(run, told, len(run.seqs)) if told else run

    def clear(self) -> None:
        """Let go of everything."""
        self._runs.clear()
        self.byte_count = self.last_start = 0


def of_acks(seqs: Sequence[int], payloads: Sequence[bytes]) -> StoredEvents:
    """Events that the broker has acknowledged."""
    return StoredEvents(seqs, [UNKNOWN_US] * len(seqs), payloads)


def follow_each_other(seqs: Sequence[int]) -> bool:
    """Whether growing sequences have no gap."""
    return isinstance(seqs, range) or seqs[-1] - seqs[0] + 1 == len(seqs)


def _runs(events: StoredEvents) -> Iterator[StoredEvents]:
    """The events in runs without a gap."""
    seqs = events.seqs
    if not len(seqs):
        return
    growing = isinstance(seqs, range) or all(map(int.__lt__, seqs, seqs[1:]))
    if growing and follow_each_other(seqs):
        yield events
        return
    places = sorted(range(len(seqs)), key=seqs.__getitem__)
    start = 0
    for end in range(1, len(places) + 1):
        if end == len(places) or seqs[places[end]] != seqs[places[end - 1]] + 1:
            part = places[start:end]
            yield StoredEvents(
                [seqs[place] for place in part],
                [events.stored_us[place] for place in part],
                [events.payloads[place] for place in part],
            )
            start = end


def _part(events: StoredEvents, start: int, stop: int) -> StoredEvents:
    return StoredEvents(events.seqs[start:stop], events.stored_us[start:stop], events.payloads[start:stop])


def _bytes(events: StoredEvents) -> int:
    return sum(map(len, events.payloads))
