"""Rows in msgpack that comes in pieces: one array of maps, or maps one after another.

The streaming Unpacker of the ``msgpack`` package finds where a map ends; its bytes go on as they are and are read by
the typed decoder of the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgpack  # type: ignore[import-untyped]

from kalam.names import numbered
from kalam.rows.formats.batches import BadRow, LongRow


class MsgpackMaps:
    """Rows of a msgpack body."""

    def __init__(self, row_bytes_max: int) -> None:
        self._row_bytes_max = row_bytes_max
        self._unpacker = msgpack.Unpacker(max_buffer_size=0)
        self._bytes = b""
        self._offset = 0  # of those bytes in the body
        self._place = 0  # in those bytes, of what was not taken yet
        self._rows = 0
        self._expected: int | None = None
        self._begun = False

    def feed(self, piece: bytes) -> Sequence[bytes]:
        """The rows that end in this piece."""
        self._bytes = self._bytes[self._place :] + piece
        self._offset += self._place
        self._place = 0
        self._unpacker.feed(piece)
        rows = list(self._maps())
        if len(self._bytes) - self._place > self._row_bytes_max:
            raise LongRow(self._rows + 1, self._row_bytes_max)
        return rows

    def end(self) -> Sequence[bytes]:
        """Nothing; raises BadRow if the body is cut off or goes on behind its array."""
        if self._place < len(self._bytes):
            whole = self._expected == self._rows and self._begun
            raise BadRow(self._rows + 1, "stands behind the end of the array" if whole else "is cut off")
        if self._expected is not None and self._rows < self._expected:
            raise BadRow(self._rows + 1, f"is missing: the array has {numbered(self._expected, 'row')}")
        return ()

    def _maps(self) -> Iterator[bytes]:
        try:
            if not self._begun and self._bytes:
                if self._bytes[0] in (0xDC, 0xDD) or 0x90 <= self._bytes[0] <= 0x9F:
                    self._expected = self._unpacker.read_array_header()
                    self._take()
                self._begun = True
            while self._place < len(self._bytes) and (self._expected is None or self._rows < self._expected):
                first = self._bytes[self._place]
                if not (first in (0xDE, 0xDF) or 0x80 <= first <= 0x8F):
                    raise BadRow(self._rows + 1, "is not a map")
                self._unpacker.skip()
                self._rows += 1
                yield self._take()
        except msgpack.OutOfData:
            return
        except (msgpack.UnpackException, ValueError) as exc:
            raise BadRow(self._rows + 1, f"is not valid msgpack: {exc or type(exc).__name__}") from exc

    def _take(self) -> bytes:
        """The bytes that the unpacker has passed since the last time."""
        begin, self._place = self._place, self._unpacker.tell() - self._offset
        return self._bytes[begin : self._place]
