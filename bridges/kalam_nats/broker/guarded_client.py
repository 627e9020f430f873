"""nats-py's client, with what Kalam needs beside it: a refusal to buffer, and a short way in and out for bulk.

This and ``tapping_parser`` are the one place that leans on the inside of nats-py (its parser, ``_send_command``,
``_process_msg``); tests hold what is relied on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from kalam.errors import BrokerUnavailable
from kalam.tasks import heeding
from kalam.tracing import TRACEPARENT
from kalam_nats.broker.tapping_parser import (
    NOT_TAKEN,
    HeadedTap,
    Tap,
    TappingParser,
    hand_over,
    hand_over_headed,
    shown,
)
from kalam_nats.broker.tapping_protocol import TappingProtocol

log = structlog.get_logger(__name__)

DRAIN_S = 10.0
UNSENT_BYTES_MAX = 64 << 10
"""So much may wait for the socket before a writer waits, too; asyncio's own mark."""
JOINED_BYTES_MAX = 1 << 20
"""More is written piece by piece, which the system takes without a copy of it all."""


def header_block(headers: Mapping[str, str]) -> bytes:
    """The headers as they go before a payload; the caller vouches that names and values have no line breaks."""
    return "".join(("NATS/1.0\r\n", *(f"{name}: {value}\r\n" for name, value in headers.items()), "\r\n")).encode()


def with_trace(block: bytes, trace: str | None) -> bytes:
    """A header block, or none, that names a trace besides; ``trace`` has been checked."""
    if trace is None:
        return block
    head = block[:-2] if block else b"NATS/1.0\r\n"
    return b"%b%b: %b\r\n\r\n" % (head, TRACEPARENT.encode(), trace.encode())


