"""A connection: bytes cut into messages, as many as somebody reads, and written as fast as the client takes them.

Law: nothing here grows with what a client does. A message has a length that is known before it is taken; while many
wait, nothing more is read; what waits to be written is bounded by ``drain``, which gives a client up that takes nothing
for ``stall_s``, as ``taken`` does at the end. The data of a COPY comes in the pieces in which it arrives, whatever its
messages' lengths say.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, cast

from kalam_pg.errors import PROTOCOL, SqlError

WAITING_MAX: Final = 256
WAITING_BYTES_MAX: Final = 1 << 20
WRITE_BYTES: Final = 256 << 10
STARTUP_BYTES_MAX: Final = 10_000
"""As in PostgreSQL."""
LOGIN_BYTES_MAX: Final = 64 << 10
SHORT_BYTES: Final = 4 << 10
COPY_DATA: Final = ord("d")
KNOWN: Final = frozenset(b"BCDEFHPQSXcdfp")
SHORT: Final = KNOWN - {COPY_DATA}
_HEAD: Final = struct.Struct(">BI")
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))


class Gone(Exception):
    """The client has closed the connection, or was given up."""


class Message:
    """What came: its type's byte (0 for what a connection begins with) and the bytes behind the length."""

    __slots__ = ("data", "kind")

    def __init__(self, kind: int, data: bytes) -> None:
        self.kind, self.data = kind, data


