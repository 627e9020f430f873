"""The client's connection to NATS, which is there again after a restart of the broker.

nats-py connects again by itself, but is closed for good by some errors of the broker; then a new client is built.
Requests wait for a connection, and are never handed to a client that is known to be down: it would send them at some
later time, when nobody waits for the answer any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError, NoRespondersError

from kalam.client.streamed import Address
from kalam.client.whereabouts import ask_identity, seen_from
from kalam.errors import BrokerUnavailable, Internal, InvalidOption, KalamError, TooLarge, Unauthenticated, error_class
from kalam.tasks import heeding
from kalam.urls import redacted

RECONNECT_PAUSE_S = 0.25
ERROR_HEADER = "Nats-Service-Error"
PART_HEADER = "Kalam-Part"


class Link:
    """A connection that is kept. ``generation`` grows whenever it was lost, so that whoever listens can tell."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self._url, self._options = url, options
        self._client: Client | None = None
        self._building = asyncio.Lock()
        self._last_error: Exception | None = None
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.generation = 0
        self.closed = False

    async def open(self, timeout_s: float) -> None:
        """Connect for the first time; raises BrokerUnavailable."""
        await self.client(timeout_s)

    async def close(self) -> None:
        """Send what is buffered and close."""
        self.closed = True
        client, self._client = self._client, None
        if client is not None and not client.is_closed:
            with suppress(NatsError, OSError, TimeoutError):  # it is given up anyway
                await client.close()

    async def client(self, timeout_s: float) -> Client:
        """The client, once it is connected; raises BrokerUnavailable after ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    if self.closed:
                        raise BrokerUnavailable("the connection was closed")
                    client = self._client
                    if client is not None and client.is_connected:
                        return client
                    if client is None or client.is_closed:
                        await self._build()
                    else:
                        await asyncio.sleep(RECONNECT_PAUSE_S / 5)
        except TimeoutError as exc:
            refused = "authorization" in str(self._last_error).lower()
            raise (Unauthenticated if refused else BrokerUnavailable)(
                f"no connection to NATS at {redacted(self._url)} within {timeout_s:g} s: "
                f"{self._last_error or 'no answer'}"
            ) from exc

    async def _build(self) -> None:
        async with self._building:
            if self._client is not None and not self._client.is_closed:
                return
            try:
                self._client = await nats.connect(
                    self._url,
                    error_cb=self._note_error,
                    disconnected_cb=self._note_lost,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=RECONNECT_PAUSE_S,
                    **self._options,
                )
            except (NatsError, OSError) as exc:
                self._last_error = exc
                await asyncio.sleep(RECONNECT_PAUSE_S)
            except (TypeError, ValueError) as exc:  # a URL or an option that nats-py cannot read
                raise InvalidOption(f"NATS at {redacted(self._url)} cannot be addressed so: {exc}") from exc

    async def _note_error(self, error: Exception) -> None:
        self._last_error = error

    async def _note_lost(self) -> None:
        self.generation += 1
        lost, self._lost = self._lost, asyncio.get_running_loop().create_future()
        lost.set_result(None)

    async def ask(
        self, subject: str, payload: bytes, *, timeout_s: float, headers: dict[str, str] | None = None
    ) -> bytes:
        """Request and return the answer; raises the error that was answered.

        Raises BrokerUnavailable, with ``stored="unknown"`` where the request may have been carried out.
        """
        client = await self.client(timeout_s)
        with told(subject, timeout_s):
            msg = await self._request(client, subject, payload, timeout_s, headers)
            if ERROR_HEADER in (msg.headers or {}):
                raise error_of(msg)
            return bytes(msg.data)

    async def _request(
        self, client: Client, subject: str, payload: bytes, timeout_s: float, headers: dict[str, str] | None
    ) -> Msg:
        """A request that ends with the connection: its answer would go to nobody."""
        lost = self._lost
        asking = asyncio.ensure_future(client.request(subject, payload, timeout=timeout_s, headers=headers))
        try:
            await asyncio.wait((asking, lost), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise ConnectionResetError("the connection was lost before the answer")
            return asking.result()
        finally:
            asking.cancel()

    async def http_address(self, prefix: str, timeout_s: float) -> Address:
        """Where the server with these subjects answers HTTP; raises BrokerUnavailable where it does not say so."""
        client = await self.client(timeout_s)
        try:
            with told("$SRV.INFO.kalam", timeout_s):
                identity = await ask_identity(client, prefix, timeout_s)
            return Address(seen_from(self._url, identity["http_url"]), identity["id"])
        except (BrokerUnavailable, LookupError, msgspec.MsgspecError) as exc:
            raise BrokerUnavailable(
                f"the server at {redacted(self._url)} does not say where it answers HTTP",
                hint="say it: connect(…, http_url=…)",
            ) from exc

    async def ask_in_parts(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        """The same for an answer that may come in parts, which are joined."""
        client = await self.client(timeout_s)
        with told(subject, timeout_s):
            inbox = client.new_inbox()
            subscription = await client.subscribe(inbox)
            try:
                await client.publish(subject, payload, reply=inbox)
                return await _whole_answer(subscription, timeout_s)
            finally:
                with suppress(NatsError, OSError):  # what went wrong before says more
                    await subscription.unsubscribe()


@contextmanager
def told(subject: str, timeout_s: float) -> Iterator[None]:
    """Say what went wrong with a request in the words of this package."""
    try:
        yield
    except NoRespondersError as exc:
        raise BrokerUnavailable(f"no Kalam server listens on {subject}") from exc
    except MaxPayloadError as exc:
        raise TooLarge(
            "the request is longer than a message of this NATS may be (its max_payload)",
            hint="send less at once, or raise max_payload",
        ) from exc
    except (NatsError, TimeoutError, OSError) as exc:
        raise BrokerUnavailable(
            f"no answer on {subject} within {timeout_s:g} s: {exc or type(exc).__name__}", stored="unknown"
        ) from exc


async def _whole_answer(subscription: Any, timeout_s: float) -> bytes:
    parts: list[bytes] = []
    while True:
        msg = await heeding(subscription.next_msg(timeout_s))
        headers = msg.headers or {}
        if headers.get("Status") == "503":
            raise NoRespondersError
        if ERROR_HEADER in headers:
            raise error_of(msg)
        if PART_HEADER not in headers:
            return b"".join([*parts, msg.data])
        parts.append(msg.data)


def error_of(msg: Msg) -> KalamError:
    """The error that the server answered with, as the class that has its code."""
    try:
        problem = msgspec.json.decode(msg.data)
        code, detail = problem["code"], problem["detail"]
    except (msgspec.MsgspecError, LookupError, TypeError):
        return Internal(str((msg.headers or {}).get(ERROR_HEADER, "the server answered with an error")))
    fields = {name: problem[name] for name in ("hint", "line", "column", "statement", "stored") if name in problem}
    return error_class(code)(detail, **fields)
