"""Parquet segments: a sorted table of Arrow columns becomes one file, and comes back with exactly its declared types.

Two writers make the same file. fastparquet writes where it keeps every column's type exactly; a table with DECIMAL or
DATE, with field ids, or with a name that is too long for fastparquet's footer, is written by its twin, pyarrow. Reading
is always pyarrow's. What holds for both, and is tested for both:

- a row group has at most ``GROUP_ROWS_MAX`` rows and, where rows are large, about ``GROUP_BYTES_MAX`` bytes:
  fastparquet's encoders hold the interpreter's lock for a whole column of a row group, and no page may have 2 GiB;
- every column is OPTIONAL, so that an ALTER never makes two kinds of file out of one table;
- a column has a minimum and a maximum in all row groups or in none, and none where a float is NaN or a text or BLOB is
  longer than ``BOUND_BYTES_MAX``. DataFusion holds NaN for the greatest value while statistics leave it out, and it
  computes a file's bounds from those row groups that have some: with one missing it skips files that have the row;
- the file given is written once from its beginning, never appended to; fsync and rename are the caller's.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, assert_never

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kalam.errors import Internal
from kalam.rows.field_ids import FIELD_ID
from kalam.schema import SEQ, Column, Compression
from kalam.storage.log.open_files import out_of_files
from kalam.storage.segments.remote import readable

GROUP_ROWS_MAX = 50_000
GROUP_BYTES_MAX = 64 << 20
BOUND_BYTES_MAX = 128

# Like the bounds, names of columns stand in fastparquet's footer, whose buffer has a fixed share for each column.
FAST_NAME_BYTES_MAX = 63

FAST_TYPES = frozenset(
    {
        pa.bool_(),
        pa.int16(),
        pa.int32(),
        pa.int64(),
        pa.float32(),
        pa.float64(),
        pa.string(),
        pa.binary(),
        pa.timestamp("us", "UTC"),
    }
)
CODECS = {Compression.ZSTD: "ZSTD", Compression.SNAPPY: "SNAPPY", Compression.NONE: None}


class Writer(enum.StrEnum):
    """Which library wrote a segment."""

    FASTPARQUET = "fastparquet"
    PYARROW = "pyarrow"


class SegmentMark(msgspec.Struct, frozen=True, kw_only=True):
    """What a segment's footer says of where it belongs, for those who have nothing but the file."""

    table_id: int
    schema_version: int
    min_seq: int
    max_seq: int

    def metadata(self) -> dict[str, str]:
        """The entries of the footer."""
        return {f"kalam.{name}": str(getattr(self, name)) for name in self.__struct_fields__}


def read_mark(metadata: pq.FileMetaData) -> int | None:
    """The table id that a footer names; None where it names none, as that of Kalam 0.1.0."""
    named = (metadata.metadata or {}).get(b"kalam.table_id", b"")
    return int(named) if named.isdigit() else None


def seq_bounds(metadata: pq.FileMetaData) -> tuple[int, int]:
    """The least and the greatest ``_seq`` of a segment, from its footer; raises KeyError where it has none."""
    place = metadata.schema.to_arrow_schema().get_field_index(SEQ)
    if place < 0:
        raise KeyError(SEQ)
    groups = [metadata.row_group(group).column(place).statistics for group in range(metadata.num_row_groups)]
    if not groups or not all(group is not None and group.has_min_max for group in groups):
        raise KeyError(SEQ)
    return min(group.min for group in groups), max(group.max for group in groups)


def write_segment(
    table: pa.Table, file: BinaryIO, *, compression: Compression, mark: SegmentMark | None = None
) -> Writer:
    """Write ``table``, in the order of its rows, as one Parquet file into ``file``, which stands at its beginning.

    Nothing is flushed, synced or closed. Returns which writer did it. Raises OSError where the disk does.
    """
    writer = choose_writer(table.schema)
    if table.num_rows == 0:
        writer = Writer.PYARROW  # fastparquet's footer cannot hold an empty list of row groups
    match writer:
        case Writer.FASTPARQUET:
            write_with_fastparquet(table, file, compression, mark)
        case Writer.PYARROW:
            write_with_pyarrow(table, file, compression, mark)
        case other:
            assert_never(other)
    return writer


def choose_writer(schema: pa.Schema) -> Writer:
    """The writer that keeps every column of this schema exactly."""
    kept = all(
        field.type in FAST_TYPES
        and len(field.name.encode()) <= FAST_NAME_BYTES_MAX
        and FIELD_ID not in (field.metadata or {})
        for field in schema
    )
    return Writer.FASTPARQUET if kept else Writer.PYARROW


def write_with_fastparquet(
    table: pa.Table, file: BinaryIO, compression: Compression, mark: SegmentMark | None = None
) -> None:
    """Write a table of which ``choose_writer`` says that fastparquet keeps it."""
    # Only a process that writes segments pays for pandas and fastparquet, most of a second and 25 MB.
    from kalam.storage.segments.parquet_fast import write_file

    bounded, marks = frozenset(bounded_columns(table)), {} if mark is None else mark.metadata()
    write_file(table, file, groups=row_groups(table), bounded=bounded, codec=CODECS[compression], marks=marks)


def write_with_pyarrow(
    table: pa.Table, file: BinaryIO, compression: Compression, mark: SegmentMark | None = None
) -> None:
    """Write a table of any of Kalam's types."""
    writer = SegmentWriter(file, table.schema, compression=compression, bounded=bounded_columns(table))
    writer.add(table)
    writer.close(mark)


