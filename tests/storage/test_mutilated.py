"""A start over a data directory in which something is missing, damaged, older or foreign.

The law: it starts with everything that was acknowledged; or it refuses, in one line; or it starts and what is missing
answers with an error. It never answers without it, and never removes what it does not know.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from asking import asking
from server_process import ServerProcess, SqlFailed
from structlog.testing import capture_logs
from warm_start import start_kalam_process

from kalam.errors import AlreadyExists
from kalam.server import open_server
from kalam.settings import load_settings

TABLES = {"m.t": "admin", "m.mine": "ann", "m.placed": "admin", "m.events": "admin"}
Content = dict[str, list[list[Any]]]


@dataclass
class LivedIn:
    """A data directory as it was: after an earlier clean stop, after a later one, and after a kill; what each held."""

    root: Path
    older: Content = field(default_factory=dict)
    stopped: Content = field(default_factory=dict)
    killed: Content = field(default_factory=dict)


def content(server: ServerProcess) -> Content:
    return {table: server.sql(f"SELECT id FROM {table} ORDER BY id", user=user) for table, user in TABLES.items()}


def insert(server: ServerProcess, *ids: int) -> None:
    values = ", ".join(f"({number})" for number in ids)
    for table, user in TABLES.items():
        server.sql(f"INSERT INTO {table} VALUES {values}", user=user)


def keep(server: ServerProcess, name: str) -> None:
    """A copy of the data directory, with the folder of a LOCATION inside."""
    shutil.copytree(server.data_dir, server.data_dir.with_name(name))


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivedIn]:
    root = tmp_path_factory.mktemp("mutilated")
    lived = LivedIn(root)
    server = ServerProcess(root / "data").start()
    try:
        server.sql("CREATE NAMESPACE m; CREATE TABLE m.t (id BIGINT PRIMARY KEY)")
        server.sql("CREATE USER TABLE m.mine (id BIGINT PRIMARY KEY); CREATE STREAM TABLE m.events (id BIGINT)")
        server.sql(f"CREATE TABLE m.placed (id BIGINT PRIMARY KEY) LOCATION '{server.data_dir}/tables/placed'")
        insert(server, 1, 2)
        server.sql("FLUSH ALL TABLES")
        insert(server, 3)
        lived.older = content(server)
        server.stop()
        keep(server, "older")
        server.restart()
        insert(server, 4, 5)
        server.sql("FLUSH ALL TABLES; CREATE STREAM TABLE m.later (id BIGINT); INSERT INTO m.later VALUES (1)")
        insert(server, 6)
        lived.stopped = content(server)
        server.stop()
        keep(server, "stopped")
        server.restart()
        server.sql("CREATE TABLE m.last (id BIGINT PRIMARY KEY)")
        insert(server, 7, 8)
        insert(server, 9)
        lived.killed = content(server)
        server.kill()
        keep(server, "killed")
        yield lived
    finally:
        server.kill()


def files(data: Path) -> set[str]:
    """What must not get lost: segments, by name, and whatever is not the server's."""
    places = (path for path in data.rglob("*") if "snapshots" not in path.parts)  # where there are only links
    return {path.name for path in places if path.is_file() and path.suffix in (".parquet", ".txt")}


def start(data: Path, *flags: str) -> Content | str:
    """What a server on it answers for each table, an error's code being the row; or why it does not start."""
    server = ServerProcess(data)
    log = data.with_name("start.log")
    with log.open("wb") as file:  # and not by the server's own start, which takes an old announcement away
        command = ["serve", f"--data-dir={data}", "--http-port=0", "--nats-port=0", *flags]
        server.process = start_kalam_process(command, {}, file)
    try:
        while not is_ready(server):
            if (status := server.process.poll()) is not None:
                assert status == 1
                return log.read_text().partition("error")[2].strip()
            time.sleep(0.005)
        answers = {table: answer(server, table, user) for table, user in TABLES.items()}
        assert server.stop() == 0
    finally:
        server.kill()
    return answers


def is_ready(server: ServerProcess) -> bool:
    with suppress(OSError, ValueError, KeyError):
        server.announcement = json.loads((server.data_dir / "kalam.json").read_text())
        return server.process is not None and server.announcement["pid"] == server.process.pid
    return False


