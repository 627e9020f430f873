"""The broker of a server, opened: its own or one outside, with everybody let in or with logins."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from kalam.access.model import Narrowed
from kalam.access.opened import Access
from kalam.settings import Settings
from kalam.storage.log.catalogue import Catalogue
from kalam.tls import Certificates
from kalam_nats.access.broker_logins import BrokerLogins, broker_logins
from kalam_nats.access.keys import Keys
from kalam_nats.access.outside import outside_keys, with_key
from kalam_nats.access.reach import KeysOf
from kalam_nats.broker.address import connect_options
from kalam_nats.broker.connection import BrokerConnection, broker_connection
from kalam_nats.broker.embedded import EmbeddedBroker, embedded_broker
from kalam_nats.broker.jetstream import JetStream
from kalam_nats.broker.tls import own_context
from kalam_nats.door.senders import Senders
from kalam_nats.subjects import Subjects


class OpenBroker(msgspec.Struct, frozen=True):
    """The connection, the broker itself if it is embedded, and its logins where there are any."""

    connection: BrokerConnection
    embedded: EmbeddedBroker | None
    logins: BrokerLogins | None

    @property
    def answered(self) -> Callable[[], bool] | None:
        """What tells whether the broker can ask about a login at this moment, where it asks."""
        return None if self.logins is None else self.logins.answered


async def open_broker(
    stack: AsyncExitStack, settings: Settings, data_dir: Path, certificates: Certificates | None, *, guarded: bool
) -> OpenBroker:
    """Start the embedded broker, unless an outside one is named, and connect; ``guarded`` says that users log in.

    Raises BrokerUnavailable, and InvalidOption for what is named and cannot be used.
    """
    options = connect_options(settings)
    keys = None
    if guarded:
        keys = Keys.new() if options is None else outside_keys(data_dir)
    embedded = None
    if options is None:
        public = None if keys is None else keys.public
        broker = embedded_broker(
            settings, data_dir, allowed_origins=_origins(settings), keys=public, certificates=certificates
        )
        embedded = await stack.enter_async_context(broker)
        options = {"servers": embedded.url}
        if certificates is not None:
            options["tls"] = own_context(certificates)
    logins = None
    if keys is not None:
        logins = await stack.enter_async_context(broker_logins(keys, options, settings.broker_timeout_s))
        options = with_key(options, keys.kalam.seed)
    connection = await stack.enter_async_context(broker_connection(**options, connect_time_s=settings.broker_timeout_s))
    return OpenBroker(connection, embedded, logins)


def senders_of(subjects: Subjects, access: Access, logins: BrokerLogins | None) -> Senders:
    """Who may send requests: anybody, or the users who may log in, as what they have logged in by."""
    if logins is None:
        return Senders(subjects)
    users = access.book.users

    def may_send(user: str) -> bool:
        found = users.get(user)
        return found is not None and found.may_log_in(datetime.now(UTC))

    senders = Senders(subjects, may_send, logins.callout.admissions.weakest)

    async def narrowed(_: Narrowed) -> None:
        senders.forget()

    access.book.on_narrowed(narrowed)
    return senders


async def begin_logins(
    opened: OpenBroker, jetstream: JetStream, access: Access, catalogue: Catalogue, subjects: Subjects, keys_of: KeysOf
) -> None:
    """Let users in from now on, where they log in; raises BrokerUnavailable unless the broker is seen to ask."""
    if opened.logins is not None:
        await opened.logins.begin(opened.connection, jetstream, access, catalogue, subjects, keys_of)


def _origins(settings: Settings) -> list[str]:
    scheme = "http" if settings.tls_cert is None else "https"
    own = [f"{scheme}://{host}:{settings.http_port}" for host in (settings.http_host, "localhost")]
    return [*own, *settings.nats_ws_origins]
