"""Errors as PostgreSQL tells them: the SQLSTATE of each of Kalam's codes, and what only this protocol can get wrong."""

from __future__ import annotations

import re
from typing import Final

from kalam.errors import Internal, KalamError

INVALID_TEXT: Final = "22P02"
INVALID_BINARY: Final = "22P03"
PROTOCOL: Final = "08P01"
FEATURE: Final = "0A000"
IN_FAILED_BLOCK: Final = "25P02"
READ_ONLY: Final = "25006"
NO_STATEMENT: Final = "26000"
NO_CURSOR: Final = "34000"
CURSOR_EXISTS: Final = "42P03"
STATEMENT_EXISTS: Final = "42P05"
TOO_MANY_CONNECTIONS: Final = "53300"
BAD_COPY: Final = "22P04"
UNDEFINED_OBJECT: Final = "42704"
ADMIN_SHUTDOWN: Final = "57P01"
INVALID_AUTHORIZATION: Final = "28000"

SQLSTATES: Final = {
    "syntax_error": "42601",
    "unsupported": FEATURE,
    "invalid_name": "42602",
    "invalid_option": "22023",
    "invalid_value": "22023",
    "not_null_violation": "23502",
    "column_not_found": "42703",
    "cursor_expired": "55000",
    "unauthenticated": "28P01",
    "permission_denied": "42501",
    "namespace_not_found": "3F000",
    "table_not_found": "42P01",
    "not_found": UNDEFINED_OBJECT,
    "timeout": "57014",
    "cancelled": "57014",
    "duplicate_key": "23505",
    "already_exists": "42P07",
    "table_in_use": "55006",
    "too_large": "54000",
    "too_busy": "53000",
    "internal": "XX000",
    "corrupt_segment": "XX001",
    "storage_full": "53100",
    "broker_unavailable": "08006",
}
"""Not 57P01 for a broker that is away: drivers would drop the connection."""

_SAID: Final = (
    ("invalid_value", re.compile(r"divi(?:de|sion) by zero", re.IGNORECASE), "22012"),
    (
        "invalid_value",
        re.compile(
            r"out of range|overflow|does not fit (?:into )?(?:SMALLINT|INT|BIGINT|FLOAT|DECIMAL)", re.IGNORECASE
        ),
        "22003",
    ),
    ("invalid_value", re.compile(r"characters|longer than|VARCHAR\("), "22001"),
    ("already_exists", re.compile(r"\bnamespace\b"), "42P06"),
    ("already_exists", re.compile(r"\bcolumn\b"), "42701"),
)
"""What a code says too little of, and the message says."""


class SqlError(Exception):
    """What is wrong with a message, and not with what it asks for: with its own SQLSTATE."""

    routine: str | None = None

    def __init__(self, sqlstate: str, detail: str, hint: str | None = None) -> None:
        super().__init__(detail)
        self.sqlstate, self.detail, self.hint = sqlstate, detail, hint


class OutdatedPlan(SqlError):
    """A prepared statement would give other columns than it was described with.

    Drivers tell it from other things that are not supported by the ``routine``, and prepare the statement anew.
    """

    routine = "RevalidateCachedQuery"

    def __init__(self) -> None:
        super().__init__(FEATURE, "cached plan must not change result type", "prepare the statement again")


class Told:
    """An error as it is told."""

    def __init__(
        self,
        sqlstate: str,
        detail: str,
        hint: str | None = None,
        position: int | None = None,
        routine: str | None = None,
    ) -> None:
        self.sqlstate, self.detail, self.hint = sqlstate, detail, hint
        self.position, self.routine = position, routine


def told(error: BaseException, text: str = "") -> Told:
    """How an error is told to a client that sent this text; one that nobody expected as an internal one."""
    if isinstance(error, SqlError):
        return Told(error.sqlstate, error.detail, error.hint, routine=error.routine)
    if not isinstance(error, KalamError):
        error = Internal("the server failed to answer; its log has the reason")
    return Told(sqlstate_of(error), error.told, error.fields.get("hint"), _position(error, text))


def sqlstate_of(error: KalamError) -> str:
    """The SQLSTATE of one of Kalam's errors."""
    own = getattr(error, "sqlstate", None)
    if own is not None:
        return str(own)
    for code, pattern, sqlstate in _SAID:
        if error.code == code and pattern.search(error.detail):
            return sqlstate
    return SQLSTATES[error.code]


def _position(error: KalamError, text: str) -> int | None:
    """Where in a text the error is, counted in characters from 1."""
    line, column = error.fields.get("line"), error.fields.get("column")
    if not text or not isinstance(line, int) or not isinstance(column, int):
        return None
    lines = text.split("\n")
    if not 1 <= line <= len(lines):
        return None
    return sum(len(each) + 1 for each in lines[: line - 1]) + column
