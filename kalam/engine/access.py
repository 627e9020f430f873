"""Statements on users and their rights, each to the part that carries it out; what the audit tells of statements."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import assert_never, cast

from msgspec.structs import replace

from kalam.access.audit import Audit
from kalam.access.entry import Entry
from kalam.access.identity import Identity
from kalam.engine.grants import Grants
from kalam.engine.kinds import kind_of
from kalam.engine.policies import PolicyStatements
from kalam.engine.session import Request, Session
from kalam.engine.users import Users
from kalam.errors import PermissionDenied
from kalam.names import TableName
from kalam.query.results import Result
from kalam.sql.access import statements as access
from kalam.sql.text.statements import (
    AlterTable,
    CreateNamespace,
    CreateSelect,
    CreateTable,
    DropNamespace,
    DropSelect,
    DropTable,
    KillJob,
    KillLiveQuery,
    KillQuery,
    OnAccess,
    Statement,
    TableRef,
    TruncateTable,
)
from kalam.sql.text.view_statements import AlterView, CreateView, DropView, RefreshView

_DEFINING = (
    CreateNamespace,
    DropNamespace,
    CreateTable,
    DropTable,
    TruncateTable,
    AlterTable,
    CreateSelect,
    DropSelect,
)
_AUDITED = (*_DEFINING, CreateView, DropView, AlterView, RefreshView, KillJob, KillQuery, KillLiveQuery)
_OF_POLICIES = (access.CreatePolicy, access.DropPolicy)
_SHOWN = (
    access.ShowUsers,
    access.ShowRoles,
    access.ShowGrants,
    access.ShowPolicies,
    access.ShowTokens,
    access.ShowSessions,
)


class AccessStatements:
    """Carries out what is asked about users and their rights."""

    def __init__(self, users: Users, grants: Grants, policies: PolicyStatements) -> None:
        self._users, self._grants, self._policies = users, grants, policies

    async def execute(self, asked: OnAccess, request: Request) -> Result:  # noqa: C901 - one case a statement
        """Carry out a statement, but for SHOW SESSIONS, which is a query."""
        users, grants, policies = self._users, self._grants, self._policies
        match statement := cast("access.AccessStatement", asked):
            case access.CreateUser():
                return await users.create_user(statement, request)
            case access.AlterUser():
                return await users.alter_user(statement, request)
            case access.DropUser():
                return await users.drop_user(statement, request)
            case access.CreateRole():
                return await users.create_role(statement, request)
            case access.DropRole():
                return await users.drop_role(statement, request)
            case access.GrantRole():
                return await users.grant_role(statement, request)
            case access.RevokeRole():
                return await users.revoke_role(statement, request)
            case access.GrantPrivileges():
                return await grants.grant(statement, request)
            case access.RevokePrivileges():
                return await grants.revoke(statement, request)
            case access.CreateToken():
                return await users.create_token(statement, request)
            case access.DropToken():
                return await users.drop_token(statement, request)
            case access.SetOwner():
                return await grants.set_owner(statement, request)
            case access.CreatePolicy():
                return await policies.create(statement, request)
            case access.DropPolicy():
                return await policies.drop(statement, request)
            case access.EnableRowLevelSecurity():
                return await policies.enable(statement, request)
            case access.DisableRowLevelSecurity():
                return await policies.disable(statement, request)
            case access.ShowPolicies():
                return policies.show(statement, request)
            case access.ShowUsers():
                return users.show_users(request)
            case access.ShowRoles():
                return users.show_roles(request)
            case access.ShowGrants():
                return grants.show_grants(statement, request)
            case access.ShowTokens():
                return users.show_tokens(request)
            case access.ShowSessions():
                raise AssertionError("SHOW SESSIONS is a query")
            case access.KillSession():
                return await users.kill_session(statement, request)
            case other:
                assert_never(other)


class Audited:
    """Has the audit tell of statements that change what others may do or have; nothing while authentication is off."""

    def __init__(self, audit: Audit, *, on: bool) -> None:
        self._audit, self._on = audit, on

    def telling(self, statement: Statement, session: Session) -> AbstractContextManager[None]:
        """Tell of the statement that the block carries out, in its transaction, or of what keeps it from it."""
        if not self._on:
            return nullcontext()
        if isinstance(statement, _AUDITED) or (isinstance(statement, OnAccess) and not isinstance(statement, _SHOWN)):
            return self._audit.telling(_entry(statement, session))
        return self._refusals(statement, session)

    def refusing(self, statement: Statement, session: Session) -> AbstractContextManager[None]:
        """Tell of what keeps the block, which carries nothing out, from the statement."""
        return self._refusals(statement, session) if self._on else nullcontext()

    def kept_from_inserting(self, name: TableName, identity: Identity, door: str, error: PermissionDenied) -> None:
        """Tell of what keeps somebody from sending rows into a table."""
        if self._on:
            self._audit.add(replace(_entry_of(identity, door, "INSERT", str(name)), outcome=error.code))

    def reads_all(self, name: TableName, session: Session) -> None:
        """Tell of somebody who is given the rows of all users of a USER table."""
        if self._on:
            self._audit.add(_entry_of(session.identity, session.door, "READ ALL USERS", str(name)))

    @contextmanager
    def _refusals(self, statement: Statement, session: Session) -> Iterator[None]:
        try:
            yield
        except PermissionDenied as exc:
            self._audit.add(replace(_entry(statement, session), outcome=exc.code))
            raise


def _entry(statement: Statement, session: Session) -> Entry:
    return _entry_of(session.identity, session.door, kind_of(statement), _object(statement, session))


def _entry_of(identity: Identity, door: str, action: str, about: str) -> Entry:
    return Entry(
        at_us=0,
        user=identity.rights_of,
        acting_for=None if identity.actor is None else identity.user,
        door=door,
        address=identity.address,
        action=action,
        object=about,
    )


def _object(statement: Statement, session: Session) -> str:
    """What a statement is about: names of what is there or is made by it, and never a value."""
    ref = getattr(statement, "ref", None) or getattr(statement, "on", None)
    if isinstance(ref, TableRef):
        table = f"{ref.namespace or session.namespace or ''}.{ref.table}"
        return f"{statement.name} on {table}" if isinstance(statement, _OF_POLICIES) else table
    if isinstance(ref, str):
        return f"namespace {ref}"
    for name in ("name", "role", "job_id", "query_id", "session_id"):
        value = getattr(statement, name, None)
        if isinstance(value, str):
            return value[:100]
    return ""
