"""How far the catalogue has come, kept in a second place, so that an older catalogue is known as such.

The law: what the second place says, the file ``kalam.generation``, was committed to ``kalam.db`` before. So a database
that does not know of it is an older one: its log is gone or cut short, or an older copy was put back. To go on with it
would lose what was acknowledged since, and take the newest segments for files that nobody needs.

Two things are compared. The *generation* counts the starts and the commits that change what the catalogue names
(namespaces, tables, segments); triggers of the writing connection count it, so that no statement can forget to. The
*last change* is the place of the last row that was committed, which tells a log that was cut short. The broker's
streams carry the generation of the start that made or took them, for a data directory that was put back as a whole.

A commit of rows is not made to wait for a second fsync, nor to write a second page: the file is a memory map, which
outlives the process. After a power cut it may be behind the database, and never ahead.
"""

from __future__ import annotations

import mmap
import os
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from kalam.errors import Unavailable

MARK: Final = "kalam.generation"
NAME: Final = "generation"
"""Its name in the table ``meta``."""
STREAMS_NAME: Final = "streams_generation"
"""The same for the generation that the broker's streams know of."""
COUNTED: Final = ("namespaces", "tables", "table_schemas", "segments")
HEADER_BYTES: Final = 100
IDS_SKIPPED: Final = 1_000_000
DAMAGED_HINT: Final = "put the newest kalam.db (with its kalam.db-wal) back, or restore a backup into a new folder"


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in the second place.

    ``base`` is the generation that the database file has without its log; ``copy_id`` and ``seq`` are the last change.
    """

    data_id: str
    generation: int
    base: int
    copy_id: int = 0
    seq: int = 0


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """What a database says of itself; None where it says nothing. ``base`` leaves its log out of account."""

    data_id: str | None = None
    generation: int | None = None
    base: int | None = None
    last_seq: int | None = None


def read_mark(path: Path) -> Mark | None:
    """The mark in a file; None where there is none, or none that can be read."""
    try:
        line = path.read_bytes()
    except FileNotFoundError:
        return None
    words = line.split()
    if len(words) != 6 or _checksum(b" ".join(words[:5])) != words[5]:
        return None
    return Mark(
        data_id=words[0].decode(),
        generation=int(words[1]),
        base=int(words[2]),
        copy_id=int(words[3]),
        seq=int(words[4]),
    )


def _checksum(text: bytes) -> bytes:
    return b"%08x" % zlib.crc32(text)


def _head(mark: Mark) -> bytes:
    """What a commit of rows does not change."""
    return f"{mark.data_id} {mark.generation:020} {mark.base:020}".encode()


def _line(head: bytes, copy_id: int, seq: int) -> bytes:
    text = b"%b %020d %020d" % (head, copy_id, seq)
    return b"%b %b\n" % (text, _checksum(text))


class MarkFile:
    """The second place while a server runs: written after each commit, by the writer's thread."""

    def __init__(self, path: Path, mark: Mark) -> None:
        self._mark, self._change = mark, (mark.copy_id, mark.seq)
        self._head = _head(mark)
        line = _line(self._head, *self._change)
        temporary = path.with_name(f"{path.name}.tmp")
        with temporary.open("w+b") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
            self._map = mmap.mmap(file.fileno(), len(line))
        temporary.replace(path)
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def note(self, counted: sqlite3.Connection | None, change: tuple[int, int] | None) -> None:
        """Note a commit: the writing connection if it was counted, and the copy and the seq of the last change."""
        if change is not None:
            self._change = change
        if counted is not None:
            with suppress(sqlite3.Error):  # then it stays behind, which harms nobody
                self._count(counted)
        self._map[:] = _line(self._head, *self._change)

    def _count(self, conn: sqlite3.Connection) -> None:
        self._mark = replace(self._mark, generation=read_generation(conn))
        self._head = _head(self._mark)
        if self._change[0] and _last_seq(conn, self._change[0]) is None:  # the table was dropped
            self._change = (0, 0)

    def close(self, *, whole: bool) -> None:
        """Let go of the file; ``whole`` says that the database file needs no log."""
        if whole:
            head = _head(replace(self._mark, base=self._mark.generation))
            self._map[:] = _line(head, *self._change)
        self._map.flush()
        self._map.close()


def reach(database: Path, mark: Mark | None) -> Reached:
    """What a database has reached; nothing of it is changed. Raises Unavailable for one that is damaged or foreign."""
    log = database.with_name(f"{database.name}-wal")
    try:
        size = database.stat().st_size
    except FileNotFoundError:
        return Reached()
    if not size:  # SQLite would remove the log of an empty one
        return Reached()
    logged = log.exists() and log.stat().st_size > 0
    if not logged:
        _check_length(database, size)
        return _read(database, "immutable=1", mark, base=None)
    try:
        base = _read(database, "immutable=1", None, base=None).generation
    except (sqlite3.DatabaseError, Unavailable):  # the last checkpoint was cut off, and the log has all of it
        base = mark.base if mark else None
    return _read(database, "mode=ro", mark, base=base, check=_is_short(database, size))


