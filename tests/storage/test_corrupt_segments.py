"""No file is trusted for its name: whatever lies in a segment's place instead of it is ``corrupt_segment``."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from server_process import ServerProcess, SqlFailed

COLUMNS = "(id BIGINT PRIMARY KEY, v TEXT, n INT)"
Damage = Callable[[Path, Path, Path], None]
"""Takes the file of a segment, that of another table with the same keys, and an older one of the same table."""


def flipped(at: Callable[[int], int]) -> Damage:
    """One bit of the byte at this place of so many is another."""

    def damage(path: Path, foreign: Path, older: Path) -> None:
        content = bytearray(path.read_bytes())
        content[at(len(content))] ^= 16
        path.write_bytes(bytes(content))

    return damage


def footer(path: Path, foreign: Path, older: Path) -> None:
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[-8:-4], "little")
    content[-8 - length // 2] ^= 1
    path.write_bytes(bytes(content))


def cut(path: Path, foreign: Path, older: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def emptied(path: Path, foreign: Path, older: Path) -> None:
    os.truncate(path, 0)


def folder(path: Path, foreign: Path, older: Path) -> None:
    path.unlink()
    path.mkdir()


def missing(path: Path, foreign: Path, older: Path) -> None:
    path.unlink()


def of_another_table(path: Path, foreign: Path, older: Path) -> None:
    shutil.copy(foreign, path)


def known_of_another_table(path: Path, foreign: Path, older: Path) -> None:
    path.unlink()
    path.hardlink_to(foreign)  # the very file of which columns are kept in memory


def of_former_times(path: Path, foreign: Path, older: Path) -> None:
    shutil.copy2(older, path)


DAMAGES: dict[str, Damage] = {
    "its first byte": flipped(lambda size: 0),
    "its first page's header": flipped(lambda size: 6),
    "a page": flipped(lambda size: size // 3),
    "its footer": footer,
    "its last byte": flipped(lambda size: size - 1),
    "cut": cut,
    "empty": emptied,
    "a folder": folder,
    "missing": missing,
    "another table's": of_another_table,
    "another table's, known": known_of_another_table,
    "an older one": of_former_times,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that compacts only when it is told to."""
    folder = tmp_path_factory.mktemp("corrupt")
    (folder / "store").mkdir()
    environment = {
        "KALAM_COMPACTION_SEGMENTS_MIN": "1000000",
        "KALAM_COMPACTION_OVERRIDES_PERCENT": "1000000",
        "KALAM_LOCATION_ROOTS": f"file://{folder}/store",
    }
    server = ServerProcess(folder / "data", environment=environment).start()
    yield server
    server.kill()


class Tables:
    """Two tables of the same columns and keys, each of two segments, in a namespace of their own."""

    def __init__(self, server: ServerProcess, namespace: str) -> None:
        self.server, self.name = server, f"{namespace}.t"
        server.sql(f"CREATE NAMESPACE {namespace}")
        for table in ("t", "other"):
            server.sql(f"CREATE TABLE {namespace}.{table} {COLUMNS}")
            for first in (0, 50):
                rows = f"SELECT value, '{table}', 1 FROM range({first}, {first + 50})"
                server.sql(f"INSERT INTO {namespace}.{table} {rows}")
                server.sql(f"FLUSH TABLE {namespace}.{table}")
        self.folder = server.data_dir / "shared" / namespace / "t"
        self.first, self.second = self._files("t")
        self.foreign = self._files("other")[0]

    def _files(self, table: str) -> list[Path]:
        found = self.server.sql(
            "SELECT path FROM system.segments WHERE namespace = $1 AND table_name = $2 ORDER BY min_seq",
            self.folder.parent.name,
            table,
        )
        return [self.folder.parent / table / path for [path] in found]

    def refused(self, sql: str) -> str:
        with pytest.raises(SqlFailed) as failed:
            self.server.sql(sql)
        problem = failed.value.problem
        assert (failed.value.code, failed.value.status) == ("corrupt_segment", 500), problem
        assert self.name in problem["detail"]
        assert self.first.name in problem["detail"]
        assert str(self.server.data_dir) not in str(problem)
        return str(problem["detail"])

    def checked(self) -> dict[str, bool]:
        return {path: ok for _, path, _, _, _, ok, _ in self.server.sql(f"CHECK TABLE {self.name}")}


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_lies_in_a_segments_place_is_never_read(server: ServerProcess, kind: str) -> None:
    tables = Tables(server, f"c{list(DAMAGES).index(kind)}")
    name, path = tables.name, tables.first
    rows = [[number, "t", 1] for number in range(100)]
    assert server.sql(f"SELECT id, v, n FROM {name} WHERE id = 7") == [[7, "t", 1]]
    assert server.sql(f"SELECT v FROM {tables.folder.parent.name}.other WHERE id = 7") == [["other"]]
    whole = path.with_suffix(".whole")
    shutil.copy2(path, whole)
    DAMAGES[kind](path, tables.foreign, tables.second)
    reason = tables.refused(f"SELECT * FROM {name} WHERE id = 7")
    assert ("is missing" in reason) == (kind == "missing")
    tables.refused(f"SELECT * FROM {name}")
    tables.refused(f"SELECT sum(n) FROM {name}")
    tables.refused(f"UPDATE {name} SET v = 'changed' WHERE id = 7")
    tables.refused(f"UPDATE {name} SET v = 'changed' WHERE n = 1")
    tables.refused(f"DELETE FROM {name} WHERE id = 8")
    tables.refused(f"DELETE FROM {name} WHERE v LIKE 't%'")
    tables.refused(f"INSERT INTO {name} VALUES (9, 'again', 1)")
    tables.refused(f"COMPACT TABLE {name}")
    assert tables.checked() == {path.name: False, tables.second.name: True}
    assert server.sql(f"SELECT id, v, n FROM {name} WHERE id = 77") == [[77, "t", 1]], "the other segment is well"
    [state] = [value for key, value in server.sql(f"SHOW STATS FOR TABLE {name}") if key == "damaged_segments"]
    assert re.fullmatch(rf"1 \({path.name} .+\)", state)
    assert f'kalam_damaged_segments{{table="{name}"}} 1.0' in server.metrics()
    server.sql(f"INSERT INTO {name} VALUES (100, 't', 1); FLUSH TABLE {name}")
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    whole.rename(path)
    assert server.sql(f"SELECT id, v, n FROM {name} ORDER BY id") == [*rows, [100, "t", 1]]
    [compacted] = server.sql(f"COMPACT TABLE {name}")
    assert compacted[2:5] == [3, 1, 101]
    assert list(tables.checked().values()) == [True]
    assert f'kalam_damaged_segments{{table="{name}"}}' not in server.metrics()


