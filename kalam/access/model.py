"""Users, roles, privileges, grants, tokens and policies, as frozen values."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Final

import msgspec

from kalam.schema import FIRST_OWNER

ADMIN: Final = FIRST_OWNER
"""The first administrator, who also owns what was made without authentication."""
PUBLIC: Final = "public"
"""Everybody, as a grantee; no user or role is called so."""


class Privilege(enum.StrEnum):
    """What can be granted; CREATE on a namespace only, JETSTREAM on a STREAM table only."""

    SELECT = "SELECT"
    INSERT = "INSERT"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    CREATE = "CREATE"
    JETSTREAM = "JETSTREAM"


ALL_PRIVILEGES: Final = frozenset((Privilege.SELECT, Privilege.INSERT, Privilege.UPDATE, Privilege.DELETE))
"""What ALL means, and what an owner has."""


class User(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who can log in: by password where ``password_hash`` (argon2's encoded form) is set, and by tokens.

    ``password_us`` is when the password was set last, in microseconds since 1970: what logged in before has ended.
    """

    name: str
    admin: bool = False
    locked: bool = False
    valid_until: datetime | None = None
    password_hash: str | None = None
    password_us: int = 0
    created_at: datetime

    def may_log_in(self, now: datetime) -> bool:
        """Whether the account is open at this moment."""
        return not self.locked and (self.valid_until is None or now < self.valid_until)


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """A name that holds grants for its members, who are users and roles."""

    name: str
    created_at: datetime


class Grant(msgspec.Struct, frozen=True, order=True):
    """A privilege on a table, or with ``table_id`` 0 on a namespace and all that is in it."""

    privilege: Privilege
    table_id: int = 0
    namespace: str = ""


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A secret that logs its user in without a password; ``hash`` is its SHA-256."""

    id: str
    name: str
    user: str
    hash: bytes
    created_at: datetime
    expires_at: datetime | None = None


class Command(enum.StrEnum):
    """What a policy is for."""

    SELECT = "SELECT"
    INSERT = "INSERT"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    ALL = "ALL"


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows of a table the grantees may see (``using``) and write (``check``), as expressions over its columns.

    ``check`` is None where ``using`` stands for it, ``using`` is None for INSERT, which reads nothing.
    """

    table_id: int
    name: str
    command: Command = Command.ALL
    grantees: tuple[str, ...] = (PUBLIC,)
    using: str | None = None
    check: str | None = None

    def is_for(self, command: Command) -> bool:
        """Whether the policy says something of this command."""
        return self.command in (command, Command.ALL)


class Narrowed(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody may do less than before: what they have open has to end.

    ``users`` and ``tables`` (ids) say of whom and on what, None for all. ``logins`` says what of these users ends as a
    whole: nothing, what logged in by password, by one token or session (their id), or all. ``policies`` says that
    others of the rows may be seen now: what reads the ``tables``, or where none is named those whose rows policies
    decide over, ends though the right stays. ``heard`` is unset where nothing that the broker lets through is less.
    """

    users: frozenset[str] | None
    tables: frozenset[int] | None = None
    logins: str = "none"
    policies: bool = False
    heard: bool = True
    reason: str = "permission"


class Ends(enum.StrEnum):
    """The words of ``Narrowed.logins`` that are no id."""

    NONE = "none"
    PASSWORD = "password"  # noqa: S105 - the word
    ALL = "all"
