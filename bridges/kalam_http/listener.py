"""The listening socket and the HTTP server on it.

The socket is bound here and not by uvicorn, because uvicorn ends the process where an address is taken, and because the
port that was asked for may be 0. Signals stay with the process that composes the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator, Iterator

import msgspec
import uvicorn
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from kalam.listening import listening_socket, url_of
from kalam.settings import Settings
from kalam.tls import Certificates
from kalam_http.connections import BoundedConfig, Connection, Connections
from kalam_http.handshakes import Handshakes

DRAIN_S = 5  # how long requests in flight may still take once the server stops
BACKLOG = 1024
START_POLL_S = 0.005
TICKS_PER_CHECK = 5  # uvicorn ticks ten times a second
OTHER_FILES = 1024  # what else is open: segments, databases, NATS


class Listening(msgspec.Struct, frozen=True):
    """Where the server answers."""

    url: str


class _Server(uvicorn.Server):
    config: BoundedConfig

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; with TLS by accepting ourselves, as uvicorn bounds no handshakes."""
        certificates = self.config.certificates
        if certificates is None or not sockets:
            await super().startup(sockets)
            return

        def make() -> Connection:
            return Connection(self.config, self.server_state, {})

        self.servers = [
            Handshakes(listener, certificates.context, self.config.connections, make)  # type: ignore[misc]  # by name
            for listener in sockets
        ]
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Look after the connections now and then."""
        if counter % TICKS_PER_CHECK == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.check(now)
        return await super().on_tick(counter)


@contextlib.asynccontextmanager
async def serve_http(
    app: ASGIApp,
    settings: Settings,
    registry: CollectorRegistry | None = None,
    certificates: Certificates | None = None,
) -> AsyncIterator[Listening]:
    """Serve ``app`` for as long as the context is open; leaving it answers what is in flight, for at most DRAIN_S.

    What is counted of connections is shown in ``registry``. With ``certificates`` it is HTTPS. Raises InvalidOption
    when the address cannot be listened on. Should the server die, the context's body is cancelled and the error raised.
    """
    _allow_files(settings.http_connections_max + OTHER_FILES)
    with listening_socket(settings.http_host, settings.http_port, BACKLOG, "HTTP", "http") as listener:
        config = BoundedConfig(
            app,
            Connections(settings, registry or CollectorRegistry()),
            certificates,
            lifespan="off",
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=settings.http_keep_alive_s,
            timeout_graceful_shutdown=DRAIN_S,
        )
        async with _running(_Server(config), listener):
            scheme = "http" if certificates is None else "https"
            yield Listening(url_of(scheme, settings.http_host, listener.getsockname()[1]))


@contextlib.asynccontextmanager
async def _running(server: uvicorn.Server, listener: socket.socket) -> AsyncIterator[None]:
    failure: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(server.serve(sockets=[listener]), name="http")
            while not server.started:  # noqa: ASYNC110 - uvicorn tells it by nothing but this flag
                await asyncio.sleep(START_POLL_S)
            try:
                yield
            finally:
                server.should_exit = True
                await asyncio.wait([serving])
    except BaseExceptionGroup as failures:
        failure = failures.exceptions[0]
    if failure is not None:  # whoever left the context with an error gets that very error, its cause untouched
        raise failure


def _allow_files(count: int) -> None:
    """Let the process have so many files open, where the machine allows it: a login's 1,024 are soon used up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
