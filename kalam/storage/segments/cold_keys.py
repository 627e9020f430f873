"""Whether keys lie in segments: asked by every INSERT, answered mostly from statistics.

Segments whose range of keys does not meet the batch's are out at once, which settles growing keys. For the others the
segment's key filter says which keys it may hold, and only for those the key's columns are read.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import structlog

from kalam.errors import Internal
from kalam.rows.columns import SEQ_FIELD, UPDATED_FIELD
from kalam.rows.growing_keys import bounds_of
from kalam.rows.keys import keys_of
from kalam.rows.types import Row, arrow_type
from kalam.rows.values import Fix
from kalam.rows.versions import Source, sources
from kalam.schema import Table
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.copies import EMPTY, Key, Segment, View
from kalam.storage.log.database import Database
from kalam.storage.log.writes import ColdKeys
from kalam.storage.segments.checks import SegmentChecks
from kalam.storage.segments.key_filter import Hashes, KeyFilter, KeyHashes, key_hash
from kalam.storage.segments.key_reader import KeyReader, NotKept
from kalam.storage.segments.row_cache import Wanted
from kalam.storage.segments.segment_file import Stamp

log = structlog.get_logger(__name__)

READINGS_MAX = 4_096
FILTERS_BYTES_MAX = 256 << 20
"""Bytes of key filters kept in memory; one has 3 bytes a row."""


UNWANTED = Source(None, None, None)
"""Where the values of a column come from that nobody asked for."""

PASSES_ALL = KeyFilter(np.array([np.iinfo(np.uint64).max], dtype=np.uint64))


def may_meet(segments: Sequence[Segment], keys: Sequence[Key]) -> list[Segment]:
    """The segments whose range of keys meets the range of ``keys``."""
    if not segments or not keys:
        return []
    least, greatest = bounds_of(keys)
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


def _names(key: Sequence[Source]) -> list[str]:
    """What a key's columns are called in a segment, which has them all."""
    names = [source.name for source in key if source.name is not None]
    assert len(names) == len(key)
    return names


class KeyedRow(msgspec.Struct, frozen=True, gc=False):
    """A row in the table's columns, with its place in the log and the time of its last change."""

    row: Row
    seq: int
    updated: datetime


class Asked(msgspec.Struct, frozen=True):
    """Keys that are looked for, and their hashes: ``one`` of a single key, ``many`` of several."""

    keys: Sequence[Key]
    one: int
    many: Hashes | None

    @classmethod
    def of(cls, keys: Sequence[Key]) -> Asked:
        """These keys, of which there is at least one."""
        return cls(keys, key_hash(keys[0]), None) if len(keys) == 1 else cls(keys, 0, KeyHashes.of(keys))

    def maybe_in(self, key_filter: KeyFilter) -> Sequence[Key]:
        """The keys that a segment with this filter may have."""
        if self.many is None:
            return self.keys if key_filter.may_contain_one(self.one) else ()
        return [self.keys[at] for at in np.flatnonzero(key_filter.may_contain(self.many)).tolist()]


class Reading(msgspec.Struct, frozen=True):
    """How rows are read from segments of one schema version: what is wanted, and where each column's value is.

    ``places`` are those in what is read, None for a column whose value is its ``fills``; ``widen`` what gives the
    values at some of the columns the form that their wider types have.
    """

    table: Table
    wanted: Wanted
    places: tuple[int | None, ...]
    fills: tuple[Any, ...]
    as_it_is: bool
    widen: tuple[tuple[int, Fix], ...] = ()

    @classmethod
    def of(cls, table: Table, found: Sequence[Source]) -> Reading:
        """How ``found`` are read, which are the sources of the table's columns."""
        names = [source.name for source in found if source.name is not None]
        fields = [
            pa.field(source.name, arrow_type(column.type if source.widen is None else source.type or column.type))
            for source, column in zip(found, table.columns, strict=True)
            if source.name is not None
        ]
        key = _names([found[place] for place in table.key_places])
        wanted = Wanted.of(pa.schema([*fields, UPDATED_FIELD, SEQ_FIELD]), key)
        places = tuple(None if source.name is None else names.index(source.name) for source in found)
        widen = tuple((at, source.widen) for at, source in enumerate(found) if source.widen is not None)
        fills = tuple(source.fill for source in found)
        return cls(table, wanted, places, fills, places == tuple(range(len(places))) and not widen, widen)

    def row(self, read: Row) -> KeyedRow:
        """A row of what was read."""
        if self.as_it_is:
            return KeyedRow(read[:-2], read[-1], read[-2])
        pairs = zip(self.places, self.fills, strict=True)
        row = [fill if place is None else read[place] for place, fill in pairs]
        for at, widen in self.widen:
            [row[at]] = widen([row[at]])
        return KeyedRow(tuple(row), read[-1], read[-2])


