"""Whether keys lie in segments: asked by every INSERT, answered mostly from statistics.

Segments whose range of keys does not meet the batch's are out at once, which settles growing keys. For the others the
segment's key filter says which keys it may hold, and only for those the key column is read.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import structlog

from kalam.errors import Internal
from kalam.rows.columns import SEQ_FIELD, UPDATED_FIELD
from kalam.rows.types import Row, arrow_type
from kalam.rows.versions import Source, sources
from kalam.schema import SEQ, UPDATED, Table
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.copies import EMPTY, Key, Segment, View
from kalam.storage.log.database import Database
from kalam.storage.log.writes import ColdKeys
from kalam.storage.segments.checks import SegmentChecks
from kalam.storage.segments.key_filter import KeyFilter, KeyHashes
from kalam.storage.segments.key_reader import KeyReader, NotKept
from kalam.storage.segments.segment_file import Stamp

log = structlog.get_logger(__name__)

FILTERS_BYTES_MAX = 256 << 20
"""Bytes of key filters kept in memory; one has 3 bytes a row."""


UNWANTED = Source(None, None, None)
"""Where the values of a column come from that nobody asked for."""

PASSES_ALL = KeyFilter(np.array([np.iinfo(np.uint64).max], dtype=np.uint64))


def may_meet(segments: Sequence[Segment], keys: Sequence[Key]) -> list[Segment]:
    """The segments whose range of keys meets the range of ``keys``."""
    if not segments or not keys:
        return []
    least, greatest = min(keys), max(keys)
    return [segment for segment in segments if segment.min_key <= greatest and least <= segment.max_key]


def _filter_of(segment: Segment, stored: bytes) -> KeyFilter:
    """The filter that was stored with a segment; one that is damaged or another segment's says nothing."""
    try:
        found = KeyFilter.from_bytes(stored)
    except Internal as exc:
        log.error("key filter is damaged; the segment is read instead", segment=segment.path, reason=exc.detail)
        return PASSES_ALL
    if not found.is_for(segment.row_count):
        log.error("key filter is another segment's; the segment is read instead", segment=segment.path)
        return PASSES_ALL
    return found


class ColdRow(msgspec.Struct, frozen=True):
    """A row in a segment, in the table's columns."""

    row: Row
    seq: int
    updated: datetime


