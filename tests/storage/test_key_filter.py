from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kalam.errors import Internal
from kalam.storage.segments.key_filter import KeyFilter, KeyHashes, key_hash

KEYS = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1)),
    st.lists(st.text(st.characters(exclude_categories=["Cs"]))),
    st.lists(st.datetimes(timezones=st.just(UTC))),
    st.lists(st.dates()),
    st.lists(st.decimals(allow_nan=False, allow_infinity=False, places=4)),
)
STORED = KeyFilter.build(KeyHashes.of(range(100))).to_bytes()


def uuids(seed: int, count: int) -> list[str]:
    return [str(UUID(bytes=row.tobytes())) for row in np.random.default_rng(seed).integers(0, 256, (count, 16), "u1")]


@given(KEYS, st.integers(1, 20))
def test_every_key_that_was_put_in_may_be_contained(keys: list[Any], bits_per_key: int) -> None:
    hashes = KeyHashes.of(keys)
    kept = KeyFilter.from_bytes(KeyFilter.build(hashes, bits_per_key).to_bytes())
    assert kept.may_contain(hashes).all()


@settings(deadline=None)
@given(KEYS)
def test_an_arrow_array_hashes_as_its_python_values_do(keys: list[Any]) -> None:
    array = pa.chunked_array([pa.array(keys, pa.int64() if not keys else None)])
    assert KeyHashes.of_columns([array]).tolist() == KeyHashes.of(keys).tolist()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.text("ab", max_size=2), st.dates()), min_size=1, max_size=50))
def test_keys_of_several_columns_hash_alike_exactly_where_they_are_the_same(keys: list[Any]) -> None:
    kinds = (pa.int16(), pa.string(), pa.date32())
    columns = [pa.array(values, kind) for values, kind in zip(zip(*keys, strict=True), kinds, strict=True)]
    hashes = KeyHashes.of(keys).tolist()
    assert KeyHashes.of_columns(columns).tolist() == [key_hash(key) for key in keys] == hashes
    assert len(set(hashes)) == len(set(keys))
    assert set(KeyHashes.of([key[:2] for key in keys])).isdisjoint(KeyHashes.of([key[1::-1] for key in keys]))


@pytest.mark.parametrize(
    ("keys", "strangers"),
    [
        (range(50_000), range(50_000, 150_000)),
        (range(0, 5_000_000, 100), range(1, 10_000_001, 100)),
        ([f"user-{n}" for n in range(50_000)], [f"user-{n}" for n in range(50_000, 150_000)]),
        (uuids(1, 50_000), uuids(2, 100_000)),
    ],
    ids=["growing numbers", "numbers with gaps", "names", "uuids"],
)
def test_fewer_than_five_of_ten_thousand_foreign_keys_pass(keys: Any, strangers: Any) -> None:
    key_filter = KeyFilter.build(KeyHashes.of(keys))
    assert key_filter.may_contain(KeyHashes.of(strangers)).mean() < 0.0005
    assert len(key_filter.to_bytes()) < 50_000 * 24 / 8 + 100


def test_a_filter_of_no_keys_contains_none() -> None:
    assert not KeyFilter.build(KeyHashes.of([])).may_contain(KeyHashes.of([0, 1, -1])).any()


def test_no_keys_are_answered_with_nothing() -> None:
    assert KeyFilter.build(KeyHashes.of([1])).may_contain(KeyHashes.of([])).tolist() == []


def test_keys_that_differ_in_case_or_blanks_have_different_hashes() -> None:
    assert len(set(KeyHashes.of(["key", "Key", "key ", " key", "", "\0"]).tolist())) == 6


def test_equal_decimals_of_different_scale_have_one_hash() -> None:
    assert len(set(KeyHashes.of([Decimal("1.5"), Decimal("1.50"), Decimal("15E-1")]).tolist())) == 1
    assert len(set(KeyHashes.of([Decimal(0), Decimal("-0.00")]).tolist())) == 1


def test_a_moment_has_one_hash_in_every_zone() -> None:
    moment = datetime(2026, 5, 1, 12, tzinfo=UTC)
    there = moment.astimezone(tz=datetime.strptime("+0200", "%z").tzinfo)
    assert KeyHashes.of([moment]).tolist() == KeyHashes.of([there]).tolist()
    assert KeyHashes.of([moment]).tolist() != KeyHashes.of([moment + timedelta(microseconds=1)]).tolist()


def test_hashes_are_what_older_filters_were_built_with() -> None:
    found = [KeyHashes.of(keys).tolist() for keys in ([0, -1], ["", "Käse"], [date(2026, 5, 1)], [Decimal("1.5")])]
    assert found == [
        [16294208416658607535, 16490336266968443936],
        [14135772400868000056, 5398078721341394544],
        [238522481294743472],
        [8716137976235513730],
    ]


def test_another_process_computes_the_same_hashes() -> None:
    code = "from kalam.storage.segments.key_filter import KeyHashes; print(KeyHashes.of(['a', 'b']).tolist())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == str(KeyHashes.of(["a", "b"]).tolist()), done.stderr


def test_a_key_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="float"):
        KeyHashes.of([1.5])


@pytest.mark.parametrize("place", range(len(STORED)))
def test_a_changed_byte_is_noticed(place: int) -> None:
    changed = bytearray(STORED)
    changed[place] ^= 0x10
    with pytest.raises(Internal, match="key filter"):
        KeyFilter.from_bytes(bytes(changed))


@pytest.mark.parametrize("stored", [b"", b"KLKF", STORED[:-1], STORED + b"\0", STORED[:-8], b"x" * 100])
def test_bytes_that_are_no_filter_are_refused(stored: bytes) -> None:
    with pytest.raises(Internal, match="key filter"):
        KeyFilter.from_bytes(stored)