def answer(server: ServerProcess, table: str, user: str) -> list[list[Any]]:
    try:
        return server.sql(f"SELECT id FROM {table} ORDER BY id", user=user)
    except SqlFailed as exc:
        return [[exc.code]]


# What is done to the directory


Mutation = Callable[[Path, Path], None]


def database(data: Path) -> Path:
    return data / "kalam.db"


def removed(name: str) -> Mutation:
    def mutate(data: Path, _: Path) -> None:
        path = data / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return mutate


def written(name: str, text: bytes) -> Mutation:
    def mutate(data: Path, _: Path) -> None:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(text)

    return mutate


def cut(name: str, share: float) -> Mutation:
    def mutate(data: Path, _: Path) -> None:
        os.truncate(data / name, int((data / name).stat().st_size * share))

    return mutate


def older(*names: str) -> Mutation:
    def mutate(data: Path, before: Path) -> None:
        for name in names:
            removed(name)(data, before) if (data / name).exists() else None
            if (before / name).is_dir():
                shutil.copytree(before / name, data / name)
            else:
                shutil.copy2(before / name, data / name)

    return mutate


def folder(name: str) -> Mutation:
    def mutate(data: Path, _: Path) -> None:
        (data / name).unlink(missing_ok=True)
        (data / name).mkdir()

    return mutate


def foreign_catalogue(data: Path, _: Path) -> None:
    with closing(sqlite3.connect(database(data))) as conn:
        conn.execute("UPDATE meta SET value = 'ffffffffffff' WHERE name = 'data_id'")
        conn.commit()


def other_database(data: Path, _: Path) -> None:
    database(data).unlink()
    with closing(sqlite3.connect(database(data))) as conn:
        conn.execute("CREATE TABLE notes (text TEXT)")
        conn.commit()


def of_the_first_release(data: Path, _: Path) -> None:
    """Which counted no generations; its streams are told apart by their metadata alone."""
    (data / MARK).unlink()
    with closing(sqlite3.connect(database(data))) as conn:
        conn.execute("DELETE FROM meta WHERE name IN ('generation', 'streams_generation')")
        conn.commit()


def segment_of(data: Path) -> Path:
    return min((data / "shared/m/t").glob("batch-*.parquet"))


def in_a_segment(change: Callable[[Path], Any]) -> Mutation:
    return lambda data, _: change(segment_of(data))


def as_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def both(*mutations: Mutation) -> Mutation:
    def mutate(data: Path, before: Path) -> None:
        for mutation in mutations:
            mutation(data, before)

    return mutate


def unrecorded(data: Path, _: Path) -> None:
    """What a flush leaves that was killed before its transaction, in a home and in a LOCATION, and while it wrote."""
    for place in (data / "shared/m/t", data / "tables/placed"):
        segment = min(place.glob("batch-*.parquet"))
        prefix, _, _ = segment.name.rpartition("-")
        shutil.copy(segment, segment.with_name(f"{prefix}-99.parquet"))
        shutil.copy(segment, segment.with_name(f".{prefix}-98.parquet.tmp"))


WAL = "kalam.db-wal"
MARK = "kalam.generation"

