"""Reads the rows of segments that have one of some keys, and keeps what it decoded for the next time.

Parquet gives a column of a row group whole or not at all: 50,000 values are decoded for the one that is wanted, which
is nearly all that a read by key costs. So the columns that were decoded last are kept, within a bound; like the file's
footer they are good for as long as the file is the same one.
"""

from __future__ import annotations

import mmap
import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kalam.storage.segments.remote import readable
from kalam.storage.segments.segment_file import Stamp

FEW_KEYS = 64
"""Reads of more keys keep nothing: they would push out what single reads come back for."""
SEARCHED_KEYS = 8
"""So many keys are searched one by one in a sorted column; more are looked for in one pass."""
FOOTERS_MAX = 1_024
OWN_PAGES_BYTES = 128 << 10
"""From which size a kept column has pages of its own, of which a process may have some 65,000 pieces."""
END_BYTES = 64
"""More than the end of a stream of Arrow's IPC format takes."""


class NotKept(Exception):
    """What was asked for would have to be read from the disk."""


class Footer(msgspec.Struct):
    """What a file says of itself. ``bounds`` are the least and greatest value of a column in each row group."""

    metadata: pq.FileMetaData
    bounds: dict[str, list[tuple[Any, Any] | None]] = msgspec.field(default_factory=dict)

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

    def _bounds(self, column: str) -> list[tuple[Any, Any] | None]:
        place = self.metadata.schema.to_arrow_schema().get_field_index(column)
        if place < 0:
            raise KeyError(column)
        chunks = (self.metadata.row_group(group).column(place) for group in range(self.metadata.num_row_groups))
        told = (chunk.statistics for chunk in chunks)
        return [None if known is None or not known.has_min_max else (known.min, known.max) for known in told]


class Opened(msgspec.Struct, frozen=True):
    """A segment that is being read. Without a ``stamp`` nothing of it is kept; ``kept_only`` forbids to decode."""

    source: Any
    stamp: Stamp | None
    footer: Footer
    kept_only: bool


class KeyReader:
    """Reads by key. Blocking; used from worker threads. ``bytes_max`` bounds the columns that are kept."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._footers: OrderedDict[Stamp, Footer] = OrderedDict()
        self._columns: OrderedDict[tuple[Stamp, int, str], pa.Array] = OrderedDict()
        self._lock = threading.Lock()
        self.byte_count = 0

    def read(
        self, path: Path, stamp: Stamp, schema: pa.Schema, key: str, keys: Sequence[Any], *, kept_only: bool = False
    ) -> pa.Table:
        """The rows of a segment whose column ``key``, by which it is sorted, is one of ``keys``.

        ``stamp`` tells the file, which has been checked, from others; ``schema`` is the wanted columns as the file
        holds them. Raises what READ_ERRORS lists where it is not what it should be after all, and NotKept where
        ``kept_only`` and something has to be decoded.
        """
        ordered = sorted(set(keys))
        opened = self._open(path, stamp, keeps=len(ordered) <= FEW_KEYS, kept_only=kept_only)
        groups = opened.footer.groups_with(key, ordered)
        found = [self._rows_with(opened, group, schema, key, ordered) for group in groups]
        parts = [rows for rows in found if rows is not None]
        return pa.concat_tables(parts) if parts else schema.empty_table()

    def forget(self, stamp: Stamp) -> None:
        """Keep nothing of a file that is not read any more."""
        with self._lock:
            self._footers.pop(stamp, None)
            for place in [place for place in self._columns if place[0] == stamp]:
                self.byte_count -= self._columns.pop(place).nbytes

    def _open(self, path: Path, known: Stamp, *, keeps: bool, kept_only: bool) -> Opened:
        source = readable(path)
        stamp = known if keeps and source is path else None
        with self._lock:
            footer = None if stamp is None else self._footers.get(stamp)
        if footer is None:
            if kept_only:
                raise NotKept
            footer = Footer(pq.read_metadata(source))
        if stamp is not None:
            with self._lock:
                self._footers[stamp] = footer
                self._footers.move_to_end(stamp)
                if len(self._footers) > FOOTERS_MAX:
                    self._footers.popitem(last=False)
        return Opened(source, stamp, footer, kept_only)

    def _rows_with(
        self, opened: Opened, group: int, schema: pa.Schema, key: str, ordered: Sequence[Any]
    ) -> pa.Table | None:
        """The rows of a row group whose key is wanted; the other columns are decoded only if there is one."""
        [keys] = self._decoded(opened, group, [key])
        places = _places(keys, ordered, schema.field(key).type)
        if not len(places):
            return None
        taken = [column.take(places) for column in self._decoded(opened, group, schema.names)]
        return pa.table(taken, names=schema.names).cast(schema)

    def _decoded(self, opened: Opened, group: int, names: Sequence[str]) -> list[pa.Array]:
        """Columns of a row group: those that are kept, and the others from the file."""
        found = {} if opened.stamp is None else self._kept(opened.stamp, group, names)
        missing = [name for name in names if name not in found]
        if missing:
            if opened.kept_only:
                raise NotKept
            with pq.ParquetFile(opened.source, metadata=opened.footer.metadata) as file:
                data = file.read_row_group(group, columns=missing)
            decoded = {name: data.column(name).combine_chunks() for name in missing}
            if opened.stamp is not None:
                decoded = {name: _on_pages_of_its_own(column) for name, column in decoded.items()}
                self._keep(opened.stamp, group, decoded)
            found |= decoded
        return [found[name] for name in names]

    def _kept(self, stamp: Stamp, group: int, names: Sequence[str]) -> dict[str, pa.Array]:
        found: dict[str, pa.Array] = {}
        with self._lock:
            for name in names:
                column = self._columns.get((stamp, group, name))
                if column is not None:
                    self._columns.move_to_end((stamp, group, name))
                    found[name] = column
        return found

    def _keep(self, stamp: Stamp, group: int, columns: dict[str, pa.Array]) -> None:
        with self._lock:
            for name, column in columns.items():
                if (stamp, group, name) not in self._columns:
                    self._columns[stamp, group, name] = column
                    self.byte_count += column.nbytes
            while self.byte_count > self._bytes_max and self._columns:
                self.byte_count -= self._columns.popitem(last=False)[1].nbytes


def _on_pages_of_its_own(column: pa.Array) -> pa.Array:
    """A copy of a column that is given back to the system when nobody holds it; a small one as it is.

    What is kept for minutes between what lives for milliseconds keeps the allocator from giving anything back: with
    67 MB kept, the server held 95 MB that were free. It costs a seventh of what decoding them does.
    """
    if column.nbytes < OWN_PAGES_BYTES:
        return column
    batch = pa.record_batch([column], names=["column"])
    size = batch.schema.serialize().size + pa.ipc.get_record_batch_size(batch) + END_BYTES
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
    buffer = pa.py_buffer(pages)
    with pa.ipc.new_stream(pa.FixedSizeBufferWriter(buffer), batch.schema) as writer:
        writer.write_batch(batch)
    return pa.ipc.open_stream(buffer).read_next_batch().column(0)


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
