"""Materialized views: how far each has read its sources, what became of it, and what its upkeep remembers.

A position is of one source: ``seq`` is the last change that was taken in, of the source's ``generation`` (which counts
how often a stream was made anew) and of the stream that was ``created`` then; ``remembered`` are the last messages that
were seen of a stream of others, in msgpack. While ``holds`` is set the log keeps what comes behind it.
"""

from __future__ import annotations

from typing import Any

STATEMENTS = (
    """CREATE TABLE view_positions (
        table_id INTEGER NOT NULL,
        source_id INTEGER NOT NULL,
        generation INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        created TEXT NOT NULL,
        remembered BLOB NOT NULL,
        missed INTEGER NOT NULL,
        holds INTEGER NOT NULL,
        PRIMARY KEY (table_id, source_id)
    ) WITHOUT ROWID""",
    "CREATE INDEX view_positions_of_source ON view_positions (source_id)",
    # `stopped` is the reason of a view that does not go on by itself; `filled` says that it has been filled once.
    """CREATE TABLE view_states (
        table_id INTEGER PRIMARY KEY,
        stopped TEXT NOT NULL,
        filled INTEGER NOT NULL,
        late INTEGER NOT NULL,
        failed INTEGER NOT NULL,
        refreshes INTEGER NOT NULL
    )""",
    # What a way of keeping a view up remembers, in its own form.
    """CREATE TABLE view_memory (
        table_id INTEGER NOT NULL,
        name BLOB NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (table_id, name)
    ) WITHOUT ROWID""",
)


def views(db: Any) -> None:
    """Make the tables."""
    for statement in STATEMENTS:
        db.execute(statement)
