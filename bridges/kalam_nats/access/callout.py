"""The logins of the broker: it asks here at each, and is answered with what the connection may, or why there is none.

What a client may do is decided by what the broker itself says of the connection (``client_info``) and by the secret
that the client sent; everything else is the client's own word. Several members of a user's token that look as if they
bound a connection are not enforced by the broker (its kind, address, number of subscriptions, size of messages), so
nothing leans on them.

The responder subscribes before anybody else may connect, and requests wait until ``begin`` tells who may log in.
A request whose connection the broker has given up by now is dropped. That a flood of logins costs little is for whoever
verifies them to see to (``kalam.access.logins``): a secret that many come with is verified once.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from nats.aio.msg import Msg

from kalam.access.login import Login
from kalam.errors import KalamError, Unauthenticated
from kalam.names import USER_PATTERN
from kalam.tasks import Tasks
from kalam_nats.access.admissions import Admission, Admissions
from kalam_nats.access.keys import Keys
from kalam_nats.access.nkeys_jwt import AuthorizationRequest, Unreadable, read_request, response_token, user_token
from kalam_nats.access.permissions import Permissions
from kalam_nats.broker.accounts import KALAM, LOGIN_TIME_S
from kalam_nats.broker.connection import BrokerConnection
from kalam_nats.broker.guarded_client import GuardedClient

QUESTION: Final = "$SYS.REQ.USER.AUTH"
SEALED_BY: Final = "Nats-Server-Xkey"
WAITING_MAX: Final = 20_000
SEEN_MAX: Final = 100_000
END_S: Final = 2.0

LogIn = Callable[[str | None, str, str], Awaitable[Login]]
"""Takes a user or None, a password or token, and an address; raises the KalamError that keeps somebody out."""
Permit = Callable[[Login], Permissions | None]
"""What a login may, or None if it does not stand any more."""

log = structlog.get_logger(__name__)


class Refused(Exception):
    """The login is refused before any secret is looked at; the text is for the log."""


class MadeUp(Refused):
    """The login is one of Kalam's own, made to see whether the broker asks; nobody was turned away."""


