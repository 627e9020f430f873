"""Reads the rows of segments that have one of some keys; row groups that are read again are packed for it.

Parquet gives a column of a row group whole or not at all: 50,000 values are decoded for the one that is wanted, which
is nearly all that a read by key costs. So a row group that is asked for again is packed (``row_cache``), after which a
row of it is a read of a few hundred bytes. Like the file's footer that is good for as long as the file is the same one.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kalam.rows.types import Row
from kalam.storage.log.copies import Key
from kalam.storage.segments.key_filter import KeyHashes
from kalam.storage.segments.remote import readable
from kalam.storage.segments.row_cache import Group, RowCache, Wanted, WouldWait
from kalam.storage.segments.segment_file import Stamp

FEW_KEYS = 64
"""Reads of more keys pack nothing: they would push out what single reads come back for."""
SEARCHED_KEYS = 8
"""So many keys are searched one by one in a sorted column; more are looked for in one pass."""
FOOTERS_MAX = 1_024


class NotKept(Exception):
    """What was asked for would have to be read from the disk."""


class Footer(msgspec.Struct):
    """What a file says of itself. ``bounds`` are the least and greatest value of a column in each row group."""

    metadata: pq.FileMetaData
    bounds: dict[str, list[tuple[Any, Any] | None]] = msgspec.field(default_factory=dict)
    ends: dict[str, tuple[list[Any], list[Any]]] = msgspec.field(default_factory=dict)

    def groups_with(self, column: str, ordered: Sequence[Any]) -> list[int]:
        """The row groups that may have one of these values, which are in order."""
        bounds = self.bounds.get(column)
        if bounds is None:
            bounds = self.bounds[column] = self._bounds(column)
        groups: list[int] = []
        for group, bound in enumerate(bounds):
            first = 0 if bound is None else bisect_left(ordered, bound[0])
            if bound is None or (first < len(ordered) and ordered[first] <= bound[1]):
                groups.append(group)
        return groups

    def groups_with_one(self, column: str, value: Any) -> Sequence[int]:
        """The same for one value of the column by which the file is sorted, without looking at each row group."""
        ends = self.ends.get(column)
        if ends is None:
            self.groups_with(column, ())
            known = [bound for bound in self.bounds[column] if bound is not None]
            if len(known) < len(self.bounds[column]):
                return self.groups_with(column, (value,))
            ends = self.ends[column] = [least for least, _ in known], [greatest for _, greatest in known]
        return range(bisect_left(ends[1], value), bisect_right(ends[0], value))

    def _bounds(self, column: str) -> list[tuple[Any, Any] | None]:
        place = self.metadata.schema.to_arrow_schema().get_field_index(column)
        if place < 0:
            raise KeyError(column)
        chunks = (self.metadata.row_group(group).column(place) for group in range(self.metadata.num_row_groups))
        told = (chunk.statistics for chunk in chunks)
        return [None if known is None or not known.has_min_max else (known.min, known.max) for known in told]


class Opened(msgspec.Struct, frozen=True):
    """A segment that is being read. Without a ``stamp`` nothing of it is kept."""

    source: Any
    stamp: Stamp | None
    footer: Footer

    def decoded(self, group: int, names: Sequence[str]) -> pa.Table:
        """Columns of a row group."""
        with pq.ParquetFile(self.source, metadata=self.footer.metadata) as file:
            return file.read_row_group(group, columns=list(names)).select(list(names))


class KeyReader:
    """Reads by key. For any thread; ``read`` blocks."""

    def __init__(self, cache: RowCache) -> None:
        self._cache = cache
        self._footers: OrderedDict[Stamp, Footer] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: Path, stamp: Stamp, wanted: Wanted, keys: Mapping[Key, int]) -> list[Row]:
        """The rows of a segment that have one of ``keys``, each with its hash; values are in the columns' order.

        ``stamp`` tells the file, which has been checked, from others. Raises what READ_ERRORS lists where it is not
        what it should be after all.
        """
        ordered = sorted(keys)
        opened = self._open(path, stamp, keeps=len(ordered) <= FEW_KEYS)
        found: list[Row] = []
        for group in opened.footer.groups_with(wanted.key, ordered):
            rows = None if opened.stamp is None else self._packed(opened, (opened.stamp, group), wanted, keys)
            found += _decoded(opened, group, wanted, ordered) if rows is None else rows
        return found

    def kept(self, stamp: Stamp, wanted: Wanted, key: Key, key_hash: int) -> list[Row]:
        """The rows with one key; raises NotKept where something would have to be waited for."""
        footer = self._footers.get(stamp)
        if footer is None:
            raise NotKept
        found: list[Row] = []
        for group in footer.groups_with_one(wanted.key, key):
            try:
                rows = self._cache.find((stamp, group), wanted, key, key_hash, nowait=True)
            except WouldWait as exc:
                raise NotKept from exc
            if rows is None:
                raise NotKept
            found += rows
        return found

    def forget(self, stamp: Stamp) -> None:
        """Keep nothing of a file that is not read any more."""
        with self._lock:
            self._footers.pop(stamp, None)
        self._cache.forget(stamp)

    def _open(self, path: Path, known: Stamp, *, keeps: bool) -> Opened:
        source = readable(path)
        stamp = known if keeps and source is path else None
        with self._lock:
            footer = None if stamp is None else self._footers.get(stamp)
        footer = footer or Footer(pq.read_metadata(source))
        if stamp is not None:
            with self._lock:
                self._footers[stamp] = footer
                self._footers.move_to_end(stamp)
                if len(self._footers) > FOOTERS_MAX:
                    self._footers.popitem(last=False)
        return Opened(source, stamp, footer)

    def _packed(self, opened: Opened, group: Group, wanted: Wanted, keys: Mapping[Key, int]) -> list[Row] | None:
        """The rows from what is packed of a row group, which is packed first if it is time; None if neither."""
        schema = self._cache.missed(group, wanted)
        if schema is not None:
            rows = opened.decoded(group[1], schema.names).cast(schema)
            self._cache.pack(group, rows, KeyHashes.of(rows.column(wanted.key)))
        found: list[Row] = []
        for key, key_hash in keys.items():
            own = self._cache.find(group, wanted, key, key_hash)
            if own is None:
                return None
            found += own
        return found


def _decoded(opened: Opened, group: int, wanted: Wanted, ordered: Sequence[Key]) -> list[Row]:
    """The rows of a row group from the file; of columns other than the key's only if there is one."""
    keys = opened.decoded(group, [wanted.key]).column(0).combine_chunks()
    places = _places(keys, ordered, wanted.schema.field(wanted.key).type)
    if not len(places):
        return []
    data = opened.decoded(group, wanted.names).take(places).cast(wanted.schema)
    return list(zip(*(column.to_pylist() for column in data.columns), strict=True))


def _places(keys: pa.Array, ordered: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Where a sorted column has one of the values."""
    if len(ordered) > SEARCHED_KEYS:
        return pc.indices_nonzero(pc.is_in(keys.cast(kind), pa.array(ordered, kind)))
    found: list[int] = []
    everywhere = range(len(keys))

    def value(place: int) -> Any:
        return keys[place].as_py()

    for wanted in ordered:
        first = bisect_left(everywhere, wanted, key=value)
        found += range(first, bisect_right(everywhere, wanted, lo=first, key=value))
    return pa.array(found, pa.int64())