class ColdKeyIndex:
    """Looks keys up in segments. Blocking; used from worker threads."""

    def __init__(self, database: Database, catalogue: Catalogue, reader: KeyReader, checks: SegmentChecks) -> None:
        self._database, self._catalogue, self._reader, self._checks = database, catalogue, reader, checks
        self._filters: OrderedDict[int, KeyFilter] = OrderedDict()
        self._filters_bytes = 0
        self._stamps: dict[int, Stamp] = {}
        self._readings: dict[tuple[int, int, frozenset[str] | None], Reading] = {}
        self._gone: deque[int] = deque()
        self._lock = threading.Lock()

    def find(self, table: Table, folder: Path, view: View, keys: Sequence[Key]) -> ColdKeys:
        """The newest version in segments of each of ``keys`` that has one: its seq, negative for a deleted row."""
        candidates = may_meet(view.segments, keys)
        if not candidates:
            return EMPTY
        found: dict[Key, int] = {}
        asked = Asked.of(keys)
        for segment in candidates:
            for key, seq in self._read(table, folder, segment, asked.maybe_in(self.key_filter(segment))):
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
    ) -> dict[Key, KeyedRow]:
        """The rows in segments that have one of ``keys`` and that nothing in segments hides.

        ``columns`` are those that are wanted, None for all; the others are left None.
        """
        found: dict[Key, KeyedRow] = {}
        asked = Asked.of(keys)
        for segment in may_meet(view.segments, keys):
            if segment.deleted:
                continue
            maybe = asked.maybe_in(self.key_filter(segment))
            for row in self._read_rows(table, folder, segment, maybe, columns):
                key = table.key_of(row.row)
                if row.seq >= view.overrides.get(key, 0) and (key not in found or row.seq > found[key].seq):
                    found[key] = row
        return found

    def lookup(
        self, table: Table, folder: str | None, view: View, columns: Collection[str] | None = None
    ) -> ColdLookup:
        """Looks single keys up likewise, without waiting, while nothing else runs; a URL is no ``folder``."""
        return ColdLookup(self, table, folder, view, columns)

    def found_nowait(
        self, table: Table, folder: str | None, segment: Segment, columns: Collection[str] | None
    ) -> tuple[Stamp, Reading]:
        """The file of a segment and how it is read; raises NotKept where it would have to be checked."""
        stamp = None if folder is None else self._checks.stamp_nowait(folder, segment)
        if stamp is None:
            raise NotKept
        return stamp, self._reading(table, segment.schema_version, columns)

    def kept(self, stamp: Stamp, wanted: Wanted, key: Key) -> list[Row]:
        """The rows with one key in a segment; raises NotKept where something would have to be waited for."""
        return self._reader.kept(stamp, wanted, key)

    def may_have(self, segment: Segment, key: Key) -> bool:
        """Whether a segment may have a key; raises NotKept where its key filter would have to be read."""
        if segment.segment_id not in self._filters:
            raise NotKept
        return self.key_filter(segment).may_contain_one(key_hash(key))

    def _read_rows(
        self,
        table: Table,
        folder: Path,
        segment: Segment,
        keys: Sequence[Key],
        columns: Collection[str] | None,
    ) -> list[KeyedRow]:
        if not keys:
            return []
        reading = self._reading(table, segment.schema_version, columns)
        stamp = self._stamps[segment.segment_id] = self._checks.stamp(table, folder, segment)
        with self._checks.reading(table, segment):
            return [reading.row(row) for row in self._reader.read(folder / segment.path, stamp, reading.wanted, keys)]

    def _reading(self, table: Table, schema_version: int, columns: Collection[str] | None) -> Reading:
        """How the wanted columns are read; the same for all reads with these values."""
        name = (table.table_id, schema_version, None if columns is None else frozenset(columns))
        known = self._readings.get(name)
        if known is not None and known.table is table:
            return known
        found = sources(table.columns, self._catalogue.history(table)[schema_version])
        if columns is not None:
            pairs = zip(found, table.columns, strict=True)
            found = tuple(at if own.name in columns or own.name in table.key else UNWANTED for at, own in pairs)
        if len(self._readings) >= READINGS_MAX:
            self._readings.clear()
        made = self._readings[name] = Reading.of(table, found)
        return made

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
        self.let_go()
        with self._lock:
            if segment.segment_id not in self._filters:
                self._filters[segment.segment_id] = key_filter
                self._filters_bytes += key_filter.words.nbytes
                # Told without the lock, which the thread in which the last reader ends may hold.
                weakref.finalize(segment, self._gone.append, segment.segment_id).atexit = False
            while self._filters_bytes > FILTERS_BYTES_MAX and len(self._filters) > 1:
                self._drop(next(iter(self._filters)))
        return key_filter

    def tidy(self) -> None:
        """Keep nothing of segments that are gone, and less on the disk where it is nearly full."""
        self.let_go()
        self._reader.give_back()

    def let_go(self) -> None:
        """Keep nothing of segments that are gone."""
        with suppress(IndexError):
            while True:
                self._forget(self._gone.popleft())

    def _forget(self, segment_id: int) -> None:
        with self._lock:
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
        key = _names(sources(table.key_columns, self._catalogue.history(table)[segment.schema_version]))
        types = [arrow_type(column.type) for column in table.key_columns]
        wanted = Wanted.of(pa.schema([*map(pa.field, key, types), SEQ_FIELD]), key)
        stamp = self._stamps[segment.segment_id] = self._checks.stamp(table, folder, segment)
        with self._checks.reading(table, segment):
            rows = self._reader.read(folder / segment.path, stamp, wanted, keys)
        return list(zip(keys_of([row[:-1] for row in rows]), [row[-1] for row in rows], strict=True))


class ColdLookup:
    """Looks single keys up in the segments of a view, in one turn of the event loop: each file is looked at once."""

    def __init__(
        self, index: ColdKeyIndex, table: Table, folder: str | None, view: View, columns: Collection[str] | None
    ) -> None:
        self._index, self._table, self._folder, self._view, self._columns = index, table, folder, view, columns
        self._found: dict[int, tuple[Stamp, Reading]] = {}

    def row(self, key: Key) -> KeyedRow | None:
        """The row with a key; raises NotKept where something would have to be waited for."""
        newest, view = None, self._view
        candidates = [own for own in view.segments if own.min_key <= key <= own.max_key and not own.deleted]
        for segment in candidates:
            if len(candidates) > 1 and not self._index.may_have(segment, key):
                continue
            stamp, reading = self._found.get(segment.segment_id) or self._find(segment)
            for read in self._index.kept(stamp, reading.wanted, key):
                row = reading.row(read)
                if row.seq >= view.overrides.get(key, 0) and (newest is None or row.seq > newest.seq):
                    newest = row
        return newest

    def _find(self, segment: Segment) -> tuple[Stamp, Reading]:
        made = self._index.found_nowait(self._table, self._folder, segment, self._columns)
        self._found[segment.segment_id] = made
        return made
