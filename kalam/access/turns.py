"""Whose password is verified next: one of each address in turn, so that a flood from one keeps no other waiting.

A line that is full refuses the last who came to the address with the most who wait: a flood costs itself.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kalam.errors import TooBusy

Waiter = asyncio.Future[None]


class Turns:
    """Lets ``at_once`` work at the same time, and ``waiting_max`` wait."""

    def __init__(self, at_once: int, waiting_max: int) -> None:
        self._free, self._waiting_max = at_once, waiting_max
        self._lines: OrderedDict[str, deque[Waiter]] = OrderedDict()
        self.waiting = 0

    @asynccontextmanager
    async def turn(self, address: str) -> AsyncIterator[None]:
        """Work when it is this address's turn; raises TooBusy."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(address)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, address: str) -> None:
        if self.waiting >= self._waiting_max:
            self._refuse_one(address)
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._lines.setdefault(address, deque()).append(waiter)
        self.waiting += 1
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled() and waiter.exception() is None:  # the turn came together with the cancellation
                self._pass_on()
            self._leave(address, waiter)
            raise

    def _refuse_one(self, address: str) -> None:
        longest = max(self._lines, key=lambda line: len(self._lines[line]))
        busy = TooBusy("too many logins wait for their turn", retry_after=1)
        if longest == address or len(self._lines[longest]) <= len(self._lines.get(address, ())) + 1:
            raise busy
        last = self._lines[longest][-1]
        self._leave(longest, last)
        if not last.done():
            last.set_exception(busy)

    def _leave(self, address: str, waiter: Waiter) -> None:
        line = self._lines.get(address)
        if line is not None and waiter in line:
            line.remove(waiter)
            self.waiting -= 1
            if not line:
                del self._lines[address]

    def _pass_on(self) -> None:
        while self._lines:
            address, line = next(iter(self._lines.items()))
            waiter = line.popleft()
            self.waiting -= 1
            self._lines.move_to_end(address)
            if not line:
                del self._lines[address]
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1
