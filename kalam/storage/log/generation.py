"""How far the catalogue has come, kept in a second place, so that an older catalogue is known as such.

The law: what the second place says, the file ``kalam.generation``, was committed to ``kalam.db`` before. So a database
that does not know of it is an older one: its log is gone or cut short, or an older copy was put back. To go on with it
would lose what was acknowledged since, and take the newest segments for files that nobody needs.

Three things are compared. The *generation* counts the starts and the commits that change what the catalogue names
(namespaces, tables, segments); triggers of the writing connection count it, so that no statement can forget to. The
*last change* is the place of the last row that was committed, which tells a log that was cut short. The *base* is how
often SQLite has begun its log anew, as the database file itself tells: a file of earlier lacks what was in the logs
between, whatever the newest one holds. The broker's streams carry the generation of the start that made or took them,
for a data directory that was put back as a whole.

SQLite begins its log anew with a commit, once it has written all of it back. So that commit is the one that numbers the
log, and the number comes into the file with what the log held: it is the ``application_id``, which lies in the file's
first page at a place of its own, and can be read of a file that is too old or too torn for anything else.

A commit of rows is not made to wait for a second fsync, nor to write a second page, but the one in a thousand pages
that numbers a log: the mark is a memory map, which outlives the process. After a power cut it may be behind the
database, and never ahead.
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
BASE_BYTES: Final = slice(68, 72)
"""Where the ``application_id`` lies in the header (https://sqlite.org/fileformat2.html#the_database_header)."""
FORMAT: Final = 2
"""Of the mark, as the seed of its checksum: a line of another format is none that can be read."""
IDS_SKIPPED: Final = 1_000_000
DAMAGED_HINT: Final = "put the newest kalam.db (with its kalam.db-wal) back, or restore a backup into a new folder"


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in the second place.

    ``base`` is the number of the newest log of which the database file has something; ``copy_id`` and ``seq`` are the
    last change.
    """

    data_id: str
    generation: int
    base: int
    copy_id: int = 0
    seq: int = 0


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """What a database says of itself; None where it says nothing. ``base`` is what the file says without its log."""

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
    return b"%08x" % zlib.crc32(text, FORMAT)


def _head(mark: Mark) -> bytes:
    """What a commit of rows does not change."""
    return f"{mark.data_id} {mark.generation:020} {mark.base:020}".encode()


def _line(head: bytes, copy_id: int, seq: int) -> bytes:
    text = b"%b %020d %020d" % (head, copy_id, seq)
    return b"%b %b\n" % (text, _checksum(text))


class MarkFile:
    """The second place while a server runs: written after each commit, by the writer's thread.

    ``log`` is the number of SQLite's present log. The database stays open here until nobody else in this process has
    it: to close a file is to let go of all locks on it that the process has.
    """

    def __init__(self, path: Path, database: int, mark: Mark, log: int) -> None:
        self._database, self._log, self._numbers = database, log, False
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

    def number_log(self, conn: sqlite3.Connection) -> None:
        """Inside each transaction that writes: number the log, if this commit may be the first one in it."""
        self._numbers = self._mark.base == self._log
        if self._numbers:
            conn.execute(f"PRAGMA application_id = {self._log + 1}")

    def note(self, counted: sqlite3.Connection | None, change: tuple[int, int] | None) -> None:
        """Note a commit: the writing connection if it was counted, and the copy and the seq of the last change."""
        if self._numbers:
            self._log, self._numbers = self._log + 1, False
        based = self._note_base()
        if change is not None:
            self._change = change
        if counted is not None:
            with suppress(sqlite3.Error):  # then it stays behind, which harms nobody
                self._count(counted)
        if based or counted is not None or change is not None:
            self._map[:] = _line(self._head, *self._change)

    def _note_base(self) -> bool:
        """Note what SQLite has written back; whether that was something."""
        base = _base(os.pread(self._database, HEADER_BYTES, 0))
        if base <= self._mark.base:
            return False
        try:
            os.fdatasync(self._database)  # SQLite itself syncs what it wrote back once that is a whole log
        except OSError:
            return False
        self._mark = replace(self._mark, base=base)
        self._head = _head(self._mark)
        return True

    def _count(self, conn: sqlite3.Connection) -> None:
        self._mark = replace(self._mark, generation=read_generation(conn))
        self._head = _head(self._mark)
        if self._change[0] and _last_seq(conn, self._change[0]) is None:  # the table was dropped
            self._change = (0, 0)

    def close(self) -> None:
        """Let go of the files, after everybody else has let go of the database."""
        if self._note_base():
            self._map[:] = _line(self._head, *self._change)
        self._map.flush()
        self._map.close()
        os.close(self._database)


def reach(database: Path, mark: Mark | None) -> Reached:
    """What a database has reached; nothing of it is changed. Raises Unavailable for one that is damaged or foreign."""
    log = database.with_name(f"{database.name}-wal")
    try:
        size = database.stat().st_size
    except FileNotFoundError:
        return Reached()
    if not size:  # SQLite would remove the log of an empty one
        return Reached()
    header = _header(database)
    base, short = _base(header), _is_short(header, size)
    if log.exists() and log.stat().st_size > 0:
        too_old = mark is not None and base < mark.base
        try:
            return _read(database, "mode=ro", mark, base=base, check=short or too_old)
        except (sqlite3.DatabaseError, Unavailable) as exc:
            if mark is not None and too_old:  # and its log does not fit
                raise Unavailable(_too_old(base, mark), hint=DAMAGED_HINT) from exc
            raise
    if short:
        raise Unavailable(f"{database} is damaged: a part of it is missing", hint=DAMAGED_HINT)
    return _read(database, "immutable=1", mark, base=base)


def _read(database: Path, how: str, mark: Mark | None, *, base: int, check: bool = False) -> Reached:
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
            base=base,
            last_seq=_last_seq(conn, mark.copy_id) if mark and mark.copy_id else None,
        )


def _last_seq(conn: sqlite3.Connection, copy_id: int) -> int | None:
    row = conn.execute(
        """SELECT max(flushed_seq, ifnull((SELECT first_seq + row_count - 1 FROM log WHERE copy_id = copies.copy_id
        ORDER BY first_seq DESC LIMIT 1), 0)) FROM copies WHERE copy_id = ?""",
        (copy_id,),
    ).fetchone()
    return None if row is None else int(row[0])


def _header(database: Path) -> bytes:
    with database.open("rb") as file:
        return file.read(HEADER_BYTES)


def _base(header: bytes) -> int:
    return int.from_bytes(header[BASE_BYTES])


def _is_short(header: bytes, size: int) -> bool:
    """Whether a file has fewer pages than its header says."""
    page_bytes = int.from_bytes(header[16:18])
    return size < int.from_bytes(header[28:32]) * (65_536 if page_bytes == 1 else page_bytes)


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
        return _too_old(reached.base or 0, mark)
    if generation == mark.generation and mark.copy_id and (reached.last_seq or 0) < mark.seq:
        return (
            f"kalam.db lacks changes that were acknowledged: {reached.last_seq or 0} of a copy instead of {mark.seq}; "
            "its kalam.db-wal is gone or cut short"
        )
    return None


def _too_old(base: int, mark: Mark) -> str:
    return (
        f"kalam.db is older than what lies beside it: {base} logs were written back to it, and {MARK} knows of "
        f"{mark.base}; an older copy was put back"
    )


def begin(conn: sqlite3.Connection, path: Path, data_id: str, generation: int, counted: Callable[[], None]) -> MarkFile:
    """Begin a generation on the writing connection of a database file; ``counted`` hears of each count from now on."""
    conn.create_function("kalam_counted", 0, counted)
    conn.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (NAME, str(generation)))
    log = conn.execute("PRAGMA application_id").fetchone()[0] + 1
    conn.execute(f"PRAGMA application_id = {log}")
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for table in COUNTED:
        for event in ("INSERT", "UPDATE", "DELETE"):
            conn.execute(
                f"""CREATE TEMP TRIGGER IF NOT EXISTS count_{table}_{event} AFTER {event} ON main.{table} BEGIN
                UPDATE meta SET value = value + 1 WHERE name = '{NAME}'; SELECT kalam_counted(); END"""  # noqa: S608 - constants of this module
            )
    database = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    base = _base(os.pread(database, HEADER_BYTES, 0))  # less than the log's where another process reads
    os.fdatasync(database)
    return MarkFile(path.with_name(MARK), database, Mark(data_id=data_id, generation=generation, base=base), log)


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
