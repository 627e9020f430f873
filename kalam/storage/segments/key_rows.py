"""Single rows by their keys, without a plan: the index of hot keys, then key filters and row groups of segments.

The index of hot keys belongs to the writer's thread and runs ahead of what is committed. So a key is looked up without
a lock, and what was found counts only if it is not newer than the view and no flush came between; otherwise there is
no answer and the caller asks in another way.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate
from operator import attrgetter

import msgspec
import pyarrow as pa

from kalam.rows.column_rows import is_columns
from kalam.rows.columns import from_arrow
from kalam.rows.stored import array_of, row_sizes
from kalam.rows.types import Row
from kalam.rows.versions import StoredVersions
from kalam.schema import Table
from kalam.storage.log.copies import Chunk, Copy, Key, View
from kalam.storage.log.copy_store import CopyStore
from kalam.storage.log.times import from_us
from kalam.storage.segments.cold_keys import ColdKeyIndex, ColdLookup, KeyedRow, may_meet
from kalam.storage.segments.folders import Folders
from kalam.storage.segments.key_reader import NotKept
from kalam.storage.segments.remote import is_remote
from kalam.threads import Purpose, beside, in_thread

SMALL_CHUNK_ROWS = 32
"""Chunks of so many rows are decoded whole; of a larger one only the row that is wanted."""
COLD_KEYS_MAX = 64
"""Keys that are looked up in segments one by one; more are a matter of a query."""
FOLDERS_MAX = 10_000
PLACED_ROWS_MAX = 2_000_000
"""Rows of larger chunks whose places are remembered, at eight bytes each."""

_FIRST_SEQ = attrgetter("first_seq")


class KeyedRows(msgspec.Struct, frozen=True):
    """The live rows of some keys, as of version ``seen_seq`` of their copy."""

    rows: list[KeyedRow]
    seen_seq: int


class KeyRows:
    """Looks rows up by key."""

    def __init__(self, store: CopyStore, cold_keys: ColdKeyIndex, folders: Folders) -> None:
        self._store, self._cold_keys, self._folders = store, cold_keys, folders
        self._versions: dict[int, tuple[Table, StoredVersions]] = {}
        self._places: OrderedDict[tuple[int, int, int], tuple[Chunk, array[int]]] = OrderedDict()
        self._placed_rows = 0
        self._local: dict[tuple[int, str], tuple[Table, str | None]] = {}
        self._placing = threading.Lock()

    def lookup(self, table: Table, owner: str, columns: Collection[str] | None = None) -> KeyLookup | None:
        """Looks single keys up in what is in memory, while nothing else runs; None where files have to be asked.

        ``columns`` as for ``find``.
        """
        copy = self._store.loaded.get((table.table_id, owner))
        return None if copy is None else KeyLookup(self, table, owner, copy, columns)

    async def find(
        self, table: Table, owner: str, keys: Sequence[Key], columns: Collection[str] | None = None
    ) -> KeyedRows | None:
        """The live rows that have one of the keys; None where this cannot be said without a plan.

        ``columns`` are those that are wanted, None for all; what is read from a segment has no others.
        """
        copy = self._store.loaded.get((table.table_id, owner)) or await self._store.open(table, owner)
        if copy is None:
            self._store.catalogue.newest(table)  # one that was dropped meanwhile is not empty
            return KeyedRows([], 0)
        view = copy.view
        hot = await beside(len(keys), _hot_versions, copy, view, keys)
        if hot is None:
            return None
        live, missing = hot
        rows = await beside(len(live), self.hot_rows, table, view, live)
        if missing and await beside(len(missing), may_meet, view.segments, missing):
            if len(missing) > COLD_KEYS_MAX:
                return None
            folder = self._folders.folder(table, owner)
            cold = await in_thread(Purpose.LOOKUPS, self._cold_keys.rows, table, folder, view, missing, columns)
            rows += cold.values()
        return KeyedRows(rows, view.last_seq)

    def cold(self, table: Table, owner: str, view: View, columns: Collection[str] | None) -> ColdLookup:
        """The same in what is kept of segments."""
        return self._cold_keys.lookup(table, self._local_folder(table, owner), view, columns)

    def _local_folder(self, table: Table, owner: str) -> str | None:
        """Where a copy's segments lie; None if that is a URL."""
        name = (table.table_id, owner)
        known = self._local.get(name)
        if known is None or known[0] is not table:
            if len(self._local) >= FOLDERS_MAX:
                self._local.clear()
            remote = is_remote(self._folders.location(table))
            known = self._local[name] = (table, None if remote else str(self._folders.folder(table, owner)))
        return known[1]

    def hot_rows(self, table: Table, view: View, seqs: Iterable[int]) -> list[KeyedRow]:
        """The rows of these versions, in their order; those of one chunk are decoded together."""
        reader, wanted, start = self._reader(table), sorted(seqs), 0
        rows: list[KeyedRow] = []
        while start < len(wanted):
            place = bisect_right(view.chunks, wanted[start], hi=view.chunk_count, key=_FIRST_SEQ) - 1
            chunk = view.chunks[place]
            end = bisect_right(wanted, chunk.last_seq, lo=start)
            updated, part = from_us(chunk.updated_us), wanted[start:end]
            found = self._rows_at(reader, view.copy_id, chunk, [seq - chunk.first_seq for seq in part])
            rows += [KeyedRow(row, seq, updated) for row, seq in zip(found, part, strict=True)]
            start = end
        return rows

    def _rows_at(self, reader: StoredVersions, copy_id: int, chunk: Chunk, offsets: Sequence[int]) -> list[Row]:
        if is_columns(chunk.payload):
            return _rows_of_columns(reader, chunk, offsets)
        if chunk.row_count <= max(SMALL_CHUNK_ROWS, 2 * len(offsets)):
            rows = reader.unpack(chunk.payload, chunk.schema_version)
            return [rows[offset] for offset in offsets]
        places, payload = self._places_of(copy_id, chunk), chunk.payload
        cut = [payload[places[offset] : places[offset + 1]] for offset in offsets]
        return reader.unpack(array_of(cut), chunk.schema_version)

    def _places_of(self, copy_id: int, chunk: Chunk) -> array[int]:
        """Where each row of a chunk begins in its payload, and where the last one ends."""
        with self._placing:
            return self._placed(copy_id, chunk)

    def _placed(self, copy_id: int, chunk: Chunk) -> array[int]:
        name = (copy_id, chunk.first_seq, chunk.row_count)
        known = self._places.get(name)
        if known is not None and known[0] is chunk:
            return known[1]
        sizes = row_sizes(chunk.payload)
        places = array("Q", accumulate(sizes, initial=len(chunk.payload) - sum(sizes)))
        self._places[name] = (chunk, places)
        self._placed_rows += chunk.row_count if known is None else 0
        while self._placed_rows > PLACED_ROWS_MAX and len(self._places) > 1:
            _, (dropped, _) = self._places.popitem(last=False)
            self._placed_rows -= dropped.row_count
        return places

    def _reader(self, table: Table) -> StoredVersions:
        known = self._versions.get(table.table_id)
        if known is None or known[0] is not table:
            reader = StoredVersions(table.columns, self._store.catalogue.history(table))
            known = self._versions[table.table_id] = (table, reader)
        return known[1]


