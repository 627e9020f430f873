"""Remembered answers: what an insert with a ``Nats-Msg-Id`` was told, so that a repeat is told the same.

A message is named by its sender and its id. Of a stored row the answer is kept in the transaction of the row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

from kalam.schema import Table
from kalam.storage.log.database import now_us

MessageName = tuple[str, str]
"""The sender and the id of a message."""
ANSWER_US = 120_000_000
"""How long an answer is remembered, in microseconds."""


def known_answers(conn: sqlite3.Connection, table: Table, names: Iterable[MessageName]) -> dict[MessageName, bytes]:
    """What messages with these names were answered, as far as there were any."""
    found: dict[MessageName, bytes] = {}
    for name in set(names):
        row = conn.execute(
            "SELECT answer FROM answers WHERE table_id = ? AND user_id = ? AND msg_id = ? AND answered_us > ?",
            (table.table_id, *name, now_us() - ANSWER_US),
        ).fetchone()
        if row is not None:
            found[name] = bytes(row[0])
    return found


def remember_answers(
    conn: sqlite3.Connection, table: Table, answers: Mapping[MessageName, bytes], answered_us: int
) -> None:
    """Keep what messages were answered."""
    rows = [(table.table_id, *name, answer, answered_us) for name, answer in answers.items()]
    conn.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)", rows)


def forget_answers(conn: sqlite3.Connection) -> None:
    """Let go of those that are too old to count."""
    conn.execute("DELETE FROM answers WHERE answered_us < ?", (now_us() - ANSWER_US,))
