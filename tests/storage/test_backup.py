"""A backup of a running server is one moment, whole; what is restored from it shares nothing with the original."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed

from kalam.errors import AlreadyExists, CorruptSegment, Internal, NotFound, TooBusy, Unavailable
from kalam.storage.backup.backup import MANIFEST, Backup, back_up
from kalam.storage.backup.restore import restore
from kalam.storage.log.data_dir import RESTORING, prepare_database

TABLES = """
CREATE NAMESPACE b;
CREATE SHARED TABLE b.shared (id BIGINT PRIMARY KEY, text TEXT, at TIMESTAMP);
CREATE USER TABLE b.own (id UUID PRIMARY KEY DEFAULT UUID_V7(), n BIGINT);
CREATE STREAM TABLE b.events (n BIGINT);
"""
SHARED = "SELECT id, text, at, _updated, _deleted FROM b.shared WHERE _deleted IS NOT NULL ORDER BY id"
OWN = "SELECT id, n, _updated FROM b.own ORDER BY n"


def quiet(done_bytes: int, total_bytes: int) -> None:
    assert 0 <= done_bytes <= total_bytes


def data_id(data_dir: Path) -> str:
    with sqlite3.connect(data_dir / "kalam.db") as conn:
        return str(conn.execute("SELECT value FROM meta WHERE name = 'data_id'").fetchone()[0])


def fill(server: ServerProcess) -> None:
    """Rows that are flushed, flushed and overridden, deleted, and hot."""
    server.sql(TABLES)
    values = ", ".join(f"({n}, 'text {n}', '1969-12-31T23:59:59.99999{n % 10}Z')" for n in range(100))
    server.sql(f"INSERT INTO b.shared VALUES {values}; FLUSH TABLE b.shared")
    server.sql("UPDATE b.shared SET text = 'changed' WHERE id < 10; DELETE FROM b.shared WHERE id > 90")
    server.sql("FLUSH TABLE b.shared; UPDATE b.shared SET text = 'hot' WHERE id = 50")
    for user in ("ann", "bob"):
        server.sql("INSERT INTO b.own (n) VALUES (1), (2); FLUSH TABLE b.own", user=user)
        server.sql("INSERT INTO b.own (n) VALUES (3)", user=user)
    server.sql("INSERT INTO b.events VALUES (1)")


def everything(server: ServerProcess) -> list[Any]:
    return [server.sql(SHARED), *(server.sql(OWN, user=user) for user in ("ann", "bob"))]


def test_original_and_restored_run_beside_each_other_on_one_broker(start_kalam, start_nats_server, tmp_path) -> None:
    broker = start_nats_server()
    flags = (f"--nats-url={broker.url}",)
    original = start_kalam("original", flags)
    fill(original)
    back_up(original.data_dir, tmp_path / "backup", quiet)
    restore(tmp_path / "backup", tmp_path / "restored", quiet)
    same_prefix = start_kalam("restored", flags, start=False)
    same_prefix.launch()
    assert same_prefix.wait_end() == 1
    assert "belongs to the data directory" in same_prefix.log_text()
    restored = start_kalam("restored", flags, KALAM_SUBJECT_PREFIX="second")
    for server, text in ((original, "first"), (restored, "second")):
        server.sql("INSERT INTO b.shared VALUES (1000, $1, NULL); FLUSH TABLE b.shared", text)
        server.sql("INSERT INTO b.events VALUES (2)")
    restored.sql("DROP TABLE b.own")
    for server, text, events in ((original, "first", 2), (restored, "second", 1)):
        assert server.sql("SELECT text FROM b.shared WHERE id = 1000") == [[text]]
        assert server.sql("SELECT count(*) FROM b.events") == [[events]]
    assert len(original.sql(OWN, user="ann")) == 3


@contextmanager
def writing(server: ServerProcess) -> Iterator[threading.Event]:
    """Inserts pairs of rows with one statement each and flushes now and then; every flush is followed by a DROP."""
    server.sql("CREATE NAMESPACE w; CREATE TABLE w.pairs (id BIGINT PRIMARY KEY, pair BIGINT)")
    stop, moving = threading.Event(), threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            server.sql("INSERT INTO w.pairs VALUES ($1, $3), ($2, $3)", 2 * number, 2 * number + 1, number)
            if number % 10 == 0:
                server.sql("FLUSH TABLE w.pairs")
                server.sql("CREATE TABLE w.gone (id BIGINT PRIMARY KEY); INSERT INTO w.gone VALUES (1), (2)")
                server.sql("FLUSH TABLE w.gone; DROP TABLE w.gone")
                moving.set()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(write)
        assert moving.wait(30)
        try:
            yield moving
        finally:
            stop.set()
            done.result(30)


def test_backups_under_writes_flushes_and_drops_are_each_one_moment(start_kalam, tmp_path) -> None:
    original = start_kalam("original")
    with writing(original) as moving:
        for number in range(5):
            moving.clear()
            moving.wait(10)
            back_up(original.data_dir, tmp_path / f"backup{number}", quiet)
    restore(tmp_path / "backup3", tmp_path / "restored", quiet)
    rows, pairs, last = start_kalam("restored").sql("SELECT count(*), count(DISTINCT pair), max(pair) FROM w.pairs")[0]
    assert rows == 2 * pairs == 2 * last > 0


def steal(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Run ``act`` once, when the links are made and before anything is copied from them."""
    original, acted = Backup._copy_database, []  # noqa: SLF001 - the moment between the links and the copy

    def copy_database(self: Backup, conn: sqlite3.Connection) -> None:
        if not acted:
            acted.append(True)
            act()
        original(self, conn)

    monkeypatch.setattr(Backup, "_copy_database", copy_database)


