"""Ending connections at once: listed by user, ended one by one, and listed again for logins that were under way.

A login that was answered just before is listed only once the broker has made the connection of it, so one look lets it
slip through; after ``SLIP_S`` another finds it. Kalam's own connection asks for the list of its account, the one on
AUTH ends connections, which no other account may.

What a broker that is out of reach cannot be told it is told when it is back, before anything else.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Final

import msgspec
import structlog
from nats import errors as nats_errors

from kalam.errors import BrokerUnavailable
from kalam.tasks import Tasks, heeding
from kalam_nats.access.admissions import Admissions, Cut
from kalam_nats.broker.connection import BrokerConnection

SLIP_S: Final = 0.05
ANSWER_S: Final = 1.0
GATHER_S: Final = 0.1
PAGE: Final = 1_024
USERS_ASKED_SINGLY_MAX: Final = 16
KICKS_AT_ONCE: Final = 64

_CONNZ: Final = "$SYS.REQ.ACCOUNT.PING.CONNZ"
_UNREACHABLE: Final = (nats_errors.Error, BrokerUnavailable, TimeoutError, OSError, msgspec.MsgspecError)

log = structlog.get_logger(__name__)


class _Row(msgspec.Struct, frozen=True):
    cid: int
    authorized_user: str = ""


class _List(msgspec.Struct, frozen=True):
    connections: list[_Row] | None = None


class _Server(msgspec.Struct, frozen=True):
    id: str
    cluster: str | None = None


class _Reply(msgspec.Struct, frozen=True):
    """What a server answers to CONNZ, as far as it is needed."""

    server: _Server
    data: _List


_REPLY: Final = msgspec.json.Decoder(_Reply)


class Connection(msgspec.Struct, frozen=True):
    """A connection to the broker: its server, its number there, and the user that it is for."""

    server: str
    number: int
    user: str


class Cuts:
    """Ends connections of Kalam's account; ``own`` are the public keys of Kalam's own, which stay."""

    def __init__(
        self, kalam: BrokerConnection, callout: BrokerConnection, admissions: Admissions, own: frozenset[str]
    ) -> None:
        self._kalam, self._callout, self._admissions, self._own = kalam, callout, admissions, own
        self._owed: list[Cut] = []
        self._tasks = Tasks()
        kalam.on_connected(self._pay)
        callout.on_connected(self._pay)

    async def cut(self, *cuts: Cut) -> int:
        """End what one of them concerns, and return how many those were; what the broker cannot be told now is owed."""
        try:
            ended = await self._sweep(cuts)
            await asyncio.sleep(SLIP_S)
            return ended + await self._sweep(cuts)
        except _UNREACHABLE as exc:
            log.warning("connections are not ended before the broker is back", error=str(exc) or type(exc).__name__)
            self._owed += cuts
            return 0

    async def check(self) -> None:
        """Raise BrokerUnavailable, saying what is missing, unless connections can be listed and ended."""
        try:
            servers = {server async for server, _ in self._pages({"limit": 1})}
        except _UNREACHABLE as exc:
            raise BrokerUnavailable("the broker does not list the connections of Kalam's account") from exc
        try:
            for server in servers:
                await self._callout.client.request(_kick_subject(server), b'{"cid": 0}', timeout=ANSWER_S)
        except _UNREACHABLE as exc:
            raise BrokerUnavailable(
                "the broker does not let Kalam end connections: account AUTH imports $SYS.REQ.SERVER.*.KICK, which "
                "$SYS exports to it (see `kalam nats-config`)"
            ) from exc

    def _pay(self) -> None:
        owed, self._owed = self._owed, []
        if owed:
            self._tasks.start(self._cut_owed(owed))

    async def _cut_owed(self, owed: list[Cut]) -> None:
        await self.cut(*owed)

    async def _sweep(self, cuts: Sequence[Cut]) -> int:
        users: frozenset[str] | None = frozenset()
        for cut in cuts:
            users = None if users is None or cut.users is None else users | cut.users
        concerned = []
        async for connection in self._connections(users):
            admission = self._admissions.of(connection.server, connection.number)
            if any(cut.concerns(connection.user, admission) for cut in cuts):
                concerned.append(connection)
        slots = asyncio.Semaphore(KICKS_AT_ONCE)

        async def kick(connection: Connection) -> None:
            async with slots:
                body = json.dumps({"cid": connection.number}).encode()
                await self._callout.client.request(_kick_subject(connection.server), body, timeout=ANSWER_S)

        await asyncio.gather(*map(kick, concerned))
        return len(concerned)

    async def _connections(self, users: frozenset[str] | None) -> AsyncIterator[Connection]:
        """Those of the users, at least; Kalam's own are left out."""
        singly = users is not None and len(users) <= USERS_ASKED_SINGLY_MAX
        questions: Iterable[dict[str, Any]] = [{"user": user} for user in users or ()] if singly else [{}]
        for question in questions:
            async for server, connections in self._pages({"auth": True, **question}):
                for connection in connections:
                    if connection.authorized_user not in self._own:
                        yield Connection(server, connection.cid, connection.authorized_user)

    async def _pages(self, question: dict[str, Any]) -> AsyncIterator[tuple[str, list[_Row]]]:
        """The lists of each server, page by page."""
        offset, more = 0, True
        while more:
            more = False
            async for reply in self._replies({"limit": PAGE, **question, "offset": offset}):
                rows = reply.data.connections or []
                yield reply.server.id, rows
                more = more or ("limit" not in question and len(rows) == PAGE)
            offset += PAGE

    async def _replies(self, question: dict[str, Any]) -> AsyncIterator[_Reply]:
        """The answer of the server, or of each of a cluster, of which nobody says how many there are.

        Those that have let somebody in are waited for; one that does not answer has gone, and its connections too.
        """
        client, servers = self._kalam.client, self._admissions.servers
        inbox = client.new_inbox()
        replies = await client.subscribe(inbox)
        answered: set[str] = set()
        try:
            await client.publish(_CONNZ, json.dumps(question).encode(), reply=inbox)
            while True:
                patience_s = GATHER_S if answered and servers <= answered else ANSWER_S
                try:
                    reply = _REPLY.decode((await heeding(replies.next_msg(patience_s))).data)
                except TimeoutError:
                    if not answered:
                        raise
                    if missing := servers - answered:
                        log.warning("servers of the broker's cluster do not answer", servers=sorted(missing))
                    break
                answered.add(reply.server.id)
                yield reply
                if reply.server.cluster is None:
                    break
            servers &= answered
        finally:
            await replies.unsubscribe()


def _kick_subject(server: str) -> str:
    return f"$SYS.REQ.SERVER.{server}.KICK"
