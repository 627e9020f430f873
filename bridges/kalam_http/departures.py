"""How it is told that a client has left before its answer."""

from __future__ import annotations

from starlette.types import Receive

from kalam.engine import Departure


def departure_of(receive: Receive) -> Departure:
    """Returns once the client is gone. The whole body must have been received."""

    async def departed() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    return departed