class WholeSegmentWriter:
    """Writes one segment of which all rows are in memory, by the writer that keeps its columns exactly."""

    def __init__(self, file: BinaryIO, *, compression: Compression) -> None:
        self._file, self._compression = file, compression
        self._parts: list[pa.Table] = []

    def add(self, rows: pa.Table) -> None:
        """Take in more rows."""
        self._parts.append(rows)

    def close(self, mark: SegmentMark) -> None:
        """Write everything; the file stays open."""
        write_segment(pa.concat_tables(self._parts), self._file, compression=self._compression, mark=mark)


class SegmentWriter:
    """Writes one segment a part at a time, so that it never is in memory as a whole; pyarrow's.

    ``bounded`` names the columns that have bounds in all parts, which has to be known before the first.
    """

    def __init__(self, file: BinaryIO, schema: pa.Schema, *, compression: Compression, bounded: Sequence[str]) -> None:
        self._waiting: list[pa.Table] = []
        self._rows = self._bytes = 0
        self._schema = pa.schema([field.with_nullable(True) for field in schema])
        self._writer = pq.ParquetWriter(
            file,
            self._schema,
            compression=CODECS[compression] or "NONE",
            data_page_version="2.0",
            store_schema=False,
            write_statistics=list(bounded),
        )

    def add(self, rows: pa.Table) -> None:
        """Take in more rows; whole row groups are written."""
        self._waiting.append(rows)
        self._rows += rows.num_rows
        self._bytes += rows.nbytes
        if self._rows >= GROUP_ROWS_MAX or self._bytes >= GROUP_BYTES_MAX:
            self._write()

    def _write(self) -> None:
        table = pa.concat_tables(self._waiting).cast(self._schema)
        for first, rows in row_groups(table):
            self._writer.write_table(table.slice(first, rows), row_group_size=rows)
        self._waiting, self._rows, self._bytes = [], 0, 0

    def close(self, mark: SegmentMark | None = None) -> None:
        """Write what waits, and the footer; the file stays open."""
        if self._rows:
            self._write()
        if mark is not None:
            self._writer.add_key_value_metadata(mark.metadata())
        self._writer.close()


def bounded_in_files(
    files: Sequence[tuple[pq.ParquetFile, Sequence[str | None]]], columns: Sequence[Column]
) -> list[str]:
    """Those of ``columns`` that have bounds in every row group of every file, or no value to bound.

    Each file comes with the names that the columns have in it, None for one that is not there.
    """
    bounded: list[str] = []
    for place, column in enumerate(columns):
        named = [(file, names[place]) for file, names in files]
        if all(name is not None and _has_bounds(file, name) for file, name in named):
            bounded.append(column.name)
    return bounded


def _has_bounds(file: pq.ParquetFile, name: str) -> bool:
    place = file.schema_arrow.get_field_index(name)
    groups = (file.metadata.row_group(group) for group in range(file.metadata.num_row_groups))
    return all(_is_bounded_chunk(group.column(place).statistics, group.num_rows) for group in groups)


def _is_bounded_chunk(statistics: Any, rows: int) -> bool:
    return statistics is not None and (statistics.has_min_max or statistics.null_count == rows)


def bounded_columns(table: pa.Table) -> list[str]:
    """The columns of which every row group gets a minimum and a maximum."""
    return [name for name, column in zip(table.column_names, table.columns, strict=True) if _is_bounded(column)]


def _is_bounded(column: pa.ChunkedArray) -> bool:
    if pa.types.is_floating(column.type):
        return not pc.any(pc.is_nan(column)).as_py()
    if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
        return (pc.max(pc.binary_length(column)).as_py() or 0) <= BOUND_BYTES_MAX
    return True


def row_groups(table: pa.Table) -> Iterator[tuple[int, int]]:
    """Cut a table into row groups within the bounds, as (first row, rows); halve those that hold too many bytes."""
    waiting = [
        (first, min(GROUP_ROWS_MAX, table.num_rows - first)) for first in range(0, table.num_rows, GROUP_ROWS_MAX)
    ]
    waiting.reverse()
    while waiting:
        first, rows = waiting.pop()
        if rows > 1 and table.slice(first, rows).nbytes > GROUP_BYTES_MAX:
            half = rows // 2
            waiting += [(first + half, rows - half), (first, half)]
        else:
            yield first, rows


def read_segment(path: str | PathLike[str], schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a segment as a table of exactly the declared types.

    ``columns`` are the wanted ones in their order, None for all of ``schema``; one that the file does not have reads as
    NULL. Raises Internal, which names the file, where it is missing, cut off or not what it should be.
    """
    wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    try:
        with pq.ParquetFile(readable(Path(path))) as file:
            stored = set(file.schema_arrow.names)
            present = [name for name in wanted.names if name in stored]
            table, rows = file.read(columns=present), file.metadata.num_rows
        arrays = [
            table.column(field.name).cast(field.type) if field.name in stored else pa.nulls(rows, field.type)
            for field in wanted
        ]
    except (OSError, pa.ArrowException) as exc:
        if busy := out_of_files(exc):
            raise busy from exc
        raise Internal(
            f"the segment {path} cannot be read ({exc}): restore the file from a backup, or remove its table"
        ) from exc
    return pa.Table.from_arrays(arrays, schema=wanted)
