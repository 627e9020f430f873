"""A key filter: a few bits for each key of a segment, which say "certainly not in here" or "perhaps".

An INSERT asks it before it opens a file whose minimum and maximum do not help, as with random keys. It is a Bloom
filter cut for numpy: **a key owns BITS_IN_WORD bits in each of two 64-bit words**, both chosen by its hash, so a whole
batch is asked with two gathers and a few shifts. A classic filter with one gather for each of its bits takes twice as
long; one word for each key takes half as long, but keys crowd in it and nearly twice as many wrong files are opened.

With BITS_PER_KEY 0.012 % of foreign keys pass; a key that was put in always does. What passes costs a look into the
file: with 0.06 %, a thousand random keys beside five million cold ones opened three row groups, and that took two
thirds of the insert. Hashes and bytes are the same in every process and on every machine, for they are stored:
integers (TIMESTAMP as microseconds, DATE as days since 1970) go through splitmix64 (Steele, Lea, Flood: "Fast
splittable pseudorandom number generators", 2014), everything else first through the CRC-32 and the Adler-32 of its
text side by side: the CRC alone would add one foreign key in 4,000 at a million keys. Of a key of several columns the
number of each is added to the hash of those before it, and the sum is mixed again.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalam.errors import Internal
from kalam.rows.keys import Columns
from kalam.schema import Key

Hashes = npt.NDArray[np.uint64]

MAGIC = b"KLKF"
VERSION = 2
HEADER = struct.Struct("<4sHHQ")  # magic, version, 0, words
CHECKSUM = struct.Struct("<I")  # CRC-32 of the header and the words

BITS_PER_KEY = 24
BITS_IN_WORD = 4
BUILD_KEYS = 8_192
"""Keys that are put in at once: so few that what is computed of them stays in the cache take a third of the time."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_DAY = date(1970, 1, 1).toordinal()
MICROSECOND = timedelta(microseconds=1)

U1, U6, U32, U63 = np.uint64(1), np.uint64(6), np.uint64(32), np.uint64(63)
ALL = (1 << 64) - 1
LOW_HALF = np.uint64(0xFFFF_FFFF)
GOLDEN_INT, MIX_INTS = 0x9E37_79B9_7F4A_7C15, (0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB)
GOLDEN, MIX_1, MIX_2 = np.uint64(GOLDEN_INT), np.uint64(MIX_INTS[0]), np.uint64(MIX_INTS[1])
SHIFT_1, SHIFT_2, SHIFT_3 = np.uint64(30), np.uint64(27), np.uint64(31)
MASK_SHIFT_INT = 64 - 2 * BITS_IN_WORD * 6
MASK_SHIFT = np.uint64(MASK_SHIFT_INT)  # the multiplied hash is best in its high bits


class KeyHashes:
    """The stored hashes of keys."""

    @staticmethod
    def of(keys: Sequence[Key]) -> Hashes:
        """One hash for each key, the same for a Python value and for its Arrow value.

        ``keys`` are of one type, none NULL: int, str, datetime (aware), date or Decimal, or tuples of such.
        """
        if len(keys) and isinstance(keys[0], tuple):
            return _folded(map(_numbers, zip(*keys, strict=True)))
        return mix(_numbers(keys))

    @staticmethod
    def of_columns(columns: Columns) -> Hashes:
        """The same for the rows of a key's Arrow columns."""
        return _folded(map(_arrow_numbers, columns))


def _folded(parts: Iterator[Hashes]) -> Hashes:
    """One hash of the numbers of all parts; that of the first alone, where there is one."""
    hashes = mix(next(parts))
    for numbers in parts:
        hashes = mix(hashes + numbers)
    return hashes


def _arrow_numbers(keys: pa.Array | pa.ChunkedArray) -> Hashes:
    if isinstance(keys, pa.ChunkedArray):
        keys = keys.combine_chunks()
    if pa.types.is_date32(keys.type):
        keys = keys.view(pa.int32())
    elif pa.types.is_timestamp(keys.type):
        keys = keys.cast(pa.timestamp("us", keys.type.tz)).view(pa.int64())
    if pa.types.is_integer(keys.type):
        return np.asarray(keys.cast(pa.int64()).to_numpy().view(np.uint64))
    return _numbers(keys.to_pylist())


