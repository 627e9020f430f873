"""The connections of clients: how many there may be, and how long one may keep the server waiting.

uvicorn bounds neither, so a client that sends half a request would be kept for ever. The law: what a client owes, it
brings within a time, or its connection is given up:

- the whole head of a request, or the first one's beginning, within ``http_request_s``;
- of a body at least BODY_BYTES_MIN in each ``http_request_s``, unless it is the server that takes no more for now;
- the rest of a body that is answered already, which is read and dropped, within ``http_request_s`` altogether: a client
  that writes before it reads still gets its answer;
- of its answer it takes so much within ``http_stall_s``;
- between two requests ``http_keep_alive_s`` may pass, which uvicorn watches itself.

Nothing is timed per request: the listener looks at all connections twice a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter as Tally
from collections.abc import Iterator
from typing import Any, Final

import h11
import structlog
import uvicorn
from prometheus_client import CollectorRegistry, Counter, Gauge
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from kalam.errors import InvalidValue, KalamError, Timeout, TooBusy
from kalam.query.results import problem_json
from kalam.settings import Settings
from kalam.tls import Certificates
from kalam_http.body_bounds import ROWS_PATHS
from kalam_http.problems import PROBLEM
from kalam_http.proxies import Proxies

BODY_BYTES_MIN: Final = 1 << 10
WARN_PAUSE_S: Final = 60.0
CUT_OFF: Final = "cut_off"
"""The member of a request's ``scope["state"]`` that ends its connection without the end of its answer."""

log = structlog.get_logger(__name__)


class Connections:
    """What connections may do, how many there are, and of which address."""

    def __init__(self, settings: Settings, registry: CollectorRegistry) -> None:
        self.request_s, self.stall_s = settings.http_request_s, settings.http_stall_s
        self._max, self._per_address_max = settings.http_connections_max, settings.http_connections_per_address_max
        self._is_trusted = Proxies.of(settings).trusts
        self._of_address: Tally[str] = Tally()
        self._handshakes: Tally[str] = Tally()
        self._count = self._handshake_count = 0
        self._warned_at = -WARN_PAUSE_S
        Gauge("kalam_http_connections", "HTTP connections that are open.", registry=registry).set_function(
            lambda: self._count
        )
        self._refused = Counter(
            "kalam_http_connections_refused_total", "Connections refused, as there were too many.", registry=registry
        )
        self._given_up = Counter(
            "kalam_http_connections_given_up_total",
            "Connections given up, by what the client did not bring or take in time.",
            ["what"],
            registry=registry,
        )

    def enter(self, address: str) -> None:
        """Count a new connection; raises TooBusy if it is one too many."""
        self._check(address)
        self._count += 1
        self._of_address[address] += 1

    def leave(self, address: str) -> None:
        """One that had entered is closed."""
        self._count -= 1
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]

    @contextlib.contextmanager
    def handshake(self, address: str) -> Iterator[None]:
        """Count a connection while its TLS is agreed upon; raises TooBusy if it is one too many."""
        self._check(address, self._handshake_count, self._handshakes[address])
        self._handshake_count += 1
        self._handshakes[address] += 1
        try:
            yield
        finally:
            self._handshake_count -= 1
            self._handshakes[address] -= 1
            if not self._handshakes[address]:
                del self._handshakes[address]

    def note_given_up(self, what: str) -> None:
        """Count one that is given up."""
        self._given_up.labels(what).inc()

    def _check(self, address: str, others: int = 0, others_of_address: int = 0) -> None:
        if self._count + others >= self._max:
            self._refuse(f"the server has {self._max:,} connections (setting http_connections_max)", address)
        if self._of_address[address] + others_of_address >= self._per_address_max and not self._is_trusted(address):
            self._refuse(
                f"{address} has {self._per_address_max:,} connections (setting http_connections_per_address_max)",
                address,
            )

    def _refuse(self, why: str, address: str) -> None:
        self._refused.inc()
        now = time.monotonic()
        if now - self._warned_at >= WARN_PAUSE_S:  # whoever opens too many opens many more
            self._warned_at = now
            log.warning("connections are refused", reason=why, address=address)
        raise TooBusy(why, hint="close those that are not needed, and use one for more than one request")