REFUSED = {
    "database missing": (removed("kalam.db"), "missing or empty"),
    "database empty": (written("kalam.db", b""), "missing or empty"),
    "database cut short": (cut("kalam.db", 0.5), "is damaged"),
    "database of garbage": (written("kalam.db", b"not a database" * 999), "is damaged"),
    "database older": (older("kalam.db"), "older than what lies beside it"),
    "database a folder": (folder("kalam.db"), "cannot be used"),
    "database of another directory": (foreign_catalogue, "is that of the data directory ffffffffffff"),
    "database of another program": (other_database, "is no database of Kalam"),
    "database and mark missing": (both(removed("kalam.db"), removed(MARK)), "segments lie beside it"),
    "database and mark older, streams not": (older("kalam.db", MARK), "older than its streams"),
    "mark a folder": (folder(MARK), "cannot be used"),
    "broker's folder missing": (removed("nats"), "nats/ is missing or older.*m.events, m.later"),
    "broker's folder older": (older("nats"), "nats/ is missing or older.*m.events, m.later"),
    "broker's folder a file": (both(removed("nats"), written("nats", b"")), "broker's folder"),
    "one stream missing": (removed("nats/jetstream/KALAM/streams/KALAM-m-events"), "lacks streams.*m.events"),
    "announcement a folder": (folder("kalam.json"), "kalam.json cannot be removed"),
    "lock a folder": (folder("lock"), "cannot be used"),
    "shared memory a folder": (folder("kalam.db-shm"), "cannot be used"),
}
REFUSED_AFTER_A_KILL = {
    "log missing": (removed(WAL), "older than what lies beside it"),
    "log empty": (written(WAL, b""), "older than what lies beside it"),
    "log cut short": (cut(WAL, 0.5), "older than|lacks changes"),
    "log of garbage": (written(WAL, b"garbage" * 9_999), "older than what lies beside it"),
    "log a folder": (folder(WAL), "cannot be used"),
    "database older than its log": (older("kalam.db"), "older than what lies beside it"),
    "database missing": (removed("kalam.db"), "missing or empty"),
    "database empty": (written("kalam.db", b""), "missing or empty"),
}
INTACT = {
    "mark missing": removed(MARK),
    "mark empty": written(MARK, b""),
    "mark cut short": cut(MARK, 0.5),
    "mark older": older(MARK),
    "mark read-only": lambda data, _: (data / MARK).chmod(0o400),
    "announcement stale": written("kalam.json", b'{"pid": 1}'),
    "announcement of garbage": written("kalam.json", b"\xff"),
    "lock missing": removed("lock"),
    "lock of a dead server": written("lock", b"12345"),
    "folders of links left": written("snapshots/1/link.parquet", b""),
    "folder of links a file": written("snapshots", b""),
    "rows kept ready left": written("key-rows/1", b"garbage"),
    "folder of rows kept ready a file": written("key-rows", b""),
    "files of others": both(written("shared/m/t/notes.txt", b"mine"), written("tables/placed/other.parquet", b"mine")),
    "table of others": written("shared/n/x/notes.txt", b"mine"),
    "flush not recorded": unrecorded,
    "flush not recorded, unclaimed a file": both(unrecorded, written("unclaimed", b"")),
    "segment read-only": in_a_segment(lambda path: path.chmod(0o400)),
    "a cache that is empty": folder("remote"),
}
INTACT_AFTER_A_KILL = {
    "nothing": lambda data, _: None,
    "shared memory missing": removed("kalam.db-shm"),
    "shared memory of garbage": written("kalam.db-shm", b"garbage" * 9_999),
    "mark missing": removed(MARK),
}
TOLD = {
    "segment missing": in_a_segment(Path.unlink),
    "segment empty": in_a_segment(lambda path: path.write_bytes(b"")),
    "segment cut short": in_a_segment(lambda path: os.truncate(path, 300)),
    "segment a folder": in_a_segment(as_a_folder),
    "segments missing": removed("shared"),
    "folder of segments a file": both(removed("shared"), written("shared", b"")),
}


def directory(lived_in: LivedIn, tmp_path: Path, name: str, mutate: Mutation) -> Path:
    """A data directory at the place where it was lived in, which LOCATION names, after a mutation."""
    data = lived_in.root / "data"
    shutil.rmtree(data)
    shutil.copytree(lived_in.root / name, data)
    mutate(data, lived_in.root / "older")
    return data


@pytest.mark.parametrize("case", REFUSED)
def test_a_start_is_refused(lived_in: LivedIn, tmp_path: Path, case: str) -> None:
    mutate, expected = REFUSED[case]
    is_refused(directory(lived_in, tmp_path, "stopped", mutate), expected)


@pytest.mark.parametrize("case", REFUSED_AFTER_A_KILL)
def test_a_start_after_a_kill_is_refused(lived_in: LivedIn, tmp_path: Path, case: str) -> None:
    mutate, expected = REFUSED_AFTER_A_KILL[case]
    is_refused(directory(lived_in, tmp_path, "killed", mutate), expected)


def is_refused(data: Path, expected: str) -> None:
    before = files(data)
    for _ in range(2):  # a refused start leaves everything so that the next one is refused, too
        told = start(data)
        assert isinstance(told, str), "it started"
        assert "\n" not in told
        assert re.search(expected, told), told
    assert files(data) == before


@pytest.mark.parametrize("case", INTACT)
def test_a_start_has_everything(lived_in: LivedIn, tmp_path: Path, case: str) -> None:
    data = directory(lived_in, tmp_path, "stopped", INTACT[case])
    before = files(data)
    for _ in range(2):
        assert start(data) == lived_in.stopped
    assert files(data) >= before


