"""The rows of a query while they come, over HTTP, where the server streams answers of any length.

The law: what was read and not yet given away is bounded, by ``PIECE_BYTES`` of rows or one Arrow batch, and the end is
only ever the end of all rows: an answer that breaks off raises. The standard library reads in a thread; whoever closes
the stream shuts its socket, which is what ends a read there.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, Final, Generic, Self, TypeVar

import msgspec

from kalam.client.values import library
from kalam.errors import BrokerUnavailable, Internal, InvalidOption, KalamError, error_class
from kalam.urls import http_connection, redacted

NDJSON: Final = "application/x-ndjson"
ARROW_STREAM: Final = "application/vnd.apache.arrow.stream"
PIECE_BYTES: Final = 256 << 10
CONNECT_S: Final = 5.0
PROBLEM_TYPE: Final = "urn:kalam:error:"

_ROWS: Final = msgspec.json.Decoder(dict[str, Any])
Item = TypeVar("Item")
Read = TypeVar("Read")


class Address(msgspec.Struct, frozen=True):
    """Where a server answers HTTP; ``id`` is which one it has to be, None for any."""

    url: str
    id: str | None


class Streamed(Generic[Item]):
    """The rows, or Arrow batches, of a query: ``async for row in stream``. Made by ``Kalam.stream`` and ``.batches``.

    The query ends with the last row, with ``close`` or with the ``async with`` block.
    """

    def __init__(
        self,
        find: Callable[[], Awaitable[Address]],
        question: bytes,
        headers: dict[str, str],
        pieces: Callable[[HTTPResponse], Iterator[list[Item]]],
    ) -> None:
        self._find, self._question, self._headers, self._read = find, question, headers, pieces
        self._pieces: Iterator[list[Item]] | None = None
        self._ready: Iterator[Item] = iter(())
        self._connection: HTTPConnection | None = None
        self._socket: socket.socket | None = None
        self._reading: asyncio.Future[Any] | None = None
        self._closed = False

    def __aiter__(self) -> Self:
        """The rows themselves."""
        return self

    async def __anext__(self) -> Item:
        """The next row; waits for it. Raises the error that ended the query."""
        while True:
            for item in self._ready:
                return item
            piece = await self.piece()
            if piece is None:
                raise StopAsyncIteration
            self._ready = iter(piece)

    async def __aenter__(self) -> Self:
        """End the query when the block ends."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """End it."""
        await self.close()

    async def piece(self) -> list[Item] | None:
        """The next rows as they came, some at once; None after the last."""
        if self._closed:
            return None
        try:
            if self._pieces is None:
                address = await self._find()
                self._pieces = await self._in_thread(lambda: self._read(self._ask(address)))
            piece: list[Item] | None = await self._in_thread(functools.partial(next, self._pieces, None))
        except BaseException:
            await self.close()
            raise
        if piece is None:
            await self.close()
        return piece

    async def close(self) -> None:
        """End the query on the server too."""
        self._closed, self._ready = True, iter(())
        if self._socket is not None:
            with suppress(OSError):  # the server has closed it already
                self._socket.shutdown(socket.SHUT_RDWR)
        if self._reading is not None and not self._reading.done():
            await asyncio.wait([self._reading])
        if self._connection is not None:
            self._connection.close()
        self._pieces = self._connection = self._socket = None

    async def _in_thread(self, read: Callable[[], Read]) -> Read:
        self._reading = reading = asyncio.get_running_loop().run_in_executor(None, read)
        reading.add_done_callback(lambda done: done.cancelled() or done.exception())  # told below, if anybody waits
        return await asyncio.shield(reading)

    def _ask(self, address: Address) -> HTTPResponse:
        """Send the question and wait for the head of the answer; raises the error that was answered."""
        shown = redacted(address.url)
        try:
            connection, path = http_connection(address.url, CONNECT_S)
        except ValueError as exc:
            raise InvalidOption(str(exc)) from exc
        try:
            connection.connect()
            self._connection, self._socket = connection, connection.sock
            if self._closed:
                raise ConnectionAbortedError("the stream was closed")
            connection.sock.settimeout(None)  # a query may rightly take long, and the server bounds it
            if address.id is not None:
                _check_identity(connection, path, address, self._headers)
            connection.request("POST", f"{path}/v1/sql", self._question, self._headers)
            answer = connection.getresponse()
            if answer.status == 200:
                return answer
            body = answer.read()
        except (OSError, HTTPException) as exc:
            raise BrokerUnavailable(f"no answer from {shown}: {exc or type(exc).__name__}") from exc
        raise _error_of(body) or Internal(f"{shown} answered with HTTP status {answer.status}")


def _check_identity(connection: HTTPConnection, path: str, address: Address, headers: dict[str, str]) -> None:
    connection.request("GET", f"{path}/readyz", headers=headers)
    body = connection.getresponse().read()
    try:
        found = msgspec.json.decode(body)["server"]["id"]
    except (msgspec.MsgspecError, LookupError, TypeError):
        found = None
    if found != address.id:
        raise BrokerUnavailable(
            f"{redacted(address.url)} is here another server than the one in NATS, which says that it is there",
            hint="say where it answers HTTP: connect(…, http_url=…)",
        )


def _error_of(body: bytes) -> KalamError | None:
    try:
        problem = msgspec.json.decode(body)
    except msgspec.MsgspecError:
        return None
    return _error_told(problem)


def _error_told(problem: Any) -> KalamError | None:
    if not isinstance(problem, dict) or not str(problem.get("type")).startswith(PROBLEM_TYPE):
        return None
    fields = {name: problem[name] for name in ("hint", "line", "column", "statement") if name in problem}
    return error_class(str(problem.get("code")))(str(problem.get("detail")), **fields)


def row_pieces(answer: HTTPResponse) -> Iterator[list[dict[str, Any]]]:
    """The rows of an NDJSON answer; its last line may be an error, so one row is kept back until another follows."""
    kept: list[dict[str, Any]] = []
    rest, more = b"", True
    while more:
        read = _told(lambda: answer.read(PIECE_BYTES))
        more = bool(read)
        whole, _, rest = (rest + read).rpartition(b"\n")
        rows = kept + _rows(whole if more else rest)
        kept = rows[-1:]
        if len(rows) > 1:
            yield rows[:-1]
    for row in kept:
        error = _error_told(row["error"]) if row.keys() == {"error"} else None
        if error is not None:
            raise error
        yield kept


def _rows(lines: bytes) -> list[dict[str, Any]]:
    try:
        return _ROWS.decode_lines(lines)
    except msgspec.MsgspecError as exc:
        raise Internal(f"the answer is none of Kalam's: {exc}") from exc


def batch_pieces(answer: HTTPResponse) -> Iterator[list[Any]]:
    """The batches of an Arrow answer that have rows."""
    pa = library("pyarrow", "batches()")
    broken = pa.ArrowInvalid
    stream = _told(lambda: pa.ipc.open_stream(answer), broken)
    while (batch := _told(functools.partial(next, iter(stream), None), broken)) is not None:
        _told(functools.partial(batch.validate, full=True), broken)
        if batch.num_rows:
            yield [batch]


def _told(read: Callable[[], Read], broken: type[Exception] = ValueError) -> Read:
    try:
        return read()
    except (OSError, HTTPException, ValueError, broken) as exc:
        raise BrokerUnavailable(
            f"the answer broke off before all rows had come ({type(exc).__name__})",
            hint="if the connection is well, the server's log has the reason",
        ) from exc
