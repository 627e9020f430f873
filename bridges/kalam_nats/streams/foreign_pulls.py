"""Messages of a foreign stream on their way: pulls of a consumer, or the answers of DIRECT.GET."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from kalam.errors import KalamError
from kalam.rows.foreign.messages import ForeignMessages, nanoseconds
from kalam_nats.broker.connection import BrokerConnection
from kalam_nats.streams.reader import (
    CONSUMER_SEQ,
    PULL_BYTES,
    PULL_EVENTS,
    READ_IDLE_S,
    STREAM_SEQ,
    TIME_NS,
    reply_numbers,
)

PENDING = 4
"""The place of the number of messages that a consumer still has to deliver, among those of a reply subject."""
NO_MORE = frozenset({204, 404, 408})
"""The statuses that end a pull with nothing wrong: all was sent, and there is no more."""
FULL = (b"Message Size Exceeds MaxBytes", b"Batch Completed")
"""What a 409 says of a pull that ended as it was asked to."""
_OF_DIRECT = (
    *(b"Nats-Stream", b"Nats-Subject", b"Nats-Sequence", b"Nats-Time-Stamp"),
    *(b"Nats-Num-Pending", b"Nats-Last-Sequence", b"Nats-UpTo-Sequence"),
)
"""The headers that an answer of DIRECT.GET has behind the message's own."""


class ReadInterrupted(Exception):
    """A read broke off, and may be gone on with: its consumer is gone, or something was lost on the way."""


class Pull:
    """One request for messages: what has come of it. ``status`` is what ended it, 0 for as many as were asked for."""

    def __init__(self, count: int | None) -> None:
        self._count = count
        self.subjects: list[bytes] = []
        self.replies: list[bytes] = []
        self.headers: list[bytes] = []
        self.payloads: list[bytes] = []
        self.status, self.described = 0, b""
        self.done = asyncio.Event()

    def __len__(self) -> int:
        return len(self.payloads)

    def take(
        self, subjects: Sequence[bytes], replies: Sequence[bytes], headers: Sequence[bytes], payloads: Sequence[bytes]
    ) -> None:
        """Take messages."""
        self.subjects += subjects
        self.replies += replies
        self.headers += headers
        self.payloads += payloads
        if self._count is not None and len(self) >= self._count:
            self.done.set()

    def take_headed(
        self, subjects: Sequence[bytes], replies: Sequence[bytes], headers: Sequence[bytes], payloads: Sequence[bytes]
    ) -> None:
        """Take messages, and the status among them that ends it."""
        for place, (reply, block) in enumerate(zip(replies, headers, strict=True)):
            if is_status(reply, block):
                self.take(subjects[:place], replies[:place], headers[:place], payloads[:place])
                self.end(block)
                return
        self.take(subjects, replies, headers, payloads)

    def end(self, headers: bytes) -> None:
        """Take a status; one behind the last message that was asked for says nothing new."""
        if self.done.is_set():
            return
        line = headers.partition(b"\r\n")[0]
        code = line[9:12]
        self.status, self.described = int(code) if code.isdigit() else 500, line[13:]
        self.done.set()

    async def wait(self, denied: asyncio.Future[None], refusal: KalamError) -> None:
        """Wait for the end; raises the refusal if the broker denies it, ReadInterrupted if it comes to nothing."""
        waiting = asyncio.ensure_future(self.done.wait())
        try:
            while not self.done.is_set():
                seen = len(self)
                either: set[asyncio.Future[Any]] = {waiting, denied}
                ended, _ = await asyncio.wait(either, timeout=READ_IDLE_S, return_when=asyncio.FIRST_COMPLETED)
                if denied in ended:
                    raise refusal
                if not ended and seen == len(self):
                    raise ReadInterrupted("the broker stopped in the middle of a read")
        finally:
            waiting.cancel()
        if self.status and self.status not in NO_MORE and not (self.status == 409 and self.described in FULL):
            raise ReadInterrupted(f"the broker ended a read: {self.status} {self.described.decode('utf-8', 'replace')}")


def is_status(reply: bytes, headers: bytes) -> bool:
    """Whether a message is a status of the broker's."""
    return not reply and headers[:9] == b"NATS/1.0 "


