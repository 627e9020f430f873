"""One commit of a table's lake: from what ``kalam.db`` holds now and what was committed last to the next metadata.

The law: files are written before what names them, and removed after nothing names them any more. What was committed
last counts only if its files are whole; if they are not, or there is nothing, or it was made elsewhere, all is made
anew from the catalogue, under a new snapshot.
"""

from __future__ import annotations

import sqlite3

import msgspec
from msgspec.structs import replace

from kalam.lake.basis import Basis, read_basis
from kalam.lake.fields import iceberg_type
from kalam.lake.folder import HINT, FileNote, LakeFolder
from kalam.lake.metadata import FORMER_METADATA_MAX, kept_snapshots, table_metadata
from kalam.lake.new_snapshot import NewSnapshot
from kalam.lake.source import Source
from kalam.lake.state import Head, State, load, save
from kalam.schema import Table
from kalam.storage.log.database import now_us
from kalam.storage.segments.folders import Folders


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """What a commit did: the state, or the segments by user that have to be written again before there can be one."""

    state: State | None = None
    waiting: dict[str, list[int]] = {}
    marked: int = 0


class Committer:
    """Commits the lake of one table; blocking."""

    def __init__(self, conn: sqlite3.Connection, folders: Folders, table_id: int, kept_us: int) -> None:
        self._conn, self._folders, self._table_id, self._kept_us = conn, folders, table_id, kept_us

    def commit(self, folder: LakeFolder, table: Table, *, thoroughly: bool) -> Commit:
        """Bring the lake to the last flush. Raises FileNotFoundError where a segment went meanwhile."""
        known = self._known(folder, table, thoroughly=thoroughly)
        basis = read_basis(self._conn, self._table_id, _known_copies(known))
        waiting = _to_be_written_again(basis)
        if waiting:
            return Commit(waiting=waiting)
        snapshot_id = max(now_us(), known.snapshots[-1].snapshot_id + 1_000 if known and known.snapshots else 0)
        sequence_number = 1 + (known.snapshots[-1].sequence_number if known and known.snapshots else 0)
        new = NewSnapshot(Source(self._conn, self._folders, basis), folder, known, snapshot_id, sequence_number)
        without_ids = new.add_segments()
        if without_ids:
            return Commit(waiting=without_ids)
        new.add_deletes()
        return Commit(state=self._record(folder, basis, new, known, thoroughly=thoroughly), marked=basis.marked)

    def _known(self, folder: LakeFolder, table: Table, *, thoroughly: bool) -> State | None:
        """What was committed last, if it is of here and whole."""
        state = load(folder.path)
        if state is None:
            return None
        head = state.head
        here = (folder.location, self._folders.location(table), self._folders.data_id, table.table_id)
        if (head.location, head.segments_location, head.data_id, head.table_id) != here:
            return None
        named = {head.metadata, *(name for snapshot in state.snapshots[-1:] for name in snapshot.files)}
        if thoroughly:
            named.update(name for snapshot in state.snapshots for name in snapshot.files)
        whole = (folder.is_whole(name, state.notes[name], thoroughly=thoroughly) for name in named)
        return state if all(whole) else None

    def _record(
        self, folder: LakeFolder, basis: Basis, new: NewSnapshot, known: State | None, *, thoroughly: bool
    ) -> State:
        snapshots = list(known.snapshots) if known else []
        if new.changed:
            snapshots.append(new.snapshot(snapshots[-1].snapshot_id if snapshots else None))
        now = max(now_us(), new.snapshot_id)
        snapshots = kept_snapshots(snapshots, now_us=now, kept_us=self._kept_us)
        if known and known.head.schema_version == basis.table.schema_version and snapshots == known.snapshots:
            if thoroughly and not _is_hinted(folder, known.head.number):
                folder.publish(_hint(folder, known.head.number))
            return self._same(folder, basis, known)
        present = set(folder.names())
        number = 1 + max([_number(name) for name in present], default=0)
        metadata, former = f"v{number}.metadata.json", [*(known.former_metadata if known else [])]
        if known:
            former = [*former, (now, known.head.metadata)][-FORMER_METADATA_MAX:]
        document = table_metadata(
            basis.table,
            basis.history,
            folder,
            data_id=self._folders.data_id,
            snapshots=snapshots,
            schema_versions={manifest.schema_version for manifest in new.manifests},
            former_metadata=former,
            updated_us=now,
            sequence_number=snapshots[-1].sequence_number if snapshots else 0,
        )
        folder.write(metadata, msgspec.json.encode(document))
        folder.publish([*folder.written])
        folder.publish(_hint(folder, number))
        kept = {metadata, *(name for _, name in former), *(name for one in snapshots for name in one.files)}
        notes = {name: _note(name, folder, known) for name in kept}
        state = State(
            head=Head(
                location=folder.location,
                segments_location=self._folders.location(basis.table),
                data_id=self._folders.data_id,
                table_id=self._table_id,
                basis=basis.summary,
                schema_version=basis.table.schema_version,
                number=number,
                metadata=metadata,
                metadata_note=notes[metadata],
                snapshot_id=snapshots[-1].snapshot_id if snapshots else None,
                oldest_snapshot_id=snapshots[0].snapshot_id if snapshots else None,
                seq=None if basis.table.per_user else max([copy.flushed_seq for copy in basis.copies], default=0),
                row_count=new.row_count,
                metadata_bytes=sum(note.byte_count for note in notes.values()),
            ),
            seqs={copy.user: copy.flushed_seq for copy in basis.copies},
            manifests=new.manifests,
            snapshots=snapshots,
            former_metadata=former,
            notes=notes,
        )
        save(folder, state)
        folder.remove([name for name in present if name not in kept and name != HINT])
        return state

    def _same(self, folder: LakeFolder, basis: Basis, known: State) -> State:
        """Remember what the lake, which stays as it is, has been compared with."""
        seqs = {copy.user: copy.flushed_seq for copy in basis.copies}
        if known.head.basis == basis.summary and known.seqs == seqs:
            return known
        seq = None if basis.table.per_user else max(seqs.values(), default=0)
        state = replace(known, head=replace(known.head, basis=basis.summary, seq=seq), seqs=seqs)
        save(folder, state)
        return state


