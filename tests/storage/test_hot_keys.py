"""The index of hot keys says what a plain dictionary of all of them says."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kalam.rows.growing_keys import GrowingKeys, bounds_of, together
from kalam.storage.log.copies import Chunk, Copy, drop_flushed
from kalam.storage.log.hot_keys import HotKeys
from kalam.storage.segments.key_filter import KeyHashes, key_hash

SPACE = 400


def chunk_of(first_seq: int, rows: int) -> Chunk:
    return Chunk(
        first_seq=first_seq, row_count=rows, op="insert", updated_us=0, schema_version=1, superseding=False, payload=b""
    )


def assert_same(index: HotKeys, wanted: dict[int, int], rng: random.Random) -> None:
    assert [index.get(key) for key in range(-2, SPACE + 2)] == [wanted.get(key) for key in range(-2, SPACE + 2)]
    assert index.live_count() == sum(seq > 0 for seq in wanted.values())
    some = {rng.randrange(SPACE) for _ in range(4)}
    assert index.has_none(some) == some.isdisjoint(wanted)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_added_superseded_and_flushed_it_is_what_a_dictionary_is(seed: int) -> None:
    rng = random.Random(seed)
    copy, wanted = Copy(1, 1, ""), dict[int, int]()
    keys_of_chunk: dict[int, list[int]] = {}
    for _ in range(60):
        first_seq = copy.last_seq + 1
        match rng.choice(["grow", "grow", "mixed", "supersede", "flush"]):
            case "flush":
                upto = rng.choice([0, *(chunk.last_seq for chunk in copy.chunks)])
                drop_flushed(copy, max(upto, copy.flushed_seq), lambda chunk: keys_of_chunk[chunk.first_seq])
                wanted = {key: seq for key, seq in wanted.items() if abs(seq) > copy.flushed_seq}
            case "supersede" if wanted:
                keys, sign = rng.sample(sorted(wanted), rng.randint(1, len(wanted))), rng.choice([-1, 1])
                keys_of_chunk[first_seq] = keys
                copy.append(chunk_of(first_seq, len(keys)))
                versions = {key: sign * seq for seq, key in enumerate(keys, first_seq)}
                copy.versions.update(versions.items())
                wanted |= versions
            case kind:
                start = rng.randrange(SPACE - 40)
                step = rng.choice([1, 1, 3])
                free = [key for key in range(start, start + 40, step) if wanted.get(key, 0) <= 0]
                if not free:
                    continue
                if kind == "mixed":
                    rng.shuffle(free)
                keys = GrowingKeys.of(pa.array(free)) or free
                new = wanted.keys().isdisjoint(free)
                assert not copy.versions.are_new(keys) or new
                keys_of_chunk[first_seq] = free
                copy.append(chunk_of(first_seq, len(free)))
                copy.versions.add(keys, first_seq)
                wanted |= dict(zip(free, range(first_seq, first_seq + len(free)), strict=True))
        assert_same(copy.versions, wanted, rng)


def test_a_load_of_growing_keys_has_no_entry_for_each() -> None:
    index = HotKeys()
    for first in range(0, 30_000, 10_000):
        keys = GrowingKeys.of(pa.chunked_array([list(range(first, first + 10_000))]))
        assert keys is not None
        assert index.are_new(keys)
        index.add(keys, first + 1)
    assert not index.single
    assert (index.get(29_999), index.get(30_000), index.live_count()) == (30_000, None, 30_000)
    assert not index.are_new([30_001, 30_001])
    assert not index.are_new([12_345])
    assert index.are_new([-1, 30_000])


def test_of_a_load_into_an_index_without_other_keys_none_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: GrowingKeys) -> None:
        raise AssertionError("an object for each key")

    index, keys = HotKeys(), GrowingKeys(range(1_000))
    monkeypatch.setattr(GrowingKeys, "__iter__", refuse)
    assert index.are_new(keys)
    index.add(keys, 1)
    assert not index.are_new(keys)
    assert index.get(999) == 1_000


@pytest.mark.parametrize(
    "column", [pa.array([1, 1]), pa.array([2, 1]), pa.array(["a", "b"]), pa.array([1, None]), pa.array([], pa.int64())]
)
def test_what_does_not_grow_is_no_such_key(column: pa.Array) -> None:
    assert GrowingKeys.of(column) is None


@pytest.mark.parametrize("keys", [[(1, "a"), (2, "b")], [("a", 1)], [(1, 2)], ["a"], [2, 1], [1, 1], []])
def test_keys_of_other_kinds_are_no_such_keys(keys: list[Any]) -> None:
    assert GrowingKeys.of_keys(keys) is None


EXTREMES = [[-(2**63), 0, 2**63 - 1], [-(2**63), -(2**63) + 1, -(2**63) + 2], [2**63 - 3, 2**63 - 2, 2**63 - 1]]


@pytest.mark.parametrize("numbers", [[5, 6, 7], *EXTREMES])
def test_growing_keys_are_a_sequence_of_numbers(numbers: list[int]) -> None:
    keys = GrowingKeys.of(pa.chunked_array([numbers[:1], numbers[1:]], pa.int64()))
    assert keys is not None
    assert (list(keys), len(keys), keys[-1], list(keys[1:])) == (numbers, 3, numbers[2], numbers[1:])
    assert bounds_of(keys) == bounds_of(numbers)
    assert (np.asarray(keys).dtype, np.array(keys, np.int64).tolist()) == (np.int64, numbers)
    assert GrowingKeys.of_keys(numbers) is not None
    assert KeyHashes.of(keys).tolist() == [key_hash(number) for number in numbers]
    assert [keys.place(number) for number in (*numbers, 2)] == [0, 1, 2, None]
    assert list(keys.behind(1)) == numbers[1:]


@pytest.mark.parametrize(
    ("parts", "grow"),
    [
        ([[1, 2], [3, 4]], True),
        ([[1, 2], [2**63 - 2, 2**63 - 1]], True),
        ([[1, 2], [5, 9]], True),
        ([[1, 2], [2, 3]], False),
        ([[5, 6], [1]], False),
    ],
)
def test_keys_one_after_another_grow_where_each_part_goes_on(parts: list[list[int]], grow: bool) -> None:
    joined = together([GrowingKeys.of(pa.array(part)) or part for part in parts])
    assert (list(joined), isinstance(joined, GrowingKeys)) == ([key for part in parts for key in part], grow)
