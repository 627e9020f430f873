"""What is handed to workers: told once under a number, and for as long as somebody here holds the object.

Rows go as an Arrow stream, small ones in the message, larger ones in a file in memory that the workers map: however
many read them, they are written once and lie in memory once.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import msgspec
import pyarrow as pa

from kalam.query.arrow_streams import schema_bytes, stream_bytes
from kalam.query.wire import Bytes, Copy, Files, Part, Rows, Told
from kalam.storage.log.spilled import Piece
from kalam.storage.log.temporary import TemporaryTable
from kalam.storage.segments.folders import LinkFolder

INLINE_BYTES_MAX = 64 << 10
OPEN_FILES_MAX = 128
"""Files in memory that are kept open for the next worker; others are written anew when one asks."""
_NUMBERS = count(1)


class Handed:
    """Something that workers know by its ``number``; ``needs`` are what it consists of."""

    __slots__ = ("__weakref__", "needs", "number")

    def __init__(self, needs: Sequence[Handed] = ()) -> None:
        self.number = next(_NUMBERS)
        self.needs = tuple(needs)

    @property
    def byte_count(self) -> int:
        """About how much there is to tell."""
        return 1_000

    def told(self) -> tuple[Told, int | None]:
        """What a worker is told of it, and a file of the caller's that goes along. Blocking."""
        raise NotImplementedError

    def whole(self) -> Iterator[Handed]:
        """It, after everything that it consists of."""
        for need in self.needs:
            yield from need.whole()
        yield self


class OpenFiles:
    """The files in memory that were used last; safe to use from several threads."""

    def __init__(self) -> None:
        self._files: OrderedDict[int, int] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, number: int) -> int | None:
        """A descriptor, the caller's to close, of what was kept under a number."""
        with self._lock:
            file = self._files.get(number)
            if file is None:
                return None
            self._files.move_to_end(number)
            return os.dup(file)

    def keep(self, number: int, file: int) -> None:
        """Keep a descriptor, which is ours from now on."""
        with self._lock:
            former = self._files.pop(number, None)
            self._files[number] = file
            surplus = [] if former is None else [former]
            while len(self._files) > OPEN_FILES_MAX:
                surplus.append(self._files.popitem(last=False)[1])
        for each in surplus:
            os.close(each)

    def drop(self, number: int) -> None:
        """Close what was kept under a number."""
        with self._lock:
            file = self._files.pop(number, None)
        if file is not None:
            os.close(file)


_OPEN = OpenFiles()


class HandedRows(Handed):
    """Rows that do not change."""

    __slots__ = ("_filed", "table")

    def __init__(self, table: pa.Table) -> None:
        super().__init__()
        self.table = table
        self._filed = False

    @property
    def byte_count(self) -> int:
        """The size of the rows."""
        return int(self.table.nbytes)

    def told(self) -> tuple[Bytes, int | None]:
        """The rows, or the file that they are in."""
        if self.table.nbytes <= INLINE_BYTES_MAX:
            return Bytes(self.number, stream_bytes(self.table).to_pybytes()), None
        file = _OPEN.take(self.number)
        if file is None:
            file = self._write()
            _OPEN.keep(self.number, os.dup(file))
            self._filed = True
        return Bytes(self.number, None), file

    def _write(self) -> int:
        """A new file in memory with the rows, which from then on are read from there here as well."""
        file = memory_file()
        with pa.OSFile(f"/dev/fd/{file}", "wb") as sink, pa.ipc.new_stream(sink, self.table.schema) as writer:
            writer.write_table(self.table)
        mapped = mmap.mmap(file, 0, prot=mmap.PROT_READ)
        self.table = pa.ipc.open_stream(pa.py_buffer(mapped)).read_all()
        return file

    def __del__(self) -> None:
        if self._filed:
            _OPEN.drop(self.number)


