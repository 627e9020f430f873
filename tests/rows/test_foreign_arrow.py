"""Arrow that others made is checked before it is read; what is damaged is refused, and nothing else comes of it."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from pathlib import Path

import arrow_fuzz
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from kalam.errors import InvalidValue, TooLarge
from kalam.rows.formats.arrow_messages import MESSAGE_BYTES_MAX
from kalam.rows.formats.foreign_arrow import ForeignStream
from kalam.schema import TypeName

FUZZ = Path(arrow_fuzz.__file__)
GOOD = b"".join(struct.pack("<i", end) for end in (0, 4, 8, 12))
TEXT = "0123456789"


def three_values(last: int) -> bytes:
    stream = arrow_fuzz.stream_of(pa.array([b"aaaa", b"bbbb", b"cccc"]))
    assert stream.count(GOOD) == 2
    return stream.replace(GOOD, GOOD[:12] + struct.pack("<i", last))


def rows_of(stream: bytes, kind: TypeName = TypeName.TEXT, rows_max: int = 100_000) -> list[object]:
    rows = arrow_fuzz.decoder_of(kind).decode(stream, user="u", arrow=True, rows_max=rows_max)
    return [value for (value,) in rows]


@pytest.mark.parametrize("last", [64, 100_000, 2**31 - 16, -1, 7])
def test_an_offset_that_leads_outside_is_refused(last):
    with pytest.raises(InvalidValue, match="an Arrow column is damaged"):
        ForeignStream(three_values(last)).table(100)


def test_damaged_streams_of_every_type_are_decoded_or_refused(tmp_path):
    command = [sys.executable, str(FUZZ), "--rounds", "25", "--seed", "1", "--last", str(tmp_path / "last")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{done.stderr}, the stream was {(tmp_path / 'last').read_bytes()!r}"


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_undamaged_streams_give_their_values(compression):
    for name, (array, kind) in arrow_fuzz.samples().items():
        if pa.types.is_nested(array.type) and name not in ("runs", "runs of numbers"):
            with pytest.raises(InvalidValue, match="which no column can hold"):
                rows_of(arrow_fuzz.stream_of(array, compression), kind)
        elif name not in ("duration", "interval", "fixed_size_binary", "time64[us]", "time32[s]", "uuid"):
            found = rows_of(arrow_fuzz.stream_of(array, compression), kind)
            assert [value is None for value in found] == array.is_null().to_pylist() * 2, name


@pytest.mark.parametrize("name", ["dictionary", "runs", "string_view", "large_string"])
def test_another_layout_of_the_same_texts_gives_the_same_rows(name):
    array, kind = arrow_fuzz.samples()[name]
    texts = ["a", "a", "b", None, None] if name == "runs" else arrow_fuzz.TEXTS
    assert rows_of(arrow_fuzz.stream_of(array), kind) == texts * 2


def bombs() -> dict[str, pa.Array]:
    """Arrays of a few kilobytes that stand for more than a message may have."""
    long = TEXT * 1_000
    count = MESSAGE_BYTES_MAX // len(long) + 1
    view = pa.array([long], pa.string_view()).buffers()
    views = pa.py_buffer(view[1].to_pybytes() * count)
    return {
        "dictionary": pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int8()), pa.array([long])),
        "runs": pa.RunEndEncodedArray.from_arrays(pa.array([count], pa.int32()), pa.array([long])),
        "views": pa.Array.from_buffers(pa.string_view(), count, [None, views, *view[2:]]),
    }


@pytest.mark.parametrize("name", ["dictionary", "runs", "views"])
def test_what_unpacks_to_too_much_is_refused(name):
    with pytest.raises(TooLarge, match="unpacks to"):
        rows_of(arrow_fuzz.stream_of(bombs()[name]))


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_what_decompresses_to_too_much_is_refused_before_it_is(compression):
    stream = arrow_fuzz.stream_of(pa.array(["\0" * (MESSAGE_BYTES_MAX + 1)]), compression)
    assert len(stream) < MESSAGE_BYTES_MAX // 100
    with pytest.raises(TooLarge, match="unpacks to"):
        rows_of(stream)


def test_rows_that_need_no_bytes_are_bounded():
    with pytest.raises(TooLarge, match="more than 1000 rows"):
        rows_of(arrow_fuzz.stream_of(pa.nulls(1_001)), rows_max=1_000)
    with pytest.raises(TooLarge, match="a record batch has"):
        rows_of(arrow_fuzz.stream_of(pa.nulls(10_000_001)), rows_max=100_000_000)


def test_slices_are_added_up_as_what_they_show():
    array = pc.run_end_encode(pa.array([TEXT * 10] * 50 + ["b"] * 50)).slice(40, 20)
    assert rows_of(arrow_fuzz.stream_of(array)) == [*[TEXT * 10] * 10, *["b"] * 10] * 2


def test_the_same_damage_is_made_every_time():
    stream = three_values(12)
    assert arrow_fuzz.damaged(stream, random.Random("x")) == arrow_fuzz.damaged(stream, random.Random("x"))