@pytest.mark.parametrize("case", INTACT_AFTER_A_KILL)
def test_a_start_after_a_kill_has_everything(lived_in: LivedIn, tmp_path: Path, case: str) -> None:
    data = directory(lived_in, tmp_path, "killed", INTACT_AFTER_A_KILL[case])
    assert start(data) == lived_in.killed


@pytest.mark.parametrize("share", [0.99, 0.95, 0.9, 0.8, 0.7])
def test_a_log_without_its_end_is_refused_or_had_nothing_there(lived_in: LivedIn, tmp_path: Path, share: float) -> None:
    """The last commits may be of the server's own: those may go, a row may not."""
    told = start(directory(lived_in, tmp_path, "killed", cut(WAL, share)))
    assert told == lived_in.killed or re.search("older than|lacks changes", str(told)), told


@pytest.mark.parametrize("case", TOLD)
def test_a_damaged_table_says_so_and_the_others_are_there(lived_in: LivedIn, tmp_path: Path, case: str) -> None:
    data = directory(lived_in, tmp_path, "stopped", TOLD[case])
    before = files(data)
    answers = start(data)
    assert isinstance(answers, dict), answers
    [[code]] = answers.pop("m.t")
    assert isinstance(code, str), f"it answered {code}"
    assert answers == {table: rows for table, rows in lived_in.stopped.items() if table != "m.t"}
    assert files(data) >= before


# What a person says to a start


async def test_a_loss_that_is_accepted_goes_on_and_keeps_what_it_does_not_know(
    lived_in: LivedIn, tmp_path: Path
) -> None:
    data = directory(lived_in, tmp_path, "stopped", older("kalam.db", MARK))
    before = files(data)
    answers = start(data, "--accept-loss")
    assert isinstance(answers, dict), answers
    assert answers == lived_in.older | {"m.events": lived_in.stopped["m.events"]}
    assert files(data) == before
    assert {path.name.split("-")[0] for path in (data / "unclaimed").rglob("*.parquet")} == {"batch"}
    settings = load_settings(data_dir=data, http_port=0, nats_port=0)
    async with open_server(settings) as running:  # and the next one needs nobody's word
        assert running.engine.stats().unclaimed.streams == ["KALAM-m-later"]
        assert running.engine.stats().unclaimed.files > 0
        with pytest.raises(AlreadyExists, match="KALAM-m-later holds 1 event of a table that the catalogue"):
            await asking(running).execute("CREATE STREAM TABLE m.later (id BIGINT)")
        await asking(running).execute("INSERT INTO m.t VALUES (4)")
    assert start(data) == answers | {"m.t": [[1], [2], [3], [4]]}


async def test_a_lost_catalogue_that_is_accepted_begins_anew(lived_in: LivedIn, tmp_path: Path) -> None:
    data = directory(lived_in, tmp_path, "stopped", removed("kalam.db"))
    before = files(data)
    settings = load_settings(data_dir=data, http_port=0, nats_port=0, accept_loss=True)
    async with open_server(settings) as running:
        await asking(running).execute("CREATE NAMESPACE m; CREATE TABLE m.t (id BIGINT PRIMARY KEY)")
        await asking(running).execute("INSERT INTO m.t VALUES (77)")
        assert sorted(running.engine.stats().unclaimed.streams) == ["KALAM-m-events", "KALAM-m-later"]
    assert files(data) == before


def test_unclaimed_files_go_after_a_week(lived_in: LivedIn, tmp_path: Path) -> None:
    data = directory(lived_in, tmp_path, "stopped", unrecorded)
    assert start(data) == lived_in.stopped
    kept = list(data.rglob("unclaimed/**/*-99.parquet"))
    assert len(kept) == 2
    with closing(sqlite3.connect(database(data))) as conn:
        conn.execute("UPDATE garbage SET created_us = created_us - 6 * 86400000000")
        conn.commit()
    assert start(data) == lived_in.stopped
    assert all(path.exists() for path in kept)
    with closing(sqlite3.connect(database(data))) as conn:
        conn.execute("UPDATE garbage SET created_us = created_us - 86400000000")
        conn.commit()
    assert start(data) == lived_in.stopped
    assert not any(path.exists() for path in kept)
    assert not (data / "unclaimed/shared").exists()


