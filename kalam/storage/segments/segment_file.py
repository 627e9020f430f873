"""Whether a file is the segment that the catalogue names: the comparison itself, of one file, without a memory.

Named are the size and the CRC-32 of all bytes, so a flipped bit, a cut-off end, an older file of the table and another
table's file are one and the same: another file. (A checksum of a file cannot lie in the file; its footer only says
which table it belongs to, for those who have nothing but the file.) CRC-32 goes through 2 GB a second here, five times
as fast as a query decodes, and a file that is another by accident passes once in four thousand million.

Segments of Kalam 0.1.0 have no checksum. Of those size, rows, the range of ``_seq`` and the mark, if any, have to fit.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from kalam.errors import CorruptSegment, KalamError, TooBusy
from kalam.names import TableName, numbered
from kalam.schema import Table
from kalam.storage.log.copies import Segment
from kalam.storage.log.open_files import out_of_files
from kalam.storage.segments.parquet import read_mark, seq_bounds

READ_BYTES = 1 << 20
OUT_OF_RESOURCES = (errno.ENOMEM,)
"""What says nothing about the file that could not be opened."""
READ_ERRORS = (OSError, pa.ArrowException, KeyError)
"""What pyarrow raises for a file that is not what it should be."""

Stamp = tuple[int, int, int, int]
"""What tells one file from another: device, inode, size and time of the last change."""

_PATH = re.compile(r"'?/[^\s']+'?")


class Misfit(Exception):
    """A file is not the segment; the text says why, behind "the segment …"."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What the catalogue says of a segment's file."""

    table_id: int
    byte_count: int
    row_count: int
    min_seq: int
    max_seq: int
    checksum: int | None

    @classmethod
    def of(cls, table: Table, segment: Segment) -> Identity:
        """What is said of this one."""
        return cls(
            table_id=table.table_id,
            byte_count=segment.byte_count,
            row_count=segment.row_count,
            min_seq=segment.min_seq,
            max_seq=segment.max_seq,
            checksum=segment.checksum,
        )


def stamp_of(path: Path | str) -> Stamp:
    """What tells the file at ``path`` from others; raises OSError, and Misfit for what is no file."""
    status = os.stat(path)  # noqa: PTH116 - a read by key has no Path, which takes longer to make than the answer
    if not stat.S_ISREG(status.st_mode):
        raise Misfit("is no file")
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def checksum_of(file: Any) -> int:
    """The CRC-32 of an open file, from where it stands to its end."""
    checksum = 0
    while piece := file.read(READ_BYTES):
        checksum = zlib.crc32(piece, checksum)
    return checksum


def compare(file: Any, identity: Identity, *, thoroughly: bool = False) -> None:
    """Raise Misfit unless an open file, which stands at its beginning, is the segment of that identity.

    ``thoroughly`` decodes all of a file that has no checksum. Leaves the file at its beginning; raises OSError.
    """
    file.seek(0, os.SEEK_END)
    size = file.tell()
    if size != identity.byte_count:
        raise Misfit(f"is damaged or another file: it has {size} bytes instead of {identity.byte_count}")
    file.seek(0)
    if identity.checksum is None:
        try:
            _compare_content(file, identity, thoroughly=thoroughly)
        except (pa.ArrowException, KeyError) as exc:
            raise Misfit(reason_of(exc)) from exc
    elif checksum_of(file) != identity.checksum:
        raise Misfit("is damaged or another file: its checksum is wrong")
    file.seek(0)


def _compare_content(file: Any, identity: Identity, *, thoroughly: bool) -> None:
    opened = pq.ParquetFile(file)
    rows, table_id = opened.metadata.num_rows, read_mark(opened.metadata)
    if table_id not in (None, identity.table_id):
        raise Misfit("belongs to another table")
    if rows != identity.row_count:
        raise Misfit(f"is damaged or another file: it has {numbered(rows, 'row')} instead of {identity.row_count}")
    if seq_bounds(opened.metadata) != (identity.min_seq, identity.max_seq):
        raise Misfit("is another file: its versions are not those of the segment")
    if thoroughly:
        for group in range(opened.metadata.num_row_groups):
            opened.read_row_group(group)


def reason_of(exc: Exception) -> str:
    """Why a segment cannot be read, for users, behind "the segment …": no path of the server."""
    match exc:
        case Misfit():
            return str(exc)
        case FileNotFoundError():
            return "is missing"
        case IsADirectoryError():
            return "is no file"
        case OSError() if exc.errno is not None:
            return f"cannot be read ({os.strerror(exc.errno)})"
        case _:
            said = _PATH.sub("the file", (str(exc).splitlines() or [""])[0])
            return f"is damaged ({said[:300]})"


def corrupt(table: TableName, path: str, exc: Exception) -> KalamError:
    """The error for a segment that could not be read; TooBusy where the file has nothing to do with it."""
    if isinstance(exc, KalamError):
        return exc
    if busy := out_of_files(exc):
        return busy
    if isinstance(exc, OSError) and exc.errno in OUT_OF_RESOURCES:
        return TooBusy(f"the segment {path} of table {table} cannot be opened now: {os.strerror(exc.errno or 0)}")
    return CorruptSegment(
        f"the segment {path} of table {table} {reason_of(exc)}; restore the file from a backup, or drop the table",
        table=str(table),
        segment=path,
    )
