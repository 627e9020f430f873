"""The book of users: who there is, who is whose member, what was granted, which policies hold.

As in the catalogue, what is in memory is what has been committed: it is changed by the loop's thread after the commit.
``generation`` counts the changes, so that whoever keeps what follows from the book knows when to look again.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterable

import structlog
from msgspec.structs import replace

from kalam.access.book_rows import (
    grant_values,
    policy_sql,
    read_policies,
    read_tokens,
    read_users,
    us_of,
    verifier_sql,
)
from kalam.access.model import Grant, Narrowed, Policy, Privilege, Role, Token, User
from kalam.access.scram import Verifier, new_salt
from kalam.storage.log.catalogue import Sql
from kalam.storage.log.database import Database
from kalam.storage.log.times import from_us

NARROWED_S_MAX = 5.0
"""How long a statement waits for what it ends elsewhere."""

Listener = Callable[[Narrowed], Awaitable[None]]
log = structlog.get_logger(__name__)


class Book:
    """The users, roles, grants, tokens and policies of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listeners: list[Listener] = []
        self.generation = 0
        self.changing = asyncio.Lock()
        """Held by whoever changes the book from what it says: checks and change are one."""
        self.users: dict[str, User] = {}
        self.roles: dict[str, Role] = {}
        self.members: dict[str, frozenset[str]] = {}
        self.grants: dict[str, frozenset[Grant]] = {}
        self.tokens: dict[str, Token] = {}
        self.verifiers: dict[str, dict[str, Verifier]] = {}
        """Of each user those of the password (named "") and of tokens (by their ids)."""
        self.policies: dict[int, tuple[Policy, ...]] = {}

    def load(self) -> None:
        """Read everything; blocking, for the start."""
        with self._database.reading() as conn:
            self.users = {user.name: user for user in read_users(conn)}
            self.roles = {
                name: Role(name=name, created_at=from_us(created))
                for name, created in conn.execute("SELECT name, created_us FROM roles")
            }
            for role, member in conn.execute("SELECT role, member FROM members"):
                self.members[role] = self.members.get(role, frozenset()) | {member}
            for grantee, *grant in conn.execute("SELECT grantee, privilege, table_id, namespace FROM grants"):
                found = Grant(Privilege(grant[0]), grant[1], grant[2])
                self.grants[grantee] = self.grants.get(grantee, frozenset()) | {found}
            self.tokens = {token.id: token for token in read_tokens(conn)}
            for user, credential, *verifier in conn.execute("SELECT * FROM verifiers"):
                self.verifiers.setdefault(user, {})[credential] = Verifier(*verifier)
            for policy in read_policies(conn):
                self.policies[policy.table_id] = (*self.policies.get(policy.table_id, ()), policy)
        self.generation += 1

    # What follows from a change.

    def on_narrowed(self, listener: Listener) -> None:
        """Have somebody end what is open whenever rights become less; it is awaited by whoever takes them."""
        self._listeners.append(listener)

    async def narrowed(self, narrowed: Narrowed) -> None:
        """End what is open: returns when everybody has, or after a bounded time."""
        if not self._listeners:
            return
        tasks = [asyncio.ensure_future(listener(narrowed)) for listener in self._listeners]
        done, late = await asyncio.wait(tasks, timeout=NARROWED_S_MAX)
        for task in done:
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("what a right gave was not ended", error=str(error), exc_info=error)
        if late:
            log.error("what a right gave is still being ended", listeners=len(late))

    # Who there is.

    def taken(self, name: str) -> str | None:
        """What has this name: ``user``, ``role`` or None."""
        if name in self.users:
            return "user"
        return "role" if name in self.roles else None

    def roles_of(self, name: str) -> frozenset[str]:
        """The roles of which a user or role is a member, directly and through others."""
        found: set[str] = set()
        ahead = [name]
        while ahead:
            one = ahead.pop()
            for role, members in self.members.items():
                if one in members and role not in found:
                    found.add(role)
                    ahead.append(role)
        return frozenset(found)

    def members_of(self, name: str) -> frozenset[str]:
        """The users who are this user, or a member of this role, directly and through others."""
        if name in self.users:
            return frozenset((name,))
        return frozenset(user for user in self.users if name in self.roles_of(user))

    def members_under(self, name: str) -> frozenset[str]:
        """The users and roles that are members of a role, directly and through others."""
        return frozenset(other for other in (*self.users, *self.roles) if name in self.roles_of(other))

    async def rows_left(self, name: str) -> bool:
        """Whether USER tables hold rows of a user who was dropped."""

        def look(conn: sqlite3.Connection) -> bool:
            dropped = "SELECT 1 FROM dropped_users WHERE name = ?"
            return conn.execute(dropped, (name,)).fetchone() is not None and bool(copies_of(conn, name))

        return bool(await self._database.write(look))

    async def tables_with_rows(self, name: str) -> list[int]:
        """The ids of the USER tables that hold rows of a user."""

        def look(conn: sqlite3.Connection) -> list[int]:
            return copies_of(conn, name)

        found: list[int] = await self._database.write(look)
        return found

    async def put_user(self, user: User, verifier: Verifier | None = None) -> None:
        """Add a user, or change one; with another password its verifier, if there is one, takes the former's place."""
        former = self.users.get(user.name)
        renewed = former is None or former.password_us != user.password_us
        values = (
            user.name,
            user.admin,
            user.locked,
            us_of(user.valid_until),
            user.password_hash,
            user.password_us,
            us_of(user.created_at),
        )
        await self._write(
            ("INSERT OR REPLACE INTO users VALUES (?, ?, ?, ?, ?, ?, ?)", values),
            ("DELETE FROM dropped_users WHERE name = ?", (user.name,)),
            *(verifier_sql(user.name, "", verifier) if renewed else ()),
        )
        self.users[user.name] = user
        if renewed:
            self._keep_verifier(user.name, "", verifier)
        self._changed()

    async def release(self, name: str) -> None:
        """Let the name of a user who was dropped be taken again."""
        await self._write(("DELETE FROM dropped_users WHERE name = ?", (name,)))

    async def put_role(self, role: Role) -> None:
        """Add a role."""
        await self._write(("INSERT INTO roles VALUES (?, ?)", (role.name, us_of(role.created_at))))
        self.roles[role.name] = role
        self._changed()

    async def drop(self, name: str) -> None:
        """Remove a user or role, with grants, memberships, tokens and sessions, and from what policies name."""
        named = [
            replace(policy, grantees=tuple(grantee for grantee in policy.grantees if grantee != name))
            for policies in self.policies.values()
            for policy in policies
            if name in policy.grantees
        ]
        await self._write(
            *([("INSERT OR IGNORE INTO dropped_users VALUES (?)", (name,))] if name in self.users else []),
            ("DELETE FROM users WHERE name = ?", (name,)),
            ("DELETE FROM roles WHERE name = ?", (name,)),
            ("DELETE FROM members WHERE role = ?1 OR member = ?1", (name,)),
            ("DELETE FROM grants WHERE grantee = ?", (name,)),
            ("DELETE FROM tokens WHERE user = ?", (name,)),
            ("DELETE FROM verifiers WHERE user = ?", (name,)),
            *(policy_sql(policy) for policy in named),
        )
        self.users.pop(name, None)
        self.verifiers.pop(name, None)
        self.roles.pop(name, None)
        self.grants.pop(name, None)
        self.members.pop(name, None)
        self.members = {role: members - {name} for role, members in self.members.items()}
        self.tokens = {id_: token for id_, token in self.tokens.items() if token.user != name}
        for policy in named:
            self._put_policy(policy)
        self._changed()

    async def add_members(self, role: str, members: Iterable[str]) -> None:
        """Make users and roles members of a role."""
        members = frozenset(members)
        await self._write(*(("INSERT OR IGNORE INTO members VALUES (?, ?)", (role, member)) for member in members))
        self.members[role] = self.members.get(role, frozenset()) | members
        self._changed()

    async def remove_members(self, role: str, members: Iterable[str]) -> None:
        """Take members out of a role."""
        members = frozenset(members)
        await self._write(
            *(("DELETE FROM members WHERE role = ? AND member = ?", (role, member)) for member in members)
        )
        self.members[role] = self.members.get(role, frozenset()) - members
        self._changed()

    # What was granted.

    async def grant(self, grantees: Iterable[str], grants: Iterable[Grant]) -> None:
        """Give these grants to each of these grantees."""
        grantees, grants = tuple(grantees), frozenset(grants)
        await self._write(
            *(
                ("INSERT OR IGNORE INTO grants VALUES (?, ?, ?, ?)", (grantee, *grant_values(grant)))
                for grantee in grantees
                for grant in grants
            )
        )
        for grantee in grantees:
            self.grants[grantee] = self.grants.get(grantee, frozenset()) | grants
        self._changed()

    async def revoke(self, grantees: Iterable[str], grants: Iterable[Grant]) -> None:
        """Take these grants from each of these grantees."""
        grantees, grants = tuple(grantees), frozenset(grants)
        await self._write(
            *(
                (
                    "DELETE FROM grants WHERE grantee = ? AND privilege = ? AND table_id = ? AND namespace = ?",
                    (grantee, *grant_values(grant)),
                )
                for grantee in grantees
                for grant in grants
            )
        )
        for grantee in grantees:
            self.grants[grantee] = self.grants.get(grantee, frozenset()) - grants
        self._changed()

    # Tokens and policies.

    async def put_token(self, token: Token, verifier: Verifier | None = None) -> None:
        """Add a token, with its verifier, if there is one."""
        values = (token.id, token.name, token.user, token.hash, us_of(token.created_at), us_of(token.expires_at))
        await self._write(
            ("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?)", values), *verifier_sql(token.user, token.id, verifier)
        )
        self.tokens[token.id] = token
        self._keep_verifier(token.user, token.id, verifier)
        self._changed()

    async def drop_token(self, token: Token) -> None:
        """Remove a token."""
        await self._write(
            ("DELETE FROM tokens WHERE token_id = ?", (token.id,)), *verifier_sql(token.user, token.id, None)
        )
        self.tokens.pop(token.id, None)
        self._keep_verifier(token.user, token.id, None)
        self._changed()

    async def put_policy(self, policy: Policy) -> None:
        """Add a policy, or change one."""
        await self._write(policy_sql(policy))
        self._put_policy(policy)
        self._changed()

    def policy_sql(self, policies: Iterable[Policy]) -> list[Sql]:
        """What changes these policies in somebody else's transaction, who then tells of it by ``policies_changed``."""
        return [policy_sql(policy) for policy in policies]

    def policies_changed(self, policies: Iterable[Policy]) -> None:
        """Take over policies that were changed in the database."""
        for policy in policies:
            self._put_policy(policy)
        self._changed()

    async def drop_policy(self, policy: Policy) -> None:
        """Remove a policy."""
        await self._write(("DELETE FROM policies WHERE table_id = ? AND name = ?", (policy.table_id, policy.name)))
        self._forget_policy(policy)
        self._changed()

    def policy(self, table_id: int, name: str) -> Policy | None:
        """The policy of a table that has this name."""
        return next((policy for policy in self.policies.get(table_id, ()) if policy.name == name), None)

    def _put_policy(self, policy: Policy) -> None:
        self._forget_policy(policy)
        self.policies[policy.table_id] = (*self.policies.get(policy.table_id, ()), policy)

    def _forget_policy(self, policy: Policy) -> None:
        left = tuple(other for other in self.policies.get(policy.table_id, ()) if other.name != policy.name)
        self.policies[policy.table_id] = left

    # What ends with a table or a namespace, whose own transaction removes it from the database.

    def forget_table(self, table_id: int) -> None:
        """Drop from memory what was said of a table that the database does not have any more."""
        self.policies.pop(table_id, None)
        self.grants = {
            grantee: frozenset(grant for grant in grants if grant.table_id != table_id)
            for grantee, grants in self.grants.items()
        }
        self._changed()

    def forget_namespace(self, namespace: str) -> None:
        """The same of a namespace."""
        self.grants = {
            grantee: frozenset(grant for grant in grants if grant.namespace != namespace)
            for grantee, grants in self.grants.items()
        }
        self._changed()

    def touch(self) -> None:
        """Note that something has changed that the book does not hold: whether a table's policies are asked."""
        self._changed()

    def salt_of(self, user: str) -> bytes:
        """The salt of a user's verifiers, a new one where there are none."""
        kept = self.verifiers.get(user)
        return next(iter(kept.values())).salt if kept else new_salt()

    def _keep_verifier(self, user: str, credential: str, verifier: Verifier | None) -> None:
        kept = {name: each for name, each in self.verifiers.get(user, {}).items() if name != credential}
        self.verifiers[user] = kept if verifier is None else kept | {credential: verifier}

    def _changed(self) -> None:
        self.generation += 1

    async def _write(self, *statements: Sql) -> None:
        def execute(conn: sqlite3.Connection) -> None:
            for text, values in statements:
                conn.execute(text, values)

        await self._database.write(execute)


def copies_of(conn: sqlite3.Connection, user: str) -> list[int]:
    """The ids of the USER tables that hold rows of a user, deleted ones too, which a WHERE may ask for."""
    found = conn.execute(
        """SELECT DISTINCT table_id FROM copies WHERE user_id = ?1 AND user_id <> '' AND (
            EXISTS (SELECT 1 FROM log WHERE log.copy_id = copies.copy_id) OR
            EXISTS (SELECT 1 FROM segments WHERE segments.copy_id = copies.copy_id))""",
        (user,),
    )
    return [table_id for (table_id,) in found]
