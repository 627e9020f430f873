"""A session: who asks, with which settings, in which block, and what it holds open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import structlog
from msgspec.structs import replace

from kalam.access.login import Login
from kalam.engine import Caller, Engine, Identity
from kalam.engine import Session as EngineSession
from kalam.errors import Cancelled, KalamError, NotFound, Timeout
from kalam.names import TEMPORARY_NAMESPACE
from kalam.query.running import RunningQuery
from kalam.sql import StatementText
from kalam.sql.text.statements import TableRef
from kalam_pg.durations import milliseconds
from kalam_pg.errors import SqlError, told
from kalam_pg.session.answers import Asked
from kalam_pg.session.block import Block
from kalam_pg.session.commands import Begin
from kalam_pg.session.own_tables import OwnWrite
from kalam_pg.session.statements import Portal, Prepared
from kalam_pg.settings import SessionSettings
from kalam_pg.wire import messages
from kalam_pg.wire.channel import Channel

DOOR: Final = "postgres"
OUT_BYTES: Final = 64 << 10
"""So much is gathered before it is written to the connection."""
log = structlog.get_logger(__name__)


class Session:
    """What a client has of the server between its login and its leave."""

    def __init__(
        self,
        engine: Engine,
        channel: Channel,
        settings: SessionSettings,
        identity: Identity,
        *,
        login: Login | None,
        database: str,
        key: tuple[int, int],
        strict_blocks: bool,
    ) -> None:
        self.engine, self.channel, self.settings = engine, channel, settings
        self.identity, self.login, self.database = identity, login, database
        self.backend_pid, self.secret = key
        self.block = Block(strict=strict_blocks)
        self.temporary = engine.open_temporary(identity.user)
        self.statements: dict[str, Prepared] = {}
        self.portals: dict[str, Portal] = {}
        self.asked = Asked()
        """Of what runs now, or ran last."""
        self.set_in_block: list[tuple[str, str, bool]] = []
        self.idle = self.ended = self.leaving = False
        self.before_ready: list[Callable[[], None]] = []
        """What is called when nothing runs and no block is open: it may send what was listened for."""
        self._standing: object = None
        self._lasting: Caller | None = None
        self._out: list[bytes | memoryview] = []
        self._out_bytes = self._requests = 0
        self._running: str | None = None
        self._timed_out = False

    @property
    def user(self) -> str:
        """The name that logged in."""
        return self.identity.user

    @property
    def client_address(self) -> str | None:
        """Where the client is."""
        return self.channel.address or None

    # Asking the engine.

    @property
    def namespace(self) -> str | None:
        """Where a table without a namespace is looked for: the first of the search path that exists."""
        return self.lasting.session.namespace

    @property
    def lasting(self) -> Caller:
        """Who asks for what is answered at once, which cannot be cancelled; the same while nothing changes for it."""
        standing = *self.engine.standing, self.settings.changes, self.temporary.changes
        if self._lasting is None or standing != self._standing:
            path = self.settings.search_path
            there = self.engine.caller(EngineSession(self.identity), DOOR).has_namespace
            namespace = next((name for name in path if there(name)), path[0] if path else None)
            asking = EngineSession(self.identity, namespace, postgresql_names=True, temporary=self.temporary)
            self._standing, self._lasting = standing, self.engine.caller(asking, DOOR)
        return self._lasting

    @property
    def caller(self) -> Caller:
        """A request of this session."""
        request_id = self._running or f"pg-{self.backend_pid}-{self._requests}"
        departure, asked = self.channel.gone, self.asked.requests
        return replace(self.lasting, request_id=request_id, departure=departure, asked=asked)

    @property
    def request_id(self) -> str | None:
        """By what the engine knows what runs now."""
        return self._running

    @contextmanager
    def running(self, request_id: str | None = None) -> Iterator[None]:
        """What is asked in the block can be cancelled, and is at ``statement_timeout``; it may go on with a request."""
        self._requests += 1
        self.asked = Asked()
        self._running, self._timed_out = request_id or f"pg-{self.backend_pid}-{self._requests}", False
        bound = milliseconds(self.settings.show("statement_timeout"))
        timer = asyncio.get_running_loop().call_later(bound / 1_000, self._time_out) if bound else None
        try:
            yield
        except Cancelled as exc:
            if self._timed_out:
                raise Timeout("canceling statement due to statement timeout") from exc
            raise Cancelled("canceling statement due to user request") from exc
        finally:
            self._running = None
            if timer is not None:
                timer.cancel()

    def cancel(self) -> None:
        """Stop what is being read."""
        if self._running is not None:
            with suppress(NotFound):
                self.lasting.cancel(self._running)

    def narrowed(self, ends: Callable[[RunningQuery], bool]) -> None:
        """Drop what was read and may not be read any more, which is what was asked by requests that are to end."""
        held = [portal.answer for portal in self.portals.values() if portal.answer is not None]
        for asked in {self.asked, *(answer.asked for answer in held)}:
            asked.cut = asked.cut or any(map(ends, asked.requests))
        for answer in held:
            if answer.asked.cut:
                answer.drop()

    def _time_out(self) -> None:
        self._timed_out = True
        self.cancel()

    # What it has for itself.

    def is_own(self, ref: TableRef) -> bool:
        """Whether a name means one of its temporary tables."""
        own = (None, TEMPORARY_NAMESPACE, self.temporary.namespace)
        return ref.namespace in own and ref.table in self.temporary.tables

    @contextmanager
    def writing(self, word: str, own: OwnWrite | None) -> Iterator[None]:
        """The block carries out a statement that writes, if it may; ``own`` is what ``own_write`` says of it."""
        self.block.check_write(word, own)
        yield
        if own is None:
            self.block.wrote()

    # Telling the client.

    def write(self, data: bytes | memoryview) -> None:
        """Send soon."""
        self._out.append(data)
        self._out_bytes += len(data)
        if self._out_bytes > OUT_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send now what was to be sent soon."""
        if self._out:
            self.channel.write(self._out[0] if len(self._out) == 1 else b"".join(self._out))
            self._out.clear()
            self._out_bytes = 0

    async def drain(self) -> None:
        """Send now, and wait until the client has taken most of it."""
        self.flush()
        await self.channel.drain()

    def notice(self, severity: str, sqlstate: str, detail: str) -> None:
        """Say something besides."""
        self.write(messages.notice(severity, sqlstate, detail))

    def warn(self, said: tuple[str, str] | None) -> None:
        """Say what should be known, if there is anything."""
        if said is not None:
            self.notice("WARNING", *said)

    def ready(self) -> None:
        """Say that the next query may come."""
        if self.block.status == "I":
            self.temporary.end_block()
            for send in self.before_ready:
                send()
        self.write(messages.ready(self.block.status))
        self.flush()

    def fail(self, error: BaseException, statement: StatementText | None = None) -> None:
        """Tell an error, which fails the block."""
        if not isinstance(error, KalamError | SqlError):
            log.error("a statement failed", exc_info=error)
        found = told(error, "" if statement is None else statement.text)
        if found.position is not None and statement is not None:
            found.position += statement.offset
        self.write(messages.error(found))
        self.block.fail()

    # What it holds open.

    def set(self, name: str, value: str | None, *, local: bool = False) -> None:
        """SET: until the session ends, or the block where it is local or is rolled back."""
        if self.block.status != "I":
            self.set_in_block.append((name, self.settings.show(name), local))
        said = self.settings.set(name, value)
        if said is not None:
            self.notice("NOTICE", "01000", str(said))

    def begin(self, command: Begin) -> None:
        """BEGIN."""
        begins = self.block.status == "I"
        self.warn(self.block.begin(command))
        if begins:
            self.temporary.save()

    async def end_block(self, *, rolled_back: bool) -> None:
        """Close what a block holds: its portals, and what was set for it alone."""
        for name, former, local in reversed(self.set_in_block):
            if local or rolled_back:
                self.settings.set(name, former)
        self.set_in_block.clear()
        if rolled_back:
            self.temporary.go_back()
        self.temporary.end_block()
        await self.close_portals(held=False)

    def forget_portals(self) -> bool:
        """Close the portals at once, if none of them is under way and nothing was set for their block alone."""
        ending = [name for name, portal in self.portals.items() if not portal.held]
        if self.set_in_block or any(self.portals[name].answer is not None for name in ending):
            return False
        for name in ending:
            del self.portals[name]
        return True

    async def close_portals(self, *, held: bool) -> None:
        """Close the portals; those that are held with the others only where that is said."""
        for name, portal in list(self.portals.items()):
            if held or not portal.held:
                del self.portals[name]
                await portal.close()

    async def reset(self) -> None:
        """DISCARD ALL: as a new session is."""
        await self.close_portals(held=True)
        self.statements.clear()
        self.settings.reset_all()
        self.temporary.clear()
        self.block.default_read_only = False

    async def close(self) -> None:
        """Let go of all that it holds."""
        self.temporary.close()
        await self.close_portals(held=True)
        self.statements.clear()
