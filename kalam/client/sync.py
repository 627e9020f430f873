"""The same client for programs without an event loop: what is a coroutine there is a call that waits here.

There is no second client: each method is the asynchronous one, carried out by a ``LoopThread``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from kalam.client.kalam import Kalam, connect
from kalam.client.live import Change, LiveRows
from kalam.client.loop_thread import LoopThread
from kalam.client.streamed import Item, Streamed

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def _waiting(
    method: Callable[Concatenate[Kalam, Parameters], Coroutine[Any, Any, Result]],
) -> Callable[Concatenate[KalamSync, Parameters], Result]:
    @functools.wraps(method)
    def call(self: KalamSync, /, *args: Parameters.args, **named: Parameters.kwargs) -> Result:
        return self._thread.run(method(self._kalam, *args, **named))

    return call


def _live(
    method: Callable[Concatenate[Kalam, Parameters], LiveRows],
) -> Callable[Concatenate[KalamSync, Parameters], LiveRowsSync]:
    @functools.wraps(method)
    def call(self: KalamSync, /, *args: Parameters.args, **named: Parameters.kwargs) -> LiveRowsSync:
        return LiveRowsSync(method(self._kalam, *args, **named), self._thread)

    return call


def _streamed(
    method: Callable[Concatenate[Kalam, Parameters], Streamed[Item]],
) -> Callable[Concatenate[KalamSync, Parameters], StreamedSync[Item]]:
    @functools.wraps(method)
    def call(self: KalamSync, /, *args: Parameters.args, **named: Parameters.kwargs) -> StreamedSync[Item]:
        return StreamedSync(method(self._kalam, *args, **named), self._thread)

    return call


class StreamedSync(Generic[Item]):
    """The rows, or Arrow batches, of a query: ``for row in stream``; ``Streamed`` says when the query ends."""

    def __init__(self, stream: Streamed[Item], thread: LoopThread) -> None:
        self._stream, self._thread = stream, thread
        self._ready: Iterator[Item] = iter(())

    def __iter__(self) -> Self:
        """The rows themselves."""
        return self

    def __next__(self) -> Item:
        """The next row; waits for it, and ^C ends the query. Raises the error that ended the query."""
        while True:
            for item in self._ready:
                return item
            piece = self._thread.run(self._stream.piece())
            if piece is None:
                raise StopIteration
            self._ready = iter(piece)

    def __enter__(self) -> Self:
        """End the query when the block ends."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.close()

    def close(self) -> None:
        """End the query on the server too."""
        self._ready = iter(())
        self._thread.run(self._stream.close())


class LiveRowsSync:
    """The changes of a live query: ``for change in live``. ``LiveRows`` says what the attributes are."""

    def __init__(self, live: LiveRows, thread: LoopThread) -> None:
        self._live, self._thread = live, thread

    def __iter__(self) -> Self:
        """The changes themselves."""
        return self

    def __next__(self) -> Change:
        """The next change; waits for it. ^C ends the live query."""
        try:
            return self._thread.run(self._live.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> Self:
        """Close the live query when the block ends."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """End the live query on the server too."""
        self._thread.run(self._live.close())

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """The names and SQL types of the columns, known from the first change on."""
        return self._live.columns

    @property
    def seq(self) -> int | None:
        """Behind which change a later ``live`` can go on."""
        return self._live.seq

    @property
    def table_id(self) -> int | None:
        """Of which table that change is."""
        return self._live.table_id

    @property
    def token(self) -> str | None:
        """Both as one text."""
        return self._live.token

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The result as it is now; needs ``key``."""
        return self._live.rows


class KalamSync:
    """A connection to a Kalam server whose methods wait. Made by ``connect_sync``; threads may share it."""

    def __init__(self, kalam: Kalam, thread: LoopThread) -> None:
        self._kalam, self._thread = kalam, thread

    sql = _waiting(Kalam.sql)
    describe = _waiting(Kalam.describe)
    drain = _waiting(Kalam.drain)
    live = _live(Kalam.live)
    stream = _streamed(Kalam.stream)
    batches = _streamed(Kalam.batches)

    @functools.wraps(Kalam.insert)
    def insert(self, table: str, rows: Any) -> int:  # noqa: D102 - the asynchronous one's
        own = list(rows) if isinstance(rows, Iterator) else rows  # the caller's code runs in the caller's thread
        return self._thread.run(self._kalam.insert(table, own))

    @functools.wraps(Kalam.execute_many)
    def execute_many(  # noqa: D102 - the asynchronous one's
        self, text: str, rows: Iterable[Sequence[Any]], *, namespace: str | None = None
    ) -> int:
        return self._thread.run(self._kalam.execute_many(text, list(rows), namespace=namespace))


def _connecting(
    make: Callable[Parameters, AbstractAsyncContextManager[Kalam]],
) -> Callable[Parameters, AbstractContextManager[KalamSync]]:
    @contextmanager
    @functools.wraps(make)
    def connected(*args: Parameters.args, **named: Parameters.kwargs) -> Iterator[KalamSync]:
        with LoopThread() as thread:
            connection = make(*args, **named)
            kalam = thread.run(_entered(connection))
            try:
                yield KalamSync(kalam, thread)
            finally:
                thread.run(_left(connection))

    return connected


async def _entered(connection: AbstractAsyncContextManager[Kalam]) -> Kalam:
    return await connection.__aenter__()


async def _left(connection: AbstractAsyncContextManager[Kalam]) -> None:
    await connection.__aexit__(None, None, None)


connect_sync = _connecting(connect)
