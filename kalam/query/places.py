"""The places for queries that run at the same time, shared among users.

One user gets all places but one, so that nobody's long queries keep everybody else's short ones waiting; who waits is
served in the order of coming, as far as that user may have another place.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kalam.errors import TooBusy

WAITING_MAX = 1_024


class Places:
    """So many places; who has waited for one for ``wait_s`` is refused."""

    def __init__(self, places_max: int, wait_s: float) -> None:
        self._places_max, self._wait_s = places_max, wait_s
        self._taken: Counter[str] = Counter()
        self._waiting: deque[tuple[str, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def place(self, user: str) -> AsyncIterator[None]:
        """Have a place; raises TooBusy where none becomes free in time."""
        if self._may_take(user):
            self._taken[user] += 1
        else:
            await self._wait(user)
        try:
            yield
        finally:
            self._release(user)

    def _may_take(self, user: str) -> bool:
        share = max(1, self._places_max - 1)
        return self._taken.total() < self._places_max and self._taken[user] < share

    async def _wait(self, user: str) -> None:
        if len(self._waiting) >= WAITING_MAX:
            raise TooBusy(f"{WAITING_MAX} queries wait for a place (setting query_concurrency_max); try again")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((user, turn))
        try:
            async with asyncio.timeout(self._wait_s):
                await turn
        except BaseException as exc:
            if turn.done() and not turn.cancelled():  # it was given just as its taker left
                self._release(user)
            else:
                self._waiting = deque(each for each in self._waiting if each[1] is not turn)
            if not isinstance(exc, TimeoutError):
                raise
            raise TooBusy(
                f"no place for a query became free within {self._wait_s:g} s "
                f"(settings query_concurrency_max = {self._places_max}, query_time_s)"
            ) from exc

    def _release(self, user: str) -> None:
        self._taken[user] -= 1
        self._taken += Counter()  # drops what fell to zero
        for waiting in list(self._waiting):
            if waiting[1].done():
                self._waiting.remove(waiting)
            elif self._may_take(waiting[0]):
                self._waiting.remove(waiting)
                self._taken[waiting[0]] += 1
                waiting[1].set_result(None)
                return
