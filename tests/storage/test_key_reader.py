"""Rows of segments by key: the same whether they are decoded or kept, and never those of another file."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_process import ServerProcess, SqlFailed

from kalam.storage.segments.key_reader import FEW_KEYS, KeyReader, NotKept
from kalam.storage.segments.segment_file import stamp_of

MIB = 1 << 20
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CENTURY = timedelta(days=36_525)
KINDS: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int16(): st.integers(-300, 300),
    pa.int64(): st.integers(-(1 << 63), (1 << 63) - 1),
    pa.string(): st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
    pa.date32(): st.dates(date(1900, 1, 1), date(2100, 1, 1)),
    pa.timestamp("us", "UTC"): st.timedeltas(-CENTURY, CENTURY).map(lambda since: EPOCH + since),
    pa.decimal128(38, 10): st.integers(-(10**12), 10**12).map(lambda digits: Decimal(digits).scaleb(-10)),
}


def write(path: Path, kind: pa.DataType, keys: Sequence[Any], note: str = "n", group_rows: int = 7) -> pa.Table:
    """A file as a flush writes it: sorted by key, in row groups."""
    table = pa.table({"key": pa.array(keys, kind), "note": [f"{note}{place}" for place in range(len(keys))]})
    table = table.take(pc.sort_indices(table, sort_keys=[("key", "ascending")]))
    pq.write_table(table, path, row_group_size=group_rows, store_schema=False)
    return table


def mappings() -> list[str]:
    """The mappings of this process that are of no file, as the kernel lists them."""
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if len(line.split()) == 5]


def mapped_bytes() -> int:
    ends = [line.split()[0].split("-") for line in mappings()]
    return sum(int(end, 16) - int(start, 16) for start, end in ends)


def numbers(path: Path, note: str = "n") -> pa.Schema:
    return write(path, pa.int64(), range(100), note).schema


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(sorted(KINDS, key=str)))
def test_what_is_found_is_what_a_filter_finds(tmp_path: Path, data: st.DataObject, kind: pa.DataType) -> None:
    keys = data.draw(st.lists(KINDS[kind], min_size=1, max_size=60))
    foreign = data.draw(st.lists(KINDS[kind], max_size=5))
    table = write(tmp_path / "segment", kind, keys)
    reader = KeyReader(MIB)
    for few in (1, 3, len(keys)):
        wanted = [*data.draw(st.permutations(keys))[:few], *foreign]
        expected = table.filter(pc.is_in(table["key"], pa.array(wanted, kind)))
        for _ in range(2):  # decoded, then kept
            found = reader.read(tmp_path / "segment", stamp_of(tmp_path / "segment"), table.schema, "key", wanted)
            assert found.sort_by("note").equals(expected.sort_by("note"))


def test_many_keys_are_read_and_not_kept(tmp_path: Path) -> None:
    schema = numbers(tmp_path / "segment")
    reader = KeyReader(MIB)
    assert (
        reader.read(tmp_path / "segment", stamp_of(tmp_path / "segment"), schema, "key", range(FEW_KEYS + 1)).num_rows
        == FEW_KEYS + 1
    )
    assert reader.byte_count == 0


def test_what_was_decoded_is_kept_and_nothing_else_is_read(tmp_path: Path) -> None:
    schema = numbers(tmp_path / "segment")
    reader = KeyReader(MIB)

    def kept(key: int, *names: str) -> list[dict[str, Any]]:
        wanted = pa.schema([schema.field(name) for name in names])
        return list(
            reader.read(
                tmp_path / "segment", stamp_of(tmp_path / "segment"), wanted, "key", [key], kept_only=True
            ).to_pylist()
        )

    with pytest.raises(NotKept):
        kept(3, "key")
    reader.read(tmp_path / "segment", stamp_of(tmp_path / "segment"), pa.schema([schema.field("key")]), "key", [3])
    assert kept(3, "key") == [{"key": 3}]
    assert kept(4, "key") == [{"key": 4}]  # of the same row group
    with pytest.raises(NotKept):
        kept(3, "key", "note")
    with pytest.raises(NotKept):
        kept(50, "key")
    assert kept(1_000, "key") == []  # the footer alone tells


def test_a_file_that_is_another_one_is_read_anew_and_a_missing_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "batch-1.parquet"
    schema = numbers(path)
    reader = KeyReader(MIB)
    assert reader.read(path, stamp_of(path), schema, "key", [3]).to_pylist() == [{"key": 3, "note": "n3"}]
    numbers(tmp_path / "other", "m")
    (tmp_path / "other").replace(path)
    assert reader.read(path, stamp_of(path), schema, "key", [3]).to_pylist() == [{"key": 3, "note": "m3"}]
    damaged = path.read_bytes()
    path.write_bytes(bytes(len(damaged)))
    os.utime(path, ns=(0, 0))
    with pytest.raises(pa.ArrowInvalid):
        reader.read(path, stamp_of(path), schema, "key", [3])
    path.unlink()


def test_what_is_kept_does_not_lie_between_what_others_allocate(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    schema = write(path, pa.int64(), range(50_000), group_rows=50_000).schema
    reader, before = KeyReader(2 * MIB), pa.total_allocated_bytes()
    assert reader.read(path, stamp_of(path), schema, "key", [7]).to_pylist() == [{"key": 7, "note": "n7"}]
    gc.collect()
    assert reader.byte_count > 50_000 * 8
    assert pa.total_allocated_bytes() == before


def test_a_column_that_is_let_go_gives_its_pages_back_though_others_of_its_rows_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    schema = write(path, pa.int64(), range(50_000), group_rows=50_000).schema
    reader = KeyReader(600_000)  # room for the keys and not for the notes as well
    before = mapped_bytes()
    for _ in range(3):
        assert reader.read(path, stamp_of(path), schema, "key", [7]).num_rows == 1
        assert reader.read(path, stamp_of(path), pa.schema([schema.field("key")]), "key", [8]).num_rows == 1
    gc.collect()
    assert reader.byte_count <= 600_000
    assert mapped_bytes() - before < MIB


def test_many_small_columns_are_not_many_mappings(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    schema = write(path, pa.int64(), range(1_000), group_rows=2).schema
    reader, before = KeyReader(MIB), len(mappings())
    for key in range(1_000):
        assert reader.read(path, stamp_of(path), schema, "key", [key]).num_rows == 1
    assert len(mappings()) - before < 100  # of 1,000 columns; a process may have some 65,000


def test_what_is_kept_stays_within_its_bound(tmp_path: Path) -> None:
    schema = numbers(tmp_path / "segment")
    for bound in (0, 500):
        reader = KeyReader(bound)
        for key in range(100):
            assert reader.read(tmp_path / "segment", stamp_of(tmp_path / "segment"), schema, "key", [key]).num_rows == 1
            assert reader.byte_count <= bound
    assert reader.byte_count > 0


def test_a_flushed_row_that_was_read_by_key_follows_its_changes(shared_server: ServerProcess) -> None:
    server, select = shared_server, "SELECT v FROM followed.t WHERE id = $1"
    server.sql("CREATE NAMESPACE followed; CREATE TABLE followed.t (id BIGINT PRIMARY KEY, v TEXT)")
    server.sql("INSERT INTO followed.t SELECT value, 'old' FROM range(0, 1000); FLUSH TABLE followed.t")

    def rows(key: int) -> list[list[str]]:
        first, again = server.sql(select, key), server.sql(select, key)
        assert first == again
        return first

    assert rows(7) == rows(8) == [["old"]]
    server.sql("UPDATE followed.t SET v = 'new' WHERE id = 7; DELETE FROM followed.t WHERE id = 8")
    assert (rows(7), rows(8)) == ([["new"]], [])
    server.sql("FLUSH TABLE followed.t")
    assert (rows(7), rows(8), rows(9)) == ([["new"]], [], [["old"]])
    server.sql("INSERT INTO followed.t VALUES (8, 'again')")
    server.sql("COMPACT TABLE followed.t")
    assert (rows(7), rows(8), rows(9)) == ([["new"]], [["again"]], [["old"]])
    server.sql("ALTER TABLE followed.t ADD COLUMN w INT DEFAULT 5; ALTER TABLE followed.t RENAME COLUMN v TO u")
    assert server.sql("SELECT u, w FROM followed.t WHERE id = 9") == [["old", 5]]
    files = list(server.data_dir.glob("shared/followed/t/batch-*.parquet"))
    for file in files:
        file.rename(file.with_suffix(".away"))
    with pytest.raises(SqlFailed, match=r"batch-\S+\.parquet of table followed\.t is missing"):
        server.sql("SELECT u, w FROM followed.t WHERE id = 9")
    for file in files:
        file.with_suffix(".away").rename(file)
    assert server.sql("SELECT u, w FROM followed.t WHERE id = 9") == [["old", 5]]


def test_users_read_their_own_rows_of_one_key(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE own; CREATE USER TABLE own.t (id BIGINT PRIMARY KEY, v TEXT)")
    for user in ("ann", "bob"):
        shared_server.sql("INSERT INTO own.t VALUES (1, $1)", user, user=user)
    shared_server.sql("FLUSH TABLE own.t")
    for _ in range(3):
        for user in ("ann", "bob"):
            assert shared_server.sql("SELECT v FROM own.t WHERE id = 1", user=user) == [[user]]
    assert shared_server.sql("SELECT v FROM own.t WHERE id = 1", user="eve") == []


def test_the_time_of_a_kept_row_is_that_of_its_change(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE timed; CREATE TABLE timed.t (id BIGINT PRIMARY KEY)")
    shared_server.sql("INSERT INTO timed.t VALUES (1)")
    [[hot]] = shared_server.sql("SELECT _updated FROM timed.t WHERE id = 1")
    shared_server.sql("FLUSH TABLE timed.t")
    for _ in range(2):
        assert shared_server.sql("SELECT _updated FROM timed.t WHERE id = 1") == [[hot]]
    assert datetime.fromisoformat(hot) > datetime.now(UTC) - timedelta(minutes=5)
