"""Who asks at this door: the one place that makes an ``Identity`` of a startup.

With authentication on it is proven by SCRAM-SHA-256, of a password or of a token, and nothing that could be used again
goes over the wire. A secret in clear is asked for only where it cannot be read on its way (inside TLS, or from this
machine), and only of a user of whose password no verifier is kept: it was set before there were any. A name of nobody
is asked as those of users are.
"""

from __future__ import annotations

from ipaddress import ip_address

from kalam.access.login import Login
from kalam.access.logins import Logins
from kalam.access.opened import Access
from kalam.access.scram import MECHANISM, BadExchange, Exchange, Verifier
from kalam.engine import Identity
from kalam_pg.errors import INVALID_AUTHORIZATION, PROTOCOL, SqlError
from kalam_pg.session.session import DOOR
from kalam_pg.startup import Startup
from kalam_pg.wire import messages
from kalam_pg.wire.channel import Channel
from kalam_pg.wire.payload import Payload

PASSWORD = ord("p")


class Entrance:
    """Finds out who asks; without ``access``, or with one whose rights are off, nobody is asked."""

    def __init__(self, access: Access | None) -> None:
        self.access = access if access is not None and access.rights.on else None

    async def enter(self, channel: Channel, startup: Startup) -> tuple[Identity, Login | None]:
        """Who has come in, and by which login; raises SqlError, Unauthenticated, TooBusy and InvalidName."""
        if self.access is None:
            identity = Identity(startup.user)
            channel.write(messages.AUTHENTICATED)
            return identity, None
        login = await self._log_in(self.access, channel, startup.user)
        channel.write(messages.AUTHENTICATED)
        identity = Identity(
            user=login.user,
            how=login.how,
            credential=login.credential,
            ends_at=login.ends_at,
            address=channel.address,
        )
        return identity, login

    async def _log_in(self, access: Access, channel: Channel, user: str) -> Login:
        kept = access.logins.scram_of(user) if access.passwords.scram else None
        if kept is not None:
            return await _by_proof(access.logins, channel, user, kept)
        if not (channel.encrypted or _is_here(channel.address)):
            raise SqlError(
                INVALID_AUTHORIZATION,
                "the password would have to be sent in clear, as nothing is kept to prove it by",
                "connect with TLS (sslmode=require), or have the password set anew: ALTER USER … WITH PASSWORD",
            )
        channel.write(messages.ASK_PASSWORD)
        payload = Payload(await _answer(channel))
        secret = payload.text()
        payload.end()
        return await access.logins.log_in(user, secret, door=DOOR, address=channel.address)

    def administers(self, identity: Identity) -> bool:
        """Whether who asks is an administrator."""
        return self.access is None or self.access.rights.administers(identity.rights_of)

    def stands(self, login: Login | None) -> bool:
        """Whether somebody may still be here."""
        return self.access is None or login is None or self.access.logins.stands(login)


async def _by_proof(logins: Logins, channel: Channel, user: str, kept: Verifier) -> Login:
    channel.write(messages.sasl(MECHANISM))
    payload = Payload(await _answer(channel))
    mechanism, first = payload.text(), payload.cell()
    payload.end()
    if mechanism != MECHANISM:
        raise SqlError(PROTOCOL, "client selected an invalid SASL authentication mechanism")
    try:
        exchange = Exchange((first or b"").decode(), kept.salt, kept.iterations)
        channel.write(messages.sasl_continue(exchange.first))
        proof = exchange.proof((await _answer(channel)).decode())
    except (BadExchange, UnicodeDecodeError) as exc:
        raise SqlError(PROTOCOL, f"malformed SCRAM message: {exc}") from None
    login, verifier = await logins.log_in_by_proof(user, proof, door=DOOR, address=channel.address)
    channel.write(messages.sasl_final(proof.answer(verifier)))
    return login


async def _answer(channel: Channel) -> bytes:
    message = await channel.read()
    if message.kind != PASSWORD:
        raise SqlError(PROTOCOL, "expected a password response")
    return message.data


def _is_here(address: str) -> bool:
    """Whether a client is on this machine."""
    try:
        return ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False
