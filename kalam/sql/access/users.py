"""CREATE, ALTER and DROP of users and roles, tokens and sessions."""

from __future__ import annotations

from typing import Literal as Word

from kalam.errors import InvalidName, InvalidOption
from kalam.names import check_user
from kalam.sql.access.statements import (
    AlterUser,
    CreateRole,
    CreateToken,
    CreateUser,
    DropRole,
    DropToken,
    DropUser,
    KillSession,
)
from kalam.sql.tables.durations import seconds
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.lexer import Kind
from kalam.sql.text.literals import string_value
from kalam.sql.text.statements import Literal, Parameter

PUBLIC = "public"
TOKEN_NAME_LENGTH_MAX = 64
LIFE_S_MAX = 36_500 * 86_400  # a hundred years: a time beyond year 9999 is none
_ALTER = "ALTER USER takes PASSWORD '…', ADMIN, NOADMIN, LOCK, UNLOCK or VALID UNTIL '…'"
_WORDS: dict[str, Word["ADMIN", "NOADMIN", "LOCK", "UNLOCK"]] = {
    "ADMIN": "ADMIN",
    "NOADMIN": "NOADMIN",
    "LOCK": "LOCK",
    "UNLOCK": "UNLOCK",
}


def user_name(cursor: Cursor, what: str = "user") -> str:
    """Consume the name of a user or role; InvalidName where nobody may be called so."""
    token = cursor.token
    name = cursor.name(what)
    with cursor.located(token):
        return check_user(name)


def new_user_name(cursor: Cursor, what: str) -> str:
    """Consume the name of a user or role that is to be made."""
    token = cursor.token
    name = user_name(cursor, what)
    if name.lower() == PUBLIC:
        raise cursor.error(InvalidName, f"no {what} is called {name!r}: as a grantee it means everybody", at=token)
    return name


def user_names(cursor: Cursor) -> tuple[str, ...]:
    """Consume ``ada, ben, …``; PUBLIC is one of them as ``public``."""
    names = [user_name(cursor, "user or role")]
    while cursor.take_symbol(","):
        names.append(user_name(cursor, "user or role"))
    return tuple(dict.fromkeys(names))


def create_user(cursor: Cursor) -> CreateUser:
    """Read what follows CREATE USER."""
    if_not_exists = cursor.take("IF", "NOT", "EXISTS")
    name = new_user_name(cursor, "user")
    password: Literal | Parameter | None = None
    admin, valid_until = False, None
    cursor.take("WITH")
    while not cursor.at_end():
        if password is None and cursor.take("PASSWORD"):
            password = _password(cursor)
        elif not admin and cursor.take("ADMIN"):
            admin = True
        elif valid_until is None and cursor.take("VALID", "UNTIL"):
            valid_until = _time(cursor)
        else:
            raise cursor.unexpected("PASSWORD '…', ADMIN or VALID UNTIL '…'", choices=("PASSWORD", "ADMIN", "VALID"))
    return CreateUser(name=name, if_not_exists=if_not_exists, password=password, admin=admin, valid_until=valid_until)


def alter_user(cursor: Cursor) -> AlterUser:
    """Read what follows ALTER USER."""
    name = user_name(cursor)
    cursor.take("WITH")
    if cursor.take("PASSWORD"):
        return AlterUser(name=name, password=_password(cursor))
    if cursor.take("VALID", "UNTIL"):
        return AlterUser(name=name, valid_until=_time(cursor))
    word = cursor.take_one(_WORDS)
    if word is None:
        raise cursor.refusal(_ALTER)
    return AlterUser(name=name, word=_WORDS[word])


def drop_user(cursor: Cursor) -> DropUser:
    """Read what follows DROP USER."""
    if_exists = cursor.take("IF", "EXISTS")
    return DropUser(user_name(cursor), if_exists, cursor.take("CASCADE"))


def create_role(cursor: Cursor) -> CreateRole:
    """Read what follows CREATE ROLE."""
    if_not_exists = cursor.take("IF", "NOT", "EXISTS")
    return CreateRole(new_user_name(cursor, "role"), if_not_exists)


def drop_role(cursor: Cursor) -> DropRole:
    """Read what follows DROP ROLE."""
    if_exists = cursor.take("IF", "EXISTS")
    return DropRole(user_name(cursor, "role"), if_exists)


def create_token(cursor: Cursor) -> CreateToken:
    """Read what follows CREATE TOKEN."""
    token = cursor.token
    name = cursor.string("the token's name")
    if not 1 <= len(name) <= TOKEN_NAME_LENGTH_MAX or not name.isprintable():
        raise cursor.error(
            InvalidName, f"a token's name has 1 to {TOKEN_NAME_LENGTH_MAX} printable characters", at=token
        )
    user = user_name(cursor) if cursor.take("FOR") else None
    expires_s = None
    if cursor.take("EXPIRES"):
        token = cursor.token
        expires_s = seconds(cursor.string("the token's life, such as '90d',"))
        if not expires_s or expires_s > LIFE_S_MAX:
            raise cursor.error(InvalidOption, "EXPIRES is a time from now, such as '12h' or '90d'", at=token)
    return CreateToken(name, user, expires_s)


def drop_token(cursor: Cursor) -> DropToken:
    """Read what follows DROP TOKEN."""
    name = cursor.string("the token's name")
    return DropToken(name, user_name(cursor) if cursor.take("FOR") else None)


def kill_session(cursor: Cursor) -> KillSession:
    """Read what follows KILL SESSION."""
    return KillSession(cursor.string("the session's id"))


def _password(cursor: Cursor) -> Literal | Parameter:
    token = cursor.token
    if token.kind is Kind.PARAMETER:
        cursor.advance()
        return Parameter(int(token.text[1:]))
    if token.kind not in (Kind.STRING, Kind.ESCAPE, Kind.DOLLAR):
        # What stands here instead may be the password, and is not shown.
        raise cursor.fault("expected the password as a text in single quotes, or a parameter")
    return Literal(string_value(cursor, cursor.advance()))


def _time(cursor: Cursor) -> str:
    return cursor.string("the time")
