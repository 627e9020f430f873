"""The statements that a session carries out itself, read; they are told by their first words."""

from __future__ import annotations

from typing import Final

from kalam.sql.text.cursor import Cursor
from kalam.sql.text.lexer import Kind, StatementText
from kalam_pg.session.commands import (
    Begin,
    CloseCursor,
    Command,
    Commit,
    Copy,
    Deallocate,
    Declare,
    Discard,
    Fetch,
    Listen,
    Refused,
    Release,
    Reset,
    Rollback,
    Savepoint,
    Set,
    SetTransaction,
    Show,
    Unlisten,
    Use,
)

_SAVED: Final = "a statement takes effect by itself; the block's statements are no transaction"
_CREATED: Final = {
    "INDEX": "PRIMARY KEY is the only index; segments are sorted by it",
    "SEQUENCE": "a column's DEFAULT SNOWFLAKE_ID() gives increasing numbers",
    "FUNCTION": None,
    "PROCEDURE": None,
    "TRIGGER": "changes are on the table's NATS subjects, and LISTEN hears them",
    "TYPE": None,
    "DOMAIN": None,
    "EXTENSION": None,
    "RULE": None,
    "AGGREGATE": None,
    "CAST": None,
    "OPERATOR": None,
    "PUBLICATION": "changes are on the table's NATS subjects",
    "SUBSCRIPTION": None,
    "SERVER": None,
    "DATABASE": "CREATE NAMESPACE makes what others call a schema; a database is a server of its own",
    "TABLESPACE": "the table option LOCATION says where segments lie",
}


def command_of(statement: StatementText) -> Command | None:
    """What a session does with a statement itself; None for the engine's. Raises SyntaxFault."""
    cursor = Cursor(statement)
    read = _READERS.get(cursor.token.word)
    return None if read is None else read(cursor)


def _begin(cursor: Cursor) -> Command:
    tag = "START TRANSACTION" if cursor.take("START") else "BEGIN"
    if tag == "BEGIN":
        cursor.expect("BEGIN")
        cursor.take_one(("WORK", "TRANSACTION"))
    else:
        cursor.expect("TRANSACTION")
    return Begin(_modes(cursor), tag)


def _modes(cursor: Cursor) -> bool | None:
    """What the modes of a transaction say of writing; isolation is taken and read committed."""
    read_only: bool | None = None
    while cursor.token.kind is not Kind.END:
        if cursor.take("READ"):
            read_only = cursor.take_one(("ONLY", "WRITE")) == "ONLY"
        elif cursor.take("ISOLATION", "LEVEL"):
            if cursor.take_one(("READ", "REPEATABLE")):
                cursor.advance()
            else:
                cursor.expect("SERIALIZABLE")
        elif cursor.take("SNAPSHOT"):
            cursor.advance()
        elif not (cursor.take("NOT", "DEFERRABLE") or cursor.take("DEFERRABLE") or cursor.take(",")):
            raise cursor.unexpected("a transaction's mode")
    return read_only


def _ending(cursor: Cursor) -> Command:
    word = cursor.advance().word
    ends = word in ("COMMIT", "END")
    if cursor.take("PREPARED"):
        return Refused("two-phase commit is not there", _SAVED)
    cursor.take_one(("WORK", "TRANSACTION"))
    if not ends and cursor.take("TO"):
        cursor.take("SAVEPOINT")
        return Rollback(savepoint=_name(cursor))
    chain = cursor.take("AND") and not cursor.take("NO")
    if chain or cursor.at("CHAIN"):
        cursor.expect("CHAIN")
    _end(cursor)
    return Commit(chain) if ends else Rollback(chain)


def _savepoint(cursor: Cursor) -> Command:
    cursor.advance()
    return Savepoint(_name(cursor))


def _release(cursor: Cursor) -> Command:
    cursor.advance()
    cursor.take("SAVEPOINT")
    return Release(_name(cursor))


