"""What a statement gives: columns and rows as they come, or no rows, and at its end a tag."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from contextvars import copy_context
from typing import Any

import pyarrow as pa

from kalam_pg.values.rows import Column, table_of_rows


class Answer:
    """The answer to one statement, which is read once, a table at a time.

    ``columns`` is None where there are no rows. ``tag`` gets the number of rows behind it where it ends in a blank.
    ``request_id`` is by what the engine knows it. Whoever pauses between two tables while other statements run gives
    it a context of its own (``apart``), since the engine keeps in the context what is running.
    """

    def __init__(
        self,
        tag: str,
        columns: tuple[Column, ...] | None = None,
        tables: AsyncGenerator[pa.Table, None] | None = None,
        at_hand: Sequence[pa.Table] = (),
        request_id: str | None = None,
    ) -> None:
        self._tag, self.columns, self._tables = tag, columns, tables
        self._at_hand = list(at_hand)
        self.request_id = request_id

    @classmethod
    def of_rows(cls, tag: str, columns: tuple[Column, ...], rows: Sequence[Sequence[Any]]) -> Answer:
        """An answer of Python rows."""
        return cls(tag, columns, at_hand=[table_of_rows(rows, columns)])

    def tag(self, rows: int) -> str:
        """What tells that it is all."""
        return f"{self._tag}{rows}" if self._tag.endswith(" ") else self._tag

    def give_back(self, table: pa.Table) -> None:
        """Have rows that were not taken come next."""
        self._at_hand.insert(0, table)

    async def next(self) -> pa.Table | None:
        """The next rows; None behind the last."""
        if self._at_hand:
            return self._at_hand.pop(0)
        if self._tables is None:
            return None
        return await anext(self._tables, None)

    async def close(self) -> None:
        """Nothing more of it is wanted."""
        self._at_hand.clear()
        if self._tables is not None:
            tables, self._tables = self._tables, None
            await tables.aclose()


async def apart(tables: AsyncGenerator[pa.Table, None]) -> AsyncGenerator[pa.Table, None]:
    """The same tables, each found in one context of their own, whoever asks for them."""
    context = copy_context()
    async with aclosing(_in_context(tables, context)) as found:
        async for table in found:
            yield table


async def _in_context(tables: AsyncGenerator[pa.Table, None], context: Any) -> AsyncGenerator[pa.Table, None]:
    async def take() -> pa.Table | None:
        return await anext(tables, None)

    try:
        while (table := await asyncio.create_task(take(), context=context)) is not None:
            yield table
    finally:
        await asyncio.create_task(tables.aclose(), context=context)