class GuardedClient(Client):
    """nats-py's client, which refuses to buffer what is published while it is not connected."""

    def __init__(self) -> None:
        super().__init__()
        self._taps: dict[bytes, Tap] = {}
        self._headed: dict[bytes, HeadedTap] = {}
        self._ps = self._parser = TappingParser(self, self._taps, self._headed)
        self._held: list[bytes] = []  # what goes out together at the end of this turn of the loop
        self._held_bytes = 0
        self._held_for: object = None  # the transport that it was meant for
        self._writing_soon = False

    async def request(self, *args: Any, **options: Any) -> Msg:
        """nats-py's request, which in Python 3.11 forgets a cancellation that comes together with the answer."""
        return await heeding(super().request(*args, **options))

    async def tap(self, subject: str, take: Tap, queue: str = "") -> Subscription:
        """Subscribe and have ``take`` called at once for each message.

        For bulk: nats-py's parser, queue, task and message object cost several times as much.
        """
        subscription = await self.subscribe(subject, queue=queue, cb=_ignore)
        self._taps[b"%d" % subscription._id] = take  # noqa: SLF001 - the broker answers to nothing of it before the next await
        return subscription

    async def tap_headed(self, subject: str, take: HeadedTap) -> Subscription:
        """The same for messages that came in a row, with headers as they came: nothing is done for each of them."""
        subscription = await self.subscribe(subject, cb=_ignore)
        self._headed[b"%d" % subscription._id] = take  # noqa: SLF001 - likewise
        return subscription

    async def _read_loop(self) -> None:
        """Read, with what is tapped taken out before; a WebSocket's messages have no such way."""
        writer, reader = (getattr(self._transport, name, None) for name in ("_io_writer", "_io_reader"))
        if writer is not None and reader is not None:
            inner = writer.transport.get_protocol()
            writer.transport.set_protocol(TappingProtocol(inner, reader, self._parser, self._write_soon))
        await super()._read_loop()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        number = b"%d" % sid
        take, take_headed = self._taps.get(number), self._headed.get(number)
        if take_headed is not None:
            hand_over_headed(take_headed, ([subject], [reply], [bytes(headers or b"")], [data]))
            return
        try:  # what cannot be read, of subjects that are no UTF-8 or of headers, would end nats-py's reading for good
            if take is None:
                await super()._process_msg(sid, subject, reply, data, headers)
                return
            read = await self._process_headers(headers) if headers else None
        except Exception as exc:  # noqa: BLE001 - as above
            log.warning(NOT_TAKEN, subject=shown(subject), error=f"{type(exc).__name__}: {exc}")
            return
        hand_over(take, subject, reply, data, read)

    async def _process_pong(self) -> None:
        """Take the answer to a ping; nats-py's reading ends for good over one that nobody waits for any more."""
        if self._pongs and self._pongs[0].done():
            self._pongs.pop(0)
            self._pings_outstanding = 0
            return
        await super()._process_pong()

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._taps.pop(b"%d" % sid, None)
        self._headed.pop(b"%d" % sid, None)
        super()._remove_sub(sid, max_msgs)

    def publish(
        self, subject: str, payload: bytes = b"", reply: str = "", headers: dict[str, str] | None = None
    ) -> Coroutine[Any, Any, None]:
        """Publish as nats-py does; raises BrokerUnavailable, at the call, while the connection is down."""
        if not self.is_connected:
            raise BrokerUnavailable("the connection to the broker is down")
        return super().publish(subject, payload, reply, headers)

    async def publish_batch(self, messages: Iterable[tuple[bytes, bytes, bytes]]) -> None:
        """Publish many messages (subject, reply subject or nothing, payload) in order, as one write.

        nats-py has no such call; this is its ``_send_publish`` for a batch, at a fifth of the cost for each message.
        The caller vouches for the subjects. Raises BrokerUnavailable while the connection is down.
        """
        parts = _commands(messages)
        await self._send_batch(parts, len(parts) // 3)

    def publish_batch_nowait(self, messages: Iterable[tuple[bytes, bytes, bytes]]) -> bool:
        """The same if it needs no waiting; False, and nothing is sent, where it does."""
        if not self._takes_at_once():
            return False
        parts = _commands(messages)
        self._write(parts, len(parts) // 3)
        return True

    async def publish_headed_batch(self, messages: Iterable[tuple[str, str, bytes, bytes]]) -> None:
        """The same for messages with headers (subject, reply or '', the header block, payload).

        A header block is ``NATS/1.0``, the headers and an empty line; an empty one makes a message without headers.
        """
        parts = _headed_commands(messages)
        await self._send_batch(parts, len(parts) // 4)

    def publish_headed_batch_now(
        self, messages: Iterable[tuple[str, str, bytes, bytes]], *, behind: bool = False
    ) -> bool:
        """The same if it needs no waiting, and before whatever else is done in this turn of the loop.

        False, and no message is asked for, where it does. What goes ``behind`` a part that was sent does not wait until
        the socket has taken that; the caller bounds how much it may be.
        """
        if not (self._writes_at_once() and self.is_connected if behind else self._takes_at_once()):
            return False
        parts = _headed_commands(messages)
        if parts:
            self._write(parts, len(parts) // 4)
            self._write_held()
        return True

    async def _send_batch(self, parts: Sequence[bytes], count: int) -> None:
        if not self.is_connected:
            raise BrokerUnavailable("the connection to the broker is down")
        if not self._writes_at_once():
            self._counted(parts, count)
            await self._send_command(b"".join(parts))
            if self._flush_queue is not None and self._flush_queue.empty():
                await self._flush_pending()
            return
        self._write(parts, count)
        if self._unsent_bytes() < UNSENT_BYTES_MAX:
            return
        self._write_held()
        # nats-py, which reads there, sees a broken socket too and connects again; one that takes nothing never breaks.
        with contextlib.suppress(OSError):
            async with asyncio.timeout(DRAIN_S):
                await self._transport.drain()  # type: ignore[union-attr]

    def _takes_at_once(self) -> bool:
        return self._writes_at_once() and self.is_connected and self._unsent_bytes() < UNSENT_BYTES_MAX

    def _writes_at_once(self) -> bool:
        """Whether nothing waits that a write would overtake, so that nats-py's flusher need not be woken."""
        return self._transport is not None and not self._pending

    def _write(self, parts: Sequence[bytes], count: int) -> None:
        """Write at the end of this turn of the loop, together with what others write in it.

        An ack and the change that it goes before are one system call so, and one read of the broker's.
        """
        if self._held_for is not self._transport:  # what ended with its connection is not for the next one
            self._held, self._held_bytes, self._held_for = [], 0, self._transport
        assert self._transport is not None
        size = self._counted(parts, count)
        if size >= JOINED_BYTES_MAX:
            self._write_held()
            self._transport.writelines(list(parts))
            return
        if not self._held:
            self._write_soon()
        self._held += parts
        self._held_bytes += size
        if self._held_bytes >= UNSENT_BYTES_MAX:
            self._write_held()

    def _write_soon(self) -> None:
        """Write what is held behind all that waits for the loop now: after a read, what it gives rise to at once."""
        if not self._writing_soon:
            self._writing_soon = True
            asyncio.get_running_loop().call_soon(self._written_soon)

    def _written_soon(self) -> None:
        self._writing_soon = False
        self._write_held()

    def _write_held(self) -> None:
        if not self._held:
            return
        held, self._held, self._held_bytes = self._held, [], 0
        if self._transport is not None and self._held_for is self._transport and self.is_connected:
            with contextlib.suppress(OSError, RuntimeError):  # it breaks, which nats-py's reading sees, too
                self._transport.write(b"".join(held))

    async def _send_command(self, cmd: bytes, priority: bool = False) -> None:
        self._write_held()
        await super()._send_command(cmd, priority)

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        self._write_held()
        await super()._close(status, do_cbs)

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        self._write_held()
        return await super()._flush_pending(force_flush)

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        """Send a ping behind all that was published and subscribed before it; nats-py's own overtakes what waits."""
        self._write_held()
        if self._pending and self._transport is not None and self.is_connected:
            waiting, self._pending, self._pending_data_size = self._pending, [], 0
            self._transport.writelines(waiting)
        await super()._send_ping(future)

    def _counted(self, parts: Sequence[bytes], count: int) -> int:
        """The bytes of what is sent, which are added to those that were."""
        size = sum(map(len, parts))
        self.stats["out_msgs"] += count
        self.stats["out_bytes"] += size
        return size

    def _unsent_bytes(self) -> int:
        """What the socket has not taken yet of what was written."""
        writer = getattr(self._transport, "_io_writer", None)
        return UNSENT_BYTES_MAX if writer is None else self._held_bytes + writer.transport.get_write_buffer_size()


def _commands(messages: Iterable[tuple[bytes, bytes, bytes]]) -> list[bytes]:
    """The commands that publish messages, each in three parts."""
    parts: list[bytes] = []
    for subject, reply, payload in messages:
        parts += (b"PUB %b %b %d\r\n" % (subject, reply, len(payload)), payload, b"\r\n")
    return parts


def _headed_commands(messages: Iterable[tuple[str, str, bytes, bytes]]) -> list[bytes]:
    """The same for messages with headers, each in four parts."""
    parts: list[bytes] = []
    for subject, reply, header, payload in messages:
        size = len(header) + len(payload)
        command = f"HPUB {subject} {reply} {len(header)} {size}" if header else f"PUB {subject} {reply} {size}"
        parts += (f"{command}\r\n".encode(), header, payload, b"\r\n")
    return parts


async def _ignore(_: Msg) -> None:
    """Take what a tap has taken already, or what came before there was one."""
