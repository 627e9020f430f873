"""Reads the rows of segments that have one of some keys; row groups that are read are packed for the next time.

Parquet gives a column of a row group whole or not at all: 50,000 values are decoded for the one that is wanted, which
is nearly all that a read by key costs. So a row group that was decoded is packed (``row_cache``), after which a row of
it is a read of some thousand bytes. Like the file's footer that is good for as long as the file is the same one.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kalam.rows.keys import key_at, key_values, places_among
from kalam.rows.types import Row
from kalam.storage.log.copies import Key
from kalam.storage.segments.remote import readable
from kalam.storage.segments.row_cache import Group, RowCache, Wanted, WouldWait
from kalam.storage.segments.segment_file import Stamp

FEW_KEYS = 64
"""Reads of more keys pack nothing: they would push out what single reads come back for."""
SEARCHED_KEYS = 8
"""So many keys are searched one by one in sorted columns; more are looked for in one pass."""
FOOTERS_MAX = 1_024


class NotKept(Exception):
    """What was asked for would have to be read from the disk."""


Bound = tuple[Any, Any] | None
"""The least and the greatest value; None where that is not told."""


class Footer(msgspec.Struct):
    """What a file says of itself. ``bounds`` are the least and greatest value of a column in each row group."""

    metadata: pq.FileMetaData
    bounds: dict[str, list[Bound]] = msgspec.field(default_factory=dict)
    ends: dict[str, tuple[list[Any], list[Any]]] = msgspec.field(default_factory=dict)

    def groups_with(self, columns: Sequence[str], ordered: Sequence[Key]) -> list[int]:
        """The row groups that may have one of these keys, which are in order."""
        if len(columns) > 1:
            return self._groups_with_parts(columns, ordered)
        groups: list[int] = []
        for group, bound in enumerate(self._bounds_of(columns[0])):
            first = 0 if bound is None else bisect_left(ordered, bound[0])
            if bound is None or (first < len(ordered) and ordered[first] <= bound[1]):
                groups.append(group)
        return groups

    def groups_with_one(self, columns: Sequence[str], key: Key) -> Sequence[int]:
        """The same for one key, if it has one column without looking at each row group."""
        if len(columns) > 1:
            return self._groups_with_parts(columns, (key,))
        [column] = columns
        ends = self.ends.get(column)
        if ends is None:
            bounds = self._bounds_of(column)
            known = [bound for bound in bounds if bound is not None]
            if len(known) < len(bounds):
                return self.groups_with(columns, (key,))
            ends = self.ends[column] = [least for least, _ in known], [greatest for _, greatest in known]
        return range(bisect_left(ends[1], key), bisect_right(ends[0], key))

    def _groups_with_parts(self, columns: Sequence[str], ordered: Sequence[Key]) -> list[int]:
        """The same for keys of several columns: all parts of one of the keys lie within the bounds of theirs."""
        groups: list[int] = []
        for group, bounds in enumerate(zip(*map(self._bounds_of, columns), strict=True)):
            first, *others = bounds
            if any(_is_within(key[1:], others) for key in _near(ordered, first)):
                groups.append(group)
        return groups

    def _bounds_of(self, column: str) -> list[Bound]:
        bounds = self.bounds.get(column)
        if bounds is None:
            bounds = self.bounds[column] = self._bounds(column)
        return bounds

    def _bounds(self, column: str) -> list[Bound]:
        place = self.metadata.schema.to_arrow_schema().get_field_index(column)
        if place < 0:
            raise KeyError(column)
        chunks = (self.metadata.row_group(group).column(place) for group in range(self.metadata.num_row_groups))
        told = (chunk.statistics for chunk in chunks)
        return [None if known is None or not known.has_min_max else (known.min, known.max) for known in told]


def _near(ordered: Sequence[Key], bound: Bound) -> Sequence[Key]:
    """Those of keys in order whose first part lies within its bounds."""
    if bound is None:
        return ordered
    first = bisect_left(ordered, bound[0], key=itemgetter(0))
    return ordered[first : bisect_right(ordered, bound[1], lo=first, key=itemgetter(0))]


def _is_within(parts: Sequence[Any], bounds: Sequence[Bound]) -> bool:
    return all(bound is None or bound[0] <= part <= bound[1] for part, bound in zip(parts, bounds, strict=True))


class Opened(msgspec.Struct, frozen=True):
    """A segment that is being read. Without a ``stamp`` nothing of it is kept."""

    source: Any
    stamp: Stamp | None
    footer: Footer

    def decoded(self, group: int, names: Sequence[str]) -> pa.Table:
        """Columns of a row group."""
        with pq.ParquetFile(self.source, metadata=self.footer.metadata) as file:
            return file.read_row_group(group, columns=list(names)).select(list(names))


class Decoding:
    """A row group that a thread decodes; ``sharing`` are so many others, which wait for what it gets."""

    def __init__(self) -> None:
        self.rows: Future[pa.Table] = Future()
        self.sharing = 0


class KeyReader:
    """Reads by key. For any thread; ``read`` blocks.

    ``decoding`` are the row groups that are being decoded: whoever wants the same columns of one waits for them.
    """

    def __init__(self, cache: RowCache) -> None:
        self._cache = cache
        self.decoding: dict[tuple[Group, tuple[str, ...]], Decoding] = {}
        self._footers: OrderedDict[Stamp, Footer] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: Path, stamp: Stamp, wanted: Wanted, keys: Collection[Key]) -> list[Row]:
        """The rows of a segment that have one of ``keys``; values are in the columns' order.

        ``stamp`` tells the file, which has been checked, from others. Raises what READ_ERRORS lists where it is not
        what it should be after all.
        """
        ordered = sorted(keys)
        opened = self._open(path, stamp, keeps=len(ordered) <= FEW_KEYS)
        found: list[Row] = []
        for group in opened.footer.groups_with(wanted.key, ordered):
            rows = None if opened.stamp is None else self._packed((opened.stamp, group), wanted, ordered)
            found += self._missed(opened, group, wanted, ordered) if rows is None else rows
        return found

    def kept(self, stamp: Stamp, wanted: Wanted, key: Key) -> list[Row]:
        """The rows with one key; raises NotKept where something would have to be waited for."""
        footer = self._footers.get(stamp)
        if footer is None:
            raise NotKept
        found: list[Row] = []
        for group in footer.groups_with_one(wanted.key, key):
            try:
                rows = self._cache.find((stamp, group), wanted, key, nowait=True)
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

    def give_back(self) -> None:
        """Keep less where the disk is nearly full."""
        self._cache.give_back()

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

    def _packed(self, group: Group, wanted: Wanted, keys: Sequence[Key]) -> list[Row] | None:
        """The rows from what is packed of a row group; None if it is not."""
        found: list[Row] = []
        for key in keys:
            own = self._cache.find(group, wanted, key)
            if own is None:
                return None
            found += own
        return found

    def _missed(self, opened: Opened, group: int, wanted: Wanted, ordered: Sequence[Key]) -> list[Row]:
        """The rows of a row group that is not packed, and is from now on if there is room."""
        if opened.stamp is None:
            return _found(partial(opened.decoded, group), wanted, ordered)
        name = (opened.stamp, group)
        rows = self._cache.waiting(name, wanted)
        schema = self._cache.missed(name, wanted) if rows is None else None
        decoded = partial(self._decoded, opened, name)
        if schema is not None:
            rows = decoded(schema.names).cast(schema)
            self._cache.pack(name, rows, wanted.key)
        return _found(decoded, wanted, ordered) if rows is None else _rows_of(rows, wanted, ordered)

    def _decoded(self, opened: Opened, group: Group, names: Sequence[str]) -> pa.Table:
        """Columns of a row group; those who want the same ones at the same time share what one of them decodes."""
        name = (group, tuple(names))
        with self._lock:
            running = self.decoding.get(name)
            if running is not None:
                running.sharing += 1
            else:
                own = self.decoding[name] = Decoding()
        if running is not None:
            return running.rows.result()
        try:
            own.rows.set_result(opened.decoded(group[1], names))
        except BaseException as exc:
            own.rows.set_exception(exc)
            raise
        finally:
            with self._lock:
                del self.decoding[name]
        return own.rows.result()


def _found(decoded: Callable[[Sequence[str]], pa.Table], wanted: Wanted, ordered: Sequence[Key]) -> list[Row]:
    """The rows of a row group from the file; of columns other than the key's only if there is one."""
    places = _places(decoded(wanted.key), wanted, ordered)
    return _taken(decoded(wanted.names), wanted, places) if len(places) else []