class Callout:
    """Answers the broker's questions about logins.

    ``counts`` has ``admitted``, ``refused``, ``unreadable`` and ``repeated`` (a question that was asked before);
    ``waiting`` is how many are being decided.
    """

    def __init__(self, connection: BrokerConnection, keys: Keys, admissions: Admissions) -> None:
        self._connection, self._keys, self.admissions = connection, keys, admissions
        self._tasks = Tasks()
        self._begun = asyncio.Event()
        self._log_in: LogIn | None = None
        self._permit: Permit = lambda _: None
        self._is_user: Callable[[str], bool] = lambda _: False
        self._seen: dict[str, None] = {}
        self.waiting = 0
        self._ended = False
        self._expected: dict[str, asyncio.Event] = {}
        self.counts: Counter[str] = Counter()

    async def open(self) -> None:
        """Subscribe, on this client and on each that replaces it; what comes waits until ``begin``."""
        await self._connection.register(self._subscribe)

    async def _subscribe(self, client: GuardedClient) -> None:
        await client.subscribe(QUESTION, cb=self._take)
        await client.flush()

    def begin(self, log_in: LogIn, permit: Permit, is_user: Callable[[str], bool] = lambda _: False) -> None:
        """Answer from now on, those first that wait. The log names those alone of whom ``is_user`` is true."""
        self._log_in, self._permit, self._is_user = log_in, permit, is_user
        self._begun.set()

    def expect(self, user: str) -> asyncio.Event:
        """Set once a sealed question about a made-up user has come, which nobody else is asked about."""
        return self._expected.setdefault(user, asyncio.Event())

    def expect_no_more(self, user: str) -> None:
        """The made-up user is nobody special any more."""
        self._expected.pop(user, None)

    async def close(self) -> None:
        """Refuse what waits and what comes, so that no connection hangs until the broker's patience ends."""
        self._ended = True
        self._begun.set()
        await self._tasks.wait(END_S)
        await self._tasks.cancel()
        try:
            await self._connection.client.flush()
        except Exception as exc:  # noqa: BLE001 - the broker may have gone, and we are going
            log.debug("refused logins not flushed", error=str(exc))

    async def _take(self, msg: Msg) -> None:
        self._tasks.start(self._answer(msg))

    async def _answer(self, msg: Msg) -> None:
        server_key = (msg.headers or {}).get(SEALED_BY, "")
        try:
            asked = read_request(self._keys.seal.open(msg.data, server_key))
        except Unreadable as exc:
            self.counts["unreadable"] += 1
            log.warning("a question about a login cannot be read", error=str(exc))
            return
        request = asked.request
        if request.user_nkey in self._seen:
            self.counts["repeated"] += 1
            log.warning("a question about a login was asked again", server=request.server_id.name)
            return
        self._see(request.user_nkey)
        patience_s = min(LOGIN_TIME_S, max(0.0, asked.expires_at - time.time()))
        try:
            async with asyncio.timeout(patience_s):
                answer = await self._judged(request)
        except TimeoutError:
            self.counts["refused"] += 1
            log.warning("a login was not decided in time", user=self._named(request))
            return
        await self._send(msg, answer, server_key)

    def _see(self, connection: str) -> None:
        self._seen[connection] = None
        while len(self._seen) > SEEN_MAX:
            del self._seen[next(iter(self._seen))]

    async def _judged(self, request: AuthorizationRequest) -> str:
        """The token that answers a request."""
        try:
            token = await self._admitted(request)
        except MadeUp as exc:
            return response_token(self._keys.issuer, request, error=str(exc))
        except (Refused, KalamError) as exc:
            reason = exc.code if isinstance(exc, KalamError) else str(exc)
        except Exception as exc:
            log.exception("a login could not be decided")
            reason = f"an internal error ({type(exc).__name__})"
        else:
            self.counts["admitted"] += 1
            return response_token(self._keys.issuer, request, token=token)
        self.counts["refused"] += 1
        log.info(
            "nats_login_refused",
            user=self._named(request),
            address=request.client_info.host,
            reason=reason,
        )
        return response_token(self._keys.issuer, request, error=reason)

    async def _admitted(self, request: AuthorizationRequest) -> str:
        """The token of a user who may log in; raises Refused and what keeps the user out."""
        user, secret = credentials(request)
        if user in self._expected:
            self._expected[user].set()
            raise MadeUp("it was made up to see that logins are asked about")
        if self.waiting >= WAITING_MAX:
            raise Refused("too many logins wait")
        self.waiting += 1
        try:
            await self._begun.wait()
            if self._ended or self._log_in is None:
                raise Refused("the server stops")
            login = await self._log_in(user, secret, request.client_info.host)
        finally:
            self.waiting -= 1
        check_kind(request, login.user)
        return self._permitted(request, login)

    def _permitted(self, request: AuthorizationRequest, login: Login) -> str:
        """The token of a login, by what holds at this moment: between this and the sending nothing is waited for."""
        permissions = self._permit(login)
        if permissions is None:
            raise Refused("the login does not stand any more")
        token = user_token(
            self._keys.issuer,
            connection=request.user_nkey,
            name=login.user,
            account=KALAM,
            publish={"allow": list(permissions.publish)},
            subscribe={"allow": list(permissions.subscribe)}
            | ({"deny": list(permissions.deny)} if permissions.deny else {}),
            expires_at=None if login.ends_at is None else int(login.ends_at.timestamp()),
        )
        self.admissions.note(request.server_id.id, request.client_info.id, Admission(login, permissions.hears))
        return token

    def _named(self, request: AuthorizationRequest) -> str:
        """What the log may tell of a name: what is no user's may be a password in the wrong place."""
        user = request.connect_opts.user
        return user if self._is_user(user) else ""

    async def _send(self, msg: Msg, answer: str, server_key: str) -> None:
        try:
            await self._connection.client.publish(msg.reply, self._keys.seal.seal(answer.encode(), server_key))
        except Exception as exc:  # noqa: BLE001 - the broker may have gone; it asks again when it is back
            log.debug("a login was not answered", error=str(exc))


def credentials(request: AuthorizationRequest) -> tuple[str | None, str]:
    """The user (None with a token alone) and the secret of a login; raises Refused if there are none that count.

    An MQTT client's password comes as ``auth_token`` too. Nobody has a key of their own, so that a signature proves
    nothing, and the broker believes none that it does not know.
    """
    options = request.connect_opts
    if options.nkey or options.jwt or options.sig:
        raise Refused("no user logs in with a key")
    if options.user and options.password:
        if not USER_PATTERN.fullmatch(options.user):
            raise Refused("the user id is none")
        return options.user, options.password
    token = options.auth_token or options.password or options.user
    if not token:
        raise Refused("there is no user and password, and no token")
    return None, token


def check_kind(request: AuthorizationRequest, user: str) -> None:
    """Raise Unauthenticated where the connection is of a kind that the user may not have.

    The broker keeps the sessions of MQTT by the client's id, whoever the client is: an id belongs to the user whose
    name it is, or begins with, up to a character that no name has.
    """
    info = request.client_info
    if info.kind not in ("Client", "Leafnode"):
        raise Unauthenticated(f"connections of the kind {info.kind!r} do not log in as users")
    if info.type == "mqtt" and info.mqtt_id != user:
        name, rest = info.mqtt_id[: len(user)], info.mqtt_id[len(user) :]
        if name != user or USER_PATTERN.fullmatch(rest[:1]):
            raise Unauthenticated("an MQTT client's id begins with the user's name and a ':'")