def _set(cursor: Cursor) -> Command | None:
    cursor.expect("SET")
    session = cursor.take("SESSION")
    local = not session and cursor.take("LOCAL")
    if session and cursor.take("CHARACTERISTICS", "AS", "TRANSACTION"):
        return SetTransaction(_modes(cursor), session=True)
    if cursor.take("TRANSACTION"):
        return SetTransaction(_modes(cursor))
    if session and cursor.take("AUTHORIZATION"):
        if cursor.take("DEFAULT"):
            return Set("session_authorization", None)
        return Refused("SET SESSION AUTHORIZATION is not there", "EXECUTE AS USER 'name' (…) acts for another user")
    if cursor.take("TIME", "ZONE"):
        return Set("TimeZone", _value(cursor), local)
    if cursor.take("NAMES"):
        return Set("client_encoding", _value(cursor), local)
    if cursor.take("SCHEMA"):
        return Set("search_path", _value(cursor), local)
    if cursor.take("ROLE"):
        if cursor.take("NONE") or cursor.take("DEFAULT"):
            return Set("role", None, local)
        return Refused("SET ROLE is not there", "EXECUTE AS USER 'name' (…) acts for another user")
    if cursor.take("CONSTRAINTS"):
        return Refused("constraints are never deferred")
    name = _dotted(cursor)
    if not cursor.take("TO"):
        cursor.expect("=")
    return Set(name, _value(cursor), local)


def _value(cursor: Cursor) -> str | None:
    """The values of a SET as one text, separated by commas; None for DEFAULT."""
    if cursor.take("DEFAULT") or cursor.take("LOCAL"):
        return None
    parts = [_part(cursor)]
    while cursor.take(","):
        parts.append(_part(cursor))
    _end(cursor)
    return ", ".join(parts)


def _part(cursor: Cursor) -> str:
    sign = "-" if cursor.take("-") else ""
    token = cursor.token
    match token.kind:
        case Kind.STRING:
            cursor.advance()
            return token.text[1:-1].replace("''", "'")
        case Kind.ESCAPE:
            cursor.advance()
            return token.text[2:-1].replace("''", "'").replace("\\'", "'").replace("\\\\", "\\")
        case Kind.QUOTED:
            cursor.advance()
            return token.text
        case Kind.WORD | Kind.NUMBER:
            cursor.advance()
            return sign + token.text
    raise cursor.unexpected("a value")


def _show(cursor: Cursor) -> Command | None:
    cursor.expect("SHOW")
    if cursor.take("TIME", "ZONE"):
        return Show("TimeZone")
    if cursor.take("TRANSACTION", "ISOLATION", "LEVEL"):
        return Show("transaction_isolation")
    if cursor.take("SESSION", "AUTHORIZATION"):
        return Show("session_authorization")
    if cursor.token.kind not in (Kind.WORD, Kind.QUOTED):
        return None
    name = _dotted(cursor)
    if name in _KALAMS or not cursor.at_end():
        return None  # Kalam's own have further words behind these, or are among the names
    return Show(name)


_KALAMS: Final = frozenset(
    {
        *("namespaces", "tables", "queries", "jobs", "users", "roles", "tokens", "sessions", "grants", "policies"),
        *("streams", "lake", "stats", "views", "databases", "schemas"),
    }
)


def _reset(cursor: Cursor) -> Command:
    cursor.expect("RESET")
    if cursor.take("ALL"):
        return Reset(None)
    if cursor.take("TIME", "ZONE"):
        return Reset("TimeZone")
    if cursor.take("SESSION", "AUTHORIZATION"):
        return Reset("session_authorization")
    return Reset(_dotted(cursor))


def _discard(cursor: Cursor) -> Command:
    cursor.expect("DISCARD")
    what = cursor.take_one(("ALL", "PLANS", "SEQUENCES", "TEMP", "TEMPORARY"))
    if what is None:
        raise cursor.unexpected("ALL, PLANS, SEQUENCES or TEMP")
    return Discard(what)


def _deallocate(cursor: Cursor) -> Command:
    cursor.expect("DEALLOCATE")
    cursor.take("PREPARE")
    return Deallocate(None if cursor.take("ALL") else _name(cursor))


def _declare(cursor: Cursor) -> Command:
    cursor.expect("DECLARE")
    name, binary = _name(cursor), False
    while not cursor.take("CURSOR"):
        if cursor.take("NO", "SCROLL") or cursor.take_one(("INSENSITIVE", "ASENSITIVE")):
            continue
        if cursor.take("SCROLL"):
            return Refused("a cursor goes forward only", "leave SCROLL out")
        cursor.expect("BINARY")
        binary = True
    hold = cursor.take("WITH", "HOLD")
    if not hold:
        cursor.take("WITHOUT", "HOLD")
    cursor.expect("FOR")
    return Declare(name, cursor.statement.text[cursor.token.start :], binary, hold)


