"""The rows of a row group, packed so that one is found by its key with a single small read.

Rows lie in *blocks* of equally many, in the order of their keys, as they do in the file: the first key of each block,
which stays in memory with the block's place, says which block it is. A block is ``CRC-32 of what follows, length of
its rows, its rows`` (``LaidOut``), and the rows may be compressed. Within it a key is searched as in any sorted list.
Rows of damaged bytes are never taken.

``PLAIN`` blocks are as they are, ``QUICK`` ones are decompressed in a microsecond and have a third of the bytes, and
``DENSE`` ones take twenty and have a fifth.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Final

import msgspec
import pyarrow as pa

from kalam.rows.keys import keys_in
from kalam.rows.types import Row
from kalam.storage.log.copies import Key
from kalam.storage.segments.row_layout import LaidOut, Reader, RowLayout

HEAD = struct.Struct("<II")
CRC_BYTES = 4


class Packing(msgspec.Struct, frozen=True):
    """How blocks are made: of at most so many rows, and about so many bytes, before they are compressed."""

    codec: str | None
    rows_max: int
    bytes_max: int


PLAIN: Final = Packing(None, 8, 4 << 10)
QUICK: Final = Packing("lz4_raw", 64, 8 << 10)
DENSE: Final = Packing("zstd", 256, 32 << 10)


class Damaged(Exception):
    """A block is not what was written."""


class Packed:
    """Where the blocks of a row group lie, and how they are read. ``names`` are the columns of the key."""

    def __init__(
        self, layout: RowLayout, names: Sequence[str], block_rows: int, row_count: int, codec: str | None
    ) -> None:
        self.layout, self._block_rows, self._row_count = layout, block_rows, row_count
        self._codec, self._key_of = None if codec is None else pa.Codec(codec), layout.key_reader(names)
        self.places = array("Q", [0])
        self.firsts: Sequence[Key] = ()

    @property
    def byte_count(self) -> int:
        """How many bytes all blocks have."""
        return self.places[-1]

    def blocks_with(self, key: Key) -> range:
        """The blocks that may have rows with this key."""
        return range(max(0, bisect_left(self.firsts, key) - 1), bisect_right(self.firsts, key))

    def rows_in(self, number: int, block: bytes | bytearray, key: Key, read: Reader) -> list[Row]:
        """The rows of a block, of which that is the number, that have this key; raises Damaged."""
        rows = self._rows_of(block)
        count = min(self._block_rows, self._row_count - number * self._block_rows)
        key_of, first, end = self._key_of, 0, count
        while first < end:  # as bisect does, which has to be told of a function for it
            middle = (first + end) // 2
            if key_of(rows, count, middle) < key:
                first = middle + 1
            else:
                end = middle
        found: list[Row] = []
        while first < count and key_of(rows, count, first) == key:
            found.append(read(rows, count, first))
            first += 1
        return found

    def _rows_of(self, block: bytes | bytearray) -> bytes:
        """The rows of a block as they were before they were compressed."""
        if len(block) < HEAD.size:
            raise Damaged
        checksum, size = HEAD.unpack_from(block)
        if zlib.crc32(block[CRC_BYTES:]) != checksum:
            raise Damaged
        if self._codec is None:
            return bytes(block[HEAD.size :])
        rows: bytes = self._codec.decompress(block[HEAD.size :], size, asbytes=True)
        return rows


def pack(rows: pa.Table, names: Sequence[str], packing: Packing) -> tuple[Packed, list[bytes]]:
    """Rows as blocks, and what is to be known of these.

    The rows are in the order of the key, which are the columns ``names``, and there is at least one.
    """
    laid_out, count = LaidOut(rows), rows.num_rows
    block_rows = min(packing.rows_max, max(1, packing.bytes_max * count // laid_out.byte_count))
    packed = Packed(laid_out.layout, names, block_rows, count, packing.codec)
    codec = None if packing.codec is None else pa.Codec(packing.codec)
    blocks: list[bytes] = []
    for first in range(0, count, block_rows):
        block = laid_out.block(first, min(first + block_rows, count))
        rows_told = block if codec is None else codec.compress(block, asbytes=True)
        told = len(block).to_bytes(CRC_BYTES, "little") + rows_told
        blocks.append(zlib.crc32(told).to_bytes(CRC_BYTES, "little") + told)
        packed.places.append(packed.places[-1] + len(blocks[-1]))
    firsts = keys_in([rows.column(name).take(pa.array(range(0, count, block_rows))) for name in names])
    packed.firsts = array("q", firsts) if isinstance(firsts[0], int) else firsts
    return packed, blocks
