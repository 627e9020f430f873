"""Rows that come in parts, of which each costs something to take, be it small."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import pyarrow as pa


async def together(parts: AsyncGenerator[pa.Table, None], rows_min: int) -> AsyncGenerator[pa.Table, None]:
    """The same rows in tables of at least so many, but for the last; none of them is empty."""
    waiting: list[pa.Table] = []
    async with aclosing(parts):
        async for part in parts:
            waiting += [part] if part.num_rows else []  # an empty one tells only the columns
            if sum(each.num_rows for each in waiting) >= rows_min:
                yield pa.concat_tables(waiting)
                waiting = []
    if waiting:
        yield pa.concat_tables(waiting)
