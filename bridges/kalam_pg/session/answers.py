"""What a statement gives: columns and rows as they come, or no rows, and at its end a tag.

Law: rows outlast the request that read them, so an answer keeps what was asked. What may not be read any more is not
given, whenever it was read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from contextvars import copy_context
from typing import Any, Final, Self

import pyarrow as pa

from kalam.errors import Cancelled, Timeout
from kalam.query.running import RunningQuery
from kalam_pg.values.rows import Column, table_of_rows

AHEAD_BYTES: Final = 16 << 20
PAUSED_S: Final = 300.0


class Asked:
    """What was asked of the engine for an answer, and whether a right that it needs was taken since."""

    def __init__(self) -> None:
        self.requests: list[RunningQuery] = []
        self.cut = False


class Answer:
    """The answer to one statement, which is read once, a table at a time.

    ``columns`` is None where there are no rows. ``tag`` gets the number of rows behind it where it ends in a blank.
    ``request_id`` is by what the engine knows it, ``asked`` what was asked for it.
    """

    def __init__(
        self,
        tag: str,
        columns: tuple[Column, ...] | None = None,
        tables: AsyncGenerator[pa.Table, None] | Ahead | None = None,
        at_hand: Sequence[pa.Table] = (),
        request_id: str | None = None,
    ) -> None:
        self._tag, self.columns, self._tables = tag, columns, tables
        self._at_hand = list(at_hand)
        self.request_id = request_id
        self.asked = Asked()
        self._dropped = False

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
        """The next rows, None behind the last; raises Cancelled where they may not be read any more."""
        if self.asked.cut:
            self.drop()
        if self._dropped:
            raise _taken()
        if self._at_hand:
            return self._at_hand.pop(0)
        if self._tables is None:
            return None
        return await anext(self._tables, None)

    def drop(self) -> None:
        """What is left of it may not be read any more; what has been given whole stays as it is."""
        self._dropped = self._dropped or bool(self._at_hand) or self._tables is not None
        self._at_hand.clear()
        if isinstance(self._tables, Ahead):
            self._tables.drop()

    async def close(self) -> None:
        """Nothing more of it is wanted."""
        self._at_hand.clear()
        if self._tables is not None:
            tables, self._tables = self._tables, None
            await tables.aclose()


class Ahead:
    """Rows that are wanted bit by bit, read ahead by a task of their own, up to AHEAD_BYTES.

    A query whose rows all fit frees its place at once, whoever takes how long to fetch them; another one is given up
    where nobody fetches for PAUSED_S. The task has a context of its own, since the engine keeps there what is running.
    """

    def __init__(self, tables: AsyncGenerator[pa.Table, None]) -> None:
        self._ready: deque[pa.Table] = deque()
        self._bytes = 0
        self._more, self._room = asyncio.Event(), asyncio.Event()
        self._ended = False
        self._error: Exception | None = None
        self._task = asyncio.create_task(self._read(tables), name="rows ahead", context=copy_context())

    async def _read(self, tables: AsyncGenerator[pa.Table, None]) -> None:
        try:
            async with aclosing(tables):
                async for table in tables:
                    self._ready.append(table)
                    self._bytes += table.nbytes
                    self._more.set()
                    if self._bytes > AHEAD_BYTES:
                        self._room.clear()
                        async with asyncio.timeout(PAUSED_S):
                            await self._room.wait()
        except TimeoutError:
            self._error = Timeout(f"nobody has fetched the cursor's rows for {PAUSED_S:.0f} s")
        except Exception as exc:  # noqa: BLE001 - whoever fetches next is told
            self._error = exc
        finally:
            self._ended = True
            self._more.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> pa.Table:
        while not self._ready:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._more.clear()
            await self._more.wait()
        table = self._ready.popleft()
        self._bytes -= table.nbytes
        self._room.set()
        return table

    def drop(self) -> None:
        """Forget what was read; whoever waits for more is told."""
        self._ready.clear()
        self._error = _taken()
        self._task.cancel()

    async def aclose(self) -> None:
        """Nothing more is wanted."""
        self._ready.clear()
        self._task.cancel()
        await asyncio.wait([self._task])


def _taken() -> Cancelled:
    return Cancelled("the right to these rows was taken")