class Channel(asyncio.Protocol):
    """One connection. ``bytes_max`` is how long a message may be once the client has logged in."""

    def __init__(self, bytes_max: int, stall_s: float) -> None:
        self._bytes_max, self._stall_s = bytes_max, stall_s
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._messages: deque[Message] = deque()
        self._waiting_bytes = self._copy_left = 0
        self._begun = self._held = self.logged_in = False
        self._fault: SqlError | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._paused = self._full = False
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self.at_once: Callable[[Iterable[Message]], int] | None = None
        """Takes of messages in order those for which nothing has to be waited, when they come; how many it took."""
        self.address = ""
        self.encrypted = False

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection over."""
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's is none of asyncio's class
        transport.set_write_buffer_limits(WRITE_BYTES)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else ""
        opened = transport.get_extra_info("socket")
        if opened is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                opened.setsockopt(socket.IPPROTO_TCP, option, value)

    def data_received(self, data: bytes) -> None:
        """Cut messages."""
        self._buffer += data
        self._cut()

    def eof_received(self) -> bool:
        """A client that sends no more has left."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        if not self._lost.done():
            self._lost.set_result(None)
        for waiting in (self._reader, self._writer):
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    def pause_writing(self) -> None:
        """The client takes less than is written."""
        self._full = True

    def resume_writing(self) -> None:
        """It has taken enough."""
        self._full = False
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    # For whoever serves the client.

    @property
    def lost(self) -> bool:
        """Whether it is closed."""
        return self._lost.done()

    @property
    def full(self) -> bool:
        """Whether more is written than the client has taken: whoever can wait does so, by ``drain``."""
        return self._full

    async def gone(self) -> None:
        """Wait until the client has left."""
        await asyncio.shield(self._lost)

    def when_gone(self, call: Callable[[], object]) -> None:
        """Call it once the connection is closed."""
        self._lost.add_done_callback(lambda _: call())

    async def taken(self, stall_s: float) -> None:
        """Behind ``close``: wait until the client has taken what was written; one that takes nothing of it is given up.

        Args:
            stall_s: how long it may take nothing, in seconds.
        """
        while not self.lost:
            left = self._unsent()
            with suppress(TimeoutError):
                async with asyncio.timeout(stall_s):
                    await self.gone()
            if not self.lost and self._unsent() == left:
                self.abort()
                return

    async def read(self) -> Message:
        """The next message, in order; raises Gone, and SqlError for what cannot be read on from."""
        while not self._messages:
            if self._fault is not None:
                raise self._fault
            if self.lost:
                raise Gone
            self._resume()
            if self._messages or self._fault:
                continue
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        found = self._messages.popleft()
        self._waiting_bytes -= len(found.data)
        return found

    def write(self, data: bytes | memoryview) -> None:
        """Send bytes; nothing happens where the client is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the client has taken most of what was written; raises Gone."""
        while self._full and not self.lost:
            self._writer = self._loop.create_future()
            left = self._unsent()
            try:
                async with asyncio.timeout(self._stall_s):
                    await self._writer
            except TimeoutError:
                if self._unsent() == left:  # it took nothing at all
                    self.abort()
                    raise Gone from None
            finally:
                self._writer = None
        if self.lost:
            raise Gone

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Go on encrypted; raises SqlError where the client has sent what it may believe to be."""
        assert self._transport is not None
        self._transport.pause_reading()
        if self._buffer or self._messages or self._fault:
            raise SqlError(PROTOCOL, "received unencrypted data after SSL request")
        self._transport.write(b"S")
        try:
            self._transport = await self._loop.start_tls(self._transport, self, context, server_side=True)
        except (OSError, ssl.SSLError) as exc:
            raise Gone from exc
        if self._transport is None:
            raise Gone
        self._transport.set_write_buffer_limits(WRITE_BYTES)
        self._paused, self.encrypted = False, True
        self.begin_again()

    def begin_again(self) -> None:
        """What follows is once more what a connection begins with."""
        self._begun = self._held = False
        self._cut()

    def go_on(self) -> None:
        """What follows are messages with a type."""
        self._held = False
        self._cut()

    def close(self) -> None:
        """Send what is written and close."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _unsent(self) -> int:
        return 0 if self._transport is None else int(self._transport.get_write_buffer_size())

    # Cutting.

    def _cut(self) -> None:
        place = self._cut_short() if self._begun and not (self._held or self._copy_left or self._fault) else 0
        while not (self._held or self._fault or self._crowded()):
            taken = self._one(place)
            if not taken:
                break
            place += taken
        del self._buffer[:place]
        if self._crowded():
            self._pause()
        if self._reader is not None and not self._reader.done():
            self._carry_out()
            if self._messages or self._fault or self._paused:
                self._reader.set_result(None)

    def _carry_out(self) -> None:
        """Hand over what needs no waiting; behind what needs it everything waits."""
        if self.at_once is not None and not self._full:
            for _ in range(self.at_once(self._messages)):
                self._waiting_bytes -= len(self._messages.popleft().data)

    def _cut_short(self) -> int:
        """Cut the short messages that stand whole at the front, as most are; how many bytes that were."""
        buffer, place, end = self._buffer, 0, len(self._buffer)
        longest = SHORT_BYTES if self.logged_in else 0
        while end - place >= 5 and not self._crowded():
            kind, size = _HEAD.unpack_from(buffer, place)
            if kind not in SHORT or not 4 <= size <= longest or end - place <= size:
                break
            self._messages.append(Message(kind, bytes(buffer[place + 5 : place + 1 + size])))
            self._waiting_bytes += size - 4
            place += 1 + size
        return place

    def _one(self, place: int) -> int:
        """Cut what stands there; how many bytes that were, 0 for one that has not come whole."""
        if not self._begun:
            return self._first(place)
        if self._copy_left:
            return self._piece(place)
        if len(self._buffer) - place < 5:
            return 0
        kind, size = self._buffer[place], int.from_bytes(self._buffer[place + 1 : place + 5])
        if kind not in KNOWN or size < 4:
            self._fault = SqlError(PROTOCOL, f"invalid frontend message type {kind} or length {size}")
            return 0
        if kind == COPY_DATA:
            self._copy_left = size - 4
            return 5
        if size > (self._bytes_max if self.logged_in else LOGIN_BYTES_MAX):
            self._fault = SqlError("54000", f"a message of {size:,} bytes is too long")
            return 0
        return self._put(kind, place + 5, size - 4, 5)

    def _first(self, place: int) -> int:
        if len(self._buffer) - place < 4:
            return 0
        size = int.from_bytes(self._buffer[place : place + 4])
        if not 8 <= size <= STARTUP_BYTES_MAX:
            self._fault = SqlError(PROTOCOL, "invalid length of startup packet")
            return 0
        taken = self._put(0, place + 4, size - 4, 4)
        self._begun = self._held = bool(taken)
        return taken

    def _piece(self, place: int) -> int:
        size = min(self._copy_left, len(self._buffer) - place, WAITING_BYTES_MAX)
        if size:
            self._copy_left -= size
            self._put(COPY_DATA, place, size, 0)
        return size

    def _put(self, kind: int, start: int, size: int, before: int) -> int:
        if len(self._buffer) - start < size:
            return 0
        self._messages.append(Message(kind, bytes(memoryview(self._buffer)[start : start + size])))
        self._waiting_bytes += size
        return before + size

    def _crowded(self) -> bool:
        return len(self._messages) >= WAITING_MAX or self._waiting_bytes >= WAITING_BYTES_MAX

    def _pause(self) -> None:
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        """Cut what came meanwhile, and let more come."""
        self._cut()
        if self._paused and not self._crowded() and self._transport is not None and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()