def _numbers(keys: Sequence[Any]) -> Hashes:
    """Each key as a number of 64 bits, not yet mixed."""
    crc32, adler32 = zlib.crc32, zlib.adler32
    match keys[0] if len(keys) else 0:
        case int():
            return np.array(keys, dtype=np.int64).view(np.uint64)
        case str():
            return np.array([crc32(text := key.encode()) | adler32(text) << 32 for key in keys], dtype=np.uint64)
        case datetime():
            return _numbers([(key - EPOCH) // MICROSECOND for key in keys])
        case date():
            return _numbers([key.toordinal() - EPOCH_DAY for key in keys])
        case Decimal():  # 1.5 and 1.50 are one key
            return _numbers(["{}/{}".format(*key.as_integer_ratio()) for key in keys])
        case other:
            raise TypeError(f"a key cannot be a {type(other).__name__}")


def mix(numbers: Hashes) -> Hashes:
    """splitmix64: spread each number over all 64 bits, one to one."""
    mixed = numbers + GOLDEN
    mixed ^= mixed >> SHIFT_1
    mixed *= MIX_1
    mixed ^= mixed >> SHIFT_2
    mixed *= MIX_2
    mixed ^= mixed >> SHIFT_3
    return mixed


def key_hash(key: Key, before: int = 0) -> int:
    """The hash of one key; that of an integer or a text without numpy, which takes ten times as long for one.

    ``before`` is the hash of the parts before this one.
    """
    match key:
        case int():
            return _mix_one(before + key & ALL)
        case str():
            return _mix_one(before + (zlib.crc32(text := key.encode()) | zlib.adler32(text) << 32) & ALL)
        case tuple():
            for part in key:
                before = key_hash(part, before)
            return before
        case _:
            return _mix_one(before + int(_numbers([key])[0]) & ALL)


def _mix_one(number: int) -> int:
    """As ``mix`` does."""
    mixed = number + GOLDEN_INT & ALL
    mixed = (mixed ^ mixed >> 30) * MIX_INTS[0] & ALL
    mixed = (mixed ^ mixed >> 27) * MIX_INTS[1] & ALL
    return mixed ^ mixed >> 31


class KeyFilter(msgspec.Struct, frozen=True, eq=False):
    """The filter of one segment; ``words`` is never written after ``build``."""

    words: Hashes

    @classmethod
    def build(cls, hashes: Hashes, bits_per_key: int = BITS_PER_KEY) -> KeyFilter:
        """The filter that holds these keys."""
        words = np.zeros(_word_count(len(hashes), bits_per_key), dtype=np.uint64)
        for start in range(0, len(hashes), BUILD_KEYS):
            for places, masks in _bits(hashes[start : start + BUILD_KEYS], len(words)):
                np.bitwise_or.at(words, places, masks)
        words.setflags(write=False)
        return cls(words)

    def may_contain(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """For each key whether the segment may hold it; False is certain."""
        (first, first_masks), (second, second_masks) = _bits(hashes, len(self.words))
        missing = ~self.words[first] & first_masks
        missing |= ~self.words[second] & second_masks
        certain: npt.NDArray[np.bool_] = missing != 0
        return ~certain

    def may_contain_one(self, key_hash: int) -> bool:
        """The same for one key; without numpy, which takes twenty times as long for one."""
        count = len(self.words)
        spread = (key_hash * GOLDEN_INT & ALL) >> MASK_SHIFT_INT
        for half in (key_hash & 0xFFFF_FFFF, key_hash >> 32):
            word = int(self.words[half * count >> 32])
            for _ in range(BITS_IN_WORD):
                if not word >> (spread & 63) & 1:
                    return False
                spread >>= 6
        return True

    def is_for(self, keys: int) -> bool:
        """Whether a filter of so many keys has this length."""
        return len(self.words) == _word_count(keys, BITS_PER_KEY)

    def to_bytes(self) -> bytes:
        """The filter as it is stored beside its segment."""
        header = HEADER.pack(MAGIC, VERSION, 0, len(self.words))
        words = self.words.astype("<u8", copy=False).tobytes()
        return header + CHECKSUM.pack(zlib.crc32(words, zlib.crc32(header))) + words

    @classmethod
    def from_bytes(cls, stored: bytes) -> KeyFilter:
        """The filter that ``to_bytes`` gave; raises Internal where the bytes are not that or are damaged."""
        begin = HEADER.size + CHECKSUM.size
        if len(stored) < begin or not stored.startswith(MAGIC):
            raise Internal("a key filter is damaged: it does not begin as one")
        _, version, _, count = HEADER.unpack_from(stored)
        if version != VERSION:
            raise Internal(f"a key filter has version {version}, this Kalam reads version {VERSION}")
        (checksum,) = CHECKSUM.unpack_from(stored, HEADER.size)
        words = stored[begin:]
        if not count or len(words) != 8 * count or checksum != zlib.crc32(words, zlib.crc32(stored[: HEADER.size])):
            raise Internal("a key filter is damaged: its length or its checksum is wrong")
        return cls(np.frombuffer(words, dtype="<u8").astype(np.uint64, copy=False))


def _word_count(keys: int, bits_per_key: int) -> int:
    return max(1, -(-keys * bits_per_key // 64))


def _bits(
    hashes: Hashes, words: int
) -> tuple[tuple[npt.NDArray[np.intp], Hashes], tuple[npt.NDArray[np.intp], Hashes]]:
    """For each of a key's two words its place among ``words`` (under 2^32) and the key's bits in it."""
    count = np.uint64(words)
    first = ((hashes & LOW_HALF) * count) >> U32
    second = ((hashes >> U32) * count) >> U32
    spread = (hashes * GOLDEN) >> MASK_SHIFT
    masks = []
    for _ in range(2):
        mask = U1 << (spread & U63)
        for _ in range(BITS_IN_WORD - 1):
            spread >>= U6
            mask |= U1 << (spread & U63)
        spread >>= U6
        masks.append(mask)
    return (first.astype(np.intp), masks[0]), (second.astype(np.intp), masks[1])
