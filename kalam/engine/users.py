"""Statements on users, roles, tokens and sessions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from msgspec.structs import replace

from kalam.access.identity import Identity
from kalam.access.model import Ends, Narrowed, Role, Token, User
from kalam.access.opened import Access
from kalam.access.passwords import check_password
from kalam.access.scram import Verifier
from kalam.access.secrets import make_secret
from kalam.engine.gate import Gate
from kalam.engine.session import Request
from kalam.engine.user_values import INFINITY, moment_of, secret_of, us_of
from kalam.errors import (
    AlreadyExists,
    InvalidOption,
    NotFound,
    PermissionDenied,
    TableInUse,
    Unsupported,
)
from kalam.names import listed
from kalam.query.results import Result, list_result
from kalam.rows.types import TIMESTAMP_ARROW
from kalam.schema import Table
from kalam.sql.access.statements import (
    AlterUser,
    CreateRole,
    CreateToken,
    CreateUser,
    DropRole,
    DropToken,
    DropUser,
    GrantRole,
    KillSession,
    RevokeRole,
)
from kalam.sql.text.statements import Literal, Parameter
from kalam.storage.log.catalogue import Catalogue

TEXT, TRUTH = pa.string(), pa.bool_()
TOKEN_FIELDS = (("token", TEXT), ("id", TEXT), ("name", TEXT), ("user", TEXT), ("expires_at", TIMESTAMP_ARROW))
USERS_FIELDS = (
    *(("user", TEXT), ("admin", TRUTH), ("locked", TRUTH), ("valid_until", TIMESTAMP_ARROW)),
    *(("has_password", TRUTH), ("roles", TEXT), ("created_at", TIMESTAMP_ARROW)),
)
ROLES_FIELDS = (("role", TEXT), ("members", TEXT), ("created_at", TIMESTAMP_ARROW))
_LASTS = (("created_at", TIMESTAMP_ARROW), ("expires_at", TIMESTAMP_ARROW))
TOKENS_FIELDS = (("id", TEXT), ("name", TEXT), ("user", TEXT), *_LASTS)
NO_TABLES: frozenset[int] = frozenset()
_ADMINISTRATORS = "users and roles are made, changed and dropped by administrators"

RemoveRows = Callable[[Table, str], Awaitable[None]]
"""Removes all rows of a user from a USER table."""


class Users:
    """Carries them out. Whoever may do less by one is cut off before it is answered."""

    def __init__(self, access: Access, gate: Gate, catalogue: Catalogue, remove_rows: RemoveRows) -> None:
        self._book, self._passwords, self._logins = access.book, access.passwords, access.logins
        self._gate, self._catalogue, self._remove_rows = gate, catalogue, remove_rows

    # Users.

    async def create_user(self, statement: CreateUser, request: Request) -> Result:
        """CREATE USER."""
        self._gate.administrator(request.session.identity, _ADMINISTRATORS)
        until = moment_of(statement.valid_until)
        encoded = await self._hashed(statement.password, request)
        now = datetime.now(UTC)
        async with self._book.changing:
            if statement.if_not_exists and statement.name in self._book.users:
                return Result(message=f"skipped: user {statement.name} exists already")
            await self._check_free(statement.name)
            user = User(
                name=statement.name,
                admin=statement.admin,
                valid_until=until,
                password_hash=encoded,
                password_us=us_of(now),
                created_at=now,
            )
            await self._book.put_user(user, await self._verifier(statement.password, statement.name, request))
        return Result(message=f"user {statement.name} created")

    async def alter_user(self, statement: AlterUser, request: Request) -> Result:
        """ALTER USER: a password by the user too, everything else by administrators."""
        identity = request.session.identity
        if statement.password is not None and statement.name == identity.rights_of and identity.actor is None:
            self._check_own_password(identity)
        else:
            self._gate.administrator(identity, "users change their own password; the rest is for administrators")
        encoded = await self._hashed(statement.password, request)
        until = moment_of(statement.valid_until)
        async with self._book.changing:
            user = self._user(statement.name)
            changed, ends, done = _altered(user, statement, encoded, until)
            self._check_an_administrator_stays(user, changed)
            await self._book.put_user(changed, await self._verifier(statement.password, user.name, request))
        less = user.admin and not changed.admin
        if (
            ends is not Ends.NONE or less or user.valid_until != changed.valid_until
        ):  # the broker learns of it at a login
            tables = NO_TABLES if ends is not Ends.NONE else None
            await self._book.narrowed(Narrowed(users=frozenset((user.name,)), tables=tables, logins=ends))
        return Result(message=f"user {user.name}: {done}")

    def _check_own_password(self, identity: Identity) -> None:
        if identity.how == "token":
            raise PermissionDenied("a password is not changed with a token", hint="log in with the password")

    async def drop_user(self, statement: DropUser, request: Request) -> Result:
        """DROP USER, with CASCADE also her rows in USER tables; those of a user who was dropped before, too."""
        self._gate.administrator(request.session.identity, _ADMINISTRATORS)
        name = statement.name
        async with self._book.changing:
            user = self._book.users.get(name)
            left = user is None and statement.cascade and await self._book.rows_left(name)
            if user is None and not left:
                if statement.if_exists:
                    return Result(message=f"skipped: there is no user {name}")
                raise self._no("user", name)
            if user is not None:
                self._check_owns_nothing(name)
                self._check_an_administrator_stays(user, None)
                await self._book.drop(name)
        await self._book.narrowed(Narrowed(users=frozenset((name,)), tables=NO_TABLES, logins=Ends.ALL))
        tables = await self._book.tables_with_rows(name) if statement.cascade else []
        for table_id in tables:
            if (table := self._catalogue.by_id.get(table_id)) is not None:
                await self._remove_rows(table, name)
        if statement.cascade:
            await self._book.release(name)
        removed = f", and her rows in {len(tables)} tables" if tables else ""
        return Result(message=f"user {name} dropped{removed}")

    def _user(self, name: str) -> User:
        user = self._book.users.get(name)
        if user is None:
            raise self._no("user", name)
        return user

    def _no(self, what: str, name: str) -> NotFound:
        return NotFound(f"there is no {what} {name}", hint=f"SHOW {what.upper()}S lists them")

    async def _check_free(self, name: str) -> None:
        taken = self._book.taken(name)
        if taken is not None:
            raise AlreadyExists(f"a {taken} {name} exists already")
        if await self._book.rows_left(name):
            raise AlreadyExists(
                f"USER tables hold rows of a user {name} who was dropped", hint=f"DROP USER {name} CASCADE removes them"
            )

    def _check_owns_nothing(self, name: str) -> None:
        owned = [str(table.name) for table in self._catalogue.tables.values() if table.owned_by == name]
        if owned:
            raise TableInUse(f"{name} owns {listed(sorted(owned))}", hint="ALTER TABLE t OWNER TO somebody else")

    def _check_an_administrator_stays(self, user: User, changed: User | None, without: Token | None = None) -> None:
        if not user.admin:
            return
        others = [self._book.users[name] for name in self._book.users if name != user.name]
        if not any(self._lasts(each, without) for each in [*others, *([changed] if changed else [])]):
            raise PermissionDenied(
                f"{user.name} is the last administrator who can log in",
                hint="make another one first, by CREATE USER … ADMIN",
            )

    def _lasts(self, user: User, without: Token | None) -> bool:
        """Whether somebody is an administrator who can log in, and for how long is not bounded."""
        if not user.admin or user.locked or user.valid_until is not None:
            return False
        tokens = self._book.tokens.values()
        return user.password_hash is not None or any(
            token.user == user.name and token.expires_at is None and token != without for token in tokens
        )

    async def _hashed(self, password: Literal | Parameter | None, request: Request) -> str | None:
        if password is None:
            return None
        return await self._passwords.hash(check_password(secret_of(password, request)))

    async def _verifier(self, password: Literal | Parameter | None, user: str, request: Request) -> Verifier | None:
        if password is None:
            return None
        return await self._passwords.verifier(secret_of(password, request), self._book.salt_of(user))

    # Roles.

    async def create_role(self, statement: CreateRole, request: Request) -> Result:
        """CREATE ROLE."""
        self._gate.administrator(request.session.identity, _ADMINISTRATORS)
        async with self._book.changing:
            if statement.if_not_exists and statement.name in self._book.roles:
                return Result(message=f"skipped: role {statement.name} exists already")
            await self._check_free(statement.name)
            await self._book.put_role(Role(name=statement.name, created_at=datetime.now(UTC)))
        return Result(message=f"role {statement.name} created")

    async def drop_role(self, statement: DropRole, request: Request) -> Result:
        """DROP ROLE."""
        self._gate.administrator(request.session.identity, _ADMINISTRATORS)
        async with self._book.changing:
            if statement.name not in self._book.roles:
                if statement.if_exists:
                    return Result(message=f"skipped: there is no role {statement.name}")
                raise self._no("role", statement.name)
            self._check_owns_nothing(statement.name)
            members = self._book.members_of(statement.name)
            await self._book.drop(statement.name)
        await self._book.narrowed(Narrowed(users=members, policies=True))
        return Result(message=f"role {statement.name} dropped")

    async def grant_role(self, statement: GrantRole, request: Request) -> Result:
        """GRANT role TO somebody; live queries under policies that come to something else by it end."""
        self._gate.administrator(request.session.identity, "roles are given by administrators")
        async with self._book.changing:
            self._check_role_and_members(statement.role, statement.members)
            for member in statement.members:
                if member == statement.role or statement.role in self._book.members_under(member):
                    raise InvalidOption(f"{member} is in {statement.role} already, or would hold itself")
            await self._book.add_members(statement.role, statement.members)
            users = frozenset().union(*map(self._book.members_of, statement.members))
        await self._book.narrowed(Narrowed(users=users, heard=False))  # NOT array_has(CURRENT_ROLES(), …) hides more
        return Result(message=f"{statement.role} granted to {', '.join(statement.members)}")

    async def revoke_role(self, statement: RevokeRole, request: Request) -> Result:
        """REVOKE role FROM somebody."""
        self._gate.administrator(request.session.identity, "roles are taken by administrators")
        async with self._book.changing:
            self._check_role_and_members(statement.role, statement.members)
            users = frozenset().union(*map(self._book.members_of, statement.members))
            await self._book.remove_members(statement.role, statement.members)
        await self._book.narrowed(Narrowed(users=users, policies=True))
        return Result(message=f"{statement.role} revoked from {', '.join(statement.members)}")

    def _check_role_and_members(self, role: str, members: tuple[str, ...]) -> None:
        if role not in self._book.roles:
            raise self._no("role", role)
        for member in members:
            if self._book.taken(member) is None:
                raise NotFound(f"there is no user or role {member}")

    # Tokens and sessions.

    async def create_token(self, statement: CreateToken, request: Request) -> Result:
        """CREATE TOKEN: the secret is told once."""
        identity = request.session.identity
        user = statement.user or identity.rights_of
        if user != identity.rights_of:
            self._gate.administrator(identity, "a token for another user is made by administrators")
        now = datetime.now(UTC)
        expires = None if statement.expires_s is None else now + timedelta(seconds=statement.expires_s)
        if identity.how == "token" and identity.ends_at is not None:  # no longer than what it is made with
            expires = identity.ends_at if expires is None else min(expires, identity.ends_at)
        made = make_secret()
        async with self._book.changing:
            self._user(user)
            if any(token.name == statement.name for token in self._tokens_of(user)):
                raise AlreadyExists(f"{user} has a token {statement.name!r} already")
            token = Token(
                id=made.id, name=statement.name, user=user, hash=made.hash, created_at=now, expires_at=expires
            )
            await self._book.put_token(token, await self._passwords.verifier(made.text, self._book.salt_of(user)))
        return list_result(TOKEN_FIELDS, [(made.text, token.id, token.name, user, expires)])

    async def drop_token(self, statement: DropToken, request: Request) -> Result:
        """DROP TOKEN: what has logged in with it is cut off."""
        identity = request.session.identity
        if statement.user not in (None, identity.rights_of):
            self._gate.administrator(identity, "another user's token is dropped by administrators")
        async with self._book.changing:
            token = self._found_token(statement, identity)
            self._check_an_administrator_stays(self._user(token.user), self._user(token.user), token)
            await self._book.drop_token(token)
        ended = Narrowed(users=frozenset((token.user,)), tables=NO_TABLES, logins=token.id)
        await self._book.narrowed(ended)
        return Result(message=f"token {token.name!r} of {token.user} dropped")

    def _found_token(self, statement: DropToken, identity: Identity) -> Token:
        own = statement.user or identity.rights_of
        found = [token for token in self._tokens_of(own) if token.name == statement.name]
        if not found and statement.user is None and self._gate.administers(identity):
            found = [token for token in self._book.tokens.values() if token.name == statement.name]
        if len(found) > 1:
            users = ", ".join(sorted(token.user for token in found))
            raise InvalidOption(
                f"{users} have a token {statement.name!r} each", hint="say whose: DROP TOKEN 'name' FOR u"
            )
        if not found:
            raise NotFound(f"there is no token {statement.name!r}", hint="SHOW TOKENS lists them")
        return found[0]

    def _tokens_of(self, user: str) -> list[Token]:
        return [token for token in self._book.tokens.values() if token.user == user]

    async def kill_session(self, statement: KillSession, request: Request) -> Result:
        """KILL SESSION: one's own, or any by an administrator."""
        identity = request.session.identity
        found = next((each for each in self._logins.sessions() if each.id == statement.session_id), None)
        if found is None or not (found.user == identity.rights_of or self._gate.administers(identity)):
            raise NotFound("there is no such session", hint="SHOW SESSIONS lists them")
        await self._logins.end_session(found.id, door=request.session.door, address=identity.address)
        return Result(message=f"session {found.id} of {found.user} ended")

    # What there is.

    def show_users(self, request: Request) -> Result:
        """SHOW USERS: everybody for administrators, else oneself."""
        identity = request.session.identity
        users = sorted(self._book.users.values(), key=lambda user: user.name)
        rows = [
            (
                user.name,
                user.admin,
                user.locked,
                user.valid_until,
                user.password_hash is not None,
                ", ".join(sorted(self._book.roles_of(user.name))),
                user.created_at,
            )
            for user in users
            if user.name == identity.rights_of or self._gate.administers(identity)
        ]
        return list_result(USERS_FIELDS, rows)

    def show_roles(self, request: Request) -> Result:
        """SHOW ROLES: all for administrators, else one's own, whose members are not told."""
        identity = request.session.identity
        administers, own = self._gate.administers(identity), self._book.roles_of(identity.rights_of)
        rows = [
            (
                role.name,
                ", ".join(sorted(self._book.members.get(role.name, ()))) if administers else None,
                role.created_at,
            )
            for role in sorted(self._book.roles.values(), key=lambda role: role.name)
            if administers or role.name in own
        ]
        return list_result(ROLES_FIELDS, rows)

    def show_tokens(self, request: Request) -> Result:
        """SHOW TOKENS: all for administrators, else one's own; never a secret."""
        identity = request.session.identity
        rows = [
            (token.id, token.name, token.user, token.created_at, token.expires_at)
            for token in sorted(self._book.tokens.values(), key=lambda token: (token.user, token.name))
            if token.user == identity.rights_of or self._gate.administers(identity)
        ]
        return list_result(TOKENS_FIELDS, rows)


def _altered(user: User, statement: AlterUser, encoded: str | None, until: datetime | None) -> tuple[User, Ends, str]:
    """The user as changed, what logged in before and ends by it, and the change in words."""
    if encoded is not None:
        changed = replace(user, password_hash=encoded, password_us=us_of(datetime.now(UTC)))
        return changed, Ends.PASSWORD, "password changed"
    if statement.valid_until is not None:
        over = until is not None and until <= datetime.now(UTC)
        shown = INFINITY if until is None else until.isoformat()
        return replace(user, valid_until=until), Ends.ALL if over else Ends.NONE, f"valid until {shown}"
    match statement.word:
        case "ADMIN":
            return replace(user, admin=True), Ends.NONE, "is an administrator"
        case "NOADMIN":
            return replace(user, admin=False), Ends.NONE, "is no administrator"
        case "LOCK":
            return replace(user, locked=True), Ends.ALL, "locked"
        case "UNLOCK":
            return replace(user, locked=False), Ends.NONE, "unlocked"
        case None:
            raise Unsupported(f"nothing is said to be changed of {user.name}")