class ColdKeyIndex:
    """Looks keys up in segments. Blocking; used from worker threads."""

    def __init__(self, database: Database, catalogue: Catalogue, reader: KeyReader, checks: SegmentChecks) -> None:
        self._database, self._catalogue, self._reader, self._checks = database, catalogue, reader, checks
        self._filters: OrderedDict[int, KeyFilter] = OrderedDict()
        self._filters_bytes = 0
        self._stamps: dict[int, Stamp] = {}
        self._gone: deque[int] = deque()
        self._lock = threading.Lock()

    def find(self, table: Table, folder: Path, view: View, keys: Sequence[Key]) -> ColdKeys:
        """The newest version in segments of each of ``keys`` that has one: its seq, negative for a deleted row."""
        candidates = may_meet(view.segments, keys)
        if not candidates:
            return EMPTY
        found: dict[Key, int] = {}
        hashes = KeyHashes.of(keys)
        for segment in candidates:
            maybe = [keys[place] for place in np.flatnonzero(self.key_filter(segment).may_contain(hashes)).tolist()]
            for key, seq in self._read(table, folder, segment, maybe):
                if seq > abs(found.get(key, 0)):
                    found[key] = -seq if segment.deleted else seq
        for key in found:
            # The tombstone that hides an older row may be gone already; the override stays as long as the row does.
            hidden_by = view.overrides.get(key, 0)
            if hidden_by > abs(found[key]):
                found[key] = -hidden_by
        return found

    def rows(
        self,
        table: Table,
        folder: Path,
        view: View,
        keys: Sequence[Key],
        columns: Collection[str] | None = None,
        *,
        kept_only: bool = False,
    ) -> dict[Key, ColdRow]:
        """The rows in segments that have one of ``keys`` and that nothing in segments hides.

        ``columns`` are those that are wanted, None for all; the others are left None. With ``kept_only`` raises
        NotKept where something would have to be read from the disk.
        """
        assert table.key_column is not None
        found: dict[Key, ColdRow] = {}
        live = [segment for segment in view.segments if not segment.deleted]
        hashes = KeyHashes.of(keys)
        for segment in may_meet(live, keys):
            if kept_only and segment.segment_id not in self._filters:
                raise NotKept
            maybe = [keys[place] for place in np.flatnonzero(self.key_filter(segment).may_contain(hashes)).tolist()]
            for row, updated, seq in self._read_rows(table, folder, segment, maybe, columns, kept_only):
                key = row[table.key_index]
                if seq >= view.overrides.get(key, 0) and (key not in found or seq > found[key].seq):
                    found[key] = ColdRow(row, seq, updated)
        return found

    def _read_rows(
        self,
        table: Table,
        folder: Path,
        segment: Segment,
        keys: Sequence[Key],
        columns: Collection[str] | None,
        kept_only: bool,
    ) -> list[tuple[Row, datetime, int]]:
        if not keys:
            return []
        found = sources(table.columns, self._catalogue.history(table)[segment.schema_version])
        if columns is not None:
            pairs = zip(found, table.columns, strict=True)
            found = tuple(at if own.name in columns or own.name == table.key else UNWANTED for at, own in pairs)
        present = [(source.name, column) for source, column in zip(found, table.columns, strict=True) if source.name]
        fields = [pa.field(name, arrow_type(column.type)) for name, column in present if name is not None]
        schema = pa.schema([*fields, UPDATED_FIELD, SEQ_FIELD])
        key_name = found[table.key_index].name
        assert key_name is not None
        stamp = self._checks.stamp_nowait(folder, segment) if kept_only else self._checks.stamp(table, folder, segment)
        if stamp is None:
            raise NotKept
        self._stamps[segment.segment_id] = stamp
        with self._checks.reading(table, segment):
            data = self._reader.read(folder / segment.path, stamp, schema, key_name, keys, kept_only=kept_only)
        if not data.num_rows:
            return []
        values = {name: data.column(name).to_pylist() for name in data.column_names}
        fill = [[source.fill] * data.num_rows if source.name is None else values[source.name] for source in found]
        return list(zip(zip(*fill, strict=True), values[UPDATED], values[SEQ], strict=True))

    def key_filter(self, segment: Segment) -> KeyFilter:
        """The key filter of a segment."""
        with self._lock:
            key_filter = self._filters.get(segment.segment_id)
            if key_filter is not None:
                self._filters.move_to_end(segment.segment_id)
                return key_filter
        with self._database.reading() as conn:
            row = conn.execute(
                "SELECT key_filter FROM key_filters WHERE segment_id = ?", (segment.segment_id,)
            ).fetchone()
        if row is None:  # a compaction has replaced the segment, of which the caller still holds the file
            return PASSES_ALL
        key_filter = _filter_of(segment, row[0])
        with self._lock:
            while self._gone:
                self._forget(self._gone.popleft())
            if segment.segment_id not in self._filters:
                self._filters[segment.segment_id] = key_filter
                self._filters_bytes += key_filter.words.nbytes
                # Told without the lock, which the thread in which the last reader ends may hold.
                weakref.finalize(segment, self._gone.append, segment.segment_id).atexit = False
            while self._filters_bytes > FILTERS_BYTES_MAX and len(self._filters) > 1:
                self._drop(next(iter(self._filters)))
        return key_filter

    def _forget(self, segment_id: int) -> None:
        self._drop(segment_id)
        stamp = self._stamps.pop(segment_id, None)
        if stamp is not None:
            self._reader.forget(stamp)

    def _drop(self, segment_id: int) -> None:
        key_filter = self._filters.pop(segment_id, None)
        if key_filter is not None:
            self._filters_bytes -= key_filter.words.nbytes

    def _read(self, table: Table, folder: Path, segment: Segment, keys: Sequence[Key]) -> list[tuple[Key, int]]:
        if not keys:
            return []
        assert table.key_column is not None
        [source] = sources([table.key_column], self._catalogue.history(table)[segment.schema_version])
        assert source.name is not None
        key_field = pa.field(source.name, arrow_type(table.key_column.type))
        schema = pa.schema([key_field, SEQ_FIELD])
        stamp = self._stamps[segment.segment_id] = self._checks.stamp(table, folder, segment)
        with self._checks.reading(table, segment):
            data = self._reader.read(folder / segment.path, stamp, schema, source.name, keys)
        return list(zip(data.column(0).to_pylist(), data.column(1).to_pylist(), strict=True))
