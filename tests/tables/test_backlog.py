"""What waits in the log is read on in pieces, each as quickly as the first one."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import accumulate
from pathlib import Path

import pytest

from kalam.storage.log.data_dir import prepare_database
from kalam.storage.log.database import Database
from kalam.tables.backlog import read_on

COPY_ID, TABLE_ID = 7, 1
COPY = "INSERT INTO copies (copy_id, table_id, user_id, published_seq) VALUES (?, ?, ?, ?)"
CHUNK = (
    "INSERT INTO log (copy_id, first_seq, row_count, op, updated_us, schema_version, superseding, payload) "
    "VALUES (?, ?, ?, 'insert', 0, 1, 0, ?)"
)


@pytest.fixture
def database(data_dir: Path) -> Iterator[Database]:
    prepare_database(data_dir)
    database = Database(data_dir / "kalam.db", commit_rows_max=1_000)
    database.start()
    yield database
    database.close()


def fill(database: Database, row_counts: list[int], published_seq: int = 0) -> list[int]:
    """A copy with chunks of so many rows, and another one; the last change of each chunk."""
    lasts = list(accumulate(row_counts))
    places = [(last - rows + 1, rows) for last, rows in zip(lasts, row_counts, strict=True)]
    with closing(sqlite3.connect(database.path)) as conn, conn:
        for copy_id, user, published in ((COPY_ID, "", published_seq), (COPY_ID + 1, "ada", 0)):
            conn.execute(COPY, (copy_id, TABLE_ID, user, published))
            conn.executemany(CHUNK, ((copy_id, first, rows, b"x" * 100) for first, rows in places))
    return lasts


def all_behind(database: Database, after_seq: int, bytes_max: int) -> list[int]:
    """The last changes of the chunks that are read one part after another."""
    found: list[int] = []
    while part := read_on(database, COPY_ID, after_seq, bytes_max):
        found += [chunk.last_seq for chunk in part]
        after_seq = found[-1]
    return found


@pytest.mark.parametrize("published_seq", [0, 150])
@pytest.mark.parametrize("bytes_max", [1, 1_000, 1 << 20])
def test_behind_any_change_it_reads_each_chunk_that_goes_beyond_it_once(
    database: Database, bytes_max: int, published_seq: int
) -> None:
    rng = random.Random(bytes_max)
    lasts = fill(database, [rng.randrange(1, 4) for _ in range(200)], published_seq)
    for after_seq in [0, *(rng.randrange(lasts[-1]) for _ in range(20)), lasts[-1], lasts[-1] + 5]:
        wanted = [last for last in lasts if last > max(after_seq, published_seq)]
        assert all_behind(database, after_seq, bytes_max) == wanted


def test_of_a_copy_that_was_dropped_there_is_nothing(database: Database) -> None:
    fill(database, [1, 1])
    with closing(sqlite3.connect(database.path)) as conn, conn:
        conn.execute("DELETE FROM copies WHERE copy_id = ?", (COPY_ID,))
    assert read_on(database, COPY_ID, 0, 1_000) == []


def test_a_part_far_behind_the_beginning_takes_no_more_than_the_first(database: Database) -> None:
    fill(database, [1] * 5_000)
    assert steps_of(database, 4_900) < 1.5 * steps_of(database, 0)


def steps_of(database: Database, after_seq: int) -> int:
    """How much SQLite does for the part behind a change."""
    done = 0

    def count() -> None:
        nonlocal done
        done += 1

    with database.reading() as conn:  # the one that this thread reads with again
        conn.set_progress_handler(count, 1)
    assert read_on(database, COPY_ID, after_seq, 1_000)
    conn.set_progress_handler(None, 1)
    return done
