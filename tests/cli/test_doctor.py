"""``kalam doctor`` finds each trouble that is made here, says what to do, and changes nothing."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from held_process import held
from server_process import ServerProcess
from warm_start import run_kalam

from kalam import __version__
from kalam.cli.doctor.broker import clock_findings, room_finding
from kalam.cli.doctor.machine import client_of_another_release, fsync_finding

TIME_S = 120


def doctor(data: Path, *flags: str, **environment: str) -> tuple[int, list[str]]:
    """The exit status, and the lines without those of the advice."""
    ports = {"KALAM_HTTP_PORT": "0", "KALAM_NATS_PORT": "0"}
    done = run_kalam("doctor", f"--data-dir={data}", *flags, **(ports | environment))
    assert done.stderr == ""
    status, text = done.returncode, done.stdout
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("→")]
    failing = [line for line in lines if line.startswith("fail")]
    assert text.count("→") >= len([line for line in failing if "not ready" not in line])
    assert status == bool(failing), text
    return status, lines


def finds(lines: list[str], level: str, *words: str) -> bool:
    return any(line.startswith(level) and all(word in line for word in words) for line in lines)


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a table of each kind, which has been stopped."""
    server = ServerProcess(tmp_path_factory.mktemp("doctor") / "data").start()
    server.sql("CREATE NAMESPACE m; CREATE TABLE m.t (id BIGINT PRIMARY KEY); CREATE STREAM TABLE m.s (id BIGINT)")
    server.sql("INSERT INTO m.t VALUES (1); FLUSH TABLE m.t; INSERT INTO m.t VALUES (2); INSERT INTO m.s VALUES (1)")
    server.stop()
    yield server
    server.kill()


@pytest.fixture
def data(lived_in: ServerProcess, tmp_path: Path) -> Path:
    """A copy of its data directory."""
    shutil.copytree(lived_in.data_dir, tmp_path / "data")
    return tmp_path / "data"


def content(data: Path) -> set[tuple[str, int]]:
    """Every file that is the server's own; SQLite's shared memory comes and goes with a reader."""
    return {
        (str(path), path.stat().st_size) for path in data.rglob("*") if path.is_file() and "kalam.db-" not in path.name
    }


def test_nothing_is_wrong_with_a_stopped_server(data: Path) -> None:
    before = content(data)
    status, lines = doctor(data)
    assert status == 0
    for word in ("kalam ", "nats-server", "SQLite", "free", "ms", "whole", "no server runs", "none is in trouble"):
        assert any(word in line for line in lines), word
    assert finds(lines, "ok", "segments", "1 on this machine")
    assert content(data) == before


def test_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    status, lines = doctor(tmp_path / "new")
    assert status == 0
    assert finds(lines, "ok", "kalam serve makes it")
    assert not (tmp_path / "new").exists()


