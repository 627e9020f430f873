"""The logins of a broker, as a server opens them: asked here, answered from the book, and ended when it says less."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import structlog

from kalam.access.login import Login
from kalam.access.model import Ends, Narrowed
from kalam.access.opened import Access
from kalam.errors import BrokerUnavailable
from kalam.names import TableName
from kalam.storage.log.catalogue import Catalogue
from kalam_nats.access.admissions import Admissions, Cut
from kalam_nats.access.callout import Callout
from kalam_nats.access.cuts import Cuts
from kalam_nats.access.keys import Keys
from kalam_nats.access.outside import with_key
from kalam_nats.access.permissions import Permissions, permissions, table_subjects
from kalam_nats.access.proof import prove_logins
from kalam_nats.access.reach import KeysOf, Reaches
from kalam_nats.access.trusted import TrustedConsumers
from kalam_nats.broker.connection import BrokerConnection, broker_connection
from kalam_nats.broker.jetstream import JetStream
from kalam_nats.subjects import Subjects

DOOR: Final = "nats"
CONNECTION_NAME: Final = "kalam-logins"

_HINT: Final = "the broker's configuration needs what `kalam nats-config` prints"

log = structlog.get_logger(__name__)


@asynccontextmanager
async def broker_logins(keys: Keys, options: dict[str, Any], timeout_s: float) -> AsyncIterator[BrokerLogins]:
    """Listen for logins while the block runs; they wait until ``begin``.

    ``options`` say where the broker is, as ``broker_connection`` takes them. Raises BrokerUnavailable if the broker
    does not know Kalam's keys.
    """
    ways = with_key(options, keys.callout.seed)
    async with AsyncExitStack() as stack:
        connecting = broker_connection(**ways, name=CONNECTION_NAME, connect_time_s=timeout_s)
        try:
            connection = await stack.enter_async_context(connecting)
        except BrokerUnavailable as exc:
            raise _misconfigured(exc) from exc
        callout = Callout(connection, keys, Admissions())
        await callout.open()
        stack.push_async_callback(callout.close)
        yield BrokerLogins(connection, callout, keys, options, timeout_s)


class BrokerLogins:
    """What ``broker_logins`` opens."""

    def __init__(
        self, connection: BrokerConnection, callout: Callout, keys: Keys, options: dict[str, Any], timeout_s: float
    ) -> None:
        self._connection, self._keys, self._options, self._timeout_s = connection, keys, options, timeout_s
        self.callout = callout
        self._before_cuts: Callable[[], Awaitable[None]] | None = None

    def before_cuts(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Have this done before connections end, for what is still to be told on them."""
        self._before_cuts = wait

    def answered(self) -> bool:
        """Whether the broker can ask about a login at this moment."""
        return self._connection.connected

    async def begin(
        self,
        kalam: BrokerConnection,
        jetstream: JetStream,
        access: Access,
        catalogue: Catalogue,
        subjects: Subjects,
        keys_of: KeysOf,
    ) -> None:
        """Answer logins from now on, and end connections when somebody may do less.

        Who was let in before this process began logs in anew: what was taken away meanwhile is not known to the broker.
        Raises BrokerUnavailable unless the broker is seen to ask about a login, and to let connections be ended.
        """
        logins, reaches = access.logins, Reaches(access.rights, catalogue, keys_of)
        trusted = TrustedConsumers(jetstream, access.rights, catalogue, subjects)
        cuts = Cuts(kalam, self._connection, self.callout.admissions, frozenset({self._keys.kalam.public}))

        async def log_in(user: str | None, secret: str, address: str) -> Login:
            return await logins.log_in(user, secret, door=DOOR, address=address)

        def permit(login: Login) -> Permissions | None:
            if not logins.stands(login):
                return None
            reach = reaches.of(login.user)
            trusted.granted(reach.jetstream)
            return permissions(reach, subjects)

        async def narrowed(what: Narrowed) -> None:
            found = cuts_of(what, catalogue, subjects)
            if found:
                if self._before_cuts is not None:
                    await self._before_cuts()
                log.info("connections_ended", count=await cuts.cut(*found), reason=what.reason)
            await trusted.sweep()

        async def used_again(name: TableName) -> None:
            await cuts.cut(Cut(subjects=table_subjects(name, subjects), literally=True))

        await cuts.check()
        await prove_logins(self.callout, self._options, self._timeout_s)
        access.book.on_narrowed(narrowed)
        catalogue.on_used_again(used_again)
        await cuts.cut(Cut())
        await trusted.sweep()
        self.callout.begin(log_in, permit, access.book.users.__contains__)


def cuts_of(narrowed: Narrowed, catalogue: Catalogue, subjects: Subjects) -> tuple[Cut, ...]:
    """The connections that end: all that may hear of the tables, and those of the logins that end as a whole."""
    users, tables = narrowed.users, narrowed.tables
    if not narrowed.heard:
        return ()
    if tables is None or narrowed.logins == Ends.ALL:
        return (Cut(users=users),)
    named = [catalogue.by_id[table_id].name for table_id in tables if table_id in catalogue.by_id]
    heard = tuple(subject for name in named for subject in table_subjects(name, subjects))
    found = [Cut(users=users, subjects=heard)] if heard else []
    if narrowed.logins != Ends.NONE:
        found.append(Cut(users=users, logins=narrowed.logins))
    return tuple(found)


def _misconfigured(error: BrokerUnavailable) -> BrokerUnavailable:
    """The error of a connection by key at a broker that may not know the key."""
    unknown = ": the broker does not know Kalam's keys" if "authorization" in error.detail.lower() else ""
    return BrokerUnavailable(f"{error.detail}{unknown}", hint=_HINT)
