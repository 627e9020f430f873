"""What a text can ask for about users and their rights: one frozen value for each statement."""

from __future__ import annotations

from typing import Literal as Word

import msgspec

from kalam.sql.text.statements import Literal, OnAccess, Parameter, TableRef


class CreateUser(OnAccess, frozen=True, kw_only=True):
    """``valid_until`` is a time as the text has it."""

    name: str
    if_not_exists: bool
    password: Literal | Parameter | None = None
    admin: bool = False
    valid_until: str | None = None


class AlterUser(OnAccess, frozen=True, kw_only=True):
    """One change: a password, a time as the text has it (``infinity`` for none), or a word."""

    name: str
    password: Literal | Parameter | None = None
    valid_until: str | None = None
    word: Word["ADMIN", "NOADMIN", "LOCK", "UNLOCK"] | None = None


class DropUser(OnAccess, frozen=True):
    name: str
    if_exists: bool
    cascade: bool


class CreateRole(OnAccess, frozen=True):
    name: str
    if_not_exists: bool


class DropRole(OnAccess, frozen=True):
    name: str
    if_exists: bool


class GrantRole(OnAccess, frozen=True):
    role: str
    members: tuple[str, ...]


class RevokeRole(OnAccess, frozen=True):
    role: str
    members: tuple[str, ...]


class GrantPrivileges(OnAccess, frozen=True):
    """``on`` is a table, or the name of a namespace."""

    privileges: tuple[str, ...]
    on: TableRef | str
    grantees: tuple[str, ...]


class RevokePrivileges(OnAccess, frozen=True):
    """``on`` is a table, or the name of a namespace."""

    privileges: tuple[str, ...]
    on: TableRef | str
    grantees: tuple[str, ...]


class CreateToken(OnAccess, frozen=True):
    """``user`` is None for whoever asks; ``expires_s`` None for a token that does not end by itself."""

    name: str
    user: str | None
    expires_s: int | None


class DropToken(OnAccess, frozen=True):
    """``user`` is None where the name alone says which."""

    name: str
    user: str | None


class SetOwner(OnAccess, frozen=True):
    ref: TableRef
    owner: str


class PolicyExpression(msgspec.Struct, frozen=True):
    """An expression as it is written between its brackets, and where in the request it begins."""

    text: str
    line: int
    column: int


class CreatePolicy(OnAccess, frozen=True, kw_only=True):
    """``command`` is one word, or ALL; ``using`` is None for INSERT, ``check`` where ``using`` stands for it."""

    name: str
    ref: TableRef
    command: str
    grantees: tuple[str, ...]
    using: PolicyExpression | None
    check: PolicyExpression | None


class DropPolicy(OnAccess, frozen=True):
    name: str
    ref: TableRef
    if_exists: bool


class EnableRowLevelSecurity(OnAccess, frozen=True):
    """``cascade`` takes along what shows the table's rows without asking its policies."""

    ref: TableRef
    cascade: bool


class DisableRowLevelSecurity(OnAccess, frozen=True):
    ref: TableRef


class ShowPolicies(OnAccess, frozen=True):
    on: TableRef | None = None


class ShowUsers(OnAccess, frozen=True):
    pass


class ShowRoles(OnAccess, frozen=True):
    pass


class ShowGrants(OnAccess, frozen=True):
    """Of a user or role, on a table or a namespace, or all."""

    grantee: str | None = None
    on: TableRef | str | None = None


class ShowTokens(OnAccess, frozen=True):
    pass


class ShowSessions(OnAccess, frozen=True):
    pass


class KillSession(OnAccess, frozen=True):
    session_id: str


AccessStatement = (
    CreateUser
    | AlterUser
    | DropUser
    | CreateRole
    | DropRole
    | GrantRole
    | RevokeRole
    | GrantPrivileges
    | RevokePrivileges
    | CreateToken
    | DropToken
    | SetOwner
    | CreatePolicy
    | DropPolicy
    | EnableRowLevelSecurity
    | DisableRowLevelSecurity
    | ShowPolicies
    | ShowUsers
    | ShowRoles
    | ShowGrants
    | ShowTokens
    | ShowSessions
    | KillSession
)
