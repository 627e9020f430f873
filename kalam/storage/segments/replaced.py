"""Files that a compaction or a clean-up has replaced: removed when the last reader of their segments is done.

Whoever reads a segment's file holds its ``Segment`` object, so the file goes with the object. The transaction that
replaces it lists it as garbage, so that what a crash leaves goes at the next start.

Where engines other than this one read the table too (``kalam.lake``), nobody tells when they are done. There the
transaction marks the file as replaced instead, and it stays until the lake lets go of it.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import structlog

from kalam.storage.log.copies import Segment
from kalam.storage.segments.remote import remove_file

log = structlog.get_logger(__name__)


class ReplacedFiles:
    """Collects the files that nobody reads any more."""

    def __init__(self) -> None:
        self._unread: deque[Path] = deque()
        self._read: set[Path] = set()

    def replace(self, folder: Path, segments: Sequence[Segment]) -> None:
        """From now on no new reader sees these segments."""
        for segment in segments:
            weakref.finalize(segment, self._unread.append, folder / segment.path).atexit = False

    def hold(self, folder: Path, segments: Sequence[Segment]) -> None:
        """The same of segments whose files are marked."""
        for segment in segments:
            path = folder / segment.path
            self._read.add(path)
            weakref.finalize(segment, self._read.discard, path).atexit = False

    def is_read(self, path: Path) -> bool:
        """Whether somebody in this process still reads a file that is marked."""
        return path in self._read

    def remove(self) -> list[str]:
        """Remove the files that nobody reads any more and return their paths; blocking."""
        removed: list[str] = []
        while self._unread:
            path = self._unread.popleft()
            try:
                remove_file(path)
            except OSError as exc:
                log.warning("a replaced file stays until the next start", file=path.name, error=str(exc))
            else:
                removed.append(str(path))
        return removed


class Marked(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is marked as replaced; ``unnamed_us`` is the commit of the lake from which on none names it."""

    replaced_id: int
    table_id: int
    user: str
    path: str
    byte_count: int
    unnamed_us: int | None


def mark_replaced(conn: sqlite3.Connection, table_id: int, user: str, segments: Iterable[Segment], now: int) -> None:
    """Mark the files of segments that are replaced at ``now``, in microseconds since 1970."""
    conn.executemany(
        "INSERT INTO replaced_segments (table_id, user_id, path, byte_count, replaced_us) VALUES (?, ?, ?, ?, ?)",
        [(table_id, user, segment.path, segment.byte_count, now) for segment in segments],
    )


def read_marked_bytes(conn: sqlite3.Connection, table_id: int | None = None) -> int:
    """The bytes of the marked files of a table or of all."""
    where = "" if table_id is None else f"WHERE table_id = {table_id:d}"
    [byte_count] = conn.execute(f"SELECT ifnull(sum(byte_count), 0) FROM replaced_segments {where}").fetchone()  # noqa: S608
    return int(byte_count)


def read_marked(conn: sqlite3.Connection, table_id: int | None = None) -> list[Marked]:
    """The marked files of a table or of all, oldest first."""
    where = "" if table_id is None else f"WHERE table_id = {table_id:d}"
    rows = conn.execute(
        f"SELECT replaced_id, table_id, user_id, path, byte_count, unnamed_us FROM replaced_segments {where} "  # noqa: S608
        "ORDER BY replaced_id"
    )
    return [
        Marked(replaced_id=number, table_id=own, user=user, path=path, byte_count=size, unnamed_us=unnamed_us)
        for number, own, user, path, size, unnamed_us in rows
    ]
