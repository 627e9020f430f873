"""What a worker writes for a copy: sorted rows become files (``output_file.py``), each of bounded size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kalam.rows.keys import key_at
from kalam.schema import SEQ
from kalam.storage.log.written_file import WrittenFile
from kalam.storage.segments.key_filter import KeyFilter, KeyHashes
from kalam.storage.segments.parquet import SegmentMark
from kalam.storage.work.output_file import OutputFile, SegmentsRequest


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
        self._open: _RowsFile | None = None
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
                self._open = _RowsFile(self._request, self._writer, deleted, len(self.written))
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


class _RowsFile:
    """One file that is being written."""

    def __init__(
        self, request: SegmentsRequest, writer: Callable[[BinaryIO], RowsWriter], deleted: bool, number: int
    ) -> None:
        self._output = OutputFile(request, number, deleted=deleted)
        self._key = request.key
        self._writer = writer(self._output.file)
        self._hashes: list[Any] = []
        self._seqs: list[int] = []
        self._first: Any = None
        self._last: Any = None
        self.row_count = 0

    def add(self, rows: pa.Table) -> None:
        """Write rows."""
        keys = [rows.column(name) for name in self._key]
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
        mark = self._output.mark(min(self._seqs), max(self._seqs))
        self._writer.close(mark)
        key_filter = KeyFilter.build(np.concatenate(self._hashes))
        return self._output.complete(mark, self.row_count, (self._first, self._last), key_filter)
