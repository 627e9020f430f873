"""The listening socket, and the sessions behind it: as many as may be, and each of them shown out when it has to go.

Law: who has not logged in within LOGIN_S is closed, and counts among those who wait and not among the sessions. A
session ends when its login does: it is told so, what it reads is cancelled, and a commit goes on. What it has read
and not given yet is dropped with the right to read it. It counts until its connection is closed, which is when the
client has taken the last words, or takes nothing.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Final

import msgspec
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from kalam.access.model import Narrowed
from kalam.access.opened import Access
from kalam.engine import Engine
from kalam.errors import InvalidOption, KalamError
from kalam.listening import listening_socket, url_of
from kalam.settings import Settings
from kalam.tasks import running
from kalam.tls import Certificates
from kalam_pg.catalogue import Catalogue
from kalam_pg.entrance import Entrance
from kalam_pg.errors import ADMIN_SHUTDOWN, INVALID_AUTHORIZATION, TOO_MANY_CONNECTIONS, SqlError, Told, told
from kalam_pg.session.dialogue import Dialogue
from kalam_pg.session.session import Session
from kalam_pg.settings import REPORTED, SessionSettings
from kalam_pg.startup import Cancel, Startup, begin
from kalam_pg.wire import messages
from kalam_pg.wire.channel import Channel, Gone

LOGIN_S: Final = 30.0
WAITING_MAX: Final = 1_000
"""Connections that have not logged in."""
MESSAGE_BYTES: Final = 64 << 10
"""What a message may have besides a statement."""
EVERY_S: Final = 0.5
"""How often it is asked whether a login has ended by itself."""
BACKLOG: Final = 1_024
LAST_WORDS_S: Final = 5.0
"""How long the server's end waits for clients to take what was written for them."""
_SERVED: ContextVar[int] = ContextVar("served", default=0)
"""The session that is served; who listens to the book is run in the context of whoever changed it."""
log = structlog.get_logger(__name__)


class Listening(msgspec.Struct, frozen=True):
    """Where the door is."""

    url: str


