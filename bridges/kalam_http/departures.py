"""How it is told that a client has left before its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive

from kalam.engine import Departure


def departure_of(receive: Receive) -> Departure:
    """Returns once the client is gone. The whole body must have been received."""

    async def departed() -> None:
        await _left(receive)

    return departed


async def until_left(receive: Receive, sending: Coroutine[Any, Any, None]) -> None:
    """Send until that is done or the client has left; raises what the sending raises, but for a connection that broke.

    starlette's own way imports most of anyio with a server's first answer: 16 ms during which nobody else is served.
    """
    leaving = asyncio.create_task(_left(receive), name="reader of an answer")
    task = asyncio.create_task(sending, name="answer in pieces")
    try:
        await asyncio.wait((leaving, task), return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        task.cancel()
        results = await asyncio.gather(leaving, task, return_exceptions=True)
    for failure in results:
        if isinstance(failure, Exception) and not isinstance(failure, OSError):
            raise failure


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
