"""CREATE, DROP and ALTER: what changes the catalogue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kalam.errors import InvalidName
from kalam.names import check_new_namespace
from kalam.schema import ROW_ID, Column, DataType, Default, DefaultKind, TableKind, TypeName
from kalam.sql.access import grants, policies, users
from kalam.sql.tables.clauses import read_clauses, read_option_list
from kalam.sql.tables.column_types import read_type
from kalam.sql.tables.columns import read_added_column, read_columns
from kalam.sql.tables.filled import read_filled
from kalam.sql.tables.foreign import check_no_sources, read_over
from kalam.sql.tables.stored_select import alter_select, create_select, drop_select
from kalam.sql.tables.temporary import at_temporary, create_temporary
from kalam.sql.tables.views import alter_view, create_ephemeral_view, create_view, drop_view
from kalam.sql.text.alterations import (
    Action,
    AddColumn,
    ChangeColumns,
    DropColumn,
    DropNotNull,
    OfColumn,
    RenameColumn,
    RenameTable,
    SetDefault,
    SetOptions,
    SetType,
)
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.lexer import Token
from kalam.sql.text.statements import (
    AlterTable,
    CreateNamespace,
    CreateTable,
    DropNamespace,
    DropTable,
    Statement,
    TableRef,
    TruncateTable,
)

_KINDS = {kind.value: kind for kind in (TableKind.STREAM, TableKind.SHARED, TableKind.USER)}
_CREATE = (
    "what can be created: CREATE NAMESPACE n, CREATE [STREAM|SHARED|USER] TABLE t (…), "
    "CREATE [EPHEMERAL] MATERIALIZED VIEW v AS SELECT …, CREATE USER u, CREATE ROLE r, CREATE TOKEN 'name', "
    "CREATE POLICY p ON t"
)
_DROP = (
    "what can be dropped: DROP NAMESPACE n, DROP [STREAM|SHARED|USER] TABLE t, DROP MATERIALIZED VIEW v, DROP USER u, "
    "DROP ROLE r, DROP TOKEN 'name', DROP POLICY p ON t"
)
_ALTER = (
    "ALTER TABLE t can ADD COLUMN, DROP COLUMN, RENAME COLUMN a TO b, RENAME TO new, ALTER COLUMN c SET DEFAULT, DROP "
    "DEFAULT, DROP NOT NULL or TYPE, SET (option = value, …), OWNER TO u and ENABLE or DISABLE ROW LEVEL SECURITY; "
    "ALTER MATERIALIZED VIEW v changes a view, ALTER USER u a user; a policy is dropped and created anew"
)
_ALTER_COLUMN = "ALTER COLUMN c can SET DEFAULT value, DROP DEFAULT, DROP NOT NULL and TYPE wider"
_OWN_CREATIONS: dict[str, Callable[[Cursor], Statement]] = {
    "MATERIALIZED": create_view,
    "EPHEMERAL": create_ephemeral_view,
    "ROLE": users.create_role,
    "TOKEN": users.create_token,
    "POLICY": policies.create_policy,
}
_OWN_DROPS: dict[str, Callable[[Cursor], Statement]] = {
    "MATERIALIZED": drop_view,
    "ROLE": users.drop_role,
    "TOKEN": users.drop_token,
    "POLICY": policies.drop_policy,
}
_NAMESPACE = ("NAMESPACE", "SCHEMA")
"""Two words for the one thing: PostgreSQL's is the second."""
_ROW_ID_DEFAULT = Default(kind=DefaultKind.SNOWFLAKE_ID)


def create(cursor: Cursor) -> Statement:
    """Read CREATE of a namespace, a table, a view, a user, a role, a token or a policy."""
    cursor.expect("CREATE")
    if cursor.take_one(_NAMESPACE):
        return _create_namespace(cursor)
    if cursor.at("VIEW") or cursor.at("OR", "REPLACE", "VIEW"):
        return create_select(cursor, or_replace=cursor.take("OR", "REPLACE"))
    if word := cursor.take_one(_OWN_CREATIONS):
        return _OWN_CREATIONS[word](cursor)
    if cursor.at("USER") and not cursor.at("USER", "TABLE"):  # a USER table is not a user
        cursor.expect("USER")
        return users.create_user(cursor)
    if at_temporary(cursor):
        return create_temporary(cursor)
    kind = _kind_of_table(cursor)
    if kind is None and not cursor.at("TABLE"):
        raise cursor.refusal(_CREATE)
    cursor.expect("TABLE")
    return _create_table(cursor, kind or TableKind.SHARED)