class BoundedConfig(uvicorn.Config):
    """uvicorn's configuration, with bounds on its connections."""

    def __init__(
        self, app: ASGIApp, connections: Connections, certificates: Certificates | None, **options: Any
    ) -> None:
        super().__init__(app, http=Connection, **options)
        self.connections, self.certificates = connections, certificates


class Connection(H11Protocol):
    """One connection: uvicorn's, and bounded."""

    config: BoundedConfig

    def __init__(
        self,
        config: BoundedConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, {**app_state, CUT_OFF: self.cut_off}, _loop)
        self._bounds = config.connections
        self._address: str | None = None
        self._received_bytes = self._answers = 0
        self._owed: tuple[str, int] | None = None
        self._owed_since = self._waits_since = self.loop.time()
        self._waiting_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn does
        """Count it, or refuse it."""
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        try:
            self._bounds.enter(address)
        except TooBusy as exc:
            self._refuse(exc)
        else:
            self._address = address

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed."""
        if self._address is not None:
            self._bounds.leave(self._address)
            self._address = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what the client sent."""
        self._received_bytes += len(data)
        super().data_received(data)

    def on_response_complete(self) -> None:
        """Go on to the next request."""
        self._answers += 1
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP as every error is answered."""
        self._refuse(InvalidValue("the request is not HTTP/1.1, or its head is longer than 16 KiB"))

    def check(self, now: float) -> None:
        """Give the client up if something that it owes is overdue."""
        if self._takes_nothing(now):
            self._bounds.note_given_up("answer")
            log.warning("a client that takes nothing of its answer is cut off", client=self.client, path=self._path())
            self.cut_off(at_once=True)
            return
        owed = self._what_is_owed()
        if owed != self._owed:
            self._owed, self._owed_since = owed, now
        elif owed is not None and now - self._owed_since > self._bounds.request_s:
            self._give_up(owed[0])

    def cut_off(self, *, at_once: bool = False) -> None:
        """End the connection: an answer that was begun gets no end, ``at_once`` not even what is written already."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self.flow.resume_writing()
        (self.transport.abort if at_once else self.transport.close)()

    def _what_is_owed(self) -> tuple[str, int] | None:
        """What the client is to bring, and how far it is; None if it is the server's turn."""
        if self.transport.is_closing():
            return None
        if self.conn.their_state is h11.IDLE:
            return ("head", self._answers) if self.timeout_keep_alive_task is None else None
        if self.conn.their_state is not h11.SEND_BODY:
            return None
        if self.conn.our_state is h11.DONE:
            return "rest", self._answers
        if self.flow.read_paused or self.conn.they_are_waiting_for_100_continue:
            return None
        return "body", self._received_bytes // BODY_BYTES_MIN

    def _takes_nothing(self, now: float) -> bool:
        """Whether what was written stays here for too long."""
        size = self.transport.get_write_buffer_size()
        if size == 0 or size <= self._waiting_bytes - BODY_BYTES_MIN:
            self._waiting_bytes, self._waits_since = size, now
        self._waiting_bytes = max(self._waiting_bytes, size)
        return bool(size) and now - self._waits_since > self._bounds.stall_s

    def _give_up(self, what: str) -> None:
        self._bounds.note_given_up(what)
        if what == "rest" or not self._received_bytes:
            self.cut_off()
            return
        rows = what == "body" and self.scope["path"].startswith(ROWS_PATHS)
        self._refuse(
            Timeout(
                f"the {what} of the request did not come: its head is due within {self._bounds.request_s:g} s, and of "
                f"its body {BODY_BYTES_MIN} bytes in each (setting http_request_s)",
                stored="unknown" if rows else None,
            )
        )

    def _refuse(self, error: KalamError) -> None:
        """Answer with an error, if no answer was begun, and close."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = problem_json(error)
            headers = [("Content-Type", PROBLEM), ("Content-Length", str(len(body))), ("Connection", "close")]
            self.transport.write(self.conn.send(h11.Response(status_code=error.status, headers=headers)) or b"")
            with contextlib.suppress(h11.LocalProtocolError):  # an answer to HEAD has no body
                self.transport.write(self.conn.send(h11.Data(data=body)) or b"")
        self.cut_off()

    def _path(self) -> str | None:
        return self.scope["path"] if self.scope else None