def _rows_of(rows: pa.Table, wanted: Wanted, ordered: Sequence[Key]) -> list[Row]:
    """The same of a row group that is decoded."""
    return _taken(rows, wanted, _places(rows, wanted, ordered))


def _taken(rows: pa.Table, wanted: Wanted, places: pa.Array) -> list[Row]:
    data = rows.select(list(wanted.names)).take(places).cast(wanted.schema)
    return list(zip(*(column.to_pylist() for column in data.columns), strict=True))


def _places(rows: pa.Table, wanted: Wanted, ordered: Sequence[Key]) -> pa.Array:
    """Where rows that are sorted by the key have one of the keys."""
    columns = [rows.column(name).combine_chunks() for name in wanted.key]
    kinds = [wanted.schema.field(name).type for name in wanted.key]
    if len(ordered) > SEARCHED_KEYS:
        keys = [pa.array(own, kind) for own, kind in zip(key_values(ordered, len(kinds)), kinds, strict=True)]
        cast = [column.cast(kind) for column, kind in zip(columns, kinds, strict=True)]
        return pc.indices_nonzero(pc.is_valid(places_among(cast, keys)))
    found: list[int] = []
    everywhere, value = range(len(columns[0])), partial(key_at, columns)

    for own in ordered:
        first = bisect_left(everywhere, own, key=value)
        found += range(first, bisect_right(everywhere, own, lo=first, key=value))
    return pa.array(found, pa.int64())