def test_segments_that_are_compacted_and_dropped_while_the_backup_runs_are_in_it(
    start_kalam, tmp_path, monkeypatch
) -> None:
    original = start_kalam("original")
    fill(original)
    before = everything(original)
    folder = original.data_dir / "shared" / "b" / "shared"
    files = list(folder.glob("*.parquet"))

    def replace() -> None:
        original.sql("COMPACT TABLE b.shared; DROP TABLE b.own")
        deadline = time.monotonic() + PATIENCE_S
        while any(file.exists() for file in files):
            assert time.monotonic() < deadline, "the replaced files stay"
            original.sql(SHARED)
            time.sleep(0.1)

    steal(monkeypatch, replace)
    back_up(original.data_dir, tmp_path / "backup", quiet)
    assert list((original.data_dir / "backup-links").iterdir()) == []
    restore(tmp_path / "backup", tmp_path / "restored", quiet)
    assert everything(start_kalam("restored")) == before


def test_what_cannot_be_linked_is_copied_and_a_moment_that_fell_apart_is_given_up(
    start_kalam, tmp_path, monkeypatch
) -> None:
    original = start_kalam("original")
    fill(original)
    asked = []

    def no_link(source: str, link: Path) -> None:
        if not asked:
            original.sql("DROP TABLE b.shared")
        asked.append(source)
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_link)
    manifest = back_up(original.data_dir, tmp_path / "backup", quiet)
    assert {segment.folder for segment in manifest.segments} == {"user/b/own/ann", "user/b/own/bob"}
    restore(tmp_path / "backup", tmp_path / "restored", quiet)
    restored = start_kalam("restored")
    assert restored.sql("SHOW TABLES IN b") == original.sql("SHOW TABLES IN b")
    assert restored.sql(OWN, user="bob") == original.sql(OWN, user="bob")


