"""Rows of segments by key: the same whether they are decoded or kept, and never those of another file."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
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
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed
from small_disk import fill, small_disk

from kalam.storage.segments import row_cache
from kalam.storage.segments.key_reader import FEW_KEYS, Footer, KeyReader, NotKept, Opened
from kalam.storage.segments.packed_rows import pack
from kalam.storage.segments.row_cache import WAITING_MAX, RowCache, Wanted
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
    return write_columns(path, {"key": pa.array(keys, kind)}, note, group_rows)


def write_columns(path: Path, key: dict[str, pa.Array], note: str = "n", group_rows: int = 7) -> pa.Table:
    """The same of a key of several columns."""
    table = pa.table(key)
    table = table.append_column("note", pa.array([f"{note}{place}" for place in range(table.num_rows)]))
    table = table.take(pc.sort_indices(table, sort_keys=[(name, "ascending") for name in key]))
    pq.write_table(table, path, row_group_size=group_rows, store_schema=False)
    return table


def numbers(path: Path, note: str = "n") -> pa.Schema:
    return write(path, pa.int64(), range(100), note).schema


class Reads:
    """Reads of one file, with a cache beside it."""

    def __init__(self, path: Path, schema: pa.Schema, bytes_max: int = MIB, key: Sequence[str] = ("key",)) -> None:
        self.path, self.schema, self.key = path, schema, key
        self.cache = RowCache(path.with_name("rows"), bytes_max)
        self.reader = KeyReader(self.cache)

    def wanted(self, *names: str) -> Wanted:
        schema = pa.schema([self.schema.field(name) for name in names]) if names else self.schema
        return Wanted.of(schema, self.key)

    def read(self, *keys: Any, names: tuple[str, ...] = ()) -> list[tuple[Any, ...]]:
        found = self.reader.read(self.path, stamp_of(self.path), self.wanted(*names), keys)
        self.cache.wait_packed()
        return found

    def kept(self, key: Any, *names: str) -> list[tuple[Any, ...]]:
        """What is read without waiting; raises NotKept."""
        return self.reader.kept(stamp_of(self.path), self.wanted(*names), key)

    def files(self) -> list[Path]:
        return sorted(self.path.with_name("rows").iterdir()) if self.path.with_name("rows").exists() else []


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(sorted(KINDS, key=str)))
def test_what_is_found_is_what_a_filter_finds(tmp_path: Path, data: st.DataObject, kind: pa.DataType) -> None:
    keys = data.draw(st.lists(KINDS[kind], min_size=1, max_size=60))
    foreign = data.draw(st.lists(KINDS[kind], max_size=5))
    table = write(tmp_path / "segment", kind, keys)
    reads = Reads(tmp_path / "segment", table.schema)
    for few in (1, 3, len(keys)):
        wanted = list({*data.draw(st.permutations(keys))[:few], *foreign})
        expected = table.filter(pc.is_in(table["key"], pa.array(wanted, kind)))
        for _ in range(2):  # decoded, kept
            found = reads.read(*wanted)
            assert sorted(found) == sorted(zip(*(column.to_pylist() for column in expected.columns), strict=True))
        for key in wanted:
            assert sorted(reads.kept(key)) == sorted(row for row in found if row[0] == key)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kinds=st.lists(st.sampled_from(sorted(KINDS, key=str)), min_size=2, max_size=3))
def test_a_key_of_several_columns_is_found_by_all_of_them(
    tmp_path: Path, data: st.DataObject, kinds: list[pa.DataType]
) -> None:
    pools = [data.draw(st.lists(KINDS[kind], min_size=1, max_size=4, unique=True)) for kind in kinds]
    key = st.tuples(*map(st.sampled_from, pools))
    keys = data.draw(st.lists(key, min_size=1, max_size=60))
    foreign = data.draw(st.lists(st.one_of(key, st.tuples(*map(KINDS.__getitem__, kinds))), max_size=5))
    names = [f"k{place}" for place in range(len(kinds))]
    columns = [pa.array(values, kind) for values, kind in zip(zip(*keys, strict=True), kinds, strict=True)]
    table = write_columns(tmp_path / "segment", dict(zip(names, columns, strict=True)))
    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    reads = Reads(tmp_path / "segment", table.schema, key=names)
    for few in (1, 3, len(keys)):
        wanted = list({*data.draw(st.permutations(keys))[:few], *foreign})
        for _ in range(2):  # decoded, kept
            assert sorted(reads.read(*wanted)) == sorted(row for row in rows if row[:-1] in wanted)
        for own in wanted:
            assert sorted(reads.kept(own)) == sorted(row for row in rows if row[:-1] == own)


def test_row_groups_are_chosen_by_every_column_of_the_key(tmp_path: Path) -> None:
    places = pa.array(range(70), pa.int64())
    write_columns(tmp_path / "segment", {"one": pa.array(["x"] * 70), "two": places})
    footer = Footer(pq.read_metadata(tmp_path / "segment"))
    assert footer.groups_with(["one", "two"], [("x", 8), ("x", 30)]) == [1, 4]
    assert footer.groups_with(["one", "two"], [("w", 8), ("x", 70), ("y", 30)]) == []


def test_many_keys_are_read_and_not_kept(tmp_path: Path) -> None:
    reads = Reads(tmp_path / "segment", numbers(tmp_path / "segment"))
    for _ in range(3):
        assert len(reads.read(*range(FEW_KEYS + 1))) == FEW_KEYS + 1
    assert (reads.cache.byte_count, reads.files()) == (0, [])


def test_a_row_group_that_was_read_is_kept_with_the_columns_that_were_wanted(tmp_path: Path) -> None:
    reads = Reads(tmp_path / "segment", numbers(tmp_path / "segment"))
    with pytest.raises(NotKept):
        reads.kept(3, "key")
    assert reads.read(3, names=("key",)) == reads.kept(3, "key") == [(3,)]
    assert reads.kept(4, "key") == [(4,)]  # of the same row group
    with pytest.raises(NotKept):
        reads.kept(3, "key", "note")
    assert reads.read(4, names=("note", "key")) == [("n4", 4)]
    assert (reads.kept(3, "note", "key"), reads.kept(3, "key"), reads.kept(3)) == ([("n3", 3)], [(3,)], [(3, "n3")])
    assert len(reads.files()) == 1
    with pytest.raises(NotKept):
        reads.kept(50, "key")
    assert reads.kept(1_000, "key") == []  # the footer alone tells


def test_row_groups_that_wait_to_be_packed_answer_and_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Reads(tmp_path / "segment", numbers(tmp_path / "segment"))
    entered, opened = threading.Event(), threading.Event()

    def hold(*args: Any) -> Any:
        entered.set()
        assert opened.wait(10)
        return pack(*args)

    monkeypatch.setattr(row_cache, "pack", hold)
    wanted, stamp = reads.wanted(), stamp_of(reads.path)
    for key in range(0, 100, 7):
        assert reads.reader.read(reads.path, stamp, wanted, [key]) == [(key, f"n{key}")]
    assert entered.wait(10)
    reads.path.rename(tmp_path / "away")
    for key in range(7 * WAITING_MAX):  # from what waits, without the file
        assert reads.reader.read(reads.path, stamp, wanted, [key, 1_000]) == [(key, f"n{key}")]
    with pytest.raises(FileNotFoundError):
        reads.reader.read(reads.path, stamp, wanted, [7 * WAITING_MAX])
    opened.set()
    reads.cache.wait_packed()
    assert len(reads.files()) == WAITING_MAX


@pytest.mark.parametrize("bytes_max", [MIB, 0], ids=["kept", "not kept"])
def test_those_who_miss_a_row_group_together_decode_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bytes_max: int
) -> None:
    table = write(tmp_path / "segment", pa.int64(), range(1_000), group_rows=1_000)
    reads = Reads(tmp_path / "segment", table.schema, bytes_max)
    decoded, patience = Opened.decoded, time.monotonic() + PATIENCE_S
    begun: list[tuple[str, ...]] = []

    def counted(opened: Opened, group: int, names: Sequence[str]) -> pa.Table:
        begun.append(tuple(names))
        while len(begun) == 1 and [own.sharing for own in reads.reader.decoding.values()] != [7]:
            assert time.monotonic() < patience
            time.sleep(0.001)
        return decoded(opened, group, names)

    monkeypatch.setattr(Opened, "decoded", counted)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(reads.read, range(8)))
    assert [rows[0][0] for rows in found] == list(range(8))
    assert begun[0] not in begun[1:]
    assert not reads.reader.decoding


def test_what_waits_goes_with_its_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Reads(tmp_path / "segment", numbers(tmp_path / "segment"))

    def forget(*args: Any) -> Any:
        reads.reader.forget(stamp_of(reads.path))
        return pack(*args)

    monkeypatch.setattr(row_cache, "pack", forget)
    assert reads.read(3) == [(3, "n3")]
    assert (reads.files(), reads.cache.byte_count) == ([], 0)
    with pytest.raises(NotKept):
        reads.kept(3)


def test_a_file_that_is_another_one_is_read_anew_and_a_missing_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "batch-1.parquet"
    reads = Reads(path, numbers(path))
    for _ in range(3):
        assert reads.read(3) == [(3, "n3")]
    numbers(tmp_path / "other", "m")
    (tmp_path / "other").replace(path)
    for _ in range(3):
        assert reads.read(3) == [(3, "m3")]
    damaged = path.read_bytes()
    path.write_bytes(bytes(len(damaged)))
    os.utime(path, ns=(0, 0))
    with pytest.raises(pa.ArrowInvalid):
        reads.read(3)
    path.unlink()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "removed": Path.unlink,
    "cut short": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a bit": lambda path: path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes())),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_rows_that_are_damaged_are_packed_anew(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "segment"
    reads = Reads(path, write(path, pa.int64(), range(5_000), group_rows=5_000).schema)
    for _ in range(2):
        reads.read(3)
    [file] = reads.files()
    DAMAGES[damage](file)
    for key in range(0, 5_000, 99):
        assert reads.read(key) == [(key, f"n{key}")]
    for key in range(5_000):
        assert reads.kept(key) == [(key, f"n{key}")]
    assert [file.name for file in reads.files()] == ([] if damage == "removed" else ["2"])  # it stays open


def test_rows_that_are_not_in_memory_are_waited_for_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    reads = Reads(path, write(path, pa.int64(), range(5_000), group_rows=5_000).schema)
    for _ in range(2):
        reads.read(3)
    with reads.files()[0].open("rb+") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with suppress(NotKept):  # some file systems keep it, or cannot tell
        assert reads.kept(3) == [(3, "n3")]
    assert reads.read(3) == reads.kept(3) == [(3, "n3")]
    assert [file.name for file in reads.files()] == ["1"], "it was not packed again"


def test_what_is_kept_stays_within_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    schema = write(path, pa.int64(), range(1_000), group_rows=100).schema
    for bound, most in ((0, 0), (4_000, 0), (30_000, 7), (MIB, 10)):
        reads = Reads(path, schema, bound)
        for _ in range(2):
            for key in range(0, 1_000, 10):
                assert reads.read(key) == [(key, f"n{key}")]
                assert sum(max(4_096, file.stat().st_size) for file in reads.files()) <= bound
                assert reads.cache.byte_count <= bound
        assert len(reads.files()) <= most
        assert bool(reads.files()) is bool(most)


def test_a_row_group_that_is_asked_for_far_more_often_takes_the_place_of_another(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    reads = Reads(path, write(path, pa.int64(), range(200), group_rows=100).schema, 8_000)  # room for one
    for _ in range(2):
        reads.read(3)
    for _ in range(3):
        reads.read(103)
    assert reads.kept(3) == [(3, "n3")]
    for _ in range(20):
        reads.read(103)
    assert reads.kept(103) == [(103, "n103")]
    with pytest.raises(NotKept):
        reads.kept(3)


def test_the_fuller_the_cache_the_smaller_is_what_comes_and_what_came_first_comes_so_again(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    rows, groups, bound = 3_000, 150, 1_000_000
    schema = write(path, pa.int64(), range(rows * groups), group_rows=rows).schema
    reads = Reads(path, schema, bound)

    def sizes_after(group: int) -> list[int]:
        assert reads.read(rows * group + 7) == [(rows * group + 7, f"n{rows * group + 7}")]
        assert reads.cache.byte_count <= bound
        return sorted(file.stat().st_size for file in reads.files())

    [plain] = sizes_after(0)
    quick, _ = sizes_after(1)
    assert plain > 2 * quick
    for group in [*range(groups)] * 2:
        sizes = sizes_after(group)
    assert sizes[-1] < plain, "what came first came in again, or went"
    assert len(sizes) * quick > bound, "so many would not fit if they were quick"


def test_rows_that_come_and_go_while_others_read_them_are_never_wrong(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    schema = write(path, pa.int64(), range(2_000), group_rows=100).schema
    reads = Reads(path, schema, 60_000)  # room for a third of them
    wrong: list[object] = []

    def read_on(seed: int) -> None:
        chosen = random.Random(seed)
        for number in range(1_000):
            favoured = 100 * (number // 100 + seed)  # row groups that others come to later
            key = (favoured + chosen.randrange(100)) % 2_000 if number % 3 else chosen.randrange(2_000)
            with suppress(NotKept):
                if (rows := reads.kept(key) if number % 2 else reads.read(key)) != [(key, f"n{key}")]:
                    wrong.append((key, rows))
            if number % 250 == 249:
                reads.reader.forget(stamp_of(path))

    threads = [threading.Thread(target=read_on, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert reads.cache.byte_count <= 60_000
    assert sum(-(-file.stat().st_size // 4_096) * 4_096 for file in reads.files()) == reads.cache.byte_count


def test_what_is_kept_goes_with_its_segment_with_the_cache_and_with_the_run(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    reads = Reads(path, numbers(path))
    for _ in range(2):
        reads.read(3)
    assert reads.files()
    reads.reader.forget(stamp_of(path))
    assert reads.files() == []
    for _ in range(2):
        reads.read(3)
    assert reads.files()
    again = Reads(path, reads.schema)
    assert again.files() == []
    for _ in range(2):
        again.read(3)
    again.cache.close()
    for _ in range(3):
        assert again.reader.read(path, stamp_of(path), again.wanted(), [3]) == [(3, "n3")]
    assert not path.with_name("rows").exists()


def test_nothing_is_kept_where_the_disk_is_nearly_full(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    schema = numbers(path)
    cache = RowCache(tmp_path / "rows", MIB, free_bytes_min=1 << 60)
    reader = KeyReader(cache)
    for _ in range(4):
        assert reader.read(path, stamp_of(path), Wanted.of(schema, ["key"]), [3]) == [(3, "n3")]
        cache.wait_packed()
    assert cache.byte_count == 0
    assert list((tmp_path / "rows").iterdir()) == []


def test_what_is_kept_makes_room_where_the_disk_becomes_nearly_full(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    schema = write(path, pa.int64(), range(1_000), group_rows=100).schema
    with small_disk(tmp_path / "disk", 4) as disk:
        cache = RowCache(disk / "rows", MIB, free_bytes_min=MIB)
        reader, wanted = KeyReader(cache), Wanted.of(schema, ["key"])
        for key in range(0, 1_000, 100):
            assert reader.read(path, stamp_of(path), wanted, [key]) == [(key, f"n{key}")]
            cache.wait_packed()
        kept = cache.byte_count
        reader.give_back()
        assert cache.byte_count == kept > 0, "there is room"
        fill(disk / "others", leave=MIB - 4_096)
        reader.give_back()
        assert 0 < cache.byte_count < kept, "no more went than was needed"
        assert shutil.disk_usage(disk).free >= MIB
        assert reader.read(path, stamp_of(path), wanted, [3]) == [(3, "n3")]
        fill(disk / "more")
        reader.give_back()
        assert cache.byte_count == 0
        assert list((disk / "rows").iterdir()) == []


def test_what_others_have_put_there_stays(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    for name in ("1", "12", "t-1.parquet"):
        (folder / name).write_bytes(b"rows")
    RowCache(folder, MIB)
    assert [file.name for file in folder.iterdir()] == ["t-1.parquet"]


def test_a_row_group_without_room_is_forgotten_with_its_segment(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    reads = Reads(path, numbers(path), 4_000)
    for _ in range(3):
        reads.read(3)
    assert reads.cache._asked.keys() == {(stamp_of(path), 0)}  # noqa: SLF001 - nothing else tells of it
    reads.reader.forget(stamp_of(path))
    assert not reads.cache._asked  # noqa: SLF001


def test_a_row_group_without_room_is_forgotten_when_nobody_asks_for_it_for_long(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    reads = Reads(path, numbers(path), 4_000)
    reads.read(3)
    assert reads.cache._asked  # noqa: SLF001
    for _ in range(12):
        reads.cache._age()  # noqa: SLF001
    assert not reads.cache._asked  # noqa: SLF001


def test_a_flushed_row_that_was_read_by_key_follows_its_changes(shared_server: ServerProcess) -> None:
    server, select = shared_server, "SELECT v FROM followed.t WHERE id = $1"
    server.sql("CREATE NAMESPACE followed; CREATE TABLE followed.t (id BIGINT PRIMARY KEY, v TEXT)")
    server.sql("INSERT INTO followed.t SELECT value, 'old' FROM range(0, 1000); FLUSH TABLE followed.t")

    def rows(key: int) -> list[list[str]]:
        first, *again = (server.sql(select, key) for _ in range(3))  # decoded, kept
        assert again == [first] * 2
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
    for _ in range(3):
        assert server.sql("SELECT u, w FROM followed.t WHERE id = 9") == [["old", 5]]
    server.sql("ALTER TABLE followed.t DROP COLUMN w; ALTER TABLE followed.t ADD COLUMN w TEXT")
    for _ in range(3):
        assert server.sql("SELECT w, u, id FROM followed.t WHERE id = 9") == [[None, "old", 9]]
    files = list(server.data_dir.glob("shared/followed/t/batch-*.parquet"))
    for file in files:
        file.rename(file.with_suffix(".away"))
    with pytest.raises(SqlFailed, match=r"batch-\S+\.parquet of table followed\.t is missing"):
        server.sql("SELECT u, w FROM followed.t WHERE id = 9")
    for file in files:
        file.with_suffix(".away").rename(file)
    assert server.sql("SELECT u, w FROM followed.t WHERE id = 9") == [["old", None]]


def test_users_read_their_own_rows_of_one_key(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE own; CREATE USER TABLE own.t (id BIGINT PRIMARY KEY, v TEXT)")
    for user in ("ann", "bob"):
        shared_server.sql("INSERT INTO own.t VALUES (1, $1)", user, user=user)
    shared_server.sql("FLUSH TABLE own.t")
    for _ in range(4):
        for user in ("ann", "bob"):
            assert shared_server.sql("SELECT v FROM own.t WHERE id = 1", user=user) == [[user]]
    assert shared_server.sql("SELECT v FROM own.t WHERE id = 1", user="eve") == []


def test_the_time_of_a_kept_row_is_that_of_its_change(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE timed; CREATE TABLE timed.t (id BIGINT PRIMARY KEY)")
    shared_server.sql("INSERT INTO timed.t VALUES (1)")
    [[hot]] = shared_server.sql("SELECT _updated FROM timed.t WHERE id = 1")
    shared_server.sql("FLUSH TABLE timed.t")
    for _ in range(4):
        assert shared_server.sql("SELECT _updated FROM timed.t WHERE id = 1") == [[hot]]
    assert datetime.fromisoformat(hot) > datetime.now(UTC) - timedelta(minutes=5)