def drop(cursor: Cursor) -> Statement:
    """Read DROP of a namespace, a table, a view, a user, a role, a token or a policy."""
    cursor.expect("DROP")
    if cursor.take_one(_NAMESPACE):
        if_exists = cursor.take("IF", "EXISTS")
        return DropNamespace(cursor.name("namespace"), if_exists, cursor.take("CASCADE"))
    if cursor.at("VIEW"):
        return drop_select(cursor)
    if word := cursor.take_one(_OWN_DROPS):
        return _OWN_DROPS[word](cursor)
    if cursor.at("USER") and not cursor.at("USER", "TABLE"):
        cursor.expect("USER")
        return users.drop_user(cursor)
    kind = _kind_of_table(cursor)
    if kind is None and not cursor.at("TABLE"):
        raise cursor.refusal(_DROP)
    cursor.expect("TABLE")
    if_exists = cursor.take("IF", "EXISTS")
    return DropTable(cursor.table(), kind, if_exists, cursor.take("CASCADE"))


def alter(cursor: Cursor) -> Statement:
    """Read ALTER USER, or ALTER TABLE or MATERIALIZED VIEW with what is done to it."""
    cursor.expect("ALTER")
    if cursor.take("MATERIALIZED"):
        return alter_view(cursor)
    if cursor.take("USER"):
        return users.alter_user(cursor)
    word = cursor.take_one(("TABLE", "VIEW"))
    if word is None:
        raise cursor.refusal(_ALTER)
    ref = cursor.table()
    access = grants.set_access(cursor, ref)
    if access is not None:
        return access
    if word == "VIEW":
        return alter_select(cursor, ref)
    token = cursor.token
    action = _alter_action(cursor)
    if not cursor.at_symbol(","):
        return AlterTable(ref, action)
    actions = [_added_or_dropped(cursor, action, token)]
    while cursor.take_symbol(","):
        token = cursor.token
        action = _added_or_dropped(cursor, _alter_action(cursor), token)
        if any(action.name == earlier.name for earlier in actions):
            raise cursor.error(InvalidName, f"the column {action.name!r} is named twice", at=token)
        actions.append(action)
    return AlterTable(ref, ChangeColumns(tuple(actions)))


def truncate(cursor: Cursor) -> TruncateTable:
    """Read TRUNCATE [TABLE] t."""
    cursor.expect("TRUNCATE")
    if cursor.at("TABLE"):
        cursor.expect("TABLE")
    ref = cursor.table()
    cursor.take("RESTRICT")
    if cursor.at_symbol(","):
        raise cursor.refusal("TRUNCATE takes one table; write one statement for each")
    if cursor.token.word in ("CASCADE", "RESTART", "CONTINUE"):
        raise cursor.refusal(f"TRUNCATE takes no {cursor.token.word}: it empties its table, and numbers go on")
    return TruncateTable(ref)


def _kind_of_table(cursor: Cursor) -> TableKind | None:
    word = cursor.take_one(_KINDS)
    return _KINDS[word] if word else None


def _create_namespace(cursor: Cursor) -> CreateNamespace:
    if_not_exists = cursor.take("IF", "NOT", "EXISTS")
    token = cursor.token
    name = cursor.name("namespace")
    with cursor.located(token):
        return CreateNamespace(check_new_namespace(name), if_not_exists)


def _create_table(cursor: Cursor, kind: TableKind) -> CreateTable:
    if_not_exists = cursor.take("IF", "NOT", "EXISTS")
    ref = cursor.new_table()
    if (filled := read_filled(cursor, kind, ref, if_not_exists=if_not_exists)) is not None:
        return filled
    columns, key = read_columns(cursor, kind)
    if cursor.at("OVER"):
        return _create_foreign_table(cursor, ref, kind, columns, if_not_exists=if_not_exists)
    check_no_sources(cursor, columns)
    options = read_clauses(cursor)
    made = with_row_id(kind, columns, key)
    return CreateTable(ref=ref, kind=kind, options=options, if_not_exists=if_not_exists, **made)


