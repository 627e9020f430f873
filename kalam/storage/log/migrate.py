"""Bringing ``kalam.db`` up to date, with sqlite-utils."""

from __future__ import annotations

import fcntl
import sqlite3
from pathlib import Path
from typing import Any

from kalam.errors import Unavailable
from kalam.imports import DATA_FRAMES, without
from kalam.migrations import MIGRATIONS
from kalam.storage.log.database import connect


def migrate(path: Path) -> None:
    """Bring the database file up to date; a lock file keeps two processes from doing so at once."""
    conn = connect(path)
    try:
        if conn.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS):
            return
        with path.with_suffix(".migrating").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _apply_migrations(conn)
    finally:
        conn.close()


def _apply_migrations(conn: sqlite3.Connection) -> None:
    seen = conn.execute("PRAGMA user_version").fetchone()[0]
    if seen > len(MIGRATIONS):
        raise Unavailable(
            "the data directory was written by a newer release of Kalam; install that release or a later one"
        )
    sqlite_utils = import_sqlite_utils()
    migrations = sqlite_utils.migrations.Migrations("kalam")
    for migration in MIGRATIONS:
        migrations()(migration)
    conn.isolation_level = "DEFERRED"
    migrations.apply(sqlite_utils.Database(conn, execute_plugins=False))
    conn.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    conn.commit()


def import_sqlite_utils() -> Any:
    """Import sqlite-utils, without the pandas that it would pull in."""
    with without(DATA_FRAMES):
        import sqlite_utils
        import sqlite_utils.migrations
    return sqlite_utils
