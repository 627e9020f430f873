"""JetStream's API as Kalam uses it: requests, and acks that prove that messages are stored.

nats-py's own JetStream context is not used on the hot paths: it makes a future, a timer and a parsed answer of every
message. Here an ack is asked for the last message of a batch only, on one inbox for all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from nats import errors as nats_errors

from kalam.errors import BrokerUnavailable
from kalam_nats.broker.connection import BrokerConnection
from kalam_nats.broker.guarded_client import GuardedClient

NOT_FOUND_CODES = frozenset({10037, 10059})
"""JetStream's codes for a message and a stream that are not there."""
NO_ROOM_CODE = 503
"""The status of errors that lie with the broker and not with the message, such as a full store."""
WRONG_LAST_SEQUENCE_CODES = frozenset({10070, 10071, 10164})


class ApiError(msgspec.Struct):
    """The member ``error`` of a JetStream answer."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class PubAck(msgspec.Struct):
    """What JetStream answers to a published message."""

    seq: int = 0
    stream: str = ""
    duplicate: bool = False
    error: ApiError | None = None


_ACK = msgspec.json.Decoder(PubAck)


class NoStreamError(BrokerUnavailable):
    """Nothing captures the subject: the stream is not there."""


class Refused(BrokerUnavailable):
    """The broker answered, and would not."""


class RefusedError(Exception):
    """JetStream answered with an error."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(f"{error.description} ({error.err_code})")
        self.error = error


class JetStream:
    """Requests to JetStream over a supervised connection.

    ``acks`` counts what was stored. ``on_trouble`` is called when an ack did not come in time or told of no room, or
    the API did not answer or told that it cannot work. ``failing`` are the streams whose acks have failed since their
    last good one: the times of the first and of the last failure, in seconds of the loop's clock.
    """

    def __init__(self, connection: BrokerConnection, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._acks: dict[bytes, asyncio.Future[bytes]] = {}
        self._inbox = ""
        self._count = 0
        self.acks = 0
        self.failing: dict[str, tuple[float, float]] = {}
        self.on_trouble: Callable[[], None] = lambda: None

    async def open(self) -> None:
        """Listen for acks, on this client and on each that replaces it."""
        await self._connection.register(self._listen)
        self._connection.on_disconnected(self._give_up)

    async def _listen(self, client: GuardedClient) -> None:
        self._inbox = client.new_inbox()
        await client.tap(f"{self._inbox}.*", self._take_ack)

    def _take_ack(self, subject: bytes, _: bytes, payload: bytes, headers: Mapping[str, str] | None) -> None:
        future = self._acks.pop(subject, None)
        if future is not None and not future.done():
            if not payload and headers and headers.get("Status") == "503":
                future.set_exception(NoStreamError("no stream of the broker captures the subject", stored=0))
            else:
                future.set_result(payload)

    def _give_up(self) -> None:
        acks, self._acks = self._acks, {}
        for future in acks.values():
            if not future.done():
                future.set_exception(
                    BrokerUnavailable("the connection broke before the broker's ack", stored="unknown")
                )

    def expect_ack(self) -> tuple[str, asyncio.Future[bytes]]:
        """A reply subject, and the future of what will be answered to it."""
        self._count += 1
        reply = f"{self._inbox}.{self._count}"
        future = self._acks[reply.encode()] = asyncio.get_running_loop().create_future()
        return reply, future

    def give_up_ack(self, reply: str) -> None:
        """Expect the ack of a reply subject no longer."""
        self._acks.pop(reply.encode(), None)

    async def wait_ack(self, reply: str, future: asyncio.Future[bytes], stream: str) -> PubAck:
        """The ack that was expected of a stream; raises RefusedError, and BrokerUnavailable if none comes in time."""
        loop = future.get_loop()
        timer = loop.call_later(self._timeout_s, self._overdue, reply, stream)  # lighter than asyncio.wait_for
        try:
            data = await future
        finally:
            timer.cancel()
            self.give_up_ack(reply)
        try:
            ack = _ACK.decode(data)
        except msgspec.MsgspecError as exc:
            raise BrokerUnavailable(f"the broker's ack cannot be read: {data[:100]!r}", stored="unknown") from exc
        if ack.error is not None:
            if ack.error.code == NO_ROOM_CODE:
                self._note_failure(stream)
            raise RefusedError(ack.error)
        self.acks += 1
        if self.failing:
            self.failing.pop(ack.stream, None)
        return ack

    def _note_failure(self, stream: str) -> None:
        now = asyncio.get_running_loop().time()
        first, _ = self.failing.get(stream, (now, now))
        self.failing[stream] = (first, now)
        self.on_trouble()

    def _overdue(self, reply: str, stream: str) -> None:
        future = self._acks.pop(reply.encode(), None)
        if future is not None and not future.done():
            self._note_failure(stream)
            future.set_exception(
                BrokerUnavailable(f"the broker did not acknowledge within {self._timeout_s:g} s", stored="unknown")
            )

    async def request(self, subject: str, body: Any = None, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Ask JetStream's API; raises RefusedError, and BrokerUnavailable if it does not answer."""
        payload = b"" if body is None else msgspec.json.encode(body)
        timeout_s = self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s)
        try:
            msg = await self._connection.client.request(f"$JS.API.{subject}", payload, timeout=timeout_s)
        except (nats_errors.Error, TimeoutError, OSError) as exc:
            self.on_trouble()
            raise BrokerUnavailable(f"JetStream does not answer: {exc or type(exc).__name__}") from exc
        answer: dict[str, Any] = msgspec.json.decode(msg.data)
        if "error" in answer:
            error = msgspec.convert(answer["error"], ApiError)
            if error.code == NO_ROOM_CODE:
                self.on_trouble()
            raise RefusedError(error)
        return answer


def unavailable(exc: RefusedError, what: str) -> Refused:
    """The error that a user reads when JetStream refused ``what``."""
    return Refused(f"the broker refused {what}: {exc}")
