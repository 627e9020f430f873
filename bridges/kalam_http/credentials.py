"""What a request brings to prove who asks: ``Authorization``, or the cookie of a session.

A browser sends a cookie with every request to this host, whichever page made it do so. So the cookie counts only where
the browser says that a page of this server asks, or its user: by ``Sec-Fetch-Site``, and where an old browser sends no
such header by its Origin.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

import msgspec
from starlette.types import Scope

from kalam.errors import Unauthenticated

COOKIE: Final = "kalam_session"
OWN_SITES: Final = frozenset((b"same-origin", b"none"))


class Secret(msgspec.Struct, frozen=True, gc=False):
    """A password or token; ``user`` is None where only a token is sent."""

    user: str | None
    text: str


class Told(msgspec.Struct, frozen=True, gc=False):
    """What a request tells of who asks: a secret or a session's, and the user for whom it asks."""

    secret: Secret | None = None
    session: str | None = None
    acting_for: str | None = None


def cookie_name(server: str, scheme: str) -> str:
    """The name of a server's cookie: hosts share cookies among their ports, and HTTPS is told more than HTTP."""
    name = f"{COOKIE}_{server[:8]}" if server else COOKIE
    return f"__Host-{name}" if scheme == "https" else name


def read_told(scope: Scope, server: str) -> Told:
    """What a request tells; raises Unauthenticated where ``Authorization`` has no form that is known."""
    authorizations: list[bytes] = []
    cookies: list[bytes] = []
    acting_for = site = origin = host = b""
    for name, value in scope["headers"]:
        match name:
            case b"authorization":
                authorizations.append(value)
            case b"cookie":
                cookies.append(value)
            case b"x-kalam-user":
                acting_for = acting_for or value
            case b"sec-fetch-site":
                site = value
            case b"origin":
                origin = value
            case b"host":
                host = value
    other = acting_for.decode("latin-1") or None
    if authorizations:
        return Told(_read_authorization(authorizations), None, other)
    if cookies and _is_own(site, origin, host, scope["scheme"]):
        return Told(None, _read_cookie(cookies, cookie_name(server, scope["scheme"])), other)
    return Told(None, None, other)


def _read_authorization(values: list[bytes]) -> Secret:
    scheme, _, rest = values[0].strip().partition(b" ")
    if len(values) == 1:
        match scheme.lower():
            case b"basic":
                return _read_basic(rest.strip())
            case b"bearer" if token := rest.strip().decode("latin-1"):
                return Secret(None, token)
    raise Unauthenticated("Authorization has to be one of Basic, with a user and password, and Bearer, with a token")


def _read_basic(encoded: bytes) -> Secret:
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
    if not colon:
        raise Unauthenticated("Authorization: Basic takes user:password in base64, of UTF-8")
    return Secret(user, password)


def _is_own(site: bytes, origin: bytes, host: bytes, scheme: str) -> bool:
    if site:
        return site in OWN_SITES
    return not origin or origin.lower() == scheme.encode() + b"://" + host.lower()


def _read_cookie(headers: list[bytes], name: str) -> str | None:
    """The value of a cookie; None where there are two, of which one was put there by somebody else."""
    pairs = (part.strip().partition("=") for header in headers for part in header.decode("latin-1").split(";"))
    values = [value for found, _, value in pairs if found == name]
    return values[0] if len(values) == 1 else None
