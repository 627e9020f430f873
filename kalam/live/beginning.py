"""The beginning of a follower, for which others wait."""

from __future__ import annotations

import asyncio


class Beginning:
    """Whether a follower has begun; whoever waits for it learns why it has not."""

    def __init__(self) -> None:
        self._begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait(self) -> None:
        """Wait until it has begun; raises what ``failed`` was told meanwhile."""
        await asyncio.shield(self._begun)

    def done(self) -> None:
        """It has begun, or nobody is to wait any more."""
        if not self._begun.done():
            self._begun.set_result(None)

    def failed(self, error: Exception) -> None:
        """It could not begin: those who wait learn why, and the next ones wait for the next try."""
        if not self._begun.done():
            self._begun.set_exception(error)
            self._begun.exception()  # mostly nobody waits
            self._begun = asyncio.get_running_loop().create_future()
