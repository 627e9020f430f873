"""The statements of the language: which word begins which, and which are refused.

Texts come in two steps, `split` and `parse_statement`, because the statements of a request run in order and stop at the
first error: the engine parses each when those before it have run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from kalam.sql import changes, commands, live
from kalam.sql.access import grants
from kalam.sql.queries.readers import select
from kalam.sql.tables import definitions
from kalam.sql.text.cursor import Cursor, did_you_mean
from kalam.sql.text.lexer import StatementText, check_unicode, split
from kalam.sql.text.limits import TOO_DEEP
from kalam.sql.text.statements import ExecuteAs, Statement, Subscribe

Read = TypeVar("Read")

_STATEMENTS: dict[str, Callable[[Cursor], Statement]] = {
    "SELECT": select,
    "WITH": select,
    "VALUES": select,
    "EXPLAIN": select,
    "INSERT": changes.insert,
    "UPDATE": changes.update,
    "DELETE": changes.delete,
    "MERGE": changes.merge,
    "CREATE": definitions.create,
    "DROP": definitions.drop,
    "ALTER": definitions.alter,
    "TRUNCATE": definitions.truncate,
    "COMMENT": commands.comment,
    "DESCRIBE": commands.describe,
    "DESC": commands.describe,
    "SHOW": commands.show,
    "USE": commands.use,
    "FLUSH": commands.flush,
    "STORAGE": commands.flush,
    "COMPACT": commands.compact,
    "CHECK": commands.check,
    "REFRESH": commands.refresh,
    "KILL": commands.kill,
    "SUBSCRIBE": live.subscribe,
    "GRANT": grants.grant,
    "REVOKE": grants.revoke,
}
_SUPPORTED = f"the statements begin with {', '.join(sorted(_STATEMENTS))}"

_TRANSACTION = "there are no transactions over several statements; each statement is one"
_PROGRAM = "there are no stored programs and prepared statements; send the text with parameters $1, $2, …"
_REFUSED = {
    **dict.fromkeys(("BEGIN", "START", "COMMIT", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE", "END"), _TRANSACTION),
    **dict.fromkeys(("EXECUTE", "EXEC", "PREPARE", "DEALLOCATE", "CALL", "DO", "DECLARE", "FETCH", "CLOSE"), _PROGRAM),
    "DENY": "what is not granted is not allowed: use REVOKE",
    "COPY": "files are read by `kalam insert` and written by `kalam export`",
    "SET": "settings are the server's; a table's are changed by ALTER TABLE t SET (option = value)",
    "REPLACE": "use INSERT … ON CONFLICT (key) DO UPDATE SET …",
    "UPSERT": "use INSERT … ON CONFLICT (key) DO UPDATE SET …",
    "VACUUM": "use COMPACT TABLE t",
    "OPTIMIZE": "use COMPACT TABLE t",
    "TABLE": "use SELECT * FROM t",
    "FROM": "a query begins with SELECT, WITH or VALUES",
    **dict.fromkeys(
        (
            *(
                "ANALYZE",
                "ATTACH",
                "BACKUP",
                "CACHE",
                "CHECKPOINT",
                "CLUSTER",
                "DETACH",
                "DISCARD",
                "EXPORT",
            ),
            *(
                "IMPORT",
                "INSTALL",
                "LISTEN",
                "LOAD",
                "LOCK",
                "MSCK",
                "NOTIFY",
                "PIVOT",
                "PRAGMA",
                "REASSIGN",
            ),
            *(
                "REINDEX",
                "RENAME",
                "RESET",
                "RESTORE",
                "SECURITY",
                "SUMMARIZE",
                "UNCACHE",
                "UNLISTEN",
                "UNLOAD",
                "UNPIVOT",
            ),
        ),
        None,
    ),
}


def parse(text: str) -> list[Statement]:
    """Every statement of a request, in order. Raises the first error that any of them has."""
    return [parse_statement(statement) for statement in split(text)]


def parse_statement(text: str | StatementText) -> Statement:
    """One statement as a value.

    ``text`` is one of ``split``'s, whose errors then tell line and column in the whole request, or a text with one
    statement. Raises SyntaxFault, Unsupported, InvalidName, InvalidOption, InvalidValue or ColumnNotFound.
    """
    return _read(text, _statement)


def parse_live(text: str) -> Subscribe | ExecuteAs:
    """The live query that a bare ``SELECT …``, or a ``SUBSCRIBE TO SELECT …``, asks for, maybe for another user."""
    return _read(text, _live)


def _live(cursor: Cursor) -> Subscribe | ExecuteAs:
    return grants.execute_as(cursor, live.live_select) if cursor.at("EXECUTE", "AS") else live.live_select(cursor)


def _read(text: str | StatementText, read: Callable[[Cursor], Read]) -> Read:
    statement = _one(text) if isinstance(text, str) else text
    check_unicode(statement)
    try:
        cursor = Cursor(statement)
        outcome = read(cursor)
        cursor.expect_end()
    except RecursionError:
        raise statement.fault(TOO_DEEP, 0) from None
    return outcome


def _one(text: str) -> StatementText:
    statements = split(text)
    if len(statements) > 1:
        raise statements[1].fault("expected one statement, found another behind it", 0)
    return statements[0]


def _statement(cursor: Cursor) -> Statement:
    word = cursor.token.word
    if cursor.at("EXECUTE", "AS"):
        return grants.execute_as(cursor, _statement)
    read = select if cursor.at_symbol("(") else _STATEMENTS.get(word)
    if read is not None:
        return read(cursor)
    if word in _REFUSED:
        raise cursor.refusal(f"{word} is not supported; {_REFUSED[word] or _SUPPORTED}")
    raise cursor.fault(f"{cursor.found()} begins no statement; {_SUPPORTED}", hint=did_you_mean(word, _STATEMENTS))
