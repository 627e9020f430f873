"""What a worker writes for a copy: sorted rows become files, each complete, synced and described.

Files are written as ``.<name>.tmp``; the server renames them, because what follows (the transaction that names them)
is the server's too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kalam.rows.keys import key_at
from kalam.schema import SEQ, Column, Compression
from kalam.storage.log.copy_store import pack_key
from kalam.storage.log.written_file import WrittenFile
from kalam.storage.segments.key_filter import KeyFilter, KeyHashes
from kalam.storage.segments.parquet import SegmentMark
from kalam.storage.segments.segment_file import checksum_of


class SegmentsRequest(msgspec.Struct, kw_only=True):
    """Write rows of a copy into ``folder``, in files named after ``name``, of at most ``segment_rows_max`` rows.

    They are sorted by the columns ``key``. Rows that were deleted before ``forget_deleted_us`` are written nowhere.
    """

    database: str
    table_id: int
    schema_version: int
    copy_id: int
    columns: tuple[Column, ...]
    history: dict[int, tuple[Column, ...]]
    key: tuple[str, ...]
    folder: str
    name: str
    compression: Compression
    segment_rows_max: int
    forget_deleted_us: int


class RowsWriter(Protocol):
    """Writes one Parquet file."""

    def add(self, rows: pa.Table) -> None:
        """Take in more rows, which follow the former ones."""

    def close(self, mark: SegmentMark) -> None:
        """Write what waits, and the footer; the file stays open."""


class Output:
    """Writes rows, which come sorted by key, into files, each synced when it is full; ``written`` describes them.

    Left by an exception it removes them: a full disk must not get fuller with every try.
    """

    def __init__(self, request: SegmentsRequest, writer: Callable[[BinaryIO], RowsWriter]) -> None:
        self._request, self._writer = request, writer
        self._open: _OutputFile | None = None
        self.written: list[WrittenFile] = []
        self.row_count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            for path in Path(self._request.folder).glob(f".*-{self._request.name}-*.tmp"):
                path.unlink(missing_ok=True)

    def add(self, rows: pa.Table, *, deleted: bool) -> None:
        """Write more rows, which follow the former ones; ``complete`` comes between live and deleted ones."""
        self.row_count += rows.num_rows
        while rows.num_rows:
            if self._open is None:
                self._open = _OutputFile(self._request, self._writer, deleted, len(self.written))
            room = self._request.segment_rows_max - self._open.row_count
            self._open.add(rows.slice(0, room))
            rows = rows.slice(room)
            if self._open.row_count == self._request.segment_rows_max:
                self.complete()

    def complete(self) -> None:
        """Complete the file that is not full."""
        if self._open is not None:
            self.written.append(self._open.finish())
            self._open = None


class _OutputFile:
    """One file that is being written."""

    def __init__(
        self, request: SegmentsRequest, writer: Callable[[BinaryIO], RowsWriter], deleted: bool, number: int
    ) -> None:
        self._request, self._deleted = request, deleted
        self._path = f"{'deleted' if deleted else 'batch'}-{request.name}-{number}.parquet"
        self._target = Path(request.folder) / f".{self._path}.tmp"
        self._file = self._target.open("w+b")
        self._writer = writer(self._file)
        self._hashes: list[Any] = []
        self._seqs: list[int] = []
        self._first: Any = None
        self._last: Any = None
        self.row_count = 0

    def add(self, rows: pa.Table) -> None:
        """Write rows."""
        keys = [rows.column(name) for name in self._request.key]
        if self._first is None:
            self._first = key_at(keys, 0)
        self._last = key_at(keys, -1)
        self._hashes.append(KeyHashes.of_columns(keys))
        bounds = pc.min_max(rows.column(SEQ)).as_py()
        self._seqs += [bounds["min"], bounds["max"]]
        self._writer.add(rows)
        self.row_count += rows.num_rows

    def finish(self) -> WrittenFile:
        """Complete and sync the file."""
        mark = SegmentMark(
            table_id=self._request.table_id,
            schema_version=self._request.schema_version,
            min_seq=min(self._seqs),
            max_seq=max(self._seqs),
        )
        with self._file as file:
            self._writer.close(mark)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            checksum = checksum_of(file)
        return WrittenFile(
            temporary=self._target.name,
            path=self._path,
            deleted=self._deleted,
            row_count=self.row_count,
            byte_count=self._target.stat().st_size,
            checksum=checksum,
            min_seq=mark.min_seq,
            max_seq=mark.max_seq,
            min_key=pack_key(self._first),
            max_key=pack_key(self._last),
            key_filter=KeyFilter.build(np.concatenate(self._hashes)).to_bytes(),
        )
