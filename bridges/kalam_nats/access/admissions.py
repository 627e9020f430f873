"""The connections that were let in: whose they are, by which credential, and what they may hear.

The broker can list its connections and end one, and says of each no more than the user's name; what a connection was
let in with is remembered here. What is not known here (let in before this process began) is taken for one that could
hear everything.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import msgspec

from kalam.access.login import Login
from kalam_nats.subjects import subjects_overlap

REMEMBERED_MAX: Final = 200_000


class Admission(msgspec.Struct, frozen=True):
    """A connection that was let in, and the subjects of which something can come to it."""

    login: Login
    hears: tuple[str, ...]


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """Which connections are to end: those for which everything that is given is true.

    Args:
        users: of one of these users; None for all.
        subjects: to which something under one of these patterns can come; None for all.
        literally: only where their permissions name these subjects, and not a wildcard over them.
        logins: that came by a ``password``, or by the token of this id; None for all.
    """

    users: frozenset[str] | None = None
    subjects: tuple[str, ...] | None = None
    literally: bool = False
    logins: str | None = None

    def concerns(self, user: str, admission: Admission | None) -> bool:
        """Whether a connection is to end; ``user`` is what the broker says, ``admission`` what is known of it."""
        if self.users is not None and user not in self.users:
            return False
        if admission is None:
            return True
        if self.logins is not None and self.logins not in (admission.login.how, admission.login.credential):
            return False
        matches = _names if self.literally else subjects_overlap
        return self.subjects is None or any(
            matches(heard, subject) for heard in admission.hears for subject in self.subjects
        )


def _names(heard: str, subject: str) -> bool:
    """Whether a pattern names a subject up to its own wildcards."""
    head = subject.removesuffix(".>")
    return heard == head or heard.startswith(f"{head}.")


class Admissions:
    """Admissions by server and the broker's number of the connection.

    A request over NATS tells its user and not its connection, so that it is taken for one by the ``weakest`` login that
    the user has come with.
    """

    def __init__(self) -> None:
        self.servers: set[str] = set()
        """The servers that have let somebody in: without the answer of each a list of connections is not whole."""
        self._known: dict[tuple[str, int], Admission] = {}
        self._weakest: dict[str, Login] = {}

    def note(self, server: str, connection: int, admission: Admission) -> None:
        """Remember one; the oldest are forgotten beyond a bound."""
        self._known.pop((server, connection), None)
        self._known[server, connection] = admission
        self.servers.add(server)
        login = admission.login
        self._weakest[login.user] = weaker(self._weakest.get(login.user), login, datetime.now(UTC))
        while len(self._known) > REMEMBERED_MAX:
            del self._known[next(iter(self._known))]

    def of(self, server: str, connection: int) -> Admission | None:
        """What is known of a connection."""
        return self._known.get((server, connection))

    def weakest(self, user: str) -> Login:
        """The login of a user that allows the least; a token's where none is known."""
        return self._weakest.get(user) or Login(user, "token")


def weaker(one: Login | None, other: Login, now: datetime) -> Login:
    """The one that allows less: a token less than a password, and of tokens that which ends first."""
    if one is None or (one.ends_at is not None and one.ends_at <= now):
        return other
    if one.how != other.how:
        return one if one.how == "token" else other
    ends = [login for login in (one, other) if login.ends_at is not None]
    return min(ends, key=lambda login: login.ends_at or now, default=other)