class Door:
    """Lets clients in, and knows their sessions."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        access: Access | None,
        certificates: Certificates | None,
        registry: CollectorRegistry,
    ) -> None:
        self._engine, self._settings, self._certificates = engine, settings, certificates
        self._entrance = Entrance(access)
        self._catalogue = Catalogue(query_time_s=settings.query_time_s, rows_max=settings.result_rows_max)
        self._sessions: dict[int, Session] = {}
        self._tasks: dict[asyncio.Task[None], Channel] = {}
        self._last_pid = self._waiting = 0
        if self._entrance.access is not None:
            self._entrance.access.book.on_narrowed(self._narrowed)
        Gauge("kalam_pg_connections", "PostgreSQL sessions that are open.", registry=registry).set_function(
            lambda: len(self._sessions)
        )
        self._refused = Counter(
            "kalam_pg_connections_refused_total", "Connections refused, as there were too many.", registry=registry
        )

    def opened(self) -> Channel:
        """What asyncio has for a new connection."""
        return _Accepted(self, self._settings.statement_bytes_max + MESSAGE_BYTES, self._settings.http_stall_s)

    def accept(self, channel: Channel) -> None:
        """Serve a connection."""
        if self._waiting >= WAITING_MAX:
            self._refused.inc()
            channel.abort()
            return
        task = asyncio.create_task(self._serve(channel), name="postgres session")
        self._tasks[task] = channel
        task.add_done_callback(self._tasks.pop)

    async def close(self) -> None:
        """Show everybody out; whoever has to take the last words yet is waited for, for at most LAST_WORDS_S."""
        channels = list(self._tasks.values())
        for session in self._sessions.values():
            self._show_out(session, Told(ADMIN_SHUTDOWN, "terminating connection due to administrator command"))
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await asyncio.gather(*(channel.gone() for channel in channels))
        await self._catalogue.aclose()

    async def run(self) -> None:
        """Show those out whose login has ended, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            self._show_ended_out()

    async def _narrowed(self, narrowed: Narrowed) -> None:
        for session in self._sessions.values():
            session.narrowed(lambda asked: self._engine.ends(asked, narrowed))
        if (changing := self._sessions.get(_SERVED.get())) is not None:
            changing.leaving = True  # whoever ends their own login gets the answer
        self._show_ended_out()

    def _show_ended_out(self) -> None:
        for session in list(self._sessions.values()):
            if not self._entrance.stands(session.login) and not (session.leaving and not session.idle):
                self._show_out(session, Told(INVALID_AUTHORIZATION, "the login has ended", "log in again"))

    def _show_out(self, session: Session, why: Told) -> None:
        if not session.ended:
            session.ended = True
            session.cancel()
            session.channel.write(messages.error(why, "FATAL"))
            session.channel.close()

    # One connection.

    async def _serve(self, channel: Channel) -> None:
        try:
            session = await self._log_in(channel)
            if session is not None:
                await self._talk(session)
        except Gone:
            pass
        except (SqlError, KalamError) as exc:
            channel.write(messages.error(told(exc), "FATAL"))
        except TimeoutError:
            pass
        except Exception:
            log.exception("a session failed", client=channel.address)
            channel.write(messages.error(told(Exception()), "FATAL"))
        finally:
            channel.close()
        await channel.taken(self._settings.http_stall_s)

    async def _log_in(self, channel: Channel) -> Session | None:
        self._waiting += 1
        try:
            async with asyncio.timeout(LOGIN_S):
                wanted = await begin(channel, self._certificates)
                if isinstance(wanted, Cancel):
                    self._cancel(wanted)
                    return None
                return await self._enter(channel, wanted)
        finally:
            self._waiting -= 1

    async def _enter(self, channel: Channel, startup: Startup) -> Session:
        identity, login = await self._entrance.enter(channel, startup)
        if len(self._sessions) >= self._settings.pg_connections_max:
            self._refused.inc()
            raise SqlError(
                TOO_MANY_CONNECTIONS,
                "sorry, too many clients already",
                f"the server has {self._settings.pg_connections_max} sessions (setting pg_connections_max)",
            )
        channel.logged_in = True
        fixed = {
            "is_superuser": "on" if self._entrance.administers(identity) else "off",
            "session_authorization": identity.user,
            "max_connections": str(self._settings.pg_connections_max),
            "ssl": "off" if self._certificates is None else "on",
        }
        known = SessionSettings(startup.settings, fixed)
        session = Session(
            self._engine,
            channel,
            known,
            identity,
            login=login,
            database=startup.database,
            key=(self._new_pid(), secrets.randbits(32)),
            strict_blocks=self._settings.pg_blocks == "refuse",
        )
        known.changed = lambda name, value: session.write(messages.parameter_status(name, value))
        for name in REPORTED:
            session.write(messages.parameter_status(name, known.show(name)))
        session.write(messages.backend_key(session.backend_pid, session.secret))
        for said in known.notices:
            session.notice("NOTICE", "01000", said)
        return session

    async def _talk(self, session: Session) -> None:
        self._sessions[session.backend_pid] = session
        session.channel.when_gone(lambda: self._sessions.pop(session.backend_pid))
        _SERVED.set(session.backend_pid)
        try:
            await Dialogue(session, self._settings, self._catalogue).run()
        finally:
            with suppress(Gone):
                session.flush()
                await session.close()

    def _new_pid(self) -> int:
        while True:
            self._last_pid = self._last_pid % 0x7FFF_FFFF + 1
            if self._last_pid not in self._sessions:
                return self._last_pid

    def _cancel(self, wanted: Cancel) -> None:
        """Stop what a session runs; whoever does not know its secret hears nothing and stops nothing."""
        session = self._sessions.get(wanted.pid)
        known = 0 if session is None else session.secret
        same = hmac.compare_digest(known.to_bytes(4), wanted.secret.to_bytes(4))
        if session is not None and same:
            session.cancel()


class _Accepted(Channel):
    """A connection that is served once it is there."""

    def __init__(self, door: Door, bytes_max: int, stall_s: float) -> None:
        super().__init__(bytes_max, stall_s)
        self._door = door
        self._accepted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Have it served."""
        super().connection_made(transport)
        if not self._accepted:
            self._accepted = True
            self._door.accept(self)


@asynccontextmanager
async def serve_pg(
    settings: Settings,
    engine: Engine,
    access: Access | None,
    certificates: Certificates | None,
    registry: CollectorRegistry,
) -> AsyncIterator[Listening]:
    """Have the door open while the block runs. Raises InvalidOption for an address, and where no port is set."""
    if settings.pg_port is None:
        raise InvalidOption("pg_port is not set")
    door = Door(engine, settings, access, certificates, registry)
    listener = listening_socket(settings.pg_host, settings.pg_port, BACKLOG, "PostgreSQL", "pg")
    loop = asyncio.get_running_loop()
    server = await loop.create_server(door.opened, sock=listener, backlog=BACKLOG)
    try:
        async with running(door.run(), "postgres logins"):
            yield Listening(url_of("postgresql", settings.pg_host, listener.getsockname()[1]))
    finally:
        server.close()
        await door.close()
        await server.wait_closed()