class HandedTable(Handed):
    """A table of pieces that may be shared with other states of it."""

    __slots__ = ("schema",)

    def __init__(self, schema: pa.Schema, pieces: Sequence[HandedRows]) -> None:
        super().__init__(pieces)
        self.schema = schema

    @classmethod
    def of(cls, table: pa.Table) -> HandedTable:
        """A table that is one piece."""
        return cls(table.schema, [HandedRows(table)] if table.num_rows else [])

    @property
    def num_rows(self) -> int:
        """How many rows it has."""
        return sum(piece.table.num_rows for piece in self.pieces())

    def pieces(self) -> list[HandedRows]:
        """What it consists of."""
        return [piece for piece in self.needs if isinstance(piece, HandedRows)]

    def told(self) -> tuple[Rows, int | None]:
        """Its pieces' numbers."""
        return Rows(self.number, schema_bytes(self.schema), [piece.number for piece in self.needs]), None


class TableRelation(msgspec.Struct, frozen=True):
    """What an Arrow table stands for in a query."""

    table: pa.Table
    guard: str | None = None

    def make(self) -> HandedTable:
        """It as it is handed over."""
        return HandedTable.of(self.table)

    known = make


class HandedPiece(HandedRows):
    """Rows that a session holds, in the file in which they are."""

    __slots__ = ("_byte_count", "_file")

    def __init__(self, piece: Piece) -> None:
        super().__init__(piece.table)
        self._file: int | None = None  # which stays so where no file can be opened any more
        self._byte_count = piece.byte_count
        if piece.file is not None:
            self._file = os.dup(piece.file)

    @property
    def byte_count(self) -> int:
        """The size of the rows."""
        return self._byte_count

    @classmethod
    def of(cls, piece: Piece) -> HandedPiece:
        """The one of a piece, so that workers are told of it once."""
        if not isinstance(piece.handed, HandedPiece):
            piece.handed = cls(piece)
        return piece.handed

    def told(self) -> tuple[Bytes, int | None]:
        """The rows, or their file."""
        return super().told() if self._file is None else (Bytes(self.number, None), os.dup(self._file))

    def __del__(self) -> None:
        if self._file is not None:
            os.close(self._file)
        super().__del__()


class TemporaryRelation(msgspec.Struct, frozen=True):
    """What a temporary table stands for in a query."""

    state: TemporaryTable
    guard: str | None = None

    def make(self) -> HandedTable:
        """It as it is handed over."""
        return HandedTable(self.state.schema, [HandedPiece.of(piece) for piece in self.state.pieces])

    known = make


class HandedFiles(Handed):
    """The segments of one view that are read alike, in a folder of links that goes with this object."""

    __slots__ = ("_schema", "links")

    def __init__(self, links: LinkFolder, schema: pa.Schema) -> None:
        super().__init__()
        self.links, self._schema = links, schema

    def told(self) -> tuple[Files, int | None]:
        """The folder."""
        return Files(self.number, str(self.links.path), schema_bytes(self._schema)), None

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # of one that could not be made
            self.links.remove()


class HandedCopy(Handed):
    """One state of a copy as one relation."""

    __slots__ = ("_fields",)

    def __init__(
        self,
        *,
        key: Sequence[str],
        schema: bytes,
        parts: Sequence[tuple[HandedFiles, Part]],
        hidden: HandedTable | None,
        rows: HandedTable | None,
        with_seq: bool,
        without: Sequence[str] = (),
    ) -> None:
        super().__init__([files for files, _ in parts] + [table for table in (hidden, rows) if table is not None])
        self._fields: dict[str, Any] = {
            "key": list(key),
            "schema": schema,
            "parts": [part for _, part in parts],
            "hidden": hidden and hidden.number,
            "rows": rows and rows.number,
            "with_seq": with_seq,
            "without": list(without),
        }

    def told(self) -> tuple[Copy, int | None]:
        """How it is put together."""
        return Copy(number=self.number, **self._fields), None


def memory_file() -> int:
    """A new file without a name, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("kalam", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
