"""An entry of the audit, as a value and as a row of ``kalam.db``."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

import msgspec

OK: Final = "ok"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what, and what came of it.

    ``user`` is who logged in (None where nobody of that name is), ``acting_for`` whom an administrator stood for.
    ``outcome`` is ``ok`` or the code of the error. Nothing of what a user typed goes into ``detail``, for it may be a
    secret. ``at_us`` is in microseconds since 1970.
    """

    at_us: int
    user: str | None
    acting_for: str | None = None
    door: str = ""
    address: str = ""
    action: str
    object: str = ""
    outcome: str = OK
    detail: str = ""


def insert_entries(conn: sqlite3.Connection, entries: Iterable[Entry]) -> None:
    """Add entries to the audit."""
    conn.executemany(
        "INSERT INTO audit (at_us, user, acting_for, door, address, action, object, outcome, detail) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [msgspec.structs.astuple(entry) for entry in entries],
    )
