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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

from kalam import __version__
from kalam.errors import AlreadyExists, Internal, NotFound, TooBusy
from kalam.schema import TableKind
from kalam.storage.catalogue import read_tables
from kalam.storage.data_dir import DATABASE
from kalam.storage.database import connect, fsync_directory
from kalam.storage.remote import fetch
from kalam.storage.segments import USER_ID, Folders, home_folder

MANIFEST = "backup.json"
SEGMENTS = "segments"
FORMAT = 1
PAGES_AT_ONCE = 1_000
COPY_BYTES = 1 << 20
TRIES_MAX = 100


class SegmentFile(msgspec.Struct, frozen=True, kw_only=True):
    """A segment in a backup, at ``segments/<copy_id>/<path>``; ``folder`` is where it belongs in a data directory."""

    copy_id: int
    path: str
    byte_count: int
    folder: str

    @property
    def place(self) -> str:
        """Its path inside the backup."""
        return f"{SEGMENTS}/{self.copy_id}/{self.path}"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a complete backup says of itself, in ``backup.json``, which is written last."""

    format: int
    version: str
    data_id: str
    created_at: datetime
    database_bytes: int
    segments: list[SegmentFile]

    @property
    def byte_count(self) -> int:
        """All bytes of the backup."""
        return self.database_bytes + sum(segment.byte_count for segment in self.segments)


class Progress(Protocol):
    """Told how far a backup or a restore is."""

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        """``done_bytes`` of ``total_bytes`` are copied; the total may still change."""


@dataclass(frozen=True, slots=True)
class Named:
    """A segment that a database names: ``source`` is where it lies, a local path or an fsspec URL."""

    file: SegmentFile
    source: str


def back_up(data_dir: Path, target: Path, progress: Progress) -> Manifest:
    """Copy the data directory ``data_dir``, whose server may run, into the empty or new folder ``target``.

    Raises NotFound where there is no data directory, AlreadyExists for a target that is not empty, TooBusy where
    another backup of the data directory runs, and Internal for a segment that is missing or damaged.
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
                self._copy(segment.file, (self._links / _link_name(segment.file)).open("rb"))
        self._remove_unnamed({segment.file.place for segment in named})
        manifest = Manifest(
            format=FORMAT,
            version=__version__,
            data_id=data_id,
            created_at=datetime.now(UTC),
            database_bytes=(self._target / DATABASE).stat().st_size,
            segments=[segment.file for segment in named],
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
        self._copy(segment.file, source)
        return True

    def _check_still_named(self, conn: sqlite3.Connection, vanished: Sequence[Named]) -> None:
        """Raise Internal for a segment that is missing although the database, read after that, still names it."""
        if not vanished:
            return
        _, named = read_named(conn, self._data_dir)
        still = {segment.source for segment in named}
        missing = [segment.source for segment in vanished if segment.source in still]
        if missing:
            raise Internal(f"the segment {missing[0]} is missing; a backup would not be whole")

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

    def _copy(self, file: SegmentFile, source: BinaryIO) -> None:
        target = self._target / file.place
        target.parent.mkdir(parents=True, exist_ok=True)
        with source:
            size = copy_synced(source, target, self._note)
        if size != file.byte_count:
            raise Internal(f"the segment {file.path} is damaged: it has {size} bytes instead of {file.byte_count}")
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
    named: list[Named] = []
    for table in read_tables(conn):
        if table.kind is TableKind.STREAM:
            continue
        rows = conn.execute(
            """SELECT copy_id, user_id, path, byte_count FROM segments JOIN copies USING (copy_id)
            WHERE table_id = ? ORDER BY segment_id""",
            (table.table_id,),
        )
        for copy_id, user, path, byte_count in rows:
            folder = home_folder(table).replace(USER_ID, user)
            file = SegmentFile(copy_id=copy_id, path=path, byte_count=byte_count, folder=folder)
            named.append(Named(file, f"{folders.folder(table, user)}/{path}"))
    return data_id, named


def _link_name(file: SegmentFile) -> str:
    return f"{file.copy_id}-{file.path}"


def open_source(source: str) -> BinaryIO:
    """Open a segment for reading, fetched into its cache if need be; raises FileNotFoundError."""
    path = Path(source)
    if not path.exists():
        try:
            fetch(path)
        except Internal as exc:
            if isinstance(exc.__cause__, FileNotFoundError):
                raise exc.__cause__ from None
            raise
    return path.open("rb")


def copy_synced(source: BinaryIO, target: Path, note: Callable[[int], None]) -> int:
    """Copy to a file, tell ``note`` of every piece, sync it, and return its size."""
    size = 0
    with target.open("wb") as file:
        while piece := source.read(COPY_BYTES):
            file.write(piece)
            size += len(piece)
            note(len(piece))
        file.flush()
        os.fsync(file.fileno())
    return size


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