def damage(data: Path, what: str) -> None:
    segment = next((data / "shared/m/t").glob("*.parquet"))
    match what:
        case "segment missing":
            segment.unlink()
        case "segment cut short":
            os.truncate(segment, 100)
        case "database missing":
            (data / "kalam.db").unlink()
        case "database damaged":
            os.truncate(data / "kalam.db", 40_000)
        case "database older":
            with closing(sqlite3.connect(data / "kalam.db")) as conn:
                conn.execute("UPDATE meta SET value = '1' WHERE name = 'generation'")
                conn.commit()
        case "database of another program":
            (data / "kalam.db").unlink()
            with closing(sqlite3.connect(data / "kalam.db")) as conn:
                conn.execute("CREATE TABLE notes (text TEXT)")
        case "mark missing":
            (data / "kalam.generation").unlink()
        case "restore cut off":
            (data / "kalam.db.restoring").touch()
        case "stray":
            shutil.copy(segment, segment.with_name(f"{segment.stem.rpartition('-')[0]}-99.parquet"))
        case "unclaimed":
            (data / "unclaimed/shared/m/t").mkdir(parents=True)
            shutil.copy(segment, data / "unclaimed/shared/m/t")
        case "flush failed":
            with closing(sqlite3.connect(data / "kalam.db")) as conn:
                values = ("j", "flush", "m", "t", "failed", None, None, "no room", 1 << 60, None, 1 << 60)
                conn.execute("INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
                conn.commit()


TROUBLES = {
    "segment missing": ("fail", "segments", "table m.t: 1 damaged", "is missing"),
    "segment cut short": ("fail", "segments", "table m.t: 1 damaged", "100 bytes instead of"),
    "database missing": ("fail", "kalam.db", "missing or empty"),
    "database damaged": ("fail", "kalam.db", "is damaged"),
    "database older": ("fail", "kalam.db", "older than what lies beside it"),
    "database of another program": ("fail", "kalam.db", "no database of Kalam"),
    "mark missing": ("warn", "kalam.db", "kalam.generation is missing"),
    "restore cut off": ("fail", "data directory", "was cut off"),
    "stray": ("warn", "stray files", "1 file that kalam.db does not name", "-99.parquet"),
    "unclaimed": ("warn", "unclaimed files", "1 file"),
    "flush failed": ("warn", "tables", "table m.t: the last flush failed: no room"),
}


@pytest.mark.parametrize("what", TROUBLES)
def test_it_finds_what_is_wrong_with_a_data_directory(data: Path, what: str) -> None:
    damage(data, what)
    before = content(data)
    _, lines = doctor(data)
    level, *words = TROUBLES[what]
    assert finds(lines, level, *words), "\n".join(lines)
    assert content(data) == before


def test_files_that_other_engines_may_still_read_are_no_strays(start_kalam: Callable[..., ServerProcess]) -> None:
    server = start_kalam()
    server.sql("CREATE NAMESPACE k; CREATE TABLE k.t (id BIGINT PRIMARY KEY)")
    for number in range(2):
        server.sql(f"INSERT INTO k.t VALUES ({number}); FLUSH TABLE k.t")
    server.sql("REFRESH LAKE FOR TABLE k.t; COMPACT TABLE k.t")
    assert server.stop() == 0
    assert len(list((server.data_dir / "shared/k/t").glob("batch-*.parquet"))) == 3
    _, lines = doctor(server.data_dir)
    assert finds(lines, "ok", "unclaimed files", "none"), "\n".join(lines)


def test_it_finds_a_port_that_is_taken_and_a_disk_that_is_full(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        _, lines = doctor(data, KALAM_HTTP_PORT=str(port), KALAM_DISK_FREE_BYTES_MIN=str(1 << 60))
    assert finds(lines, "fail", "ports", f"http_port {port}")
    assert finds(lines, "fail", "disk", "less than disk_free_bytes_min")


def test_it_finds_that_there_is_no_broker(data: Path) -> None:
    _, lines = doctor(data, "--nats-url=nats://127.0.0.1:1")
    assert finds(lines, "fail", "broker", "no connection to nats://127.0.0.1:1", "Connect call failed")


def test_it_finds_a_broker_without_jetstream(data: Path, start_nats_server: Callable[..., Any]) -> None:
    _, lines = doctor(data, f"--nats-url={start_nats_server(jetstream=None).url}")
    assert finds(lines, "ok", "broker", "nats-server")
    assert finds(lines, "fail", "jetstream", "JetStream")


def test_it_finds_streams_that_do_not_fit(data: Path, start_kalam: Callable[..., ServerProcess], nats_url: str) -> None:
    """A broker that has none of the tables' streams; and then a catalogue that has none of the streams' tables."""
    _, lines = doctor(data, f"--nats-url={nats_url}")
    assert finds(lines, "fail", "streams", "1 STREAM tables have none, such as m.s")
    server = start_kalam(name="other", flags=[f"--nats-url={nats_url}"])
    server.sql("CREATE NAMESPACE o; CREATE STREAM TABLE o.s (id BIGINT)")
    server.stop()
    _, lines = doctor(server.data_dir, f"--nats-url={nats_url}")
    assert finds(lines, "ok", "streams", "1 of STREAM tables")
    assert finds(lines, "ok", "clock")
    with closing(sqlite3.connect(server.data_dir / "kalam.db")) as conn:
        conn.execute("DELETE FROM tables")
        conn.commit()
    _, lines = doctor(server.data_dir, f"--nats-url={nats_url}")
    assert finds(lines, "warn", "streams", "1 of tables that kalam.db does not name", "KALAM")


def test_a_server_that_runs_and_its_tables(start_kalam: Callable[..., ServerProcess]) -> None:
    server = start_kalam()
    server.sql("CREATE NAMESPACE r; CREATE TABLE r.t (id BIGINT PRIMARY KEY); INSERT INTO r.t VALUES (1)")
    status, lines = doctor(server.data_dir)
    assert status == 0
    assert finds(lines, "ok", "server", f"ready at {server.http_url}")
    assert finds(lines, "ok", "ports", server.http_url)
    assert finds(lines, "ok", "open files", " of ")
    assert finds(lines, "ok", "broker", "nats-server")
    assert finds(lines, "ok", "data directory", "a server runs on it")
    (server.data_dir / "shared").write_text("in the way")
    with pytest.raises(Exception, match="storage_full"):
        server.sql("FLUSH TABLE r.t")
    _, lines = doctor(server.data_dir)
    assert finds(lines, "fail", "tables", "table r.t: flush fails")
    assert finds(lines, "ok", "server", "ready")


def test_a_server_that_is_not_ready(start_kalam: Callable[..., ServerProcess], nats_server: Any) -> None:
    server = start_kalam(flags=[f"--nats-url={nats_server.url}"])
    with held(nats_server.pid):
        _, lines = doctor(server.data_dir)
    assert finds(lines, "fail", "server", "not ready: nats", "does not answer")
    assert finds(lines, "fail", "broker", "no connection")


def test_settings_come_from_a_file_as_those_of_serve(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "kalam.toml"
    config.write_text(f"disk_free_bytes_min = {1 << 60}\n")
    _, lines = doctor(data, f"--config={config}")
    assert finds(lines, "fail", "disk")
    config.write_text("disc = 1\n")
    done = run_kalam("doctor", f"--config={config}")
    assert (done.returncode, json.dumps(done.stdout)) == (2, '""')


@pytest.mark.parametrize(("hard", "level"), [(1_024, "warn"), (4_096, "ok")])
def test_it_finds_that_too_few_files_may_be_open(data: Path, hard: int, level: str) -> None:
    bounded = f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({hard}, {hard}))"
    command = [sys.executable, "-c", f"{bounded}; os.execv(sys.executable, sys.argv[1:])", sys.executable]
    env = {**os.environ, "KALAM_HTTP_PORT": "0", "KALAM_NATS_PORT": "0"}
    asked = [*command, "-m", "kalam", "doctor", f"--data-dir={data}"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=TIME_S, env=env)
    assert finds(done.stdout.splitlines(), level, "open files", f"at most {hard}"), done.stdout


@pytest.mark.parametrize(
    ("stored", "limit", "level"), [(79, 100, "ok"), (81, 100, "warn"), (96, 100, "fail"), (10**12, -1, "ok")]
)
def test_the_room_of_the_account_is_told_before_it_ends(stored: int, limit: int, level: str) -> None:
    assert room_finding({"storage": stored, "limits": {"max_storage": limit}}).level == level


@pytest.mark.parametrize(
    ("ahead_s", "level", "words"),
    [
        (0.0, "ok", "the same"),
        (5.0, "warn", "ahead"),
        (-5.0, "warn", "behind"),
        (90.0, "fail", "ahead"),
        (-90.0, "fail", "behind"),
    ],
)
def test_a_clock_of_the_broker_that_is_off_is_told(ahead_s: float, level: str, words: str) -> None:
    asked = 1_700_000_000.0
    there = datetime.fromtimestamp(asked + ahead_s, UTC).isoformat().replace("+00:00", "") + ".123456789Z"
    [found] = clock_findings([{"ts": there, "asked": (asked, asked + 0.5)}])
    assert (found.level, words in found.text) == (level, True)


def test_the_clock_of_a_broker_on_this_machine_is_the_same(data: Path, nats_url: str) -> None:
    _, lines = doctor(data, f"--nats-url={nats_url}")
    assert not finds(lines, "warn", "clock")
    assert not finds(lines, "fail", "clock")


def test_a_disk_that_commits_slowly_is_told() -> None:
    assert fsync_finding(0.05).level == "warn"
    assert "50.0 ms" in fsync_finding(0.05).text
    assert fsync_finding(0.001).level == "ok"


@pytest.mark.parametrize("release", ["9.9.9", __version__])
def test_a_kalam_client_of_another_release_over_the_server_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    assert list(client_of_another_release()) == []
    (tmp_path / "kalam_client.dist-info").mkdir()
    (tmp_path / "kalam_client.dist-info" / "METADATA").write_text(f"Name: kalam-client\nVersion: {release}\n")
    importlib.invalidate_caches()
    found = [finding.text for finding in client_of_another_release() if finding.level == "fail"]
    told = f"kalam-client 9.9.9 was installed over kalam-server {__version__}, which has the client itself"
    assert found == ([told] if release == "9.9.9" else [])
