"""The tables of ``kalam.db``, as of the first release.

Times are microseconds since 1970, in columns that end in ``_us``. See kalam/storage/DESIGN.md for what each table is
for.
"""

from __future__ import annotations

from typing import Any

STATEMENTS = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE namespaces (namespace TEXT PRIMARY KEY, created_us INTEGER NOT NULL) WITHOUT ROWID",
    # AUTOINCREMENT: an id is never given twice, so that a table created again is told from its predecessor.
    """CREATE TABLE tables (
        table_id INTEGER PRIMARY KEY AUTOINCREMENT,
        namespace TEXT NOT NULL REFERENCES namespaces (namespace),
        table_name TEXT NOT NULL,
        kind TEXT NOT NULL,
        key TEXT,
        options TEXT NOT NULL,
        schema_version INTEGER NOT NULL,
        created_us INTEGER NOT NULL,
        UNIQUE (namespace, table_name)
    )""",
    """CREATE TABLE table_schemas (
        table_id INTEGER NOT NULL,
        schema_version INTEGER NOT NULL,
        columns TEXT NOT NULL,
        created_us INTEGER NOT NULL,
        PRIMARY KEY (table_id, schema_version)
    ) WITHOUT ROWID""",
    # One copy of the rows for a SHARED table (user_id '') and one for each user of a USER table.
    """CREATE TABLE copies (
        copy_id INTEGER PRIMARY KEY AUTOINCREMENT,
        table_id INTEGER NOT NULL,
        user_id TEXT NOT NULL,
        flushed_seq INTEGER NOT NULL DEFAULT 0,
        published_seq INTEGER NOT NULL DEFAULT 0,
        UNIQUE (table_id, user_id)
    )""",
    # The log of versions: a row is a run of changes of one kind, seq first_seq, first_seq + 1, ….
    """CREATE TABLE log (
        copy_id INTEGER NOT NULL,
        first_seq INTEGER NOT NULL,
        row_count INTEGER NOT NULL,
        op TEXT NOT NULL,
        updated_us INTEGER NOT NULL,
        schema_version INTEGER NOT NULL,
        superseding INTEGER NOT NULL,
        flushed INTEGER NOT NULL DEFAULT 0,
        payload BLOB NOT NULL,
        old BLOB
    )""",
    "CREATE UNIQUE INDEX log_place ON log (copy_id, first_seq)",
    """CREATE TABLE segments (
        segment_id INTEGER PRIMARY KEY AUTOINCREMENT,
        copy_id INTEGER NOT NULL,
        path TEXT NOT NULL,
        deleted INTEGER NOT NULL,
        row_count INTEGER NOT NULL,
        byte_count INTEGER NOT NULL,
        min_seq INTEGER NOT NULL,
        max_seq INTEGER NOT NULL,
        min_key BLOB NOT NULL,
        max_key BLOB NOT NULL,
        schema_version INTEGER NOT NULL,
        created_us INTEGER NOT NULL
    )""",
    "CREATE INDEX segments_of_copy ON segments (copy_id)",
    "CREATE TABLE key_filters (segment_id INTEGER PRIMARY KEY, key_filter BLOB NOT NULL)",
    # Keys whose older copies in segments are hidden by a version that was flushed as seq.
    """CREATE TABLE overrides (
        copy_id INTEGER NOT NULL,
        key BLOB NOT NULL,
        seq INTEGER NOT NULL,
        PRIMARY KEY (copy_id, key)
    ) WITHOUT ROWID""",
    """CREATE TABLE jobs (
        job_id TEXT PRIMARY KEY,
        job_type TEXT NOT NULL,
        namespace TEXT NOT NULL,
        table_name TEXT NOT NULL,
        status TEXT NOT NULL,
        parameters TEXT,
        result TEXT,
        error TEXT,
        created_us INTEGER NOT NULL,
        started_us INTEGER,
        finished_us INTEGER
    ) WITHOUT ROWID""",
    # What an insert with a Nats-Msg-Id was answered.
    """CREATE TABLE answers (
        table_id INTEGER NOT NULL,
        user_id TEXT NOT NULL,
        msg_id TEXT NOT NULL,
        answer BLOB NOT NULL,
        answered_us INTEGER NOT NULL,
        PRIMARY KEY (table_id, user_id, msg_id)
    ) WITHOUT ROWID""",
    "CREATE INDEX answers_by_age ON answers (answered_us)",
    """CREATE TABLE stream_counters (
        table_id INTEGER PRIMARY KEY,
        published INTEGER NOT NULL,
        discarded INTEGER NOT NULL,
        rejected INTEGER NOT NULL,
        evicted_ttl INTEGER NOT NULL,
        evicted_max_buffer INTEGER NOT NULL,
        deleted INTEGER NOT NULL,
        undecodable INTEGER NOT NULL,
        accounted_gone INTEGER NOT NULL,
        judged_seq INTEGER NOT NULL
    )""",
    # Folders and files that nothing names any more and that are still to be removed.
    "CREATE TABLE garbage (path TEXT PRIMARY KEY, created_us INTEGER NOT NULL) WITHOUT ROWID",
)


def first_release(db: Any) -> None:
    """Create every table."""
    for statement in STATEMENTS:
        db.execute(statement)