def _fetch(cursor: Cursor) -> Command:
    move = cursor.advance().word == "MOVE"
    count: int | None = 1
    if cursor.take("ALL") or cursor.take("FORWARD", "ALL"):
        count = None
    elif cursor.take("NEXT"):
        count = 1
    elif cursor.at("FORWARD") or cursor.token.kind is Kind.NUMBER:
        cursor.take("FORWARD")
        if cursor.token.kind is Kind.NUMBER:
            count = _count(cursor)
    elif cursor.take_one(("PRIOR", "FIRST", "LAST", "ABSOLUTE", "RELATIVE", "BACKWARD")) or cursor.take("-"):
        return Refused("a cursor goes forward only", "FETCH FORWARD n FROM it")
    cursor.take_one(("FROM", "IN"))
    return Fetch(_name(cursor), count, move)


def _count(cursor: Cursor) -> int:
    token = cursor.advance()
    if not token.text.isdigit():
        raise cursor.unexpected("a number of rows")
    return int(token.text)


def _close(cursor: Cursor) -> Command:
    cursor.expect("CLOSE")
    return CloseCursor(None if cursor.take("ALL") else _name(cursor))


def _listen(cursor: Cursor) -> Command:
    cursor.expect("LISTEN")
    return Listen(_name(cursor))


def _unlisten(cursor: Cursor) -> Command:
    cursor.expect("UNLISTEN")
    return Unlisten(None if cursor.take("*") else _name(cursor))


def _use(cursor: Cursor) -> Command:
    cursor.expect("USE")
    return Use(_name(cursor))


def _create(cursor: Cursor) -> Command | None:
    cursor.advance()
    if cursor.take("OR"):
        cursor.take("REPLACE")
    cursor.take_one(("UNIQUE", "CONSTRAINT", "EVENT", "TRUSTED"))
    word = cursor.token.word
    if word not in _CREATED:
        return None
    return Refused(f"there is no {word} in Kalam", _CREATED[word])


def _prepare(cursor: Cursor) -> Command:
    cursor.expect("PREPARE")
    if cursor.take("TRANSACTION"):
        return Refused("two-phase commit is not there", _SAVED)
    return Refused("PREPARE as a statement is not there", "prepare by the protocol, as drivers do")


def _notify(_: Cursor) -> Command:
    return Refused("NOTIFY is not there", "an INSERT into a table is heard by whoever listens to it")


def _lock(_: Cursor) -> Command:
    return Refused("LOCK is not there", _SAVED)


def _copy(cursor: Cursor) -> Command:
    return Copy(cursor.statement.text)


def _name(cursor: Cursor) -> str:
    token = cursor.token
    if not token.name:
        raise cursor.unexpected("a name")
    cursor.advance()
    _end(cursor, among=("FROM", "IN", "CURSOR", "BINARY", "INSENSITIVE", "ASENSITIVE", "SCROLL", "NO"))
    return token.name


def _dotted(cursor: Cursor) -> str:
    token = cursor.advance()
    if not token.name:
        raise cursor.unexpected("the name of a setting")
    name = token.name
    while cursor.take("."):
        name += "." + cursor.advance().name
    return name


def _end(cursor: Cursor, among: tuple[str, ...] = ()) -> None:
    if cursor.token.kind is not Kind.END and cursor.token.word not in among:
        raise cursor.unexpected("the end of the statement")


_READERS: Final = {
    "BEGIN": _begin,
    "START": _begin,
    "COMMIT": _ending,
    "END": _ending,
    "ROLLBACK": _ending,
    "ABORT": _ending,
    "SAVEPOINT": _savepoint,
    "RELEASE": _release,
    "SET": _set,
    "SHOW": _show,
    "RESET": _reset,
    "DISCARD": _discard,
    "DEALLOCATE": _deallocate,
    "DECLARE": _declare,
    "FETCH": _fetch,
    "MOVE": _fetch,
    "CLOSE": _close,
    "LISTEN": _listen,
    "UNLISTEN": _unlisten,
    "USE": _use,
    "CREATE": _create,
    "PREPARE": _prepare,
    "NOTIFY": _notify,
    "LOCK": _lock,
    "COPY": _copy,
}