class ConsumerPulls:
    """The pulls of one consumer, one after another; ``api`` is the subject to ask on.

    They go on for ``count`` messages, or, ``to_the_end``, until the last that came says that there were no more.
    """

    def __init__(
        self, connection: BrokerConnection, api: str, count: int, refusal: KalamError, *, to_the_end: bool = False
    ) -> None:
        self._to_the_end = to_the_end
        self._connection, self._client, self._api = connection, connection.client, api
        self._left, self._refusal = count, refusal
        self._inbox = self._client.new_inbox()
        self._pull, self._subject = Pull(0), b""
        self._bytes = max(PULL_BYTES, self._client.max_payload + (64 << 10))
        self._number = self._delivered = 0

    async def messages(self) -> AsyncIterator[ForeignMessages]:
        """The messages of each pull; the next is asked for before the last is worked on."""
        subscription = await self._client.tap_headed(f"{self._inbox}.*", self._take)
        try:
            with self._connection.denial(self._api) as denied:
                pull, asked = await self._ask()
                while pull is not None:
                    await pull.wait(denied, self._refusal)
                    self._left += asked - len(pull)
                    taken, got = pull, len(pull)
                    if got and self._to_the_end:
                        self._left = int(reply_numbers(pull.replies[-1:])[0, PENDING])
                    pull, asked = await self._ask() if got else (None, 0)  # nothing came: gone since it was counted
                    if got:
                        yield self._messages(taken)
        finally:
            if self._client.is_connected:
                await subscription.unsubscribe()

    def _take(self, subjects: list[bytes], replies: list[bytes], headers: list[bytes], payloads: list[bytes]) -> None:
        """Take messages in bulk; a status has no reply subject, and that of an earlier pull says nothing new."""
        while b"" in replies:
            place = replies.index(b"")
            before = slice(place)
            self._pull.take(subjects[before], replies[before], headers[before], payloads[before])
            if is_status(b"", headers[place]) and subjects[place] == self._subject:
                self._pull.end(headers[place])
            rest = slice(place + 1, None)
            subjects, replies, headers, payloads = subjects[rest], replies[rest], headers[rest], payloads[rest]
        self._pull.take(subjects, replies, headers, payloads)

    async def _ask(self) -> tuple[Pull | None, int]:
        if self._left <= 0:
            return None, 0
        count = min(self._left, PULL_EVENTS)
        self._left -= count
        self._number += 1
        subject = f"{self._inbox}.{self._number}"
        self._pull, self._subject = Pull(count), subject.encode()
        request = {"batch": count, "max_bytes": self._bytes, "no_wait": True}
        await self._client.publish(self._api, msgspec.json.encode(request), reply=subject)
        return self._pull, count

    def _messages(self, pull: Pull) -> ForeignMessages:
        numbers = reply_numbers(pull.replies)
        last = int(numbers[-1, CONSUMER_SEQ])
        if last != self._delivered + len(pull):
            raise ReadInterrupted("messages were lost on their way from the broker")
        self._delivered = last
        seqs, times = numbers[:, STREAM_SEQ].tolist(), numbers[:, TIME_NS].tolist()
        return ForeignMessages(pull.subjects, seqs, times, pull.headers, pull.payloads)


async def direct_batch(
    connection: BrokerConnection, api: str, request: dict[str, Any], refusal: KalamError
) -> ForeignMessages:
    """What DIRECT.GET answers to a request for a batch; empty for no message. Raises ReadInterrupted."""
    async with _asked(connection, api, request) as (pull, denied):
        await pull.wait(denied, refusal)
    found = [_direct(headers) for headers in pull.headers]
    return ForeignMessages(
        [subject for subject, _, _, _ in found],
        [seq for _, seq, _, _ in found],
        [time_ns for _, _, time_ns, _ in found],
        [block for _, _, _, block in found],
        pull.payloads,
    )


@asynccontextmanager
async def _asked(
    connection: BrokerConnection, api: str, request: dict[str, Any]
) -> AsyncIterator[tuple[Pull, asyncio.Future[None]]]:
    client, pull = connection.client, Pull(None)
    inbox = client.new_inbox()

    subscription = await client.tap_headed(inbox, pull.take_headed)
    try:
        with connection.denial(api) as denied:
            await client.publish(api, msgspec.json.encode(request), reply=inbox)
            yield pull, denied
    finally:
        if client.is_connected:
            await subscription.unsubscribe()


def _direct(block: bytes) -> tuple[bytes, int, int, bytes]:
    """Subject, sequence and time (ns) that an answer tells in its headers, and the message's own ones."""
    lines = block.removesuffix(b"\r\n\r\n").split(b"\r\n")
    found: dict[bytes, bytes] = {}
    place = len(lines)
    while place > 1:
        name, _, value = lines[place - 1].partition(b":")
        if name not in _OF_DIRECT or name in found:
            break
        found[name] = value.strip()
        place -= 1
    own = b"\r\n".join(lines[:place]) + b"\r\n\r\n" if place > 1 else b""
    return found[b"Nats-Subject"], int(found[b"Nats-Sequence"]), nanoseconds(found[b"Nats-Time-Stamp"].decode()), own
