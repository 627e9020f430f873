"""The book's rows in ``kalam.db``: how they are read, and the statements that change them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from datetime import datetime

import msgspec

from kalam.access.model import Command, Grant, Policy, Token, User
from kalam.access.scram import Verifier
from kalam.storage.log.catalogue import Sql
from kalam.storage.log.times import from_us


def read_users(conn: sqlite3.Connection) -> Iterable[User]:
    """The users."""
    for name, admin, locked, until, password, password_us, created in conn.execute("SELECT * FROM users"):
        yield User(
            name=name,
            admin=bool(admin),
            locked=bool(locked),
            valid_until=None if until is None else from_us(until),
            password_hash=password,
            password_us=password_us,
            created_at=from_us(created),
        )


def read_tokens(conn: sqlite3.Connection) -> Iterable[Token]:
    """The tokens."""
    for token_id, name, user, digest, created, expires in conn.execute("SELECT * FROM tokens"):
        yield Token(
            id=token_id,
            name=name,
            user=user,
            hash=digest,
            created_at=from_us(created),
            expires_at=None if expires is None else from_us(expires),
        )


def read_policies(conn: sqlite3.Connection) -> Iterable[Policy]:
    """The policies, those of a table together."""
    for table_id, name, command, grantees, using, check in conn.execute("SELECT * FROM policies ORDER BY 1, 2"):
        yield Policy(
            table_id=table_id,
            name=name,
            command=Command(command),
            grantees=tuple(msgspec.json.decode(grantees, type=list[str])),
            using=using,
            check=check,
        )


def policy_sql(policy: Policy) -> Sql:
    """What adds a policy, or changes one."""
    grantees = msgspec.json.encode(policy.grantees).decode()
    values = (policy.table_id, policy.name, policy.command.value, grantees, policy.using, policy.check)
    return "INSERT OR REPLACE INTO policies VALUES (?, ?, ?, ?, ?, ?)", values


def verifier_sql(user: str, credential: str, verifier: Verifier | None) -> list[Sql]:
    """What puts a verifier in the place of a former one, or with None removes that."""
    statements: list[Sql] = [("DELETE FROM verifiers WHERE user = ? AND credential = ?", (user, credential))]
    if verifier is not None:
        values = (user, credential, *msgspec.structs.astuple(verifier))
        statements.append(("INSERT INTO verifiers VALUES (?, ?, ?, ?, ?, ?)", values))
    return statements


def grant_values(grant: Grant) -> tuple[str, int, str]:
    """A grant's columns behind the grantee."""
    return grant.privilege.value, grant.table_id, grant.namespace


def us_of(moment: datetime | None) -> int | None:
    """A moment in microseconds since 1970."""
    return None if moment is None else round(moment.timestamp() * 1_000_000)
