"""What the lake knows of one table: what was committed, in which files. Read by the server too, which has no pyiceberg.

It lies in the lake's own folder, so that it goes with it: a folder without a state that fits is made anew. The head
comes first, because the server reads that alone.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from kalam.lake.folder import STATE, FileNote, LakeFolder

FORMAT = 1


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What was committed last.

    ``basis`` sums up what it was made of (``basis.py``); ``snapshot_id`` is the time of the commit in microseconds
    since 1970, None where nothing was ever flushed; ``seq`` is None for a USER table.
    """

    format: int = FORMAT
    location: str
    segments_location: str
    data_id: str
    table_id: int
    basis: str
    schema_version: int
    number: int
    metadata: str
    metadata_note: FileNote
    snapshot_id: int | None
    oldest_snapshot_id: int | None
    seq: int | None
    row_count: int
    metadata_bytes: int


class Entry(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A data file or a file of position deletes, as manifests have it.

    ``bounds`` are by field id, in Iceberg's form; ``hides`` are the positions that a file of deletes has, by data file.
    """

    path: str
    user: str
    schema_version: int
    row_count: int
    byte_count: int
    snapshot_id: int
    sequence_number: int
    nulls: dict[int, int] = {}
    lower_bounds: dict[int, bytes] = {}
    upper_bounds: dict[int, bytes] = {}
    hides: dict[str, int] = {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest file, with the entries that live, all written under one schema version."""

    name: str
    of_deletes: bool
    schema_version: int
    snapshot_id: int
    sequence_number: int
    min_sequence_number: int
    entries: list[Entry]
    added: tuple[int, int]
    existing: tuple[int, int]
    removed: tuple[int, int]


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot that readers may hold. ``files`` are all files of the lake that it names."""

    snapshot_id: int
    parent_id: int | None
    sequence_number: int
    schema_version: int
    manifest_list: str
    files: list[str]
    summary: dict[str, str]


class State(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known.

    ``seqs`` are by user the seq up to which a copy was flushed; ``notes`` are of every file that is kept.
    """

    head: Head
    seqs: dict[str, int]
    manifests: list[Manifest]
    snapshots: list[Snapshot]
    former_metadata: list[tuple[int, str]]
    notes: dict[str, FileNote]

    @property
    def entries(self) -> list[Entry]:
        """Every entry of the current snapshot."""
        return [entry for manifest in self.manifests for entry in manifest.entries]


def save(folder: LakeFolder, state: State) -> None:
    """Write the state, its head first; blocking."""
    head = msgspec.msgpack.encode(state.head)
    folder.write(STATE, len(head).to_bytes(4, "big") + head + msgspec.msgpack.encode(state))


def load_head(path: Path) -> Head | None:
    """The head of the state in a folder; None where there is none that can be read. Blocking."""
    try:
        with (path / STATE).open("rb") as file:
            return msgspec.msgpack.decode(file.read(int.from_bytes(file.read(4), "big")), type=Head)
    except (OSError, msgspec.MsgspecError):
        return None


def load(path: Path) -> State | None:
    """The whole state, as ``load_head``."""
    try:
        content = (path / STATE).read_bytes()
        return msgspec.msgpack.decode(content[4 + int.from_bytes(content[:4], "big") :], type=State)
    except (OSError, msgspec.MsgspecError):
        return None
