"""A backup: a consistent copy of a data directory, taken while its server runs, by another process.

The law: the copied database and the copied segments are of one moment, and no segment that the database names may be
missing. SQLite's backup API copies the database inside one read transaction. The segments of that transaction are made
safe *before* it ends: each gets a hard link of ours, and a compaction or a DROP that removes the file afterwards
removes its own name only. Segments are never written twice, so a link is a copy. What can have no link (another file
system, an object store) is copied before the transaction; if one vanished meanwhile, a newer moment is taken, for which
only what is new has to be copied.

A backup holds what a data directory holds: catalogue, hot rows and segments. The events of STREAM tables live in the
broker and are not part of it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

from kalam import __version__
from kalam.errors import AlreadyExists, NotFound, TooBusy
from kalam.names import TableName
from kalam.schema import Table
from kalam.storage.log.data_dir import DATABASE
from kalam.storage.log.database import connect, fsync_directory
from kalam.storage.log.table_rows import read_tables
from kalam.storage.segments.folders import USER_ID, Folders, home_folder
from kalam.storage.segments.remote import fetch
from kalam.storage.segments.segment_file import Misfit, checksum_of, corrupt

MANIFEST = "backup.json"
SEGMENTS = "segments"
FORMAT = 1
PAGES_AT_ONCE = 1_000
COPY_BYTES = 1 << 20
TRIES_MAX = 100


class SegmentFile(msgspec.Struct, frozen=True, kw_only=True):
    """A segment in a backup, at ``segments/<copy_id>/<path>``; ``folder`` is where it belongs in a data directory.

    ``checksum`` is the CRC-32 of its bytes, as the database has it: None for one that Kalam 0.1.0 wrote.
    """

    copy_id: int
    path: str
    byte_count: int
    folder: str
    checksum: int | None = None

    @property
    def place(self) -> str:
        """Its path inside the backup."""
        return f"{SEGMENTS}/{self.copy_id}/{self.path}"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a complete backup says of itself, in ``backup.json``, which is written last.

    ``database_checksum`` is the CRC-32 of the database's bytes; None in a backup that Kalam 0.1.0 took.
    """

    format: int
    version: str
    data_id: str
    created_at: datetime
    database_bytes: int
    segments: list[SegmentFile]
    database_checksum: int | None = None

    @property
    def byte_count(self) -> int:
        """All bytes of the backup."""
        return self.database_bytes + sum(segment.byte_count for segment in self.segments)


class Progress(Protocol):
    """Told how far a backup or a restore is."""

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        """``done_bytes`` of ``total_bytes`` are copied; the total may still change."""


class Named(msgspec.Struct, frozen=True):
    """A segment of ``table`` that a database names: ``source`` is where it lies, a local path or an fsspec URL."""

    file: SegmentFile
    source: str
    table: TableName


def back_up(data_dir: Path, target: Path, progress: Progress) -> Manifest:
    """Copy the data directory ``data_dir``, whose server may run, into the empty or new folder ``target``.

    Raises NotFound where there is no data directory, AlreadyExists for a target that is not empty, TooBusy where
    another backup of the data directory runs, and CorruptSegment for a segment that is missing or damaged.
    """
    data_dir = data_dir.resolve()
    if not (data_dir / DATABASE).is_file():
        raise NotFound(f"{data_dir} is no data directory: it has no {DATABASE}")
    make_empty(target)
    with _links_folder(data_dir) as links:
        return Backup(data_dir, target, links, progress).run()


