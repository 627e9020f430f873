"""For tests of logins: clocks that stand still until they are moved, cheap hashes, and a database that is full."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import argon2
from patience import PATIENCE_S

from kalam.errors import StorageFull
from kalam.storage.log.data_dir import prepare_database
from kalam.storage.log.database import Database

CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
"""For tests that hash many; what it costs is measured elsewhere."""


@dataclass
class Clock:
    """The time, in its three forms."""

    s: float = 1_000_000_000.0

    def seconds(self) -> float:
        return self.s

    def now_us(self) -> int:
        return round(self.s * 1_000_000)

    def now(self) -> datetime:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=self.s)


def open_database(data_dir: Path) -> Database:
    prepare_database(data_dir)
    database = Database(data_dir / "kalam.db", commit_rows_max=1_000)
    database.start()
    return database


async def fill_up(database: Database) -> None:
    """Let the database grow no further: SQLite then says what it says on a disk that is full."""

    def limit(conn: sqlite3.Connection) -> None:
        conn.execute("CREATE TABLE filler (blob)")
        [pages] = conn.execute("PRAGMA page_count").fetchone()
        conn.execute(f"PRAGMA max_page_count = {pages}")

    await database.write(limit)
    try:
        while True:
            await database.write(lambda conn: conn.execute("INSERT INTO filler VALUES (zeroblob(100))"))
    except StorageFull:
        return


async def make_room(database: Database) -> None:
    await database.write(lambda conn: conn.execute("PRAGMA max_page_count = 1000000"))


async def wait_until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)
