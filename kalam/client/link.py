"""The client's connection to NATS, which is there again after a restart of the broker.

nats-py connects again by itself, but is closed for good by some errors of the broker; then a new client is built.
Requests wait for a connection, and are never handed to a client that is known to be down: it would send them at some
later time, when nobody waits for the answer any more.

A login that is refused is told at once while there has been none, so that a wrong password is not waited for. Later it
may be the server that starts again, so it is tried again, more and more seldom: each try counts as a failed login.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError, NoRespondersError

from kalam.backoff import Backoff
from kalam.client.streamed import Address
from kalam.client.whereabouts import identity_in, info_subject, seen_from
from kalam.credentials import NOBODY, Credentials
from kalam.errors import (
    BrokerUnavailable,
    Internal,
    InvalidOption,
    KalamError,
    PermissionDenied,
    TooLarge,
    Unauthenticated,
    error_class,
)
from kalam.tasks import heeding
from kalam.urls import redacted

RECONNECT_PAUSE_S = 0.25
LOGIN_PAUSE_S, LOGIN_PAUSE_S_MAX = 2.0, 60.0
LOGIN_WAIT_S = 5.0
"""How long a request waits for the next try to log in; where that is later it fails at once."""
ERROR_HEADER = "Nats-Service-Error"
PART_HEADER = "Kalam-Part"
REFUSED: Final = "authorization violation"
DENIED: Final = "permissions violation"
Answer = TypeVar("Answer")


class Link:
    """A connection that is kept. ``generation`` grows whenever it was lost, so that whoever listens can tell.

    ``login`` is who logs in, ``options`` what nats-py's ``connect`` takes besides.
    """

    def __init__(self, url: str, options: dict[str, Any], login: Credentials = NOBODY) -> None:
        self._url, self._login = url, login
        self._options = login.nats_options() | options
        self._client: Client | None = None
        self._building = asyncio.Lock()
        self._last_error: Exception | None = None
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked: set[tuple[str, asyncio.Future[None]]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._login_pauses = Backoff(LOGIN_PAUSE_S, LOGIN_PAUSE_S_MAX)
        self._login_not_before = 0.0
        self._was_in = False
        self.generation = 0
        self.closed = False

    async def open(self, timeout_s: float) -> None:
        """Connect for the first time; raises BrokerUnavailable, and Unauthenticated where the login is refused."""
        await self.client(timeout_s)

    async def close(self) -> None:
        """Send what is buffered and close."""
        self.closed = True
        client, self._client = self._client, None
        if client is not None and not client.is_closed:
            with suppress(NatsError, OSError, TimeoutError):  # it is given up anyway
                await client.close()
        if self._closing:
            await asyncio.wait(self._closing)

    async def client(self, timeout_s: float) -> Client:
        """The client, once it is connected; raises BrokerUnavailable or Unauthenticated after ``timeout_s``."""
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
            if _is(REFUSED, self._last_error):
                raise self._unauthenticated() from exc
            raise BrokerUnavailable(
                f"no connection to NATS at {redacted(self._url)} within {timeout_s:g} s: "
                f"{self._last_error or 'no answer'}"
            ) from exc

    async def _build(self) -> None:
        async with self._building:
            if self._client is not None and not self._client.is_closed:
                return
            pause_s = self._login_not_before - time.monotonic()
            if pause_s > LOGIN_WAIT_S:
                raise self._unauthenticated()
            await asyncio.sleep(max(0.0, pause_s))
            client = Client()
            try:
                await self._connect(client)
            except (NatsError, OSError) as exc:
                self._last_error = exc
                await asyncio.sleep(RECONNECT_PAUSE_S)
            except (TypeError, ValueError) as exc:  # a URL or an option that nats-py cannot read
                raise InvalidOption(f"NATS at {redacted(self._url)} cannot be addressed so: {exc}") from exc
            except _LoginRefused as exc:
                if not self._was_in:
                    raise self._unauthenticated() from exc
            else:
                self._client, self._was_in, self._login_not_before = client, True, 0.0
                self._login_pauses.reset()

    async def _connect(self, client: Client) -> None:
        async def note(error: Exception) -> None:
            self._last_error = error
            if _is(REFUSED, error):  # nats-py would try again four times a second
                self._login_not_before = time.monotonic() + self._login_pauses.failed()
                if not connected:
                    raise _LoginRefused
                closing = asyncio.create_task(client.close(), name="a client that was refused")
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
            elif _is(DENIED, error):
                self._note_denied(error)

        connected = False
        try:
            await client.connect(
                self._url,
                error_cb=note,
                disconnected_cb=self._note_lost,
                max_reconnect_attempts=-1,
                reconnect_time_wait=RECONNECT_PAUSE_S,  # type: ignore[arg-type]  # which it sleeps
                **self._options,
            )
            connected = True
        finally:
            if not connected:
                with suppress(NatsError, OSError, AssertionError):  # the last where nothing was opened
                    await client.close()

    def _unauthenticated(self) -> Unauthenticated:
        if self._login.secret is None:
            return Unauthenticated(
                f"NATS at {redacted(self._url)} lets in only who logs in",
                hint="connect(…, user=…, password=…), or token=…",
            )
        return Unauthenticated(
            f"NATS at {redacted(self._url)} does not let {self._login.login or self._login.name} in: the user or "
            f"{self._login.source} is wrong, locked or has ended, or too many logins have failed just now",
        )

    def _note_denied(self, error: Exception) -> None:
        """End what asked something that the broker does not allow, of which it tells nobody else."""
        text = str(error).lower()
        for subject, denied in list(self._asked):
            if f'"{subject.lower()}"' in text and not denied.done():
                denied.set_exception(
                    PermissionDenied(
                        f"NATS does not let this login publish to {subject}",
                        hint=f"requests are made as {self._login.name}, and have to be those of the user who logs in",
                    )
                )

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
            asking = client.request(subject, payload, timeout=timeout_s, headers=headers)
            msg = await self._unless_lost(subject, asking)
            if ERROR_HEADER in (msg.headers or {}):
                raise error_of(msg)
            return bytes(msg.data)

    async def _unless_lost(self, subject: str, work: Coroutine[Any, Any, Answer]) -> Answer:
        """A request that ends with the connection, since its answer would go to nobody, and where it is not allowed."""
        lost, denied = self._lost, asyncio.get_running_loop().create_future()
        asking = asyncio.ensure_future(work)
        self._asked.add((subject, denied))
        try:
            await asyncio.wait((asking, lost, denied), return_when=asyncio.FIRST_COMPLETED)
            if denied.done():
                denied.result()
            if not asking.done():
                raise ConnectionResetError("the connection was lost before the answer")
            return asking.result()
        finally:
            self._asked.discard((subject, denied))
            denied.cancel()
            asking.cancel()

    async def http_address(self, prefix: str, timeout_s: float) -> Address:
        """Where the server with these subjects answers HTTP; raises BrokerUnavailable where it does not say so."""
        try:
            identity = identity_in(await self.ask(info_subject(prefix, self._login.name), b"", timeout_s=timeout_s))
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
            return await self._unless_lost(subject, _asked_in_parts(client, subject, payload, timeout_s))


class _LoginRefused(Exception):
    """The broker does not let this user in."""


def _is(what: str, error: Exception | None) -> bool:
    return what in str(error).lower()


async def _asked_in_parts(client: Client, subject: str, payload: bytes, timeout_s: float) -> bytes:
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
