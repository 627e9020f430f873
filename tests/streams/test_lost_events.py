"""A broker whose store came back with less than it had acknowledged: Kalam starts, and says what is missing."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import NatsServer
from live_subscriber import Refused, connected, subscribe
from patience import PATIENCE_S
from server_process import ServerProcess
from warm_start import run_kalam

WaitFor = Callable[[Callable[[], Any]], Any]
Stats = Callable[[ServerProcess, str], dict[str, str]]
STREAM, FEED = "KALAM-l-t", "KALAM-CHANGES"


def made(server: ServerProcess) -> ServerProcess:
    server.sql("CREATE NAMESPACE l; CREATE STREAM TABLE l.t (id BIGINT); CREATE TABLE l.s (id BIGINT PRIMARY KEY)")
    return server


def insert(server: ServerProcess, first: int, stop: int, table: str = "l.t") -> None:
    server.sql(f"INSERT INTO {table} VALUES " + ", ".join(f"({number})" for number in range(first, stop)))


def change(server: ServerProcess, number: int, wait_for: WaitFor) -> None:
    """Insert a row, and wait until its change is a message of the feed."""
    insert(server, number, number + 1, "l.s")
    wait_for(lambda: "kalam_outbox_changes 0.0" in server.metrics())


def ids(server: ServerProcess) -> list[int]:
    return [number for [number] in server.sql("SELECT id FROM l.t")]


def store(server: ServerProcess, stream: str = STREAM) -> Path:
    return server.data_dir / "nats/jetstream/KALAM/streams" / stream


def put_back(older: Path, place: Path) -> None:
    shutil.rmtree(place)
    shutil.copytree(older, place)


def put_back_older(server: ServerProcess, folder: Path) -> ServerProcess:
    """A server whose stream has events 0 to 19, and had 20 to 49 as well."""
    insert(made(server), 0, 20)
    server.stop()
    shutil.copytree(store(server), folder / "older")
    server.restart()
    insert(server, 20, 50)
    server.stop()
    put_back(folder / "older", store(server))
    server.restart()
    return server


def lost(server: ServerProcess) -> dict[str, int]:
    """What the metrics tell, by stream."""
    found = re.findall(r'^kalam_lost_events_total\{stream="([^"]+)"\} (\S+)', server.metrics(), re.MULTILINE)
    return {stream: int(float(count)) for stream, count in found}


def warnings(server: ServerProcess) -> list[str]:
    return [line for line in server.log_text().splitlines() if "events are lost" in line]


def doctor(server: ServerProcess) -> str:
    return run_kalam("doctor", f"--data-dir={server.data_dir}", KALAM_HTTP_PORT="0", KALAM_NATS_PORT="0").stdout


def noted(server: ServerProcess, what: str = "last_seq") -> int:
    """What ``kalam.db`` says of the stream."""
    with closing(sqlite3.connect(f"file:{server.data_dir}/kalam.db?mode=ro", uri=True)) as conn:
        row = conn.execute(f"SELECT {what} FROM stream_ends WHERE stream = ?", (STREAM,)).fetchone()
    return int(row[0]) if row else 0


def looked_at(server: ServerProcess, wait_for: WaitFor) -> None:
    """Wait until the server has looked at its streams since now: an eviction from this one is recorded then."""
    jobs = "SELECT count(*) FROM system.jobs WHERE table_name = 'seen'"
    before = server.sql(jobs)
    insert(server, 0, 2, "l.seen")
    wait_for(lambda: server.sql(jobs) != before)


async def test_a_stream_that_is_put_back_older_is_told_of_and_its_table_goes_on(
    kalam_server: ServerProcess, tmp_path: Path, wait_for: WaitFor, stats: Stats
) -> None:
    server = put_back_older(kalam_server, tmp_path)
    insert(server, 100, 140)  # past the numbers that there were
    assert ids(server) == [*range(20), *range(100, 140)]
    assert wait_for(lambda: lost(server)) == {STREAM: 30}
    [warning] = warnings(server)
    for word in ("l.t", STREAM, "30", "50", "20"):
        assert word in warning
    told = stats(server, "l.t")
    assert (told["lost"], told["evicted"], told["deleted"], told["published"]) == ("30", "0", "0", "90")
    for _ in range(2):
        assert re.search(r"^warn .*table l\.t: 30 events are lost", doctor(server), re.MULTILINE)
        server.stop()
        assert re.search(r"^warn .*table l\.t: 30 events are lost", doctor(server), re.MULTILINE)
        server.restart()
    assert lost(server) == {STREAM: 30}
    assert len(warnings(server)) == 1


async def test_who_resumes_behind_what_is_lost_is_told_to_begin_anew(
    kalam_server: ServerProcess, tmp_path: Path
) -> None:
    server = put_back_older(kalam_server, tmp_path)
    insert(server, 100, 140)
    async with connected(server.nats_url) as client:
        for from_seq in (10, 20, 35, 50):  # before, at and behind the place from which the numbers were given twice
            with pytest.raises(Refused) as refused:
                await subscribe(client, "SELECT id FROM l.t", from_seq=from_seq)
            assert refused.value.code == "cursor_expired"
        live = await subscribe(client, "SELECT id FROM l.t", from_seq=55)
        await live.wait_changes(5)
        assert [change["row"]["id"] for change in live.changes] == list(range(135, 140))


@pytest.mark.parametrize("end", [ServerProcess.stop, ServerProcess.kill])
def test_a_store_that_was_cut_short_is_told_of(
    kalam_server: ServerProcess, wait_for: WaitFor, stats: Stats, end: Callable[[ServerProcess], Any]
) -> None:
    """Stopped in order JetStream knows how far it went and leaves holes; killed it forgets what was behind."""
    server = made(kalam_server)
    server.sql("CREATE STREAM TABLE l.seen (id BIGINT) WITH (max_buffer = 1)")
    insert(server, 0, 1, "l.seen")
    insert(server, 0, 1_000)
    wait_for(lambda: noted(server) == 1_000)
    end(server)
    [block] = (store(server) / "msgs").glob("*.blk")
    os.truncate(block, block.stat().st_size // 2)
    for _ in range(2):
        server.restart()
        assert wait_for(lambda: lost(server)) == {STREAM: 500}
        insert(server, 1_000, 1_001)
        looked_at(server, wait_for)
        assert stats(server, "l.t")["evicted"] == "0"
        server.stop()
    server.restart()
    assert ids(server) == [*range(500), 1_000, 1_000]
    assert len(warnings(server)) == 1


def test_the_messages_of_a_stream_that_are_gone_are_told_of(kalam_server: ServerProcess, wait_for: WaitFor) -> None:
    server = made(kalam_server)
    insert(server, 0, 10)
    server.stop()
    shutil.rmtree(store(server) / "msgs")
    server.restart()
    assert wait_for(lambda: lost(server)) == {STREAM: 10}
    assert ids(server) == []


def test_a_feed_of_changes_that_is_put_back_older_is_told_of(
    kalam_server: ServerProcess, tmp_path: Path, wait_for: WaitFor
) -> None:
    server = made(kalam_server)
    insert(server, 0, 10, "l.s")
    server.stop()
    shutil.copytree(store(server, FEED), tmp_path / "older")
    generation = (tmp_path / "older/meta.inf").read_bytes()
    server.restart()
    for number in range(10, 15):
        change(server, number, wait_for)
    server.stop()
    newest = [(store(server, FEED) / name).read_bytes() for name in ("meta.inf", "meta.sum")]
    put_back(tmp_path / "older", store(server, FEED))
    assert newest[0] != generation
    for name, content in zip(("meta.inf", "meta.sum"), newest, strict=True):  # or the start is refused for it
        (store(server, FEED) / name).write_bytes(content)
    server.restart()
    assert wait_for(lambda: lost(server)) == {FEED: 5}
    assert re.search(rf"^warn .*{FEED}: 5 events are lost", doctor(server), re.MULTILINE)
    assert server.sql("SELECT count(*) FROM l.s") == [[15]]


def test_what_goes_as_it_should_is_not_lost(kalam_server: ServerProcess, wait_for: WaitFor) -> None:
    server = made(kalam_server)
    server.sql("CREATE STREAM TABLE l.seen (id BIGINT) WITH (max_buffer = 1)")
    insert(server, 0, 1, "l.seen")
    server.sql("CREATE STREAM TABLE l.small (id BIGINT) WITH (max_buffer = 5)")
    server.sql("CREATE STREAM TABLE l.short (id BIGINT) WITH (retention = '1s')")
    server.sql("CREATE STREAM TABLE l.memory (id BIGINT) WITH (storage = 'memory')")
    server.sql("CREATE STREAM TABLE l.dropped (id BIGINT)")
    for table in ("l.t", "l.small", "l.short", "l.memory", "l.dropped"):
        insert(server, 0, 20, table)
    server.sql("DROP TABLE l.dropped")
    server.sql("CREATE STREAM TABLE l.dropped (id BIGINT)")
    wait_for(lambda: server.sql("SELECT count(*) FROM l.short") == [[0]])
    for end, first in ((server.stop, 0), (server.kill, 10)):
        server.sql("DELETE FROM l.t WHERE id = $1 OR id BETWEEN $2 AND $3", first, first + 3, first + 6)
        end()
        server.restart()
        looked_at(server, wait_for)
        assert server.sql("SELECT count(*) FROM l.memory") == [[0]]
        assert len(ids(server)) == 15 - first // 2
        assert (lost(server), warnings(server)) == ({}, [])


def test_a_restored_backup_has_lost_nothing(kalam_server: ServerProcess, tmp_path: Path, wait_for: WaitFor) -> None:
    server = made(kalam_server)
    server.sql("CREATE STREAM TABLE l.seen (id BIGINT) WITH (max_buffer = 1)")
    insert(server, 0, 20)
    server.stop()  # which notes how far its streams go
    for command in (
        ["backup", str(tmp_path / "backup"), f"--data-dir={server.data_dir}"],
        ["restore", str(tmp_path / "backup"), f"--data-dir={tmp_path / 'restored'}"],
    ):
        run_kalam(*command).check_returncode()
    restored = ServerProcess(tmp_path / "restored").start()
    try:
        insert(restored, 0, 1, "l.seen")
        looked_at(restored, wait_for)
        assert (ids(restored), lost(restored), warnings(restored)) == ([], {}, [])
    finally:
        restored.kill()


def test_a_broker_that_comes_back_with_less_is_told_of_while_the_server_runs(
    nats_server: NatsServer, start_kalam: Callable[..., ServerProcess], tmp_path: Path, wait_for: WaitFor
) -> None:
    server = made(start_kalam(flags=(f"--nats-url={nats_server.url}",)))
    jetstream = nats_server.folder / "jetstream"
    insert(server, 0, 10)
    change(server, 0, wait_for)
    nats_server.stop()
    shutil.copytree(jetstream, tmp_path / "older")
    nats_server.start()
    wait_for(lambda: _takes(server, 10))
    for number in range(11, 18):
        insert(server, number, number + 1)
        change(server, number, wait_for)
    with httpx.stream(
        "GET", f"{server.http_url}/v1/live", params={"sql": "SELECT id FROM l.t"}, timeout=PATIENCE_S
    ) as answer:
        data = (json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line.startswith("data: "))
        next(message for message in data if message["type"] == "ready")
        nats_server.stop()
        put_back(tmp_path / "older", jetstream)
        nats_server.start()
        assert next(message for message in data if message["type"] != "heartbeat")["type"] == "resync"
        assert wait_for(lambda: lost(server).get(STREAM)) == 8
        wait_for(lambda: _takes(server, 100))
        told = next(message for message in data if message["type"] == "changes")
        assert {change["row"]["id"] for change in told["changes"]} == {100}
    change(server, 100, wait_for)
    assert lost(server)[FEED] == 7


def _takes(server: ServerProcess, number: int) -> bool:
    try:
        insert(server, number, number + 1)
    except Exception:  # noqa: BLE001 - the broker is not back yet
        return False
    return True


async def test_a_stream_that_somebody_removes_has_lost_what_it_held(
    kalam_server: ServerProcess, wait_for: WaitFor
) -> None:
    server = made(kalam_server)
    insert(server, 0, 10)
    server.sql("DELETE FROM l.t WHERE id < 4")
    assert ids(server) == list(range(4, 10))
    async with connected(server.nats_url) as client:
        await client.jetstream().delete_stream(STREAM)
    assert ids(server) == []
    assert lost(server) == {STREAM: 6}


async def test_a_purge_from_outside_is_no_loss(kalam_server: ServerProcess, wait_for: WaitFor) -> None:
    server = made(kalam_server)
    server.sql("CREATE STREAM TABLE l.seen (id BIGINT) WITH (max_buffer = 1)")
    insert(server, 0, 1, "l.seen")
    insert(server, 0, 10)
    async with connected(server.nats_url) as client:
        await client.jetstream().purge_stream(STREAM)
    server.stop()
    server.restart()
    looked_at(server, wait_for)
    assert (ids(server), lost(server)) == ([], {})