def test_one_damaged_table_is_logged_once_and_leaves_the_server_ready(server: ServerProcess) -> None:
    tables = Tables(server, "ready")
    DAMAGES["a page"](tables.first, tables.foreign, tables.second)
    for _ in range(3):
        tables.refused(f"SELECT * FROM {tables.name}")
    assert server.log_text().count(f"segment={tables.first.name}") == 1
    with urllib.request.urlopen(f"{server.http_url}/readyz") as response:
        assert response.status == 200
    assert server.sql("SELECT count(v) FROM ready.other") == [[100]]


def test_damage_that_keeps_the_files_time_is_found_by_check_and_compact(server: ServerProcess) -> None:
    tables = Tables(server, "kept")
    assert server.sql("SELECT count(v) FROM kept.t") == [[100]]
    times = tables.first.stat()
    with tables.first.open("r+b") as file:
        file.seek(times.st_size // 3)
        byte = file.read(1)[0]
        file.seek(times.st_size // 3)
        file.write(bytes([byte ^ 1]))
    os.utime(tables.first, ns=(times.st_atime_ns, times.st_mtime_ns))
    tables.refused("COMPACT TABLE kept.t")
    assert tables.checked() == {tables.first.name: False, tables.second.name: True}


def test_segments_say_in_their_footer_where_they_belong(server: ServerProcess) -> None:
    tables = Tables(server, "marked")
    server.sql("CREATE TABLE marked.decimals (id BIGINT PRIMARY KEY, d DECIMAL(9,2))")  # written by the other writer
    server.sql("INSERT INTO marked.decimals VALUES (1, 1.5); FLUSH TABLE marked.decimals; COMPACT TABLE marked.t")
    segments = "SELECT path, min_seq, max_seq FROM system.segments WHERE namespace = 'marked' AND table_name = $1"
    for table in ("t", "other", "decimals"):
        for path, min_seq, max_seq in server.sql(segments, table):
            said = pq.read_metadata(tables.folder.parent / table / path).metadata
            assert {key: said[key] for key in said if key.startswith(b"kalam.")} == {
                b"kalam.table_id": str(_table_id(server, f"marked.{table}")).encode(),
                b"kalam.schema_version": b"1",
                b"kalam.min_seq": str(min_seq).encode(),
                b"kalam.max_seq": str(max_seq).encode(),
            }


def _table_id(server: ServerProcess, name: str) -> int:
    rows = server.sql(f"DESCRIBE TABLE {name}")
    return int(next(value for _, key, value, _ in rows if key == "table_id"))


def test_every_users_copy_is_checked_and_a_stream_is_not(server: ServerProcess) -> None:
    server.sql(
        "CREATE NAMESPACE each; CREATE USER TABLE each.t (id BIGINT PRIMARY KEY); CREATE STREAM TABLE each.s (v INT)"
    )
    for user in ("ada", "bob"):
        server.sql("INSERT INTO each.t VALUES (1)", user=user)
    server.sql("FLUSH TABLE each.t")
    [victim] = (server.data_dir / "user" / "each" / "t" / "bob").glob("*.parquet")
    cut(victim, victim, victim)
    found = server.sql("CHECK TABLE each.t")
    assert [(user, rows, ok) for _, _, user, rows, _, ok, _ in found] == [("ada", 1, True), ("bob", 1, False)]
    [job] = server.sql("SELECT status, result FROM system.jobs WHERE job_type = 'check' AND namespace = 'each'")
    assert job[0] == "completed"
    assert '"damaged":1' in job[1]
    with pytest.raises(SqlFailed) as failed:
        server.sql("CHECK TABLE each.s")
    assert failed.value.code == "unsupported"


def test_a_damaged_cache_is_fetched_again_and_a_damaged_store_is_told(server: ServerProcess) -> None:
    store = server.data_dir.parent / "store"
    server.sql(f"CREATE NAMESPACE far; CREATE TABLE far.t {COLUMNS} LOCATION 'file://{store}/t'")
    for first in (0, 50):
        server.sql(f"INSERT INTO far.t SELECT value, 't', 1 FROM range({first}, {first + 50}); FLUSH TABLE far.t")
    [[name], _] = server.sql("SELECT path FROM system.segments WHERE namespace = 'far' ORDER BY min_seq")
    [cached], there = server.data_dir.glob(f"remote/*/shared/{name}"), store / "t" / name
    whole = there.read_bytes()
    reads = ("SELECT v FROM far.t WHERE id = 7", "SELECT count(v) FROM far.t")
    right = [server.sql(read) for read in reads]
    for read, expected in zip(reads, right, strict=True):
        DAMAGES["a page"](cached, cached, cached)
        assert server.sql(read) == expected
    DAMAGES["a page"](there, there, there)
    for what in ("is damaged", "is missing"):
        cached.unlink(missing_ok=True)
        for statement in (*reads, "COMPACT TABLE far.t"):
            with pytest.raises(SqlFailed, match=rf"{name} of table far\.t {what}") as failed:
                server.sql(statement)
            assert failed.value.code == "corrupt_segment"
        there.unlink(missing_ok=True)
    there.write_bytes(whole)
    assert [server.sql(read) for read in reads] == right
    DAMAGES["a page"](cached, cached, cached)
    assert server.sql("COMPACT TABLE far.t")[0][2:5] == [2, 1, 100]


def _spoil_key_filters(conn: sqlite3.Connection, tables: Tables) -> None:
    """One is damaged, another one is that of a smaller segment."""
    query = "SELECT segment_id FROM segments WHERE path LIKE ? ORDER BY segment_id"
    prefix = tables.first.name.rsplit("-", 3)[0]
    first, second, small = [segment_id for (segment_id,) in conn.execute(query, (f"{prefix}-%",))]
    conn.execute("UPDATE key_filters SET key_filter = zeroblob(length(key_filter)) WHERE segment_id = ?", (first,))
    replaced = "UPDATE key_filters SET key_filter = (SELECT key_filter FROM key_filters WHERE segment_id = ?)"
    conn.execute(f"{replaced} WHERE segment_id = ?", (small, second))


def test_segments_of_the_first_release_open_and_get_a_checksum_when_they_are_compacted(server: ServerProcess) -> None:
    tables, filtered = Tables(server, "old"), Tables(server, "filtered")
    server.sql("INSERT INTO filtered.t VALUES (100, 't', 1); FLUSH TABLE filtered.t")
    server.kill()
    with closing(sqlite3.connect(server.data_dir / "kalam.db")) as conn:
        paths = (tables.first.name, tables.second.name)
        conn.execute("UPDATE segments SET checksum = NULL WHERE path IN (?, ?)", paths)
        _spoil_key_filters(conn, filtered)
        conn.commit()
    server.restart()
    for row_id in (7, 77, 100):  # what a key filter cannot tell is read
        assert server.sql("SELECT id FROM filtered.t WHERE id = $1", row_id) == [[row_id]]
        with pytest.raises(SqlFailed) as failed:
            server.sql("INSERT INTO filtered.t VALUES ($1, 'again', 2)", row_id)
        assert failed.value.code == "duplicate_key"
    assert server.log_text().count("the segment is read instead") == 2
    assert server.sql("SELECT count(v) FROM old.t") == [[100]]
    assert all(tables.checked().values())
    whole = tables.first.read_bytes()
    for kind in ("cut", "missing", "an older one", "its last byte"):
        DAMAGES[kind](tables.first, tables.foreign, tables.second)
        tables.refused("SELECT v FROM old.t WHERE id = 7")
        tables.refused("SELECT * FROM old.t")
        tables.refused("COMPACT TABLE old.t")
        tables.first.write_bytes(whole)
    server.sql("COMPACT TABLE old.t")
    with closing(sqlite3.connect(f"file:{server.data_dir / 'kalam.db'}?mode=ro", uri=True)) as conn:
        query = """SELECT count(checksum), count(*) FROM segments JOIN copies USING (copy_id)
            JOIN tables USING (table_id) WHERE namespace = 'old' AND table_name = 't'"""
        assert conn.execute(query).fetchone() == (1, 1)
