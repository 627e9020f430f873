"""A restore: a backup becomes a data directory of its own, which may run beside the one that it was taken from.

The law: the two share nothing. The restored directory gets a new id, so that its JetStream streams and the names of
its new segments are its own; the segments that it brings keep their names, because the database says which they are.
Every segment goes under the new data directory, also that of a table with a LOCATION: if both wrote to one place, one
would compact the other's files away. For the same reason the list of files that the original had still to remove is
dropped. The database gets its name last, so a restore that was cut off is no data directory.
"""

from __future__ import annotations

import shutil
import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec.structs import replace

from kalam.errors import Internal, NotFound, Unsupported
from kalam.names import TableName
from kalam.schema import StoredOptions, dump_options
from kalam.storage.backup.backup import (
    FORMAT,
    MANIFEST,
    Manifest,
    Progress,
    SegmentFile,
    copy_synced,
    make_empty,
    read_files,
    sync_file,
)
from kalam.storage.log.data_dir import DATABASE, RESTORING, locked_data_dir
from kalam.storage.log.database import fsync_directory
from kalam.storage.log.generation import NAME, STREAMS_NAME
from kalam.storage.log.migrate import migrate
from kalam.storage.log.table_rows import read_tables


class Restored(msgspec.Struct, frozen=True):
    """What was restored; ``moved`` are the tables that had a LOCATION and lie in the data directory now."""

    manifest: Manifest
    moved: tuple[TableName, ...]


def restore(backup: Path, data_dir: Path, progress: Progress) -> Restored:
    """Make the new or empty folder ``data_dir`` a data directory with the content of ``backup``.

    Raises NotFound where there is no complete backup, AlreadyExists for a target that is not empty, and Internal for a
    backup with a file that is missing or damaged; nothing is left behind then.
    """
    manifest = read_manifest(backup)
    existed = data_dir.exists()
    make_empty(data_dir)
    try:
        with locked_data_dir(data_dir) as target:
            return _fill(backup, target, manifest, progress)
    except BaseException:
        _empty(data_dir, remove=not existed)
        raise


def read_manifest(backup: Path) -> Manifest:
    """What a backup says of itself; raises NotFound where there is none, Unsupported where it is of a newer Kalam."""
    try:
        content = (backup / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise NotFound(f"{backup} is no complete backup: it has no {MANIFEST}") from exc
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except msgspec.MsgspecError as exc:
        raise Internal(f"{backup / MANIFEST} is damaged: {exc}") from exc
    if manifest.format > FORMAT:
        raise Unsupported(f"{backup} was written by Kalam {manifest.version}; install that release or a later one")
    return manifest


def _fill(backup: Path, target: Path, manifest: Manifest, progress: Progress) -> Restored:
    done_bytes = 0

    def note(more_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes += more_bytes
        progress(done_bytes, manifest.byte_count)

    unfinished = target / RESTORING
    _copy(backup / DATABASE, unfinished, manifest.database_bytes, manifest.database_checksum, note)
    _bring_up_to_date(unfinished)
    _check_named(unfinished, manifest)
    for segment in manifest.segments:
        _copy(backup / segment.place, _place(target, segment), segment.byte_count, segment.checksum, note)
    for folder in {_place(target, segment).parent for segment in manifest.segments}:
        fsync_directory(folder)
    moved = _make_own(unfinished)
    sync_file(unfinished)
    unfinished.rename(target / DATABASE)
    fsync_directory(target)
    return Restored(manifest, moved)


def _bring_up_to_date(database: Path) -> None:
    """Have a database that an earlier release may have written as this one reads it."""
    try:
        migrate(database)
    except sqlite3.DatabaseError as exc:
        raise Internal(f"the backup is damaged: {exc}") from exc
    finally:
        database.with_suffix(".migrating").unlink(missing_ok=True)  # what is locked is not there yet


def _check_named(database: Path, manifest: Manifest) -> None:
    """Raise Internal unless the segments of the manifest are those that the database of the backup names."""
    conn = sqlite3.connect(database)
    try:
        named = {file for _, _, file in read_files(conn)}
    except sqlite3.DatabaseError as exc:
        raise Internal(f"the backup is damaged: {exc}") from exc
    finally:
        conn.close()
    for odd in named ^ set(manifest.segments):
        raise Internal(f"the backup is damaged: {MANIFEST} and {DATABASE} do not agree on {odd.place}")


def _place(target: Path, segment: SegmentFile) -> Path:
    place = (target / segment.folder / segment.path).resolve()
    if not place.is_relative_to(target):
        raise Internal(f"the backup names a segment outside of the data directory: {segment.folder}/{segment.path}")
    return place


def _copy(source: Path, target: Path, byte_count: int, checksum: int | None, note: Callable[[int], None]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with source.open("rb") as file:
            size, found = copy_synced(file, target, note)
    except FileNotFoundError as exc:
        raise Internal(f"the backup is damaged: {source} is missing") from exc
    if size != byte_count:
        raise Internal(f"the backup is damaged: {source} has {size} bytes instead of {byte_count}")
    if checksum not in (None, found):
        raise Internal(f"the backup is damaged: {source} has another checksum than when it was written")


def _make_own(database: Path) -> tuple[TableName, ...]:
    """Give the database an id of its own, and nothing that lies outside of its data directory."""
    conn = sqlite3.connect(database)
    try:
        (state,) = conn.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            raise Internal(f"the backup is damaged: its database says {state}")
        conn.execute("UPDATE meta SET value = ? WHERE name = 'data_id'", (uuid.uuid4().hex[:12],))
        conn.execute("DELETE FROM meta WHERE name IN (?, ?)", (NAME, STREAMS_NAME))  # they count the original's starts
        conn.execute("DELETE FROM garbage")
        conn.execute("DELETE FROM replaced_segments")  # they are not in the backup
        moved = []
        for table in read_tables(conn):
            if isinstance(table.options, StoredOptions) and table.options.location is not None:
                options = dump_options(replace(table.options, location=None))
                conn.execute("UPDATE tables SET options = ? WHERE table_id = ?", (options, table.table_id))
                moved.append(table.name)
        conn.commit()
        return tuple(moved)
    except sqlite3.DatabaseError as exc:
        raise Internal(f"the backup is damaged: {exc}") from exc
    finally:
        conn.close()


def _empty(folder: Path, *, remove: bool) -> None:
    """Take back what an unfinished restore has made."""
    if remove:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for left in folder.iterdir():
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
