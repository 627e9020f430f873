"""Of which column an error is that DataFusion raised while it computed the values of several."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from kalam.errors import InvalidValue

_Found = TypeVar("_Found")


async def naming_column(columns: Sequence[str], run: Callable[[Sequence[int]], Awaitable[_Found]]) -> _Found:
    """What ``run`` gives for all places of ``columns``; an InvalidValue of it says which column it is of.

    That is found out by running it again for each column alone, which happens only where it has failed.
    """
    try:
        return await run(range(len(columns)))
    except InvalidValue as exc:
        if exc.detail.startswith("column "):
            raise
        first = exc
    for place, column in enumerate(columns):
        try:
            await run([place])
        except InvalidValue as exc:
            raise InvalidValue(f"column {column}: {exc.detail}") from first
    raise first
