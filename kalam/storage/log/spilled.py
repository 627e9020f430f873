"""Rows that a session holds for itself: in memory while they are few, else in a file without a name.

Such a file goes with whoever has it open, however that ends. It holds an Arrow stream, which the workers map as it is.
"""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
from collections.abc import Callable
from typing import Any, Final, Protocol, Self

import pyarrow as pa

from kalam.errors import StorageFull

INLINE_BYTES_MAX: Final = 64 << 10
"""Fewer stay in memory."""


class Piece:
    """Rows that do not change; ``file`` is the descriptor of the file in which they are, None for few of them.

    ``byte_count`` is their size, which Arrow would add up anew each time that it is asked. ``handed`` is what the query
    layer keeps with them.
    """

    __slots__ = ("byte_count", "file", "handed", "table")

    def __init__(self, table: pa.Table, byte_count: int, file: int | None = None) -> None:
        self.table, self.byte_count, self.file = table, byte_count, file
        self.handed: Any = None

    def __del__(self) -> None:
        if self.file is not None:
            os.close(self.file)


class _Stream(Protocol):
    """The end of an Arrow stream that is being written."""

    def write_table(self, table: pa.Table) -> None:
        """Write rows."""

    def close(self) -> None:
        """Write the end."""


class Spill:
    """Takes rows of one schema, and is one piece of them at the end; ``check`` is told of bytes before they are kept.

    ``check_file`` is asked before there is a file. Use it as a context manager; all of it is blocking. Raises
    StorageFull.
    """

    def __init__(self, schema: pa.Schema, check: Callable[[int], None], check_file: Callable[[], None]) -> None:
        self._schema, self._check, self._check_file = schema, check, check_file
        self._held: list[pa.Table] = []
        self.byte_count = self.rows = 0
        self._file: int | None = None
        self._writer: _Stream | None = None
        self._sink: pa.OSFile | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._sink is not None:
            self._sink.close()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def add(self, table: pa.Table) -> None:
        """Take rows; raises what ``check`` raises."""
        self._check(self.byte_count + table.nbytes)
        self.byte_count += table.nbytes
        self.rows += table.num_rows
        self._held.append(table)
        if self._writer is not None or self.byte_count > INLINE_BYTES_MAX:
            try:
                self._write()
            except OSError as exc:
                raise _full(exc) from exc

    def _write(self) -> None:
        if self._writer is None:
            self._check_file()
            with tempfile.TemporaryFile() as file:
                self._file = os.dup(file.fileno())
            self._sink = pa.OSFile(f"/dev/fd/{self._file}", "wb")
            self._writer = pa.ipc.new_stream(self._sink, self._schema)
        for table in self._held:
            self._writer.write_table(table)
        self._held.clear()

    def piece(self) -> Piece:
        """The rows, once all are there."""
        if self._writer is None or self._file is None:
            held = pa.concat_tables(self._held) if self._held else self._schema.empty_table()
            return Piece(held.combine_chunks(), self.byte_count)
        try:
            self._writer.close()
            if self._sink is not None:
                self._sink.close()
            file, self._file = self._file, None
            piece = Piece(self._schema.empty_table(), self.byte_count, file)
            mapped = mmap.mmap(file, 0, prot=mmap.PROT_READ)
        except OSError as exc:
            raise _full(exc) from exc
        piece.table = pa.ipc.open_stream(pa.py_buffer(mapped)).read_all()
        return piece


def _full(exc: OSError) -> OSError | StorageFull:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull("the folder for temporary files (TMPDIR) is full; nothing was stored")
    return exc
