"""A broker that dies, hangs, is full, refuses, or loses things: no false ack, and service goes on by itself."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from foreign_program import Answer, Program
from patience import PATIENCE_S
from server_process import ServerProcess

Connect = Callable[..., Awaitable[Program]]
Stats = Callable[[ServerProcess, str], dict[str, str]]
StartKalam = Callable[..., ServerProcess]
StartNats = Callable[..., Any]

TABLE = "a.t"
IMPATIENT = {"KALAM_BROKER_TIMEOUT_S": "1"}


def make_table(server: ServerProcess, options: str = "") -> str:
    server.sql(f"CREATE NAMESPACE a; CREATE STREAM TABLE {TABLE} (id BIGINT, pad TEXT) {options}")
    return TABLE


async def insert(program: Program, *ids: int, pad: str = "") -> Answer | None:
    """An insert's answer; None if there was none, because the broker was away."""
    body = json.dumps([{"id": number, "pad": pad} for number in ids]).encode()
    try:  # a request that was on its way when the broker died is never answered
        reply = await program.broker.request(f"kalam.api.ann.insert.{TABLE}", body, timeout=4)
    except (nats.errors.Error, TimeoutError, OSError):
        return None
    return Answer(dict(reply.headers or {}), reply.data)


async def insert_until_stored(program: Program, number: int) -> None:
    """Insert one row again and again until it is stored; whatever else is answered is ``broker_unavailable``."""
    async with asyncio.timeout(60):
        while True:
            answer = await insert(program, number)
            if answer is not None and answer.code is None:
                return
            assert answer is None or answer.code in ("broker_unavailable", "storage_full"), answer.body
            await asyncio.sleep(0.1)


def ids(server: ServerProcess) -> list[int]:
    return [number for [number] in server.sql(f"SELECT id FROM {TABLE}")]


def embedded_pid(server: ServerProcess) -> int:
    return int((server.data_dir / "nats" / "nats.pid").read_text())


async def write_steadily(program: Program, acked: list[int], stop: asyncio.Event) -> None:
    number = 0
    while not stop.is_set():
        number += 1
        answer = await insert(program, number)
        if answer is not None and answer.code is None:
            acked.append(number)
        else:
            assert answer is None or answer.code == "broker_unavailable"
            await asyncio.sleep(0.02)


async def test_a_killed_embedded_broker_comes_back_and_no_acknowledged_row_is_lost(
    start_kalam: StartKalam, connect: Connect
) -> None:
    server = start_kalam(**IMPATIENT)
    make_table(server, "WITH (max_buffer = 1000000)")
    program = await connect(
        server, allow_reconnect=True, max_reconnect_attempts=-1, reconnect_time_wait=0.05, connect_timeout=1
    )
    acked: list[int] = []
    stop = asyncio.Event()
    writing = asyncio.create_task(write_steadily(program, acked, stop))
    for goal in (100, 200, 300):
        async with asyncio.timeout(PATIENCE_S):
            while len(acked) < goal:  # noqa: ASYNC110 - what is waited for is a list that grows
                await asyncio.sleep(0.01)
        os.kill(embedded_pid(server), signal.SIGKILL)
    await insert_until_stored(program, 0)
    stop.set()
    await writing
    told = ids(server)
    assert set(acked) <= set(told)
    assert [number for number in told if number] == sorted(number for number in told if number)


async def test_an_outside_broker_that_was_away_is_found_again(
    start_kalam: StartKalam, nats_server: Any, connect: Connect
) -> None:
    server = start_kalam(flags=[f"--nats-url={nats_server.url}"], **IMPATIENT)
    make_table(server)
    program = await connect(server, nats_server.url, allow_reconnect=True, max_reconnect_attempts=-1)
    assert (await program.insert(TABLE, {"id": 1})).json == {"rows": 1, "seq": 1}
    nats_server.kill()
    with pytest.raises(Exception, match="broker_unavailable"):
        await asyncio.to_thread(server.sql, f"INSERT INTO {TABLE} VALUES (2, '')")
    assert server.process is not None
    assert server.process.poll() is None
    nats_server.start()
    await insert_until_stored(program, 3)
    assert ids(server) == [1, 3]


