"""CREATE POLICY, DROP POLICY, and whether policies decide over a table's rows."""

from __future__ import annotations

from kalam.sql.access.statements import (
    CreatePolicy,
    DisableRowLevelSecurity,
    DropPolicy,
    EnableRowLevelSecurity,
    PolicyExpression,
    ShowPolicies,
)
from kalam.sql.access.users import PUBLIC, user_names
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.statements import TableRef

_COMMANDS = ("SELECT", "INSERT", "UPDATE", "DELETE", "ALL")
_UNCHECKED = ("SELECT", "DELETE")


def create_policy(cursor: Cursor) -> CreatePolicy:
    """Read what follows CREATE POLICY."""
    name = cursor.new_name("policy")
    cursor.expect("ON")
    ref = cursor.table()
    if cursor.take("AS") and not cursor.take("PERMISSIVE"):
        raise cursor.refusal("policies are permissive: a row is visible if one of them says so")
    command = _command(cursor) if cursor.take("FOR") else "ALL"
    grantees = user_names(cursor) if cursor.take("TO") else (PUBLIC,)
    first = cursor.token
    using = _expression(cursor) if cursor.take("USING") else None
    if using is not None and command == "INSERT":
        raise cursor.refusal("a policy FOR INSERT has WITH CHECK alone: an INSERT reads no row", at=first)
    first = cursor.token
    check = _expression(cursor) if cursor.take("WITH", "CHECK") else None
    if check is not None and command in _UNCHECKED:
        raise cursor.refusal(f"a policy FOR {command} has USING alone: a {command} writes no row", at=first)
    if command == "INSERT" and check is None:
        raise cursor.unexpected("WITH CHECK (expression)", choices=("WITH",))
    if command != "INSERT" and using is None:
        raise cursor.fault("expected USING (expression), which says which rows are meant", at=first)
    return CreatePolicy(name=name, ref=ref, command=command, grantees=grantees, using=using, check=check)


def drop_policy(cursor: Cursor) -> DropPolicy:
    """Read what follows DROP POLICY."""
    if_exists = cursor.take("IF", "EXISTS")
    name = cursor.name("policy")
    cursor.expect("ON")
    return DropPolicy(name, cursor.table(), if_exists)


def row_level_security(cursor: Cursor, ref: TableRef) -> EnableRowLevelSecurity | DisableRowLevelSecurity | None:
    """Read ENABLE or DISABLE ROW LEVEL SECURITY of an ALTER TABLE; None where it is another."""
    if cursor.at("FORCE", "ROW") or cursor.at("NO", "FORCE", "ROW"):
        raise cursor.refusal("owners are under their table's policies like anyone: there is nothing to force")
    if cursor.take("ENABLE"):
        cursor.expect("ROW", "LEVEL", "SECURITY")
        return EnableRowLevelSecurity(ref, cursor.take("CASCADE"))
    if cursor.take("DISABLE"):
        cursor.expect("ROW", "LEVEL", "SECURITY")
        cursor.take("CASCADE")
        return DisableRowLevelSecurity(ref)
    return None


def show_policies(cursor: Cursor) -> ShowPolicies:
    """Read what follows SHOW POLICIES."""
    if not cursor.take("ON"):
        return ShowPolicies()
    cursor.take("TABLE")
    return ShowPolicies(cursor.table())


def _command(cursor: Cursor) -> str:
    word = cursor.take_one(_COMMANDS)
    if word is None:
        raise cursor.unexpected("SELECT, INSERT, UPDATE, DELETE or ALL", choices=_COMMANDS)
    return word


def _expression(cursor: Cursor) -> PolicyExpression:
    """Consume ``(expression)``, as it is written; whether it can be a policy's depends on the table."""
    cursor.expect_symbol("(")
    start, end = cursor.skip(lambda _: False)
    if start == end:
        raise cursor.unexpected("an expression over the table's columns")
    cursor.expect_symbol(")")
    line, column = cursor.statement.place(start)
    return PolicyExpression(cursor.statement.text[start:end], line, column)
