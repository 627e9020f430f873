"""What views take of copies, read once for all that take the same: decoding is a large part of what a view costs.

Law: what a run of changes is depends on its bounds alone, so whoever takes it may have what another has read. Nothing
is kept for its own sake: a run is there as long as some view works on it, so a view that is slow, fails or is dropped
holds up nobody, and holds one run at the most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakValueDictionary

import msgspec

from kalam.threads import Purpose, in_thread
from kalam.views.at_hand import AtHand
from kalam.views.method import Changes


class Run(msgspec.Struct, frozen=True):
    """The changes of a copy behind ``after_seq`` up to ``last_seq``, as rows of a version of its table."""

    table_id: int
    owner: str
    schema_version: int
    generation: int
    after_seq: int
    last_seq: int


class Readings:
    """The runs that views work on now, and the rows ``at_hand`` of which runs are made."""

    def __init__(self) -> None:
        self.at_hand = AtHand()
        self._read: WeakValueDictionary[Run, Changes] = WeakValueDictionary()
        self._turns: WeakValueDictionary[Run, asyncio.Lock] = WeakValueDictionary()

    async def changes(self, run: Run, read: Callable[[], Changes], *, at_once: bool = False) -> Changes:
        """The changes of a run: at hand, or from ``read``, which is blocking unless it is done ``at_once``.

        Raises what that raises.
        """
        turn = self._turns.get(run)
        if turn is None:
            turn = self._turns[run] = asyncio.Lock()
        async with turn:
            changes = self._read.get(run)
            if changes is None:
                changes = self._read[run] = read() if at_once else await in_thread(Purpose.LIVE, read)
            return changes
