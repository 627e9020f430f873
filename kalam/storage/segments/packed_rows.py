"""The rows of a row group, packed so that one is found by its key's hash with a single small read.

Rows lie in *blocks*, in the order of their keys' hashes: the hash says which block, and its bytes say which row. A
block is ``CRC-32 of what follows, its number of rows, of each row the hash of its key and where it begins and ends in
the block, the rows`` (``RowLayout``); where each block begins is told by an array of places, which stays in memory
(half a byte a row). Rows of damaged bytes are never taken.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from kalam.rows.types import Row
from kalam.storage.segments.key_filter import Hashes
from kalam.storage.segments.row_layout import RowLayout

HEAD = struct.Struct("<II")
CRC_BYTES = 4
PLACE = np.dtype([("hash", "<u8"), ("start", "<u4"), ("end", "<u4")])
HASH_BYTES, PLACE_BYTES = 8, PLACE.itemsize
ENDS = struct.Struct("<II")
BLOCK_ROWS_MAX = 16
BLOCK_BYTES = 4_096
"""Blocks of large rows have fewer, so that they are about so long."""
PIECE_BYTES = 2 << 20
"""So much is packed in one go: meanwhile there is a copy of it."""


class Damaged(Exception):
    """A block is not what was written."""


def block_of(key_hash: int, block_count: int) -> int:
    """Which block has the keys of this hash."""
    return (key_hash >> 32) * block_count >> 32


def packed_bytes_max(rows: pa.Table, layout: RowLayout) -> int:
    """About how many bytes ``pack`` writes, rather too many than too few."""
    return int(rows.nbytes + rows.num_rows * (layout.overhead_bytes + PLACE_BYTES + HEAD.size))


def pack(rows: pa.Table, hashes: Hashes, layout: RowLayout, write: Callable[[bytes], Any]) -> array[int]:
    """Write rows as blocks; gives the place of each block, and behind them that of the end.

    ``hashes`` are those of the rows' keys. The rows are of ``layout``'s schema, and there is at least one.
    """
    row_bytes = max(1, rows.nbytes // rows.num_rows)
    block_count = -(-rows.num_rows // min(BLOCK_ROWS_MAX, max(1, BLOCK_BYTES // row_bytes)))
    order = np.argsort(hashes)
    hashes = hashes[order]
    numbers = (hashes >> np.uint64(32)) * np.uint64(block_count) >> np.uint64(32)
    firsts = np.searchsorted(numbers, np.arange(block_count + 1, dtype=np.uint64)).tolist()
    places = array("Q", [0])
    for first, end in _pieces(firsts, max(1, PIECE_BYTES // row_bytes)):
        start, stop = firsts[first], firsts[end]
        written = layout.write(rows.take(pa.array(order[start:stop])))
        for block in _blocks(written, hashes[start:stop], [at - start for at in firsts[first : end + 1]]):
            write(block)
            places.append(places[-1] + len(block))
    return places


def _pieces(firsts: list[int], rows_max: int) -> Iterator[tuple[int, int]]:
    """Runs of blocks, as (first, end), that have about so many rows."""
    first = 0
    for place in range(1, len(firsts)):
        if firsts[place] - firsts[first] >= rows_max or place == len(firsts) - 1:
            yield first, place
            first = place


def _blocks(rows: pa.Array, hashes: Hashes, firsts: list[int]) -> Iterator[bytes]:
    """The blocks of written rows that lie in order; ``firsts`` are the first row of each, and the end."""
    _, offsets, data = rows.buffers()
    ends = np.frombuffer(offsets, np.int32, len(rows) + 1, 4 * rows.offset).astype(np.int64)
    counts = np.diff(firsts)
    begins = HEAD.size + PLACE_BYTES * np.repeat(counts, counts) - np.repeat(ends[firsts[:-1]], counts)
    told = np.empty(len(rows), PLACE)
    told["hash"], told["start"], told["end"] = hashes, ends[:-1] + begins, ends[1:] + begins
    index, whole, bounds = told.tobytes(), memoryview(data or b""), ends[firsts].tolist()
    for place in range(len(firsts) - 1):
        first, end = firsts[place], firsts[place + 1]
        own = index[first * PLACE_BYTES : end * PLACE_BYTES]
        block_rows = whole[bounds[place] : bounds[place + 1]]
        count = (end - first).to_bytes(4, "little")
        checksum = zlib.crc32(block_rows, zlib.crc32(own, zlib.crc32(count)))
        yield b"".join((checksum.to_bytes(CRC_BYTES, "little"), count, own, block_rows))


def rows_in(block: bytes | bytearray, key_hash: int, layout: RowLayout) -> list[Row]:
    """The rows of a block whose key has this hash; raises Damaged."""
    if len(block) < HEAD.size:
        raise Damaged
    checksum, count = HEAD.unpack_from(block)
    if zlib.crc32(memoryview(block)[CRC_BYTES:]) != checksum:
        raise Damaged
    wanted, size = key_hash.to_bytes(HASH_BYTES, "little"), PLACE_BYTES
    found, place, end = [], HEAD.size, HEAD.size + count * size
    while (place := block.find(wanted, place, end)) >= 0:
        if not (place - HEAD.size) % size:
            start, stop = ENDS.unpack_from(block, place + HASH_BYTES)
            found.append(layout.read(block[start:stop]))
        place += 1
    return found