def with_row_id(kind: TableKind, columns: tuple[Column, ...], key: tuple[str, ...]) -> dict[str, Any]:
    """The ``columns`` and the ``key`` of a table, with one of Kalam's own where it needs a key and has none."""
    if key or kind is TableKind.STREAM:
        return {"columns": columns, "key": key}
    return {"columns": (*columns, _row_id(len(columns) + 1)), "key": (ROW_ID,)}


def _create_foreign_table(
    cursor: Cursor, ref: TableRef, kind: TableKind, columns: tuple[Column, ...], *, if_not_exists: bool
) -> CreateTable:
    if kind is not TableKind.STREAM:
        raise cursor.refusal(f"a {kind} table keeps rows of its own: CREATE STREAM TABLE … OVER STREAM reads others'")
    over = read_over(cursor)
    return CreateTable(
        ref=ref,
        kind=TableKind.FOREIGN,
        columns=columns,
        key=(),
        options=read_clauses(cursor),
        if_not_exists=if_not_exists,
        over=over,
    )


def _row_id(column_id: int) -> Column:
    data_type = DataType(name=TypeName.BIGINT)
    return Column(column_id=column_id, name=ROW_ID, type=data_type, nullable=False, default=_ROW_ID_DEFAULT)


def _alter_action(cursor: Cursor) -> Action:
    match cursor.take_one(("ADD", "ALTER", "DROP", "RENAME", "SET")):
        case "ADD":
            return read_added_column(cursor)
        case "ALTER":
            cursor.take("COLUMN")
            return _column_action(cursor, _own_column(cursor))
        case "DROP":
            cursor.take("COLUMN")
            return DropColumn(_own_column(cursor))
        case "RENAME":
            return _rename(cursor)
        case "SET":
            options: dict[str, Any] = {}
            read_option_list(cursor, options)
            return SetOptions(options)
        case _:
            raise cursor.refusal(_ALTER)


def _added_or_dropped(cursor: Cursor, action: Action, token: Token) -> AddColumn | DropColumn:
    """An action that may stand beside others."""
    if not isinstance(action, (AddColumn, DropColumn)):
        what = "an ALTER TABLE of several parts adds and drops columns"
        raise cursor.refusal(f"{what}; write a statement of its own for anything else", at=token)
    return action


def _rename(cursor: Cursor) -> RenameColumn | RenameTable:
    if cursor.take("TO"):
        name = cursor.new_name("table")
        if cursor.at_symbol("."):
            raise cursor.refusal("a table stays in its namespace: RENAME TO names the table alone")
        return RenameTable(name)
    cursor.take("COLUMN")
    name = _own_column(cursor)
    cursor.expect("TO")
    return RenameColumn(name, cursor.new_name("column"))


def _column_action(cursor: Cursor, name: str) -> OfColumn:
    if cursor.take("SET", "DEFAULT"):
        start, end = cursor.skip(lambda at: at.at_symbol(","))
        if start == end:
            raise cursor.unexpected("a default")
        return SetDefault(name, cursor.statement.text[start:end])
    if cursor.take("DROP", "DEFAULT"):
        return SetDefault(name, None)
    if cursor.take("DROP", "NOT", "NULL"):
        return DropNotNull(name)
    if cursor.at("SET", "NOT", "NULL"):
        raise cursor.refusal("a column that is there cannot become NOT NULL: its rows may hold NULL")
    if cursor.take("TYPE") or cursor.take("SET", "DATA", "TYPE"):
        data_type = read_type(cursor)
        if cursor.at("USING"):
            raise cursor.refusal("TYPE takes no USING: a column gets a wider type, in which its values are the same")
        return SetType(name, data_type)
    raise cursor.refusal(_ALTER_COLUMN)


def _own_column(cursor: Cursor) -> str:
    token = cursor.token
    name = cursor.name("column")
    if name.startswith("_"):
        raise cursor.error(InvalidName, f"the column {name!r} is Kalam's own and stays as it is", at=token)
    return name
