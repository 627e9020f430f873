"""The rows of a row group, packed so that one is found by its key with a single small read.

Rows lie in *blocks* of equally many, in the order of their keys, as they do in the file: the first key of each block,
which stays in memory with the block's place, says which block it is. A block begins with the CRC-32 of what follows:
rows of damaged bytes are never taken.

``PLAIN`` blocks are records with their keys before them (``row_records``). The others are planes (``row_layout``), with
their length before they were compressed: ``QUICK`` ones are decompressed in a microsecond and have a fourth of the
bytes, and ``DENSE`` ones take twenty and have a fifth. Within a block a key is searched as in any sorted list.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final
from zlib import crc32

import msgspec
import pyarrow as pa

from kalam.rows.keys import keys_in
from kalam.rows.types import Row
from kalam.storage.log.copies import Key
from kalam.storage.segments.row_layout import LaidOut, RowLayout
from kalam.storage.segments.row_records import RecordLayout, Records

CRC_BYTES = SIZE_BYTES = 4


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


FindRows = Callable[[int, bytes | bytearray, Key], list[Row]]
"""Gives the rows of a block, which has that number, that have a key; raises Damaged."""


class Packed:
    """Where the blocks of a row group with the columns of ``schema`` lie, and how they are read.

    ``firsts`` are the first keys of the blocks. ``finder`` makes what finds rows, of which some columns are wanted.
    """

    def __init__(self, schema: pa.Schema, finder: Callable[[Sequence[str]], FindRows], firsts: Sequence[Key]) -> None:
        self.schema, self.finder, self._firsts = schema, finder, firsts
        self.places = array("Q", [0])

    @property
    def byte_count(self) -> int:
        """How many bytes all blocks have."""
        return self.places[-1]

    def blocks_with(self, key: Key) -> range:
        """The blocks that may have rows with this key."""
        firsts = self._firsts
        end = bisect_right(firsts, key)
        if end and firsts[end - 1] == key:  # which the blocks before it may end with
            return range(max(0, bisect_left(firsts, key, hi=end) - 1), end)
        return range(max(0, end - 1), end)


def pack(rows: pa.Table, names: Sequence[str], packing: Packing) -> tuple[Packed, list[bytes]]:
    """Rows as blocks, and what is to be known of these.

    The rows are in the order of the key, which are the columns ``names``, and there is at least one.
    """
    count, codec = rows.num_rows, packing.codec
    laid_out = Records(rows, names) if codec is None else LaidOut(rows)
    block_rows = min(packing.rows_max, max(1, packing.bytes_max * count // laid_out.byte_count))
    starts = range(0, count, block_rows)
    firsts = keys_in([rows.column(name).take(pa.array(starts)) for name in names])
    finder: Callable[[Sequence[str]], FindRows]
    if isinstance(laid_out, Records):
        finder = partial(_in_records, laid_out.layout)
    else:
        finder = partial(_in_planes, laid_out.layout, names, block_rows, count, packing)
    packed = Packed(rows.schema, finder, array("q", firsts) if isinstance(firsts[0], int) else firsts)
    compress = None if codec is None else pa.Codec(codec).compress
    blocks: list[bytes] = []
    for first in starts:
        told = laid_out.block(first, min(first + block_rows, count))
        if compress is not None:
            told = len(told).to_bytes(SIZE_BYTES, "little") + compress(told, asbytes=True)
        blocks.append(crc32(told).to_bytes(CRC_BYTES, "little") + told)
        packed.places.append(packed.places[-1] + len(blocks[-1]))
    return packed, blocks


def _in_records(layout: RecordLayout, names: Sequence[str]) -> FindRows:
    """What finds rows in blocks of records."""
    read_block, read = layout.read_block, layout.reader(names)

    def find(_: int, block: bytes | bytearray, key: Key) -> list[Row]:
        keys, records = read_block(_checked(block))
        first = bisect_left(keys, key)
        found: list[Row] = []
        while first < len(keys) and keys[first] == key:
            found.append(read(records[first]))
            first += 1
        return found

    return find


def _in_planes(
    layout: RowLayout, key: Sequence[str], block_rows: int, row_count: int, packing: Packing, names: Sequence[str]
) -> FindRows:
    """What finds rows in compressed blocks of planes, whose ``key`` are those columns."""
    decompress, key_of, read = pa.Codec(packing.codec).decompress, layout.key_reader(key), layout.reader(names)

    def find(number: int, block: bytes | bytearray, key: Key) -> list[Row]:
        told = _checked(block)
        size = int.from_bytes(told[:SIZE_BYTES], "little")
        rows: bytes = decompress(told[SIZE_BYTES:], size, asbytes=True)
        count = min(block_rows, row_count - number * block_rows)
        first, end = 0, count
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

    return find


def _checked(block: bytes | bytearray) -> bytes | bytearray:
    """A block without its checksum; raises Damaged."""
    told = block[CRC_BYTES:]
    if not told or crc32(told) != int.from_bytes(block[:CRC_BYTES], "little"):
        raise Damaged
    return told