class Wire:
    """A TCP proxy that can stop forwarding without closing anything, as a cable that was pulled."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.removeprefix("nats://").rpartition(":")
        self._target_port = int(port)
        self._whole = asyncio.Event()
        self._whole.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Wire]:
        proxy = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"nats://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            proxy.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(self._host, self._target_port)
        for source, sink in ((reader, there_writer), (there_reader, writer)):
            task = asyncio.create_task(self._pump(source, sink))
            self._tasks.add(task)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                if not self._whole.is_set():
                    await asyncio.Event().wait()  # this connection never says anything again
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()


async def test_a_half_open_connection_is_given_up_and_replaced(
    start_kalam: StartKalam, nats_server: Any, connect: Connect
) -> None:
    async with Wire(nats_server.url).listening() as wire:
        server = await asyncio.to_thread(start_kalam, flags=[f"--nats-url={wire.url}"], **IMPATIENT)
        await asyncio.to_thread(make_table, server)
        program = await connect(server, nats_server.url)
        assert (await program.insert(TABLE, {"id": 1})).json == {"rows": 1, "seq": 1}
        wire.cut()
        with pytest.raises(Exception, match="broker_unavailable"):
            await asyncio.to_thread(server.sql, f"INSERT INTO {TABLE} VALUES (2, '')")
        wire.mend()  # new connections work; the old one stays silent
        async with asyncio.timeout(60):
            while True:
                try:
                    answer = await program.broker.request(f"kalam.api.ann.insert.{TABLE}", b'{"id":3}', timeout=2)
                except nats.errors.Error:
                    continue
                if b'"seq"' in answer.data:
                    break
        told = [number for [number] in await asyncio.to_thread(server.sql, f"SELECT id FROM {TABLE}")]
        assert (told[0], told[-1]) == (1, 3)


async def test_a_full_jetstream_refuses_and_takes_again_once_there_is_room(
    start_kalam: StartKalam, start_nats_server: StartNats, connect: Connect, tmp_path: Path
) -> None:
    limits = {"store_dir": str(tmp_path / "js"), "max_file_store": 6 << 20, "max_memory_store": 1 << 20}
    broker = start_nats_server(jetstream=limits)
    server = start_kalam(flags=[f"--nats-url={broker.url}"], KALAM_CHANGES_BYTES_MAX=str(1 << 20), **IMPATIENT)
    make_table(server, "WITH (max_buffer = 1000000)")
    program = await connect(server, broker.url)
    stored, answer = 0, None
    for number in range(200):
        answer = await insert(program, *range(10 * number, 10 * number + 10), pad="x" * 10_000)
        assert answer is not None
        if answer.code:
            break
        stored += 10
    assert answer is not None
    assert answer.code == "broker_unavailable"
    assert "resource" in answer.detail.lower()
    told = ids(server)
    assert told[:stored] == list(range(stored))
    server.sql(f"DELETE FROM {TABLE} WHERE id < {stored - 10}")
    await insert_until_stored(program, -1)
    assert ids(server)[-1] == -1


async def test_a_stream_that_somebody_deleted_is_made_again(program: Program, namespace: str) -> None:
    server, table = program.server, f"{namespace}.t"
    server.sql(f"CREATE STREAM TABLE {table} (id BIGINT)")
    await program.insert(table, [{"id": 1}, {"id": 2}])
    assert server.sql(f"SELECT count(*) FROM {table}") == [[2]]
    await program.broker.jetstream().delete_stream(f"KALAM-{namespace}-t")
    assert (await program.insert(table, {"id": 3})).code == "broker_unavailable"
    assert (await program.insert(table, {"id": 4})).json == {"rows": 1, "seq": 1}
    assert server.sql(f"SELECT id FROM {table}") == [[4]]
    await program.broker.jetstream().delete_stream(f"KALAM-{namespace}-t")
    assert server.sql(f"SELECT id FROM {table}") == []
    assert (await program.insert(table, [{"id": 5}, {"id": 6}])).json == {"rows": 2, "seq": 2}
    assert server.sql(f"SELECT id FROM {table}") == [[5], [6]]


async def test_foreign_bytes_are_skipped_and_counted(
    kalam_server: ServerProcess, connect: Connect, stats: Stats
) -> None:
    server, program = kalam_server, await connect(kalam_server)
    make_table(server)
    await program.insert(TABLE, {"id": 1})
    garbage = [
        b"",
        b"\xff\x00",
        b"not json",
        b'{"id": "x"}',
        b'{"other": 1}',
        b"[]",
        b'[{"id": 1}, {"id": 2}]',
        b"\xc1" * 1_000,
    ]
    for payload in garbage:
        await program.broker.publish(f"kalam.stream.{TABLE}", payload)
    await program.broker.publish(f"kalam.stream.{TABLE}", b'{"id": 7}', headers={"Any": "thing"})
    assert (await program.insert(TABLE, {"id": 2})).json == {"rows": 1, "seq": 11}
    assert ids(server) == [1, 7, 2]
    assert stats(server, TABLE)["undecodable"] == str(len(garbage))
    assert f'kalam_stream_undecodable_total{{table="{TABLE}"}} {len(garbage)}.0' in server.metrics()
    assert server.sql(f"DELETE FROM {TABLE} WHERE id = 7") == "1 event deleted"
    assert ids(server) == [1, 2]
    server.stop()
    server.restart()
    assert ids(server) == [1, 2]
    assert stats(server, TABLE)["undecodable"] == str(len(garbage))


async def test_acks_stay_right_while_somebody_else_publishes(program: Program, namespace: str) -> None:
    server, table = program.server, f"{namespace}.t"
    server.sql(f"CREATE STREAM TABLE {table} (id BIGINT) WITH (max_buffer = 1000000)")
    stop = asyncio.Event()

    async def disturb() -> None:
        number = 0
        while not stop.is_set():
            number -= 1
            await program.broker.publish(f"kalam.stream.{table}", b'{"id":%d}' % number)
            await asyncio.sleep(0)

    disturbing = asyncio.create_task(disturb())
    acks: dict[int, int] = {}
    for start in range(0, 5_000, 250):
        parts = [range(begin, begin + 50) for begin in range(start, start + 250, 50)]
        answers = await asyncio.gather(*(program.insert(table, [{"id": n} for n in part]) for part in parts))
        acks |= {part[-1]: answer.json["seq"] for part, answer in zip(parts, answers, strict=True)}
    stop.set()
    await disturbing
    told = server.sql(f"SELECT id, _key FROM {table} WHERE id >= 0")  # of theirs there may be more than an answer holds
    assert [number for number, _ in told] == list(range(5_000))
    assert server.sql(f"SELECT count(*) > 5000 FROM {table}") == [[True]]
    seqs = {number: int(key.split(":")[1]) for number, key in told}
    assert acks == {number: seqs[number] for number in acks}


async def test_a_broker_that_forbids_to_publish_gets_no_false_ack(
    start_kalam: StartKalam, start_nats_server: StartNats, connect: Connect
) -> None:
    def users(**denied: Any) -> dict[str, Any]:
        kalam = {"user": "k", "password": "k", "permissions": {"publish": {"deny": ["forbidden", *denied]}}}
        return {"users": [kalam, {"user": "c", "password": "c"}]}

    broker = start_nats_server(authorization=users(**{"kalam.stream.>": 1}))
    server = start_kalam(flags=[f"--nats-url={broker.url.replace('//', '//k:k@')}"], **IMPATIENT)
    make_table(server)
    options = {"user": "c", "password": "c", "allow_reconnect": True, "max_reconnect_attempts": -1}
    program = await connect(server, broker.url, **options)
    for number in range(3):
        answer = await insert(program, number)
        assert answer is not None
        assert answer.code == "broker_unavailable"
    answer = await insert(program, *range(100))
    assert answer is not None
    assert answer.code == "broker_unavailable"
    assert ids(server) == []
    assert server.sql("SELECT 1") == [[1]]
    broker.stop()
    broker.start(authorization=users())
    await insert_until_stored(program, 5)
    assert ids(server) == [5]


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 MB; skips where one cannot be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


async def test_after_a_full_disk_the_embedded_broker_is_restarted(
    small_disk: Path, connect: Connect, wait_until: Any
) -> None:
    server = ServerProcess(small_disk / "data", environment={**IMPATIENT, "KALAM_DISK_FREE_BYTES_MIN": str(16 << 20)})
    try:
        await asyncio.to_thread(server.start)
        make_table(server, "WITH (max_buffer = 1000000)")
        program = await connect(server, allow_reconnect=True, max_reconnect_attempts=-1, reconnect_time_wait=0.05)
        assert (await program.insert(TABLE, {"id": 1})).json == {"rows": 1, "seq": 1}
        fill(small_disk / "ballast")
        pid = embedded_pid(server)
        async with asyncio.timeout(PATIENCE_S):
            while (answer := await insert(program, 2, pad="x" * 500_000)) is None or answer.code is None:
                assert answer is not None
        assert answer.code in ("broker_unavailable", "storage_full")
        (small_disk / "ballast").unlink()
        await insert_until_stored(program, 3)
        told = ids(server)
        assert (told[0], told[-1]) == (1, 3)
        assert embedded_pid(server) != pid
        assert server.sql("SELECT 1") == [[1]]
    finally:
        server.kill()


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with file.open("wb", buffering=0) as opened:
        free = shutil.disk_usage(file.parent).free
        try:
            while free > 0:
                free -= opened.write(b"\0" * min(free, 1 << 20))
            opened.write(b"\0" * 4_096)
        except OSError:
            return


async def test_the_feed_of_events_goes_on_for_a_subscriber_after_a_restart_of_the_broker(
    start_kalam: StartKalam, nats_server: Any, connect: Connect
) -> None:
    server = start_kalam(flags=[f"--nats-url={nats_server.url}"], **IMPATIENT)
    make_table(server)
    program = await connect(server, nats_server.url, allow_reconnect=True, max_reconnect_attempts=-1)
    next_event = await program.listen(f"kalam.stream.{TABLE}")
    await program.insert(TABLE, {"id": 1})
    assert json.loads((await next_event()).body)["id"] == 1
    nats_server.stop()
    nats_server.start()
    await insert_until_stored(program, 2)
    assert json.loads((await next_event()).body)["id"] == 2
