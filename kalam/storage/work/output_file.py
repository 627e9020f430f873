"""One segment's file while a worker writes it: complete, synced and described before anything names it.

It is written as ``.<name>.tmp``; the server renames it, because what follows (the transaction that names it) is the
server's too.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from kalam.schema import Column, Compression, Key
from kalam.storage.log.copy_store import pack_key
from kalam.storage.log.written_file import WrittenFile
from kalam.storage.segments.key_filter import KeyFilter
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


class OutputFile:
    """The ``number``-th file of a request, open as ``file``; what is written into it is its owner's."""

    def __init__(self, request: SegmentsRequest, number: int, *, deleted: bool) -> None:
        self._request, self._deleted = request, deleted
        self._path = f"{'deleted' if deleted else 'batch'}-{request.name}-{number}.parquet"
        self._target = Path(request.folder) / f".{self._path}.tmp"
        self.file = self._target.open("w+b")

    def mark(self, min_seq: int, max_seq: int) -> SegmentMark:
        """What its footer says of where it belongs."""
        return SegmentMark(
            table_id=self._request.table_id,
            schema_version=self._request.schema_version,
            min_seq=min_seq,
            max_seq=max_seq,
        )

    def sync(self) -> None:
        """See that everything that is written so far lies on the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def complete(
        self, mark: SegmentMark, row_count: int, bounds: tuple[Key, Key], key_filter: KeyFilter
    ) -> WrittenFile:
        """Sync and close it, footer and all; ``bounds`` are the first and the last of its keys."""
        with self.file:
            self.sync()
            byte_count = self.file.seek(0, os.SEEK_END)
            self.file.seek(0)
            checksum = checksum_of(self.file)
        return WrittenFile(
            temporary=self._target.name,
            path=self._path,
            deleted=self._deleted,
            row_count=row_count,
            byte_count=byte_count,
            checksum=checksum,
            min_seq=mark.min_seq,
            max_seq=mark.max_seq,
            min_key=pack_key(bounds[0]),
            max_key=pack_key(bounds[1]),
            key_filter=key_filter.to_bytes(),
        )