def _hot_versions(copy: Copy, view: View, keys: Sequence[Key]) -> tuple[list[int], list[Key]] | None:
    """The versions of those keys that live in the log, and the keys that are not there; None if it ran ahead."""
    seqs = copy.versions.of(keys)
    if copy.epoch != view.epoch or any(seq is not None and abs(seq) > view.last_seq for seq in seqs):
        return None
    live = [seq for seq in seqs if seq is not None and seq > 0]
    return live, [key for key, seq in zip(keys, seqs, strict=True) if seq is None]


def _rows_of_columns(reader: StoredVersions, chunk: Chunk, offsets: Sequence[int]) -> list[Row]:
    columns = reader.columns(chunk.payload, chunk.schema_version)
    if columns is not None:
        return from_arrow(columns.take(pa.array(offsets, pa.int64())))
    rows = reader.unpack(chunk.payload, chunk.schema_version)
    return [rows[offset] for offset in offsets]


class KeyLookup:
    """Looks single keys of one copy up in memory, in one turn of the event loop: with its view as of the first one."""

    def __init__(self, rows: KeyRows, table: Table, owner: str, copy: Copy, columns: Collection[str] | None) -> None:
        self._rows, self._table, self._owner, self._copy, self._columns = rows, table, owner, copy, columns
        self._view = copy.view
        self._cold: ColdLookup | None = None

    def find(self, key: Key) -> list[KeyedRow] | None:
        """The live row that has the key, if there is one; None where files or a query have to be asked."""
        view = self._view
        seq = self._copy.versions.get(key)
        if self._copy.epoch != view.epoch or (seq is not None and abs(seq) > view.last_seq):
            return None
        if seq is not None:
            return self._rows.hot_rows(self._table, view, [seq]) if seq > 0 else []
        if not view.segments:
            return []
        cold = self._cold = self._cold or self._rows.cold(self._table, self._owner, view, self._columns)
        try:
            found = cold.row(key)
        except NotKept:
            return None
        return [] if found is None else [found]