def _read(database: Path, how: str, mark: Mark | None, *, base: int | None, check: bool = False) -> Reached:
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?{how}", uri=True)) as conn:
        names = {name for (name,) in conn.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if names and "meta" not in names:
            raise Unavailable(
                f"{database} is no database of Kalam", hint="name another data directory, or move it away"
            )
        if not names:
            return Reached()
        if check and (state := conn.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise Unavailable(f"{database} is damaged: {state}", hint=DAMAGED_HINT)
        values = dict(conn.execute("SELECT name, value FROM meta WHERE name IN ('data_id', ?)", (NAME,)).fetchall())
        generation = int(values[NAME]) if NAME in values else None
        return Reached(
            data_id=values.get("data_id"),
            generation=generation,
            base=generation if base is None else base,
            last_seq=_last_seq(conn, mark.copy_id) if mark and mark.copy_id else None,
        )


def _last_seq(conn: sqlite3.Connection, copy_id: int) -> int | None:
    row = conn.execute(
        """SELECT max(flushed_seq, ifnull((SELECT first_seq + row_count - 1 FROM log WHERE copy_id = copies.copy_id
        ORDER BY first_seq DESC LIMIT 1), 0)) FROM copies WHERE copy_id = ?""",
        (copy_id,),
    ).fetchone()
    return None if row is None else int(row[0])


def _is_short(database: Path, size: int) -> bool:
    """Whether the file has fewer pages than its header says (https://sqlite.org/fileformat2.html#the_database_header)."""
    with database.open("rb") as file:
        header = file.read(HEADER_BYTES)
    page_bytes = int.from_bytes(header[16:18], "big")
    return size < int.from_bytes(header[28:32], "big") * (65_536 if page_bytes == 1 else page_bytes)


def _check_length(database: Path, size: int) -> None:
    if _is_short(database, size):
        raise Unavailable(f"{database} is damaged: a part of it is missing", hint=DAMAGED_HINT)


def older(mark: Mark | None, reached: Reached) -> str | None:
    """Why a database is not the one that the mark speaks of, or is older than it; None where it is neither."""
    if mark is None:
        return None
    if reached.data_id is None:
        return f"kalam.db is missing or empty, and {MARK} knows of a generation {mark.generation} of it"
    if reached.data_id != mark.data_id:
        return f"kalam.db is that of the data directory {reached.data_id}, and {MARK} belongs to {mark.data_id}"
    generation = reached.generation or 0
    if generation < mark.generation:
        return (
            f"kalam.db is older than what lies beside it: it has generation {generation}, and {MARK} knows of "
            f"{mark.generation}; its kalam.db-wal is gone or cut short, or an older copy was put back"
        )
    if (reached.base or 0) < mark.base:
        return f"kalam.db is older than its kalam.db-wal: it has generation {reached.base or 0} instead of {mark.base}"
    if generation == mark.generation and mark.copy_id and (reached.last_seq or 0) < mark.seq:
        return (
            f"kalam.db lacks changes that were acknowledged: {reached.last_seq or 0} of a copy instead of {mark.seq}; "
            "its kalam.db-wal is gone or cut short"
        )
    return None


def begin(
    conn: sqlite3.Connection, folder: Path, data_id: str, generation: int, counted: Callable[[], None]
) -> MarkFile:
    """Begin a generation on the writing connection, and count from now on; ``counted`` hears of each count."""
    conn.create_function("kalam_counted", 0, counted)
    conn.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (NAME, str(generation)))
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for table in COUNTED:
        for event in ("INSERT", "UPDATE", "DELETE"):
            conn.execute(
                f"""CREATE TEMP TRIGGER IF NOT EXISTS count_{table}_{event} AFTER {event} ON main.{table} BEGIN
                UPDATE meta SET value = value + 1 WHERE name = '{NAME}'; SELECT kalam_counted(); END"""  # noqa: S608 - constants of this module
            )
    return MarkFile(folder / MARK, Mark(data_id=data_id, generation=generation, base=generation))


def skip_ids(conn: sqlite3.Connection) -> None:
    """Leave out the ids that a lost part of the catalogue may have given: files and streams of theirs may be there."""
    conn.execute("BEGIN IMMEDIATE")
    for table in ("tables", "copies", "segments"):
        [last] = conn.execute("SELECT ifnull(max(seq), 0) FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
        conn.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
        conn.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, last + IDS_SKIPPED))
    conn.execute("COMMIT")


def note_streams(conn: sqlite3.Connection, generation: int) -> None:
    """Note the generation that the broker's streams have been told."""
    conn.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (STREAMS_NAME, str(generation)))


def read_generation(conn: sqlite3.Connection) -> int:
    """The generation that the database has."""
    return int(conn.execute("SELECT value FROM meta WHERE name = ?", (NAME,)).fetchone()[0])
