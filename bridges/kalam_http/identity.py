"""Who asks over HTTP: the one place that makes an ``Identity`` of a request, and its ``Caller``.

With authentication off everybody is who they say they are. With it on a request proves it, by a password, a token or a
session, and asks as itself; an administrator may ask for others.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.types import Scope

from kalam.access.login import Login
from kalam.access.logins import Logins
from kalam.access.opened import Access
from kalam.engine import DEFAULT_USER, Caller, Engine, Identity, Session
from kalam.errors import NotFound, PermissionDenied, Unauthenticated
from kalam_http.credentials import Secret, Told, read_told
from kalam_http.departures import departure_of

HTTP_DOOR: Final = "http"
USER_HEADER: Final = "X-Kalam-User"
IDENTITY: Final = "identity"
"""The member of a request's ``scope["state"]`` that says who asks."""
USER_PARAMETER: Final[dict[str, Any]] = {
    "name": USER_HEADER,
    "in": "header",
    "required": False,
    "description": "the user as whom the statements run: while authentication is off anybody, "
    f"and `{DEFAULT_USER}` where it is left out; with it on one's own, for an administrator also another",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$", "default": DEFAULT_USER},
}


class Visit(msgspec.Struct, frozen=True):
    """Somebody who has come in. ``login`` is None while authentication is off."""

    identity: Identity
    login: Login | None = None


class Entrance:
    """Finds out who asks; without ``access``, or with one whose rights are off, nobody is asked.

    ``server`` is the server's id.
    """

    def __init__(self, access: Access | None, server: str) -> None:
        self.access = access if access is not None and access.rights.on else None
        self.server = server

    @property
    def on(self) -> bool:
        """Whether a request has to prove who asks."""
        return self.access is not None

    async def visit(self, scope: Scope) -> Visit:
        """Who sends a request.

        Raises Unauthenticated and TooBusy, with ``retry_after``; PermissionDenied, NotFound and InvalidName for the
        user whom it names.
        """
        if self.access is None:
            return Visit(Identity(named_user(scope) or DEFAULT_USER))
        told = read_told(scope, self.server)
        address = address_of(scope)
        login = await self._login(self.access.logins, told, address)
        if told.acting_for in (None, login.user):
            return Visit(_identity(login, login.user, address), login)
        return Visit(_identity(login, self._other(self.access, login, told.acting_for or "", address), address), login)

    async def visit_of_told(self, scope: Scope) -> Visit | None:
        """The same on a route that is open to strangers; None for a stranger, who tells nothing."""
        if self.access is not None:
            told = read_told(scope, self.server)
            if told.secret is None and (told.session is None or self.access.logins.session(told.session) is None):
                return None
        return await self.visit(scope)

    def administers(self, identity: Identity) -> bool:
        """Whether who asks is an administrator."""
        return self.access is None or self.access.rights.administers(identity.rights_of)

    def stands(self, visit: Visit) -> bool:
        """Whether somebody may still be here."""
        if self.access is None or visit.login is None:
            return True
        if not self.access.logins.stands(visit.login) or visit.identity.user not in self.access.book.users:
            return False
        return visit.identity.actor is None or self.access.rights.administers(visit.identity.actor)

    async def _login(self, logins: Logins, told: Told, address: str) -> Login:
        if told.secret is not None:
            return await logged_in(logins, told.secret, address)
        if told.session is not None:
            login = logins.session(told.session)
            if login is not None:
                return login
            raise Unauthenticated("the session has ended", hint="log in again")
        raise Unauthenticated("say who you are: Authorization: Basic or Bearer, or log in by /v1/login")

    def _other(self, access: Access, login: Login, other: str, address: str) -> str:
        """Another user for whom an administrator asks."""
        if access.rights.administers(login.user):
            if other in access.book.users:
                return other
            raise NotFound(f"there is no user {other[:64]!r}", hint="SHOW USERS lists them")
        denied = PermissionDenied(
            f"{USER_HEADER} has to be your own user, {login.user}: only administrators act for others"
        )
        access.audit.note(login.user, "act for another", door=HTTP_DOOR, address=address, outcome=denied.code)
        raise denied


async def logged_in(logins: Logins, secret: Secret, address: str) -> Login:
    """Who has a secret; raises Unauthenticated and TooBusy. No thread and no pause where it was verified just now."""
    known = logins.known_nowait(secret.user, secret.text, address)
    return known or await logins.log_in(secret.user, secret.text, door=HTTP_DOOR, address=address)


def address_of(scope: Scope) -> str:
    """Where a request comes from."""
    return str(scope["client"][0]) if scope.get("client") else ""


def named_user(scope: Scope) -> str | None:
    """The user that a request names; an empty header names nobody, as one that is not there."""
    for name, value in scope["headers"]:
        if name == b"x-kalam-user" and value:
            return str(value.decode("latin-1"))
    return None


def identity_of(request: Request) -> Identity:
    """Who sends a request that a guard has let in."""
    visit: Visit = request.scope["state"][IDENTITY]
    return visit.identity


def caller_of(
    engine: Engine, request: Request, namespace: str | None = None, *, bigint_as_text: bool = False
) -> Caller:
    """A request at this door, which is cancelled when its client leaves."""
    session = Session(identity_of(request), namespace, bigint_as_text=bigint_as_text)
    return engine.caller(session, HTTP_DOOR, departure=departure_of(request.receive))


def _identity(login: Login, user: str, address: str) -> Identity:
    actor = None if user == login.user else login.user
    return Identity(
        user=user, actor=actor, how=login.how, credential=login.credential, ends_at=login.ends_at, address=address
    )
