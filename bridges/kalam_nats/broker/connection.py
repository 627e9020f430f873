"""The connection to the broker, which is there again after whatever ended it.

nats-py reconnects by itself when a socket dies, and subscribes again. But any ``-ERR`` except a stale connection and a
permission violation closes its client for good, and a client whose socket takes no more data can wait for ever in the
middle of a reconnect. So a supervisor watches: a client that closed, or that has been down for ``ABANDON_S``, is thrown
away, and a new one is built, on which every registered setup (the subscriptions) runs again.

While the connection is known to be down nothing is handed to the client: nats-py would keep it and send it after the
reconnect, so that an insert that was refused appears later. ``BrokerConnection.client`` raises, and so does publishing
or responding on a client that was taken earlier. What was handed over just before the end of a connection has an
unknown fate: only its reply or ack proves it.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import structlog
from nats import errors as nats_errors
from nats.aio.client import Client

from kalam.backoff import Backoff
from kalam.errors import BrokerUnavailable
from kalam.tasks import running
from kalam.urls import redacted
from kalam_nats.broker.guarded_client import GuardedClient

ABANDON_S = 10.0  # how long nats-py's own reconnect is waited for before a new client is built
TICK_S = 0.5  # how often the supervisor looks at a client that did not report anything
CLOSE_TIME_S = 2.0
NUDGE_S = 0.1  # how often the client's buffer is looked at
RECONNECT_PAUSE_S = 0.25
REBUILD_PAUSE_S_MAX = 5.0
PENDING_BYTES_MAX = 2 << 20  # unsent bytes at which a publisher waits for the socket
ANSWER_TIME_S = 1  # how long a broker that answers takes for a ping, at most
FLUSH_TIME_S = 10.0  # for so long; without an end it would wait for ever on a client that closes meanwhile

Setup = Callable[[GuardedClient], Awaitable[None]]
Listener = Callable[[], None]

DENIED = re.compile(r"""permissions violation for publish to "?([^"\s]+)""")
"""What nats-py tells of a publish that the broker refused, in small letters."""
log = structlog.get_logger(__name__)


@asynccontextmanager
async def broker_connection(
    servers: str | Sequence[str],
    *,
    name: str = "kalam",
    connect_time_s: float = 5.0,
    ping_interval_s: float = 10.0,
    **options: Any,
) -> AsyncIterator[BrokerConnection]:
    """Keep a connection to the broker while the block runs.

    Args:
        servers: one or more URLs of one broker.
        name: how the connection is called in the broker's monitoring.
        connect_time_s: how long the first connection may take.
        ping_interval_s: pause between pings; a peer that left two unanswered is taken for dead at the third.
        options: what nats-py's ``connect`` takes for signing in, as ``connect_options`` returns it.

    Raises BrokerUnavailable, with the URL and the last error, if there is no connection in time.
    """
    urls = [servers] if isinstance(servers, str) else list(servers)
    connection = BrokerConnection(urls, options | {"name": name, "ping_interval": ping_interval_s})
    try:
        await connection.open(connect_time_s)
        async with running(connection.supervise(), "nats-connection"), running(connection.nudge(), "nats-nudge"):
            yield connection
    finally:
        await connection.close()


class BrokerConnection:
    """The connection that ``broker_connection`` keeps.

    ``errors`` counts what the broker or nats-py complained about, by kind: ``permissions_violation``,
    ``SlowConsumerError`` (messages were dropped), ``StaleConnectionError``, …. ``losses`` counts how often the
    connection was lost.
    """

    def __init__(self, urls: list[str], options: dict[str, Any]) -> None:
        self.errors: Counter[str] = Counter()
        self.losses = 0
        self._urls = urls
        self._options = options
        self._client: GuardedClient | None = None
        self._set_up: GuardedClient | None = None  # the client on which every setup has run
        self._last_error = "no answer"
        self._last_error_is_said = False  # by the broker, which is worth more than the broken socket that follows
        self._setups: list[Setup] = []
        self._on_connected: list[Listener] = []
        self._on_disconnected: list[Listener] = []
        self._denied: dict[str, list[asyncio.Future[None]]] = {}
        self._up = asyncio.Event()  # as far as is known the connection stands; listeners were told so
        self._changed = asyncio.Event()  # the supervisor has something to look at

    @property
    def client(self) -> GuardedClient:
        """The present client; raises BrokerUnavailable while the connection is known to be down. Do not keep it."""
        client = self._set_up
        if client is None or not client.is_connected:
            raise BrokerUnavailable(f"the connection to the broker at {self.url} is down: {self._last_error}")
        return client

    @property
    def connected(self) -> bool:
        """Whether the connection stands and every setup has run on it."""
        return self._set_up is not None and self._set_up.is_connected

    async def answers(self) -> bool:
        """Whether the broker answers now: one that is stopped keeps its connections."""
        client = self._set_up
        if client is None or not client.is_connected:
            return False
        try:
            await client.flush(ANSWER_TIME_S)
        except (nats_errors.Error, OSError, TimeoutError):
            return False
        return True

    @property
    def url(self) -> str:
        """Where the broker is, without a password."""
        return ",".join(redacted(url) for url in self._urls)

    @property
    def name(self) -> str:
        """The name of the connection in the broker's monitoring."""
        return str(self._options["name"])

    @contextmanager
    def denial(self, subject: str) -> Iterator[asyncio.Future[None]]:
        """A future that is done when the broker says that nothing may be published on a subject.

        It says so beside the request, which goes without an answer.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._denied.setdefault(subject.lower(), [])
        waiting.append(future)
        try:
            yield future
        finally:
            waiting.remove(future)
            if not waiting:
                self._denied.pop(subject.lower(), None)

    async def wait_connected(self, timeout_s: float) -> Client:
        """Wait until the connection stands and return its client; raises BrokerUnavailable after ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self.connected:
                    self._note_down()
                    await self._up.wait()
        except TimeoutError:
            pass
        return self.client

    async def register(self, setup: Setup) -> None:
        """Run ``setup`` on the present client now and on every later one before it is used.

        A reconnect of nats-py keeps the client and its subscriptions, and does not run it again. Raises
        BrokerUnavailable while the connection is down, and what ``setup`` raises; it is not registered then.
        """
        client = self.client
        self._setups.append(setup)  # first, lest a client that is built meanwhile goes without it
        try:
            await setup(client)
        except BaseException:
            self._setups.remove(setup)
            raise

    def on_connected(self, listener: Listener) -> None:
        """Call ``listener`` whenever the connection stands again: a reconnect, or a new client after its setups."""
        self._on_connected.append(listener)

    def on_disconnected(self, listener: Listener) -> None:
        """Call ``listener`` whenever the connection was lost."""
        self._on_disconnected.append(listener)

    async def open(self, timeout_s: float) -> None:
        """Connect for the first time."""
        try:
            self._set_up = await self._connect(timeout_s)
        except (nats_errors.Error, OSError, TimeoutError) as exc:
            reason = self._last_error if isinstance(exc, TimeoutError) else exc
            raise BrokerUnavailable(
                f"no connection to the broker at {self.url} within {timeout_s:g} s: {reason}"
            ) from exc
        self._up.set()

    async def close(self) -> None:
        """Send what is buffered and close, within a bounded time."""
        self._up.clear()
        await self._discard()

    async def supervise(self) -> None:
        """Replace each client that closed or stays down."""
        while True:
            await self._wait_useless()
            self._note_down()
            await self._discard()
            self._set_up = await self._rebuild()
            if self._set_up.is_connected:
                self._note_up()

    async def nudge(self) -> None:
        """Flush what stays in the client's buffer.

        nats-py was seen to leave a published message there until the next one is sent, for good if there is none.
        """
        waited = False
        while True:
            await asyncio.sleep(NUDGE_S)
            client = self._set_up
            waiting = client is not None and client.is_connected and client.pending_data_size > 0
            if waiting and waited and client is not None:
                try:
                    await client.flush(round(CLOSE_TIME_S))
                except (nats_errors.Error, OSError, TimeoutError) as exc:
                    log.debug("broker_not_flushed", error=str(exc))
            waited = waiting

    async def _wait_useless(self) -> None:
        clock = asyncio.get_running_loop().time
        down_since: float | None = None
        while True:
            client = self._client
            if client is None or client.is_closed:
                return
            if client.is_connected:
                down_since = None
            else:
                self._note_down()  # nats-py itself tells only after the old socket has closed, which may never be
                down_since = clock() if down_since is None else down_since
                if clock() - down_since >= ABANDON_S:
                    log.warning("broker_client_abandoned", url=self.url, after_s=ABANDON_S)
                    return
            await _set_or_after(self._changed, TICK_S)
            self._changed.clear()

    async def _rebuild(self) -> GuardedClient:
        backoff = Backoff(RECONNECT_PAUSE_S, REBUILD_PAUSE_S_MAX)
        while True:
            try:
                client = await self._connect(ABANDON_S)
                for setup in tuple(self._setups):
                    await setup(client)
            except (nats_errors.Error, OSError, TimeoutError, BrokerUnavailable) as exc:
                self._last_error = str(exc) or self._last_error
                pause_s = backoff.failed()
                log.warning("broker_not_reached", url=self.url, error=self._last_error, again_in_s=pause_s)
                await self._discard()
                await asyncio.sleep(pause_s)
            else:
                return client

    async def _connect(self, timeout_s: float) -> GuardedClient:
        """Build a client. With ``max_reconnect_attempts=-1`` it tries until it is connected, so the end is ours."""
        client = self._client = GuardedClient()

        async def closed() -> None:
            if client is self._client and client.last_error is not None:
                await self._note_error(client.last_error)  # an -ERR, of which nothing else tells
            self._changed.set()

        async def disconnected() -> None:
            if client is self._set_up:
                self._note_down()
            self._changed.set()

        async def reconnected() -> None:
            if client is self._set_up:
                self._note_up()

        async with asyncio.timeout(timeout_s):
            await client.connect(
                servers=list(self._urls),
                error_cb=self._note_error,
                closed_cb=closed,
                disconnected_cb=disconnected,
                reconnected_cb=reconnected,
                max_reconnect_attempts=-1,
                reconnect_time_wait=RECONNECT_PAUSE_S,  # type: ignore[arg-type]  # it is a number of seconds
                max_outstanding_pings=2,
                pending_size=PENDING_BYTES_MAX,
                flush_timeout=FLUSH_TIME_S,
                **self._options,
            )
        return client

    async def _discard(self) -> None:
        client, self._client, self._set_up = self._client, None, None
        if client is None or client.is_closed:
            return
        try:
            async with asyncio.timeout(CLOSE_TIME_S):
                await client.close()
        except (nats_errors.Error, OSError, TimeoutError, AssertionError) as exc:
            # nats-py asserts on a client that never came as far as a socket.
            log.debug("broker_client_not_closed", error=str(exc))

    def _note_up(self) -> None:
        log.info("broker_connected", url=self.url)
        self._last_error_is_said = False
        self._up.set()
        _tell(self._on_connected)

    def _note_down(self) -> None:
        if self._up.is_set():
            log.warning("broker_disconnected", url=self.url, error=self._last_error)
            self._up.clear()
            self.losses += 1
            _tell(self._on_disconnected)

    async def _note_error(self, error: Exception) -> None:
        kind = error_kind(error)
        self.errors[kind] += 1
        text = str(error) or type(error).__name__
        if denied := DENIED.search(text):
            for future in self._denied.get(denied[1].lower(), ()):
                if not future.done():
                    future.set_result(None)
        said = type(error) in (nats_errors.Error, nats_errors.AuthorizationError)
        if said or not self._last_error_is_said:
            self._last_error, self._last_error_is_said = text, said
        if not isinstance(error, OSError | TimeoutError):  # a broker that is away is logged once, as disconnected
            log.warning("broker_error", kind=kind, error=text)


def error_kind(error: Exception) -> str:
    """The kind of an error that nats-py reports: the broker's words as a name, else the name of the class."""
    said = re.match(r"nats: '?([A-Za-z ]+?)(?: for |[^A-Za-z ]|$)", str(error))
    if type(error) is nats_errors.Error and said:
        return said[1].lower().replace(" ", "_")
    return type(error).__name__


async def _set_or_after(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return


def _tell(listeners: list[Listener]) -> None:
    for listener in listeners:
        try:
            listener()
        except Exception:  # one listener's defect must not keep the others from hearing
            log.exception("broker_listener_failed")