def test_a_table_with_a_location_is_restored_under_the_data_directory(start_kalam, tmp_path) -> None:
    elsewhere = tmp_path / "elsewhere"
    original = start_kalam("original", KALAM_LOCATION_ROOTS=str(elsewhere))
    original.sql(f"CREATE NAMESPACE b; CREATE TABLE b.far (id BIGINT PRIMARY KEY) WITH (LOCATION = '{elsewhere}/far')")
    original.sql("INSERT INTO b.far VALUES (1), (2); FLUSH TABLE b.far")
    back_up(original.data_dir, tmp_path / "backup", quiet)
    restored_names = restore(tmp_path / "backup", tmp_path / "restored", quiet).moved
    assert [str(name) for name in restored_names] == ["b.far"]
    restored = start_kalam("restored")
    assert restored.sql("SELECT id FROM b.far ORDER BY id") == [[1], [2]]
    restored.sql("DROP TABLE b.far")
    assert original.sql("SELECT count(*) FROM b.far") == [[2]]


@dataclass(frozen=True)
class Stopped:
    """The data directory of a server that is stopped, a backup that was made since, and what its tables held."""

    data_dir: Path
    backup: Path
    rows: list[Any]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    folder = tmp_path_factory.mktemp("stopped")
    server = ServerProcess(folder / "data").start()
    fill(server)
    rows = everything(server)
    server.stop()
    manifest = back_up(folder / "data", folder / "backup", quiet)
    assert len(manifest.segments) == 6
    return Stopped(folder / "data", folder / "backup", rows)


@pytest.fixture
def backup(stopped: Stopped, tmp_path: Path) -> Path:
    """A copy of that backup, to be damaged."""
    return Path(shutil.copytree(stopped.backup, tmp_path / "backup"))


def test_what_is_restored_equals_what_was_backed_up_and_is_written_like_any_other(
    stopped, start_kalam, tmp_path
) -> None:
    assert restore(stopped.backup, tmp_path / "restored", quiet).moved == ()
    old_id = data_id(stopped.data_dir)
    assert data_id(tmp_path / "restored") != old_id
    restored = start_kalam("restored")
    assert everything(restored) == stopped.rows
    assert restored.sql("SELECT count(*) FROM b.events") == [[0]], "events lie in the broker, which is not backed up"
    folder = restored.data_dir / "shared" / "b" / "shared"
    assert all(old_id in path.name for path in folder.iterdir())
    with pytest.raises(SqlFailed, match="duplicate_key"):
        restored.sql("INSERT INTO b.shared VALUES (60, 'taken', NULL)")
    restored.sql("UPDATE b.shared SET text = 'new' WHERE id < 90; FLUSH TABLE b.shared")
    assert any(old_id not in path.name for path in folder.iterdir())
    restored.kill()
    restored.restart()
    assert restored.sql("SELECT text, count(*) FROM b.shared GROUP BY text ORDER BY text") == [
        ["new", 90],
        ["text 90", 1],
    ]
    restored.sql("DROP TABLE b.shared")
    assert not folder.exists()


def test_a_backup_of_a_release_before_is_restored(stopped, backup, start_kalam, tmp_path) -> None:
    with closing(sqlite3.connect(backup / "kalam.db")) as conn:
        added = ("users", "dropped_users", "roles", "members", "grants", "tokens", "policies", "sessions", "audit")
        for name in (*added, "replaced_segments"):
            conn.execute(f"DROP TABLE {name}")
        for name in ("owner", "row_security"):
            conn.execute(f"ALTER TABLE tables DROP COLUMN {name}")
        conn.execute("DELETE FROM _sqlite_migrations WHERE name IN ('access', 'replaced_segments')")
        conn.execute("PRAGMA user_version = 4")
        conn.commit()
    database = (backup / "kalam.db").read_bytes()
    manifest = json.loads((backup / MANIFEST).read_bytes())
    manifest |= {"database_bytes": len(database), "database_checksum": zlib.crc32(database)}
    (backup / MANIFEST).write_text(json.dumps(manifest))
    restore(backup, tmp_path / "restored", quiet)
    assert everything(start_kalam("restored")) == stopped.rows


