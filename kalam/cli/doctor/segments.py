"""The segments that ``kalam.db`` names: whether their files are there, and whole."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

from kalam.cli.doctor.finding import Finding, Patient, size_text
from kalam.names import TableName
from kalam.storage.log.data_dir import DATABASE
from kalam.storage.log.database import connect
from kalam.storage.log.table_rows import read_tables
from kalam.storage.segments.folders import Folders
from kalam.storage.segments.remote import is_remote
from kalam.storage.segments.segment_file import READ_ERRORS, Identity, Misfit, compare, reason_of, stamp_of

NAMED: Final = 3


class Named(msgspec.Struct, frozen=True):
    """A segment as ``kalam.db`` names it."""

    table: TableName
    path: Path
    identity: Identity

    def fault(self) -> str | None:
        """What is wrong with its file, None for nothing: size and checksum are compared with what ``kalam.db`` says."""
        try:
            stamp_of(self.path)
            with self.path.open("rb") as file:
                compare(file, self.identity)
        except (Misfit, *READ_ERRORS) as exc:
            return reason_of(exc)
        return None


def segments(patient: Patient) -> Iterator[Finding]:
    """Every segment on this machine; those of a LOCATION that is a URL are named and not fetched."""
    if not (patient.data_dir / DATABASE).is_file():
        return
    here, remote = _named(patient.data_dir)
    wrong: dict[TableName, list[str]] = {}
    for segment in here:
        found = segment.fault()
        if found is not None and _still_named(patient.data_dir, segment):
            wrong.setdefault(segment.table, []).append(f"{segment.path.name} ({found})")
    for table, names in sorted(wrong.items()):
        yield Finding(
            "fail",
            "segments",
            f"table {table}: {len(names)} damaged, such as {', '.join(names[:NAMED])}",
            "put the files back from a backup; what they hold cannot be read until then",
        )
    if not wrong:
        elsewhere = f", and {remote} in object stores, which were not looked at" if remote else ""
        size = size_text(sum(segment.identity.byte_count for segment in here))
        yield Finding("ok", "segments", f"{len(here)} on this machine ({size}){elsewhere}")


def _named(data_dir: Path) -> tuple[list[Named], int]:
    with closing(connect(data_dir / DATABASE, read_only=True)) as conn:
        conn.execute("BEGIN")
        [data_id] = conn.execute("SELECT value FROM meta WHERE name = 'data_id'").fetchone()
        tables = {table.table_id: table for table in read_tables(conn)}
        names = {name for _, name, *_ in conn.execute("PRAGMA table_info(segments)")}
        checksum = "checksum" if "checksum" in names else "NULL"  # of a release before, which this one has not opened
        rows = conn.execute(
            f"""SELECT table_id, user_id, path, byte_count, row_count, min_seq, max_seq, {checksum}
            FROM segments JOIN copies USING (copy_id)"""  # noqa: S608 - a constant
        ).fetchall()
    folders = Folders(data_dir, data_id)
    here: list[Named] = []
    remote = 0
    for table_id, user, path, *said in rows:
        table = tables.get(table_id)
        if table is None:
            continue
        if is_remote(folders.location(table)):
            remote += 1
        else:
            fields = ("byte_count", "row_count", "min_seq", "max_seq", "checksum")
            identity = Identity(table_id=table_id, **dict(zip(fields, said, strict=True)))
            here.append(Named(table.name, folders.folder(table, user) / path, identity))
    return here, remote


def _still_named(data_dir: Path, segment: Named) -> bool:
    """Whether a file that is not there should be: a compaction may have replaced it meanwhile."""
    try:
        with closing(connect(data_dir / DATABASE, read_only=True)) as conn:
            rows = conn.execute("SELECT 1 FROM segments WHERE path = ?", (segment.path.name,)).fetchall()
            return bool(rows)
    except sqlite3.Error:
        return True