def make_empty(folder: Path) -> None:
    """Create a folder, or find it empty; raises AlreadyExists if something is in it."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        raise AlreadyExists(f"{folder} is not empty", hint="name a folder that does not exist or is empty")
    folder.mkdir(parents=True)


@contextmanager
def _links_folder(data_dir: Path) -> Iterator[Path]:
    """A folder for our links beside the segments; one backup at a time has it, and a dead one's links go."""
    folder = data_dir / "backup-links"
    folder.mkdir(exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise TooBusy(f"another backup of {data_dir} is running") from exc
        for left in folder.iterdir():
            left.unlink()
        yield folder
        for link in folder.iterdir():
            link.unlink()
    finally:
        os.close(descriptor)


class Backup:
    """One run of a backup."""

    def __init__(self, data_dir: Path, target: Path, links: Path, progress: Progress) -> None:
        self._data_dir, self._target, self._links, self._progress = data_dir, target, links, progress
        self._copied: set[str] = set()
        self._done_bytes = 0
        self._total_bytes = 0

    def run(self) -> Manifest:
        """Take the moment, then copy what it links to."""
        conn = connect(self._data_dir / DATABASE, read_only=True)
        try:
            data_id, named = self._take_moment(conn)
        finally:
            conn.close()
        for segment in named:
            if segment.file.place not in self._copied:
                self._copy(segment, (self._links / _link_name(segment.file)).open("rb"))
        self._remove_unnamed({segment.file.place for segment in named})
        with (self._target / DATABASE).open("rb") as file:
            database_checksum = checksum_of(file)
        manifest = Manifest(
            format=FORMAT,
            version=__version__,
            data_id=data_id,
            created_at=datetime.now(UTC),
            database_bytes=(self._target / DATABASE).stat().st_size,
            segments=[segment.file for segment in named],
            database_checksum=database_checksum,
        )
        write_synced(self._target / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
        fsync_directory(self._target)
        return manifest

    def _take_moment(self, conn: sqlite3.Connection) -> tuple[str, list[Named]]:
        for _ in range(TRIES_MAX):
            conn.execute("BEGIN")
            data_id, named = read_named(conn, self._data_dir)
            self._total_bytes = sum(segment.file.byte_count for segment in named)
            unlinked = [segment for segment in named if not self._secure(segment)]
            if not unlinked:
                self._copy_database(conn)
                conn.execute("ROLLBACK")
                return data_id, named
            conn.execute("ROLLBACK")
            vanished = [segment for segment in unlinked if not self._copy_now(segment)]
            self._check_still_named(conn, vanished)
        raise TooBusy(f"the segments of {self._data_dir} change faster than they can be copied; try again")

    def _secure(self, segment: Named) -> bool:
        """Whether the segment cannot vanish any more: it is copied, or has a link of ours."""
        if segment.file.place in self._copied:
            return True
        link = self._links / _link_name(segment.file)
        if link.exists():
            return True
        try:
            os.link(segment.source, link)
        except OSError:  # gone, on another file system, or remote: the copy will tell
            return False
        return True

    def _copy_now(self, segment: Named) -> bool:
        try:
            source = open_source(segment.source)
        except FileNotFoundError:
            return False
        self._copy(segment, source)
        return True

    def _check_still_named(self, conn: sqlite3.Connection, vanished: Sequence[Named]) -> None:
        """Raise Internal for a segment that is missing although the database, read after that, still names it."""
        if not vanished:
            return
        _, named = read_named(conn, self._data_dir)
        still = {segment.source for segment in named}
        missing = [segment for segment in vanished if segment.source in still]
        if missing:
            raise corrupt(missing[0].table, missing[0].file.path, Misfit("is missing; a backup would not be whole"))

    def _copy_database(self, conn: sqlite3.Connection) -> None:
        copy = sqlite3.connect(self._target / DATABASE)
        page_bytes = conn.execute("PRAGMA page_size").fetchone()[0]
        before = self._total_bytes

        def note(status: int, remaining: int, total: int) -> None:
            self._total_bytes = before + total * page_bytes
            self._progress(self._done_bytes + (total - remaining) * page_bytes, self._total_bytes)

        try:
            conn.backup(copy, pages=PAGES_AT_ONCE, progress=note)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
        finally:
            copy.close()
        size = (self._target / DATABASE).stat().st_size
        self._done_bytes += size
        self._total_bytes = before + size
        sync_file(self._target / DATABASE)

    def _copy(self, segment: Named, source: BinaryIO) -> None:
        file = segment.file
        target = self._target / file.place
        target.parent.mkdir(parents=True, exist_ok=True)
        with source:
            size, checksum = copy_synced(source, target, self._note)
        if size != file.byte_count or file.checksum not in (None, checksum):
            raise corrupt(segment.table, file.path, Misfit("is damaged or another file; a backup would not be whole"))
        self._copied.add(file.place)

    def _note(self, more_bytes: int) -> None:
        self._done_bytes += more_bytes
        self._progress(self._done_bytes, max(self._total_bytes, self._done_bytes))

    def _remove_unnamed(self, named: set[str]) -> None:
        """Remove what was copied for a moment that was given up."""
        for place in self._copied - named:
            (self._target / place).unlink()


def read_named(conn: sqlite3.Connection, data_dir: Path) -> tuple[str, list[Named]]:
    """The data directory's id and every segment that its database names."""
    (data_id,) = conn.execute("SELECT value FROM meta WHERE name = 'data_id'").fetchone()
    folders = Folders(data_dir, data_id)
    return data_id, [
        Named(file, f"{folders.folder(table, user)}/{file.path}", table.name) for table, user, file in read_files(conn)
    ]


def read_files(conn: sqlite3.Connection) -> Iterator[tuple[Table, str, SegmentFile]]:
    """Every segment that a database names, with its table and user; the database may be one of Kalam 0.1.0."""
    columns = {name for _, name, *_ in conn.execute("PRAGMA table_info(segments)")}
    checksum_column = "checksum" if "checksum" in columns else "NULL"
    for table in read_tables(conn):
        if not table.is_stored:
            continue
        rows = conn.execute(
            f"""SELECT copy_id, user_id, path, byte_count, {checksum_column} FROM segments JOIN copies USING (copy_id)
            WHERE table_id = ? ORDER BY segment_id""",  # noqa: S608 - one of two constants
            (table.table_id,),
        ).fetchall()
        for copy_id, user, path, byte_count, checksum in rows:
            folder = home_folder(table).replace(USER_ID, user)
            yield (
                table,
                user,
                SegmentFile(copy_id=copy_id, path=path, byte_count=byte_count, folder=folder, checksum=checksum),
            )


def _link_name(file: SegmentFile) -> str:
    return f"{file.copy_id}-{file.path}"


def open_source(source: str) -> BinaryIO:
    """Open a segment for reading, fetched into its cache if need be; raises FileNotFoundError."""
    path = Path(source)
    if not path.exists():
        fetch(path)
    return path.open("rb")


def copy_synced(source: BinaryIO, target: Path, note: Callable[[int], None]) -> tuple[int, int]:
    """Copy to a file, tell ``note`` of every piece, sync it, and return its size and its CRC-32."""
    size = checksum = 0
    with target.open("wb") as file:
        while piece := source.read(COPY_BYTES):
            file.write(piece)
            size += len(piece)
            checksum = zlib.crc32(piece, checksum)
            note(len(piece))
        file.flush()
        os.fsync(file.fileno())
    return size, checksum


def write_synced(path: Path, content: bytes) -> None:
    """Write a small file that is whole or not there."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    sync_file(temporary)
    temporary.replace(path)


def sync_file(path: Path) -> None:
    """Make a file's content durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
