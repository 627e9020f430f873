"""Where the lake of a table lies: a folder of metadata beside its segments, in a store behind a cache like theirs.

All files of a table's lake are in ``<location>/metadata``. They are written like segments, under another name first and
then renamed, but not synced: what a power cut leaves is compared with the checksums that the lake's state has of them,
and made anew.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from kalam.schema import Table
from kalam.storage.segments.folders import USER_ID, Folders
from kalam.storage.segments.garbage import LAKE
from kalam.storage.segments.remote import Remote, cache_folder, is_remote, matching, readable, remove_file, upload

METADATA = "metadata"
HINT = "version-hint.text"
STATE = "kalam-state"
"""What the lake knows of its own folder; never uploaded."""


class FileNote(msgspec.Struct, frozen=True, array_like=True):
    """What a file has to be: its size in bytes and the CRC-32 of its content."""

    byte_count: int
    checksum: int


def uri(location: str) -> str:
    """What other engines call a path or URL: ClickHouse wants a scheme, and some read these characters as a URL's."""
    return location if is_remote(location) or set(location) & set("%#?") else f"file://{location}"


def lake_location(folders: Folders, table: Table) -> str:
    """What other engines call the folder of a table's lake."""
    return uri(_place(folders, table))


def _place(folders: Folders, table: Table) -> str:
    location = folders.location(table)
    if table.per_user:  # no user id holds a dot
        return f"{location.split(USER_ID)[0].rstrip('/')}/.{LAKE}-{table.table_id}"
    return f"{location.rstrip('/')}/{LAKE}"


def lake_folder(folders: Folders, table: Table) -> Path:
    """The folder of a table's lake, or the one that is its cache."""
    location = _place(folders, table)
    if not is_remote(location):
        return Path(location) / METADATA
    remote = Remote(f"{location}/{METADATA}", folders.cache_bytes_max)
    return cache_folder(folders.data_dir, f"{table.table_id}/.{LAKE}/{METADATA}", remote)


class LakeFolder:
    """The files of one table's lake; blocking. ``location`` is what its metadata calls it.

    ``written`` are the files that were written through this object.
    """

    def __init__(self, location: str, path: Path) -> None:
        self.location, self.path = location, path
        self.written: dict[str, FileNote] = {}

    @classmethod
    def of(cls, folders: Folders, table: Table) -> LakeFolder:
        """The folder of a table."""
        return cls(lake_location(folders, table), lake_folder(folders, table))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait until no other process commits here, and keep it so: that of a server that was killed may still work."""
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def called(self, name: str) -> str:
        """A file's name for other engines."""
        return f"{self.location}/{METADATA}/{name}"

    def write(self, name: str, content: bytes) -> FileNote:
        """Write a file whole; others see it after ``publish``, where they look in a store."""
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = self.path / f".{name}.tmp"
        temporary.write_bytes(content)
        temporary.replace(self.path / name)
        note = self.written[name] = FileNote(len(content), zlib.crc32(content))
        return note

    def publish(self, names: Sequence[str]) -> None:
        """Store written files where others look for them."""
        upload(self.path, names)

    def read(self, name: str) -> bytes:
        """The content of a file; raises FileNotFoundError."""
        source = readable(self.path / name)
        if isinstance(source, Path):
            return source.read_bytes()
        with source:
            return bytes(source.read())

    def is_whole(self, name: str, note: FileNote, *, thoroughly: bool) -> bool:
        """Whether a file is what was written: by its size, ``thoroughly`` by its content."""
        try:
            if thoroughly:
                content = self.read(name)
                return FileNote(len(content), zlib.crc32(content)) == note
            return (self.path / name).stat().st_size == note.byte_count
        except OSError:
            return False

    def names(self) -> list[str]:
        """All files that lie there, but for the state."""
        if not self.path.is_dir():
            return []
        return [path.name for path in matching(self.path, "*") if path.name != STATE and os.sep not in path.name]

    def remove(self, names: Sequence[str]) -> None:
        """Remove files; those that are gone already are no error."""
        for name in names:
            remove_file(self.path / name)