def _known_copies(known: State | None) -> dict[str, tuple[int, frozenset[str]]]:
    """Of each user the seq and the names of the segments of which the lake was made last."""
    if known is None:
        return {}
    paths: dict[str, list[str]] = {}
    for entry in known.entries:
        if not entry.hides:
            paths.setdefault(entry.user, []).append(entry.path.rpartition("/")[2])
    return {user: (seq, frozenset(paths.get(user, ()))) for user, seq in known.seqs.items()}


def _to_be_written_again(basis: Basis) -> dict[str, list[int]]:
    """By user the segments that Iceberg 2 cannot read under the present schema, or not every reader of it.

    Those from before a column was added that has a value for their rows, and those that have a column in another type.
    """
    found: dict[str, list[int]] = {}
    columns = basis.table.columns
    filled = {column.column_id for column in columns if column.fill is not None}
    types = {column.column_id: iceberg_type(column.type) for column in columns}
    lacking = {
        version
        for version, older in basis.history.items()
        if not filled <= {column.column_id for column in older}
        or any(types.get(column.column_id, own) != own for column in older for own in [iceberg_type(column.type)])
    }
    for copy in basis.copies:
        for segment in copy.segments:
            if segment.schema_version in lacking:
                found.setdefault(copy.user, []).append(segment.segment_id)
    return found


def _note(name: str, folder: LakeFolder, known: State | None) -> FileNote:
    """What a file is, of this commit or of an earlier one."""
    note = folder.written.get(name) or (known and known.notes[name])
    assert note
    return note


def _number(metadata: str) -> int:
    number = metadata.removeprefix("v").removesuffix(".metadata.json")
    return int(number) if metadata.endswith(".metadata.json") and number.isdigit() else 0


def _is_hinted(folder: LakeFolder, number: int) -> bool:
    try:
        return folder.read(HINT) == str(number).encode()
    except OSError:
        return False


def _hint(folder: LakeFolder, number: int) -> list[str]:
    """Tell readers of the folder which metadata is the newest."""
    folder.write(HINT, str(number).encode())
    return [HINT]
