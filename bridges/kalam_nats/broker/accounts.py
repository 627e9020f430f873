"""The accounts of a broker: one for everybody, or KALAM behind logins that Kalam itself answers.

Where logins are asked for, KALAM has the data and Kalam's own connection; AUTH has the connection that answers logins
and may end others; both prove themselves with a key, which is the only login that the broker knows by itself. All else
it asks on AUTH (auth callout, ADR-26). ``allowed_accounts`` keeps the logins of other accounts, where there are some,
away from Kalam. Only the public halves of keys stand in a configuration.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

KALAM: Final = "KALAM"
AUTH: Final = "AUTH"
LOGIN_TIME_S: Final = 10
"""How long the broker waits for the answer to a login; with fewer, 500 clients that come together are not all in."""

_SUBSCRIBERS: Final = "$SYS.DEBUG.SUBSCRIBERS"
_KICK: Final = "$SYS.REQ.SERVER.*.KICK"
_ANYBODY: Final = "kalam"


class PublicKeys(msgspec.Struct, frozen=True):
    """The public keys that a broker's configuration names.

    ``issuer`` (``A…``) signs who may log in, ``kalam`` and ``callout`` (``U…``) are Kalam's own connections, ``seal``
    (``X…``) is the key for what is said about logins.
    """

    issuer: str
    kalam: str
    callout: str
    seal: str


def open_accounts() -> dict[str, Any]:
    """What a configuration says where every client is served without credentials."""
    users = [{"user": _ANYBODY, "password": _ANYBODY}]
    accounts = {KALAM: _kalam(users), "$SYS": {"exports": [{"service": _SUBSCRIBERS}]}}
    return {"accounts": accounts, "no_auth_user": _ANYBODY}


def guarded_accounts(keys: PublicKeys) -> dict[str, Any]:
    """What a configuration says where Kalam is asked at every login."""
    auth = {"users": [{"nkey": keys.callout}], "imports": [_from_system(_KICK)]}
    system = {"exports": [{"service": _SUBSCRIBERS}, {"service": _KICK, "accounts": [AUTH]}]}
    callout = {
        "issuer": keys.issuer,
        "account": AUTH,
        "xkey": keys.seal,
        "auth_users": [keys.kalam, keys.callout],
        "allowed_accounts": [KALAM],
    }
    return {
        "accounts": {KALAM: _kalam([{"nkey": keys.kalam}]), AUTH: auth, "$SYS": system},
        "authorization": {"timeout": LOGIN_TIME_S, "auth_callout": callout},
    }


def _kalam(users: list[dict[str, str]]) -> dict[str, Any]:
    return {"jetstream": "enabled", "users": users, "imports": [_from_system(_SUBSCRIBERS)]}


def _from_system(subject: str) -> dict[str, Any]:
    return {"service": {"account": "$SYS", "subject": subject}}
