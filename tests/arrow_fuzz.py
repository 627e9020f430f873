"""Damaged Arrow streams for the decoder, one type after another: ``python tests/arrow_fuzz.py --rounds 100000``.

Each stream is a good one with bytes flipped, overwritten, or cut off; what is left of it has to be decoded to rows or
refused by a KalamError, within bounded memory. A crash ends this process, so whoever runs it looks at its status; the
stream that was at fault lies in the file that ``--last`` names.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kalam.errors import KalamError
from kalam.names import TableName
from kalam.rows.door import RowDecoder
from kalam.rows.ids import SnowflakeIds, UuidV7s
from kalam.rows.normalise import Generators
from kalam.schema import Column, DataType, StreamOptions, Table, TableKind, TypeName

MEMORY_BYTES = 6 << 30
TEXTS = ["a", "", None, "a text that is longer than a view holds itself", "ü"]
BYTES = [None if text is None else text.encode() for text in TEXTS]
NUMBERS = [1, 0, None, 7, 100]
MOMENTS = [None if year is None else datetime(year, 1, 1, tzinfo=UTC) for year in (2024, None, 1970, 1999, 2100)]
INTEGERS = (pa.int8, pa.int16, pa.int32, pa.int64, pa.uint8, pa.uint16, pa.uint32, pa.uint64)
EXTREMES = (0, 1, -1, 4, 64, 100_000, 2**31 - 1, 2**31 - 16, -(2**31), 2**62, -(2**63), 2**63 - 1)
T = TypeName


def samples() -> dict[str, tuple[pa.Array, TypeName]]:
    """An array of each type, and a column type that takes it, where one does."""
    found: dict[str, tuple[pa.Array, TypeName]] = {"null": (pa.nulls(5), T.TEXT)}
    found["bool"] = (pa.array([True, False, None, True, False]), T.BOOLEAN)
    for integer in INTEGERS:
        found[str(integer())] = (pa.array(NUMBERS, integer()), T.BIGINT)
    for floating in (pa.float16(), pa.float32(), pa.float64()):
        found[str(floating)] = (pa.array([0.5, None, 1.0, -2.0, 0.0], floating), T.DOUBLE)
    for decimal in (pa.decimal32(5, 2), pa.decimal64(10, 2), pa.decimal128(20, 2), pa.decimal256(40, 2)):
        found[str(decimal)] = (pa.array([Decimal("1.50"), None, *[Decimal(2)] * 3], decimal), T.DECIMAL)
    for text in (pa.string(), pa.large_string(), pa.string_view()):
        found[str(text)] = (pa.array(TEXTS, text), T.TEXT)
    for binary in (pa.binary(), pa.large_binary(), pa.binary_view()):
        found[str(binary)] = (pa.array(BYTES, binary), T.BLOB)
    found["fixed_size_binary"] = (pa.array([b"abc", None, b"def", b"ghi", b"jkl"], pa.binary(3)), T.BLOB)
    for day in (pa.date32(), pa.date64()):
        found[str(day)] = (pa.array([date(2024, 1, 1), None, *[date(1970, 1, 1)] * 3], day), T.DATE)
    for unit in ("s", "ms", "us", "ns"):
        found[f"timestamp {unit}"] = (pa.array(MOMENTS, pa.timestamp(unit, "UTC")), T.TIMESTAMP)
    for clock in (pa.time32("s"), pa.time64("us")):
        found[str(clock)] = (pa.array([time(1), None, *[time(2)] * 3], clock), T.TEXT)
    found["duration"] = (pa.array([timedelta(1), None, *[timedelta(2)] * 3]), T.BIGINT)
    found["interval"] = (pa.array([(1, 2, 3), None, *[(4, 5, 6)] * 3], pa.month_day_nano_interval()), T.TEXT)
    return {**found, **_encoded(), **_nested()}


def _encoded() -> dict[str, tuple[pa.Array, TypeName]]:
    texts = pa.array(TEXTS)
    views = texts.cast(pa.string_view())
    uuids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0123456789abcdef"] * 5, pa.binary(16)))
    return {
        "dictionary": (texts.dictionary_encode(), T.TEXT),
        "dictionary of bytes": (pa.array(BYTES).dictionary_encode(), T.BLOB),
        "dictionary of views": (
            pa.DictionaryArray.from_arrays([0, 1, 2, None, 3], views),
            T.TEXT,
        ),
        "runs": (pc.run_end_encode(pa.array(["a", "a", "b", None, None])), T.TEXT),
        "runs of numbers": (pc.run_end_encode(pa.array([1, 1, 2, None, None])), T.BIGINT),
        "uuid": (uuids, T.UUID),
    }


def _nested() -> dict[str, tuple[pa.Array, TypeName]]:
    kinds = pa.array([0, 1, 0, 1, 0], pa.int8())
    members = [pa.array(NUMBERS, pa.int64()), pa.array(TEXTS)]
    return {
        "list": (pa.array([[1], None, [], [2, 3], [4]]), T.JSON),
        "list_view": (pa.array([[1], None, [], [2, 3], [4]], pa.list_view(pa.int64())), T.JSON),
        "fixed_size_list": (pa.array([[1, 2]] * 5, pa.list_(pa.int64(), 2)), T.JSON),
        "struct": (pa.array([{"a": 1}, None, {"a": 2}, {"a": None}, {}]), T.JSON),
        "map": (pa.array([[("a", 1)]] * 5, pa.map_(pa.string(), pa.int64())), T.JSON),
        "sparse_union": (pa.UnionArray.from_sparse(kinds, members), T.JSON),
        "dense_union": (pa.UnionArray.from_dense(kinds, pa.array([0, 0, 1, 1, 2], pa.int32()), members), T.JSON),
    }


def stream_of(array: pa.Array, compression: str | None = None) -> bytes:
    """An IPC stream of one column, ``v``, in two batches."""
    sink = pa.BufferOutputStream()
    batch = pa.record_batch([array], ["v"])
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def damaged(stream: bytes, chance: random.Random) -> bytes:
    """The stream with one kind of damage."""
    mutable = bytearray(stream)
    match chance.randrange(4):
        case 0:
            for _ in range(chance.randint(1, 4)):
                mutable[chance.randrange(len(mutable))] ^= 1 << chance.randrange(8)
        case 1:
            mutable[chance.randrange(len(mutable))] = chance.randrange(256)
        case 2:
            size = chance.choice((4, 8))
            place = chance.randrange(0, len(mutable) - 8, 4)
            value = chance.choice(EXTREMES) & ((1 << 8 * size) - 1)
            mutable[place : place + size] = value.to_bytes(size, "little")
        case _:
            start = chance.randrange(len(mutable))
            del mutable[start : start + chance.choice((1, 8, 64, len(mutable)))]
    return bytes(mutable)


def decoder_of(kind: TypeName) -> RowDecoder:
    """The decoder of a table with one column of this type."""
    data_type = DataType(name=kind, precision=38, scale=2) if kind is T.DECIMAL else DataType(name=kind)
    table = Table(
        name=TableName("n", "t"),
        kind=TableKind.STREAM,
        columns=(Column(column_id=1, name="v", type=data_type),),
        key=(),
        options=StreamOptions(),
        table_id=1,
        schema_version=1,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return RowDecoder(table, Generators(SnowflakeIds(), UuidV7s()))


def streams() -> Iterator[tuple[str, bytes, RowDecoder]]:
    """A good stream of each type, plain and compressed, and the decoder that it goes to."""
    for name, (array, kind) in samples().items():
        decoder = decoder_of(kind)
        for compression in (None, "zstd", "lz4"):
            yield f"{name}, {compression}", stream_of(array, compression), decoder


def fuzz(rounds: int, seed: int, last: Path | None) -> dict[str, int]:
    """Decode so many damaged streams of each kind; how many ended how."""
    counts = {"decoded": 0, "refused": 0}
    for name, stream, decoder in streams():
        chance = random.Random(f"{seed} {name}")
        for _ in range(rounds):
            payload = damaged(stream, chance)
            if last is not None:
                last.write_bytes(payload)
            counts["decoded" if _decodes(decoder, payload, name) else "refused"] += 1
    return counts


def _decodes(decoder: RowDecoder, payload: bytes, name: str) -> bool:
    try:
        rows: list[Any] = decoder.decode(payload, user="u", arrow=True, rows_max=100_000)
    except KalamError:
        return False
    except BaseException as exc:
        exc.add_note(f"in a stream of {name}")
        raise
    return all(len(row) == 1 for row in rows)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=1_000)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--last", type=Path)
    given = arguments.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    sys.stdout.write(f"{fuzz(given.rounds, given.seed, given.last)}\n")