async def test_an_unclaimed_file_of_a_store_stays_in_the_store(tmp_path: Path) -> None:
    store, data = tmp_path / "store", tmp_path / "data"
    settings = load_settings(data_dir=data, http_port=0, nats_port=0, location_roots=f"file://{tmp_path}")
    async with open_server(settings) as running:
        await asking(running).execute("CREATE NAMESPACE r")
        await asking(running).execute(f"CREATE TABLE r.t (id BIGINT PRIMARY KEY) LOCATION 'file://{store}/t'")
        await asking(running).execute("INSERT INTO r.t VALUES (1); FLUSH TABLE r.t")
    [segment] = (store / "t").iterdir()
    stray = shutil.copy(segment, segment.with_name(f"{segment.stem.rpartition('-')[0]}-99.parquet"))
    async with open_server(settings) as running:
        assert running.engine.stats().unclaimed.files == 1
        [result] = await asking(running).execute("SELECT id FROM r.t")
        assert result.data is not None
        assert result.data.to_pylist() == [{"id": 1}]
    assert sorted(path.name for path in (store / "t").iterdir()) == sorted([segment.name, "unclaimed"])
    assert [path.name for path in (store / "t/unclaimed").iterdir()] == [Path(stray).name]
    with closing(sqlite3.connect(database(data))) as conn:
        conn.execute("UPDATE garbage SET created_us = 0")
        conn.commit()
    async with open_server(settings) as running:
        assert running.engine.stats().unclaimed.files == 0
    assert segment.exists()
    assert not list((store / "t/unclaimed").iterdir())


async def test_a_directory_of_the_first_release_is_opened(tmp_path: Path) -> None:
    data = tmp_path / "data"
    settings = load_settings(data_dir=data, http_port=0, nats_port=0)
    async with open_server(settings) as running:
        await asking(running).execute("CREATE NAMESPACE o; CREATE TABLE o.t (id BIGINT PRIMARY KEY)")
        await asking(running).execute("INSERT INTO o.t VALUES (1); FLUSH TABLE o.t; INSERT INTO o.t VALUES (2)")
    shutil.rmtree(data / "nats")  # whose streams know of a generation
    of_the_first_release(data, data)
    with capture_logs() as logs:
        async with open_server(settings) as running:
            [result] = await asking(running).execute("SELECT id FROM o.t ORDER BY id")
    assert result.data is not None
    assert result.data.to_pylist() == [{"id": 1}, {"id": 2}]
    assert [log["event"] for log in logs if log["log_level"] not in ("info", "debug")] == []


def test_a_clean_stop_leaves_one_file(lived_in: LivedIn) -> None:
    assert [path.name for path in (lived_in.root / "stopped").glob("kalam.db*")] == ["kalam.db"]
    with closing(sqlite3.connect(lived_in.root / "stopped/kalam.db")) as conn:
        assert conn.execute("SELECT count(*) FROM tables").fetchone()[0] == len(TABLES) + 1


@pytest.mark.parametrize("mutate", [older("kalam.db"), cut("kalam.db", 0.5), folder("kalam.db"), folder("kalam.json")])
def test_the_command_says_it_in_a_line_and_exits_with_1(lived_in: LivedIn, tmp_path: Path, mutate: Mutation) -> None:
    said = serve(directory(lived_in, tmp_path, "stopped", mutate))
    assert len(said.splitlines()) == 1
    assert said.startswith("error")


def test_a_database_that_is_read_only(lived_in: LivedIn, tmp_path: Path) -> None:
    path = database(directory(lived_in, tmp_path, "stopped", lambda data, _: None))
    with read_only(path):
        said = serve(path.parent)
    assert len(said.splitlines()) == 1, said
    assert "kalam.db cannot be used: attempt to write a readonly database" in said


def serve(data: Path) -> str:
    """What ``kalam serve`` says to standard error before it exits with 1."""
    command = [sys.executable, "-m", "kalam", "serve", f"--data-dir={data}", "--http-port=0", "--nats-port=0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1, done
    return done.stderr


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Take away the right to write a file; from root, who has every right, by a mount."""
    if os.geteuid():
        path.chmod(0o400)
        yield
        path.chmod(0o600)
        return
    mount = ["mount", "--bind", str(path), str(path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(path)], check=True)
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)
