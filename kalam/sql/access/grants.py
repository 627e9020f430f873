"""GRANT, REVOKE, owners, and EXECUTE AS USER."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from kalam.sql.access.policies import row_level_security
from kalam.sql.access.statements import (
    GrantPrivileges,
    GrantRole,
    RevokePrivileges,
    RevokeRole,
    SetOwner,
    ShowGrants,
)
from kalam.sql.access.users import user_name, user_names
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.statements import ExecuteAs, Statement, TableRef

OfRole = TypeVar("OfRole", GrantRole, RevokeRole)
OfPrivileges = TypeVar("OfPrivileges", GrantPrivileges, RevokePrivileges)

ALL = "ALL"
_PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "JETSTREAM")
_GRANT = "GRANT takes privileges ON TABLE t or ON NAMESPACE n TO somebody, or a role TO somebody"


def grant(cursor: Cursor) -> GrantRole | GrantPrivileges:
    """Read GRANT."""
    cursor.expect("GRANT")
    return _of_role_or_privileges(cursor, "TO", GrantRole, GrantPrivileges)


def revoke(cursor: Cursor) -> RevokeRole | RevokePrivileges:
    """Read REVOKE."""
    cursor.expect("REVOKE")
    return _of_role_or_privileges(cursor, "FROM", RevokeRole, RevokePrivileges)


def _of_role_or_privileges(
    cursor: Cursor,
    word: str,
    of_role: Callable[[str, tuple[str, ...]], OfRole],
    of_privileges: Callable[[tuple[str, ...], TableRef | str, tuple[str, ...]], OfPrivileges],
) -> OfRole | OfPrivileges:
    """Read a role or privileges on something, the word, and to or from whom."""
    privileges = _privileges(cursor)
    if privileges is None:
        start = cursor.token.start
        role = user_name(cursor, "role")
        if cursor.at("ON"):  # what was taken for a role is meant as a privilege
            cursor.seek(start)
            raise cursor.unexpected(f"a privilege ({', '.join(_PRIVILEGES)} or ALL)")
        cursor.expect(word)
        return of_role(role, user_names(cursor))
    on = _object(cursor)
    cursor.expect(word)
    return of_privileges(privileges, on, user_names(cursor))


def _privileges(cursor: Cursor) -> tuple[str, ...] | None:
    """Consume a list of privileges; None, and nothing consumed, where a role is named instead."""
    start = cursor.token.start
    if cursor.take(ALL):
        cursor.take("PRIVILEGES")
        return (ALL,)
    found: list[str] = []
    while (word := cursor.take_one(_PRIVILEGES)) is not None:
        found.append(word)
        if not cursor.take_symbol(","):
            break
    else:
        if found:
            raise cursor.unexpected("a privilege", choices=_PRIVILEGES)
    if not found:
        return None
    if cursor.at_symbol("("):
        raise cursor.refusal(
            "privileges are on whole tables and not on columns", hint="keep such columns in a table of their own"
        )
    if not cursor.at("ON"):  # a role may be called as a privilege is
        cursor.seek(start)
        return None
    return tuple(dict.fromkeys(found))


def _object(cursor: Cursor) -> TableRef | str:
    cursor.expect("ON")
    if cursor.at("ALL", "TABLES") or cursor.at("SCHEMA"):
        raise cursor.refusal(
            "all tables of a namespace are granted with it",
            hint="ON NAMESPACE n is all of its tables, those to come too",
        )
    if cursor.take("NAMESPACE"):
        return cursor.name("namespace")
    cursor.take("TABLE")
    return cursor.table()


def set_access(cursor: Cursor, ref: TableRef) -> Statement | None:
    """Read OWNER TO u, ENABLE or DISABLE ROW LEVEL SECURITY of an ALTER TABLE; None where it is another."""
    if cursor.take("OWNER", "TO"):
        return SetOwner(ref, user_name(cursor, "user or role"))
    return row_level_security(cursor, ref)


def show_grants(cursor: Cursor) -> ShowGrants:
    """Read what follows SHOW GRANTS."""
    if cursor.take("FOR"):
        return ShowGrants(grantee=user_name(cursor, "user or role"))
    return ShowGrants(on=_object(cursor)) if cursor.at("ON") else ShowGrants()


def execute_as(cursor: Cursor, read: Callable[[Cursor], Statement]) -> ExecuteAs:
    """Read EXECUTE AS USER 'ada' and the statement behind it."""
    cursor.expect("EXECUTE", "AS", "USER")
    token = cursor.token
    user = cursor.string("the user")
    if cursor.at("EXECUTE"):
        raise cursor.refusal("EXECUTE AS USER stands once, before the statement", at=token)
    return ExecuteAs(user, read(cursor))
