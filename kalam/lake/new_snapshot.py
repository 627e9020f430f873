"""The snapshot that a commit makes: which files it names, and the manifests that are written for it.

Not all of it is written again: a manifest stays while every file that it lists lives, and the positions of hidden rows
are looked for only among what is new, in overrides or in segments. The files of positions of a copy are merged in
sizes, each at least twice as large as the next, so that what is written stays in proportion to what changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kalam.lake.basis import FlushedCopy, LiveSegment
from kalam.lake.data_files import Footer
from kalam.lake.folder import LakeFolder
from kalam.lake.manifests import write_list, write_manifest
from kalam.lake.positions import Overrides, Places, deletes_file, read_deletes, united
from kalam.lake.source import Source
from kalam.lake.state import Entry, Manifest, Snapshot, State
from kalam.rows.field_ids import carries_ids

MANIFESTS_MAX = 5
MANIFEST_ENTRIES_SMALL = 1_000
"""Manifests of fewer files are merged when there are too many."""


class NewSnapshot:
    """The snapshot that a commit makes."""

    def __init__(
        self,
        source: Source,
        folder: LakeFolder,
        known: State | None,
        snapshot_id: int,
        sequence_number: int,
    ) -> None:
        self._source, self._folder, self._known = source, folder, known
        self._basis = source.basis
        self.snapshot_id, self._sequence_number = snapshot_id, sequence_number
        entries = known.entries if known else []
        self._data = {entry.path: entry for entry in entries if not entry.hides}
        self._deletes: dict[str, list[Entry]] = {}
        for entry in entries:
            if entry.hides:
                self._deletes.setdefault(entry.user, []).append(entry)
        self._live: dict[str, Entry] = {}
        self._new: dict[bool, list[Entry]] = {False: [], True: []}
        self._live_deletes: list[Entry] = []
        self.manifests: list[Manifest] = []
        # ClickHouse reads a snapshot with the names of its own schema, so new names are a new snapshot.
        last = known.snapshots[-1] if known and known.snapshots else None
        self.changed = last is not None and last.schema_version != source.basis.table.schema_version

    def add_segments(self) -> dict[str, list[int]]:
        """Take in every segment; by user those that would have to carry field ids and do not."""
        without_ids: dict[str, list[int]] = {}
        for copy in self._basis.copies:
            for segment in copy.segments:
                path = self._source.called(copy.user, segment)
                entry = self._data.get(path)
                if entry is None:
                    footer = self._source.footer(copy.user, segment)
                    if not footer.has_ids and carries_ids(self._basis.history, segment.schema_version):
                        without_ids.setdefault(copy.user, []).append(segment.segment_id)
                        continue
                    entry = self._entry(path, copy.user, segment, footer)
                    self._new[False].append(entry)
                self._live[path] = entry
        return without_ids

    def _entry(self, path: str, user: str, segment: LiveSegment, footer: Footer) -> Entry:
        """A new entry; as one of an earlier snapshot where the segment is of an earlier schema version.

        ClickHouse takes a file to have the names of the snapshot that added it, if there is one of that id.
        """
        return Entry(
            path=path,
            user=user,
            schema_version=segment.schema_version,
            row_count=segment.row_count,
            byte_count=segment.byte_count,
            snapshot_id=self.snapshot_id - (segment.schema_version != self._basis.table.schema_version),
            sequence_number=self._sequence_number,
            nulls=footer.nulls,
            lower_bounds=footer.lower_bounds,
            upper_bounds=footer.upper_bounds,
        )

    def add_deletes(self) -> None:
        """Find what is hidden, write manifests for all that is new, and the list of all."""
        for number, copy in enumerate(self._basis.copies):
            if copy.overrides is not None:
                self._add_hidden(copy, number)
            else:
                self._live_deletes += self._deletes.get(copy.user, [])
        for of_deletes, live in ((False, list(self._live.values())), (True, self._live_deletes)):
            self._list(live, of_deletes=of_deletes)
        if self.changed:
            self._write_list()

    def _add_hidden(self, copy: FlushedCopy, number: int) -> None:
        """The files of positions of one copy: those that there are, and one more for what is hidden since."""
        table, known = self._basis.table, self._known
        overrides = Overrides(copy.overrides or {}, table.key_columns)
        found: dict[str, Places] = {}
        for segment in copy.segments:
            path = self._source.called(copy.user, segment)
            after = known.seqs.get(copy.user, 0) if known and path in self._data else 0
            places = self._source.hidden(copy.user, segment, overrides, after)
            if len(places):
                found[path] = places
        former = [entry for entry in self._deletes.get(copy.user, []) if not self._live.keys().isdisjoint(entry.hides)]
        if found:
            former = self._merge(copy.user, former, found, number)
        self._live_deletes += former

    def _merge(self, user: str, former: list[Entry], found: Mapping[str, Places], number: int) -> list[Entry]:
        read = {entry.path: read_deletes(self._folder.read(_name(entry))) for entry in former}
        hidden_before = united(read.values(), self._live.keys() & found.keys())
        fresh = {path: _without(places, hidden_before.get(path)) for path, places in found.items()}
        fresh = {path: places for path, places in fresh.items() if len(places)}
        if not fresh:
            return former
        count = sum(map(len, fresh.values()))
        kept = sorted(former, key=lambda entry: entry.row_count)
        while kept and kept[0].row_count < 2 * count:
            fresh = united([fresh, read[kept.pop(0).path]], self._live.keys())
            count = sum(map(len, fresh.values()))
        name = f"deletes-{self.snapshot_id}-{number}.parquet"
        content = deletes_file(fresh)
        self._folder.write(name, content)
        entry = Entry(
            path=self._folder.called(name),
            user=user,
            schema_version=self._basis.table.schema_version,
            row_count=count,
            byte_count=len(content),
            snapshot_id=self.snapshot_id,
            sequence_number=self._sequence_number,
            hides={path: len(places) for path, places in fresh.items()},
        )
        self._new[True].append(entry)
        return [*kept, entry]

    def _list(self, live: Sequence[Entry], *, of_deletes: bool) -> None:
        """Keep the manifests of which every file lives, and write one of each schema version for all else."""
        paths = {entry.path for entry in live}
        manifests = [one for one in (self._known.manifests if self._known else []) if one.of_deletes is of_deletes]
        kept = [one for one in manifests if one.entries and all(entry.path in paths for entry in one.entries)]
        if len(kept) >= MANIFESTS_MAX and (self._new[of_deletes] or len(kept) < len(manifests)):
            kept = [one for one in kept if len(one.entries) >= MANIFEST_ENTRIES_SMALL]
        gone = [entry for one in manifests for entry in one.entries if entry.path not in paths]
        self.manifests += kept
        if self._new[of_deletes] or gone:
            self.changed = True
            listed = {entry.path for one in kept for entry in one.entries}
            left = [entry for entry in live if entry.path not in listed]
            for version in sorted({entry.schema_version for entry in (*left, *gone)}):
                self._write_manifest(version, left, gone, of_deletes=of_deletes)

    def _write_manifest(self, version: int, live: Sequence[Entry], gone: Sequence[Entry], *, of_deletes: bool) -> None:
        own = [entry for entry in live if entry.schema_version == version]
        content, manifest = write_manifest(
            self._source.shape(version),
            f"manifest-{self.snapshot_id}-{version}-{int(of_deletes)}.avro",
            of_deletes=of_deletes,
            snapshot_id=self.snapshot_id,
            sequence_number=self._sequence_number,
            added=[entry for entry in own if entry.snapshot_id == self.snapshot_id],
            existing=[entry for entry in own if entry.snapshot_id != self.snapshot_id],
            removed=[entry for entry in gone if entry.schema_version == version],
        )
        self._folder.write(manifest.name, content)
        self.manifests.append(manifest)

    @property
    def _list_name(self) -> str:
        return f"snapshot-{self.snapshot_id}.avro"

    def _write_list(self) -> None:
        content = write_list(
            self._source.shape(self._basis.table.schema_version),
            self._list_name,
            self._folder.called,
            snapshot_id=self.snapshot_id,
            parent_id=self._known.head.snapshot_id if self._known else None,
            sequence_number=self._sequence_number,
            manifests=[(manifest, self._byte_count(manifest.name)) for manifest in self.manifests],
        )
        self._folder.write(self._list_name, content)

    def _byte_count(self, name: str) -> int:
        note = self._folder.written.get(name) or (self._known and self._known.notes[name])
        assert note
        return note.byte_count

    @property
    def row_count(self) -> int:
        """The rows that a reader sees."""
        hidden = sum(count for entry in self._live_deletes for path, count in entry.hides.items() if path in self._live)
        return sum(entry.row_count for entry in self._live.values()) - hidden

    def snapshot(self, parent_id: int | None) -> Snapshot:
        """What is remembered of it."""
        names = [_name(entry) for entry in self._live_deletes]
        return Snapshot(
            snapshot_id=self.snapshot_id,
            parent_id=parent_id,
            sequence_number=self._sequence_number,
            schema_version=self._basis.table.schema_version,
            manifest_list=self._list_name,
            files=[self._list_name, *(manifest.name for manifest in self.manifests), *names],
            summary=self._summary(),
        )

    def _summary(self) -> dict[str, str]:
        removed = len(self._data.keys() - self._live.keys())
        added = self._new[False]
        same = self._known is not None and all(
            self._known.seqs.get(copy.user) == copy.flushed_seq for copy in self._basis.copies
        )
        operation = "append" if not removed and not self._new[True] else "replace" if same else "overwrite"
        summary = {
            "operation": operation,
            "added-data-files": len(added),
            "added-records": sum(entry.row_count for entry in added),
            "deleted-data-files": removed,
            "added-delete-files": len(self._new[True]),
            "total-data-files": len(self._live),
            "total-delete-files": len(self._live_deletes),
            "total-records": sum(entry.row_count for entry in self._live.values()),
            "total-position-deletes": sum(entry.row_count for entry in self._live_deletes),
            "total-equality-deletes": 0,
        }
        if not self._basis.table.per_user:
            summary["kalam.seq"] = max([copy.flushed_seq for copy in self._basis.copies], default=0)
        return {name: str(value) for name, value in summary.items()}


def _without(places: Places, before: Places | None) -> Places:
    return places if before is None else np.setdiff1d(places, before, assume_unique=True)


def _name(entry: Entry) -> str:
    return entry.path.rpartition("/")[2]
