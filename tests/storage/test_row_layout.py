"""A row that was packed is the row that Arrow gives, of every type, with NULLs, extremes and rows of any size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server_process import ServerProcess

from kalam.rows.column_types import TYPES
from kalam.schema import DataType, TypeName
from kalam.storage.segments.key_filter import KeyFilter, KeyHashes, key_hash
from kalam.storage.segments.packed_rows import DENSE, PLAIN, QUICK, Damaged, Packed, Packing, pack
from kalam.storage.segments.row_layout import RowLayout

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
DIGITS = st.integers(-(10**38) + 1, 10**38 - 1)
VALUES: dict[TypeName, tuple[DataType, st.SearchStrategy[Any]]] = {
    TypeName.BOOLEAN: (DataType(name=TypeName.BOOLEAN), st.booleans()),
    TypeName.SMALLINT: (DataType(name=TypeName.SMALLINT), st.integers(-(1 << 15), (1 << 15) - 1)),
    TypeName.INT: (DataType(name=TypeName.INT), st.integers(-(1 << 31), (1 << 31) - 1)),
    TypeName.BIGINT: (DataType(name=TypeName.BIGINT), st.integers(-(1 << 63), (1 << 63) - 1)),
    TypeName.FLOAT: (DataType(name=TypeName.FLOAT), st.floats(width=32)),
    TypeName.DOUBLE: (DataType(name=TypeName.DOUBLE), st.floats()),
    TypeName.DECIMAL: (
        DataType(name=TypeName.DECIMAL, precision=38, scale=7),
        DIGITS.map(lambda digits: Decimal(f"{digits}E-7")),
    ),
    TypeName.TEXT: (DataType(name=TypeName.TEXT), TEXTS),
    TypeName.BLOB: (DataType(name=TypeName.BLOB), st.binary(max_size=40)),
    TypeName.TIMESTAMP: (
        DataType(name=TypeName.TIMESTAMP),
        st.integers((FIRST - EPOCH) // timedelta(microseconds=1), (LAST - EPOCH) // timedelta(microseconds=1)).map(
            lambda micros: EPOCH + timedelta(microseconds=micros)
        ),
    ),
    TypeName.DATE: (DataType(name=TypeName.DATE), st.dates(date.min, date.max)),
    TypeName.JSON: (DataType(name=TypeName.JSON), TEXTS),
    TypeName.UUID: (DataType(name=TypeName.UUID), st.uuids().map(str)),
}


def alike(packed: Any, own: Any) -> bool:
    """The same value in the same form: NaN is NaN, -0.0 is not 0.0, 1.50 is not 1.5."""
    if isinstance(own, float):
        same = math.isnan(packed) if math.isnan(own) else packed == own
        return same and math.copysign(1, packed) == math.copysign(1, own)
    return type(packed) is type(own) and str(packed) == str(own) and bool(packed == own)


PACKINGS = [PLAIN, QUICK, DENSE]


def found_in(packed: Packed, blocks: Sequence[bytes], key: Any) -> list[tuple[Any, ...]]:
    """The rows with a key, as those who keep the blocks read them."""
    rows_in = packed.finder(packed.schema.names)
    return [row for number in packed.blocks_with(key) for row in rows_in(number, blocks[number], key)]


def test_every_type_has_a_place_in_a_record() -> None:
    assert set(VALUES) == set(TYPES)
    for name, (kind, _) in VALUES.items():
        assert RowLayout.fits(pa.schema([pa.field("c", TYPES[name].arrow(kind))])), name
    assert not RowLayout.fits(pa.schema([pa.field("c", pa.list_(pa.int64()))]))


@settings(deadline=None, max_examples=200)
@given(data=st.data(), packing=st.sampled_from(PACKINGS))
def test_a_row_comes_back_as_arrow_gives_it(data: st.DataObject, packing: Packing) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=20))
    rows = data.draw(st.integers(1, 40))
    columns = []
    for name in names:
        kind, values = VALUES[name]
        drawn = data.draw(st.lists(st.none() | values, min_size=rows, max_size=rows))
        columns.append(pa.array(drawn, TYPES[name].arrow(kind)))
    table = pa.table(columns, names=[f"c{place}" for place in range(len(names))])
    cut = data.draw(st.integers(0, rows - 1))
    table = pa.concat_tables([table.slice(cut), table.slice(0, cut)])  # of columns in pieces, which do not begin at 0
    keys = sorted(data.draw(st.lists(st.integers(-9, 9), min_size=rows, max_size=rows)))
    table = table.append_column("key", pa.array(keys, pa.int64()))
    packed, blocks = pack(table, ["key"], msgspec.structs.replace(packing, rows_max=data.draw(st.integers(1, 41))))
    assert [len(block) for block in blocks] == [end - start for start, end in pairwise(packed.places)]
    order = data.draw(st.permutations(table.column_names))
    rows_in = packed.finder(order)
    for key in range(-10, 11):
        found = found_in(packed, blocks, key)
        expected = [[column[at].as_py() for column in table.columns] for at in range(rows) if keys[at] == key]
        assert len(found) == len(expected)
        assert all(all(map(alike, *pair)) for pair in zip(found, expected, strict=True)), (found, expected)
        for number in packed.blocks_with(key):
            for row in rows_in(number, blocks[number], key):
                assert row[order.index("key")] == key


@pytest.mark.parametrize("packing", PACKINGS, ids=lambda own: own.codec or "plain")
@pytest.mark.parametrize("text_bytes", [0, 10, 255, 256, 1_000, 300_000])
def test_blocks_hold_few_rows_where_these_are_large(text_bytes: int, packing: Packing) -> None:
    rows = 20 if text_bytes > 1_000 else 2_000
    texts = [chr(97 + key % 26) + f"{key}" * (text_bytes // len(f"{key}")) for key in range(rows)]
    table = pa.table({"id": range(rows), "text": texts})
    packed, blocks = pack(table, ["id"], packing)
    assert len(blocks) >= rows // packing.rows_max
    sizes = [len(block) if packing is PLAIN else int.from_bytes(block[4:8], "little") for block in blocks]
    assert max(sizes) < packing.bytes_max + 2 * (text_bytes + 50)
    for key in range(rows):
        assert found_in(packed, blocks, key) == [(key, texts[key])]
    assert found_in(packed, blocks, -1) == found_in(packed, blocks, rows) == []


KEYS = [name for name in sorted(VALUES) if TYPES[name].is_key]


@settings(deadline=None)
@given(data=st.data(), packing=st.sampled_from(PACKINGS))
def test_rows_are_found_by_keys_of_every_type_and_of_several_columns(data: st.DataObject, packing: Packing) -> None:
    kinds = data.draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=3))
    keys = data.draw(st.lists(st.tuples(*(VALUES[kind][1] for kind in kinds)), min_size=2, max_size=40))
    missing = data.draw(st.sampled_from(keys))
    there = sorted(own for own in keys if own != missing) or [missing]
    names = [f"k{place}" for place in range(len(kinds))]
    parts = zip(kinds, zip(*there, strict=True), strict=True)
    columns = [pa.array(part, TYPES[kind].arrow(VALUES[kind][0])) for kind, part in parts]
    table = pa.table([pa.array(range(len(there))), *columns], names=["place", *names])
    packed, blocks = pack(table, names, msgspec.structs.replace(packing, rows_max=3))
    for place, own in enumerate(there):
        found = found_in(packed, blocks, own if len(own) > 1 else own[0])
        assert (place, *own) in found
        assert {row[1:] for row in found} == {own}
    if missing not in there:
        assert not found_in(packed, blocks, missing if len(missing) > 1 else missing[0])


@settings(deadline=None, max_examples=200)
@given(place=st.integers(0), flipped=st.integers(1, 255), packing=st.sampled_from(PACKINGS))
def test_a_flipped_byte_is_noticed(place: int, flipped: int, packing: Packing) -> None:
    packed, blocks = pack(pa.table({"id": range(100), "text": ["abc"] * 100}), ["id"], packing)
    number = place % len(blocks)
    damaged = bytearray(blocks[number])
    damaged[place % len(damaged)] ^= flipped
    for block in (damaged, damaged[:7], damaged[:-1]):
        with pytest.raises(Damaged):
            packed.finder(["id"])(number, block, 0)


@settings(deadline=None)
@given(keys=st.lists(st.integers(-(1 << 63), (1 << 63) - 1) | TEXTS, min_size=1), foreign=st.lists(TEXTS))
def test_one_key_is_hashed_and_asked_for_as_many_are(keys: list[Any], foreign: list[str]) -> None:
    for key in [*keys, date(2024, 2, 29), datetime(2024, 2, 29, 1, tzinfo=UTC), Decimal("1.50")]:
        assert key_hash(key) == int(KeyHashes.of([key])[0])
    texts = [key for key in keys if isinstance(key, str)]
    key_filter = KeyFilter.build(KeyHashes.of(texts))
    for key in [*texts, *foreign, *map(str, range(200))]:
        assert key_filter.may_contain_one(key_hash(key)) is bool(key_filter.may_contain(KeyHashes.of([key]))[0])


COLUMNS = {
    "b": ("BOOLEAN", "true", "NULL", "false"),
    "s": ("SMALLINT", "-32768", "NULL", "32767"),
    "i": ("INT", "-2147483648", "NULL", "2147483647"),
    "l": ("BIGINT", "-9223372036854775808", "NULL", "9223372036854775807"),
    "f": ("FLOAT", "0.1", "NULL", "-0.0"),
    "d": ("DOUBLE", "'NaN'", "NULL", "'-Infinity'"),
    "n": ("DECIMAL(38,10)", "1.50", "NULL", "-9999999999999999999999999999.9999999999"),
    "t": ("TEXT", "''", "NULL", "'zweiundzwanzig ☃ 🦉'"),
    "x": ("BLOB", "X''", "NULL", "X'00FF10'"),
    "z": ("TIMESTAMP", "'0001-01-01T00:00:00Z'", "NULL", "'9999-12-31T23:59:59.999999Z'"),
    "y": ("DATE", "'0001-01-01'", "NULL", "'9999-12-31'"),
    "j": ("JSON", """'{"a": [1, null, "ü"]}'""", "NULL", "'[]'"),
    "u": ("UUID", "'6ba7b810-9dad-11d1-80b4-00c04fd430c8'", "NULL", "'00000000-0000-0000-0000-000000000000'"),
}


@pytest.mark.parametrize("key", ["BIGINT", "TEXT", "UUID"])
def test_a_row_of_every_type_is_the_same_hot_planned_decoded_and_kept(shared_server: ServerProcess, key: str) -> None:
    server, table = shared_server, f"packed.of_{key.lower()}"
    server.sql("CREATE NAMESPACE IF NOT EXISTS packed")
    server.sql(f"CREATE TABLE {table} (k {key} PRIMARY KEY, "
               + ", ".join(f"{name} {told[0]}" for name, told in COLUMNS.items()) + ")")  # fmt: skip
    keys: list[Any] = [1, 2, 3] if key == "BIGINT" else [f"{n}ba7b810-9dad-11d1-80b4-00c04fd430c8" for n in (1, 2, 3)]
    for place, own in enumerate(keys):
        literal = own if key == "BIGINT" else f"'{own}'"
        server.sql(f"INSERT INTO {table} VALUES ({literal}, {', '.join(told[1 + place] for told in COLUMNS.values())})")
    select = f"SELECT * FROM {table} WHERE k = $1"
    hot = [server.sql(select, own) for own in keys]
    server.sql(f"FLUSH TABLE {table}")
    planned = server.sql(f"SELECT * FROM {table} ORDER BY k")
    for _ in range(3):  # decoded, waiting, kept
        assert [server.sql(select, own) for own in keys] == hot == [[row] for row in planned]
    assert list(server.data_dir.glob("key-rows/*"))
