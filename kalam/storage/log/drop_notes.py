"""Notes of dropped tables of which the broker may still hold something: in ``meta``, until that is gone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

from kalam.schema import Table

UNPURGED: Final = "unpurged:"
"""What the name of a note in ``meta`` begins with: what the broker holds of a dropped table is still to be removed."""


def note_drop(conn: sqlite3.Connection, table: Table) -> None:
    """Note that what the broker holds of a table is to go: its changes in the feed, or its stream."""
    note, name = f"{UNPURGED}{table.table_id}", table.name
    conn.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (note, f"{table.kind} {name.namespace} {name.table}"))


def renamed_note(table: Table) -> tuple[str, tuple[str, str]]:
    """The statement that notes that what the broker holds of a table under its former name is to go."""
    name = table.name
    note = f"{UNPURGED}{table.table_id}:{name.table}"
    return "INSERT OR REPLACE INTO meta VALUES (?, ?)", (note, f"{table.kind} {name.namespace} {name.table}")


def dropped_streams(conn: sqlite3.Connection) -> list[int]:
    """The ids of the dropped STREAM tables whose streams may still be there."""
    rows = conn.execute("SELECT name FROM meta WHERE name LIKE ? AND value LIKE ?", (f"{UNPURGED}%", "STREAM %"))
    return [int(name.removeprefix(UNPURGED)) for (name,) in rows]


def forget_drops(conn: sqlite3.Connection, table_ids: Iterable[int]) -> None:
    """Strike the notes of tables of which the broker holds nothing any more."""
    conn.executemany("DELETE FROM meta WHERE name = ?", [(f"{UNPURGED}{table_id}",) for table_id in table_ids])