def test_a_target_that_is_not_empty_is_refused_and_left_alone(stopped, backup, tmp_path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "letter.txt").write_text("dear")
    with pytest.raises(AlreadyExists, match="is not empty"):
        restore(backup, full, quiet)
    with pytest.raises(AlreadyExists, match="is not empty"):
        back_up(stopped.data_dir, full, quiet)
    assert [path.name for path in full.iterdir()] == ["letter.txt"]


def test_a_damaged_backup_is_refused_and_nothing_is_left(backup, tmp_path) -> None:
    victim = next((backup / "segments").rglob("*.parquet"))
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-1])
    for damage in ("bytes instead of", "is missing"):
        with pytest.raises(Internal, match=damage):
            restore(backup, tmp_path / "restored", quiet)
        assert not (tmp_path / "restored").exists()
        victim.unlink(missing_ok=True)
    for place in (0, len(whole) // 2):
        victim.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(Internal, match="another checksum"):
            restore(backup, tmp_path / "restored", quiet)
    victim.write_bytes(whole)
    manifest = (backup / "backup.json").read_text()
    (backup / "backup.json").write_text(manifest.replace("shared/b/shared", "shared/b/other"))
    with pytest.raises(Internal, match="do not agree"):
        restore(backup, tmp_path / "restored", quiet)
    (backup / "backup.json").write_text(manifest)
    database = backup / "kalam.db"
    database.write_bytes(b"\0" * database.stat().st_size)
    (tmp_path / "empty").mkdir()
    with pytest.raises(Internal, match="damaged"):
        restore(backup, tmp_path / "empty", quiet)
    assert list((tmp_path / "empty").iterdir()) == []


def test_what_is_no_complete_backup_is_refused(backup, tmp_path) -> None:
    (backup / "backup.json").unlink()
    for folder in (backup, tmp_path / "nowhere"):
        with pytest.raises(NotFound, match="no complete backup"):
            restore(folder, tmp_path / "restored", quiet)
    assert not (tmp_path / "restored").exists()


def test_what_is_no_data_directory_has_no_backup(tmp_path) -> None:
    with pytest.raises(NotFound, match="no data directory"):
        back_up(tmp_path, tmp_path / "backup", quiet)
    assert not (tmp_path / "backup").exists()


def test_a_missing_segment_makes_no_backup(stopped, tmp_path) -> None:
    damaged = Path(
        shutil.copytree(stopped.data_dir, tmp_path / "data", ignore=shutil.ignore_patterns("nats*", "jetstream"))
    )
    victim = next((damaged / "shared" / "b" / "shared").glob("batch-*"))
    victim.unlink()
    with pytest.raises(CorruptSegment, match=f"{victim.name} of table b.shared is missing"):
        back_up(damaged, tmp_path / "backup", quiet)
    with pytest.raises(NotFound):
        restore(tmp_path / "backup", tmp_path / "restored", quiet)


def test_a_damaged_segment_makes_no_backup(stopped, tmp_path) -> None:
    damaged = Path(
        shutil.copytree(stopped.data_dir, tmp_path / "data", ignore=shutil.ignore_patterns("nats*", "jetstream"))
    )
    victim = next((damaged / "shared" / "b" / "shared").glob("batch-*"))
    content = victim.read_bytes()
    victim.write_bytes(content[:50] + bytes([content[50] ^ 4]) + content[51:])
    with pytest.raises(CorruptSegment, match=rf"{victim.name} of table b\.shared is damaged"):
        back_up(damaged, tmp_path / "backup", quiet)


def test_two_backups_at_once_are_refused(stopped, tmp_path) -> None:
    second: list[BaseException] = []

    def again(done_bytes: int, total_bytes: int) -> None:
        if not second:
            with pytest.raises(TooBusy) as caught:
                back_up(stopped.data_dir, tmp_path / "second", quiet)
            second.append(caught.value)

    back_up(stopped.data_dir, tmp_path / "first", again)
    assert second


def test_a_restore_that_was_cut_off_is_no_data_directory(tmp_path) -> None:
    (tmp_path / RESTORING).touch()
    with pytest.raises(Unavailable, match="was cut off"):
        prepare_database(tmp_path)
