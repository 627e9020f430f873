"""A nats-server whose logins are answered by a callout with a small book of users; plain nats-py clients of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client

from kalam.access.login import Login
from kalam.errors import Unauthenticated
from kalam.settings import Settings
from kalam.tls import Certificates
from kalam_nats.access.admissions import Admissions
from kalam_nats.access.callout import Callout
from kalam_nats.access.cuts import Cuts
from kalam_nats.access.keys import Keys
from kalam_nats.access.permissions import Permissions, Reach, permissions
from kalam_nats.broker.connection import BrokerConnection, broker_connection
from kalam_nats.broker.embedded import EmbeddedBroker, embedded_broker
from kalam_nats.broker.tls import own_context
from kalam_nats.subjects import Subjects

SUBJECTS = Subjects()
PASSWORD = "right-password"


@dataclass
class Users:
    """Who may log in: with ``PASSWORD``, or by a token ``token-<user>``; and what they may."""

    reach: dict[str, Reach] = field(default_factory=dict)
    asked: list[tuple[str | None, str, str]] = field(default_factory=list)
    locked: set[str] = field(default_factory=set)
    held: asyncio.Event | None = None  # a verification waits for it
    ends: dict[str, Any] = field(default_factory=dict)

    async def log_in(self, user: str | None, secret: str, address: str) -> Login:
        self.asked.append((user, secret, address))
        if self.held is not None:
            await self.held.wait()
        token_of = secret.removeprefix("token-") if secret.startswith("token-") else None
        found = token_of if user is None else user
        right = token_of == found or (user is not None and secret == PASSWORD)
        if found is None or found not in self.reach or not right or found in self.locked:
            raise Unauthenticated("no")
        how = "token" if token_of else "password"
        return Login(found, how, secret if token_of else "", self.ends.get(found))

    def permit(self, login: Login) -> Permissions | None:
        return None if login.user in self.locked else permissions(self.reach[login.user], SUBJECTS)


@dataclass
class Guarded:
    """A broker whose logins are answered, Kalam's connection to it, and what ends connections."""

    broker: EmbeddedBroker
    kalam: BrokerConnection
    auth: BrokerConnection
    callout: Callout
    cuts: Cuts
    users: Users
    keys: Keys
    data_dir: Path

    @asynccontextmanager
    async def client(self, name: str, **options: Any) -> AsyncIterator[Plain]:
        plain = await Plain.connect(self.broker.url, name, **options)
        try:
            yield plain
        finally:
            await plain.client.close()


class Plain:
    """A nats-py client that knows nothing of Kalam, and what it is told."""

    def __init__(self) -> None:
        self.client = Client()
        self.errors: list[str] = []

    @classmethod
    async def connect(cls, url: str, name: str, **options: Any) -> Plain:
        plain = cls()

        async def note(error: Exception) -> None:
            plain.errors.append(str(error))

        asked = {"user": name, "password": PASSWORD, "allow_reconnect": False, "inbox_prefix": f"_INBOX.{name}"}
        await plain.client.connect(url, error_cb=note, **(asked | options))
        return plain

    async def settle(self) -> None:
        """Wait until the broker has dealt with what was sent: a ping may overtake what is still in the buffer."""
        await self.client.flush()
        await self.client.flush()

    async def may_hear(self, subject: str) -> bool:
        """Whether the broker takes a subscription."""
        before = len(self.errors)
        subscription = await self.client.subscribe(subject)
        await self.settle()
        heard = len(self.errors) == before
        if heard:
            await subscription.unsubscribe()
        return heard

    async def may_say(self, subject: str, reply: str = "") -> bool:
        """Whether the broker takes a message."""
        before = len(self.errors)
        await self.client.publish(subject, b"{}", reply=reply)
        await self.settle()
        return len(self.errors) == before


@asynccontextmanager
async def guarded_broker(
    data_dir: Path,
    users: Users,
    settings: Settings | None = None,
    *,
    begin: bool = True,
    certificates: Certificates | None = None,
) -> AsyncIterator[Guarded]:
    """Run one; with ``begin`` False its logins wait."""
    keys, admissions = Keys.new(), Admissions()
    settings = settings or Settings(nats_port=0)
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(
            embedded_broker(
                settings,
                data_dir,
                keys=keys.public,
                allowed_origins=["http://console.test"],
                certificates=certificates,
            )
        )
        tls = {} if certificates is None else {"tls": own_context(certificates)}
        auth = await stack.enter_async_context(
            broker_connection(broker.url, name="kalam-logins", nkeys_seed_str=keys.callout.seed, **tls)
        )
        callout = Callout(auth, keys, admissions)
        await callout.open()
        stack.push_async_callback(callout.close)
        kalam = await stack.enter_async_context(broker_connection(broker.url, nkeys_seed_str=keys.kalam.seed, **tls))
        cuts = Cuts(kalam, auth, admissions, frozenset({keys.kalam.public}))
        if begin:
            callout.begin(users.log_in, users.permit)
        yield Guarded(broker, kalam, auth, callout, cuts, users, keys, data_dir)


async def refused(url: str, **options: Any) -> bool:
    """Whether a login is refused; each other end is an error."""

    async def ignore(_: Exception) -> None:
        return

    try:
        client = await nats.connect(url, allow_reconnect=False, error_cb=ignore, **options)
    except nats.errors.Error as exc:
        if "Authorization Violation" not in str(exc):
            raise
        return True
    await client.close()
    return False
