"""Users, roles and what they may do; who owns a table, and whether its rows are hidden by policies; who did what.

Users and roles have one name space. A grant is on a table, or, with ``table_id`` 0, on a namespace and every table in
it. What was made before this belongs to ``admin``.
"""

from __future__ import annotations

from typing import Any

STATEMENTS = (
    "ALTER TABLE tables ADD COLUMN owner TEXT NOT NULL DEFAULT 'admin'",
    "ALTER TABLE tables ADD COLUMN row_security INTEGER NOT NULL DEFAULT 0",
    # `password` is argon2's encoded hash; NULL for a user who can log in by tokens only.
    """CREATE TABLE users (
        name TEXT PRIMARY KEY,
        admin INTEGER NOT NULL,
        locked INTEGER NOT NULL,
        valid_until_us INTEGER,
        password TEXT,
        password_us INTEGER NOT NULL,
        created_us INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE TABLE roles (name TEXT PRIMARY KEY, created_us INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE members (role TEXT NOT NULL, member TEXT NOT NULL, PRIMARY KEY (role, member)) WITHOUT ROWID",
    """CREATE TABLE grants (
        grantee TEXT NOT NULL,
        privilege TEXT NOT NULL,
        table_id INTEGER NOT NULL,
        namespace TEXT NOT NULL,
        PRIMARY KEY (grantee, privilege, table_id, namespace)
    ) WITHOUT ROWID""",
    # Users that were dropped while USER tables had rows of theirs: nobody else gets these by taking the name.
    "CREATE TABLE dropped_users (name TEXT PRIMARY KEY) WITHOUT ROWID",
    # `hash` is the SHA-256 of the secret, which is random and therefore needs no slower one.
    """CREATE TABLE tokens (
        token_id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        user TEXT NOT NULL,
        hash BLOB NOT NULL,
        created_us INTEGER NOT NULL,
        expires_us INTEGER,
        UNIQUE (user, name)
    ) WITHOUT ROWID""",
    # `grantees` is a JSON list; `using_` and `check_` are expressions over the table's columns.
    """CREATE TABLE policies (
        table_id INTEGER NOT NULL,
        name TEXT NOT NULL,
        command TEXT NOT NULL,
        grantees TEXT NOT NULL,
        using_ TEXT,
        check_ TEXT,
        PRIMARY KEY (table_id, name)
    ) WITHOUT ROWID""",
    # `hash` as for tokens; `token_id` is what a session was opened with, '' for a password, set at `password_us`.
    """CREATE TABLE sessions (
        session_id TEXT PRIMARY KEY,
        user TEXT NOT NULL,
        hash BLOB NOT NULL,
        address TEXT NOT NULL,
        token_id TEXT NOT NULL,
        password_us INTEGER NOT NULL,
        created_us INTEGER NOT NULL,
        used_us INTEGER NOT NULL
    ) WITHOUT ROWID""",
    # `user` is NULL where nobody of the name that was given is known.
    """CREATE TABLE audit (
        entry_id INTEGER PRIMARY KEY,
        at_us INTEGER NOT NULL,
        user TEXT,
        acting_for TEXT,
        door TEXT NOT NULL,
        address TEXT NOT NULL,
        action TEXT NOT NULL,
        object TEXT NOT NULL,
        outcome TEXT NOT NULL,
        detail TEXT NOT NULL
    )""",
    "CREATE INDEX audit_by_time ON audit (at_us)",
)


def access(db: Any) -> None:
    """Make the tables."""
    for statement in STATEMENTS:
        db.execute(statement)
