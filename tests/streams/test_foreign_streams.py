"""Streams of others that are purged, emptied, made anew or rolled back, and those that are copies of others."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import NatsServer
from foreign_program import Program
from foreign_streams import ids, publish
from live_subscriber import Refused, connected, subscribe
from nats.js import JetStreamContext
from nats.js.api import StorageType, StoreCompression, StreamConfig, StreamSource
from server_process import ServerProcess, SqlFailed

_numbers = itertools.count(1)
MANY = 60_000
"""Messages that are read by several pulls."""
WaitFor = Callable[[Callable[[], Any]], Any]


@pytest.fixture
def name() -> str:
    return f"S{next(_numbers)}"


def is_connected(server: ServerProcess) -> bool:
    """Whether Kalam has its broker back."""
    try:
        server.sql("SHOW STREAMS")
    except SqlFailed as failure:
        if failure.code != "broker_unavailable":
            raise
        return False
    return True


@pytest.mark.parametrize("subject", ["", "SUBJECT 's.*.a'"], ids=["everything", "some-subjects"])
async def test_a_query_sees_what_is_there_now(program: Program, namespace: str, name: str, subject: str) -> None:
    js, server, table = program.broker.jetstream(), program.server, f"{namespace}.t"
    await js.add_stream(StreamConfig(name=name, subjects=[f"s.{name}.*"]))
    await publish(js, f"s.{name}.a", range(1, 6))
    await publish(js, f"s.{name}.b", range(6, 8))
    others = [] if subject else [6, 7]
    server.sql(f"CREATE STREAM TABLE {table} (id BIGINT) OVER STREAM '{name}' {subject}")
    assert ids(server, table) == [1, 2, 3, 4, 5, *others]
    await js.delete_msg(name, 3)
    assert ids(server, table) == [1, 2, 4, 5, *others]
    await publish(js, f"s.{name}.a", range(8, 10))
    assert ids(server, table) == [1, 2, 4, 5, *others, 8, 9]
    await js.delete_msg(name, 9)  # the last of them, and then one more comes
    await publish(js, f"s.{name}.a", range(10, 11))
    assert ids(server, table) == [1, 2, 4, 5, *others, 8, 10]
    await js.purge_stream(name, seq=5)
    assert ids(server, table) == [5, *others, 8, 10]
    await js.purge_stream(name)
    assert ids(server, table) == []
    await publish(js, f"s.{name}.a", range(20, 22))
    assert ids(server, table) == [20, 21]
    await js.delete_stream(name)
    await js.add_stream(StreamConfig(name=name, subjects=[f"s.{name}.*"], max_msgs=2))
    await publish(js, f"s.{name}.a", range(30, 35))
    assert ids(server, table) == [33, 34]


async def test_memory_compressed_sealed_mirrored_and_sourced_streams_are_read_alike(
    program: Program, namespace: str, name: str
) -> None:
    js, server = program.broker.jetstream(), program.server
    await js.add_stream(StreamConfig(name=name, subjects=[f"s.{name}.*"], compression=StoreCompression.S2))
    await publish(js, f"s.{name}.a", range(1, 4))
    await js.add_stream(StreamConfig(name=f"{name}m", storage=StorageType.MEMORY, mirror=StreamSource(name=name)))
    await js.add_stream(StreamConfig(name=f"{name}s", sources=[StreamSource(name=name)]))
    sealed = StreamConfig(name=f"{name}z", subjects=[f"z.{name}"])
    await js.add_stream(sealed)
    await publish(js, f"z.{name}", range(1, 4))
    sealed.sealed = True
    await js.update_stream(sealed)
    for suffix in ("", "m", "s", "z"):
        server.sql(f"CREATE STREAM TABLE {namespace}.t{suffix} (id BIGINT) OVER STREAM '{name}{suffix}'")
    for suffix in ("", "z"):
        assert ids(server, f"{namespace}.t{suffix}") == [1, 2, 3]
    shown = {row[0]: row for row in server.sql("SHOW STREAMS")}
    assert shown[name][1:4] == ["stream", f"s.{name}.*", 3]
    assert shown[name][10] == f"{namespace}.t"
    assert shown[f"{name}m"][9] == name
    async with connected(server.nats_url) as client:
        for suffix in ("m", "s"):  # copies come when they come
            while (await client.jetstream().stream_info(f"{name}{suffix}")).state.messages < 3:
                pass
            assert ids(server, f"{namespace}.t{suffix}") == [1, 2, 3]


async def test_sequences_that_are_given_twice_are_not_mixed_up(
    start_nats_server: Callable[..., NatsServer],
    start_kalam: Callable[..., ServerProcess],
    tmp_path: Path,
    wait_for: WaitFor,
) -> None:
    """A broker of default settings loses its tail, and gives the same sequences to other messages."""
    broker = start_nats_server()
    server = start_kalam(flags=[f"--nats-url={broker.url}"])
    assert "max_payload" in server.log_text()  # which is 1 MiB there
    server.sql("CREATE NAMESPACE n")
    async with connected(broker.url) as client:
        await client.jetstream().add_stream(StreamConfig(name="S", subjects=["s"]))
        await publish(client.jetstream(), "s", range(1, 6))
    broker.stop()
    shutil.copytree(broker.folder / "jetstream", tmp_path / "older")
    broker.start()
    async with connected(broker.url) as client:
        await publish(client.jetstream(), "s", range(6, 11))
        wait_for(lambda: is_connected(server))
        server.sql("CREATE STREAM TABLE n.t (id BIGINT) OVER STREAM 'S'")
        assert ids(server, "n.t") == list(range(1, 11))
    broker.kill()
    shutil.rmtree(broker.folder / "jetstream")
    shutil.copytree(tmp_path / "older", broker.folder / "jetstream")
    broker.start()
    async with connected(broker.url) as client:
        await publish(client.jetstream(), "s", range(106, 113))
        wait_for(lambda: is_connected(server))
        assert ids(server, "n.t") == [1, 2, 3, 4, 5, *range(106, 113)]
        server.stop()
        await client.jetstream().purge_stream("S", keep=2)  # while Kalam is down
        await publish(client.jetstream(), "s", range(113, 115))
        server.restart()
        assert ids(server, "n.t") == [111, 112, 113, 114]
        with pytest.raises(Refused) as refused:
            await subscribe(client, "SELECT id FROM n.t", from_seq=3)
        assert refused.value.code == "cursor_expired"


async def test_messages_are_counted_once_after_a_first_read_that_broke_off(
    start_nats_server: Callable[..., NatsServer], start_kalam: Callable[..., ServerProcess], wait_for: WaitFor
) -> None:
    counts = "SELECT count(*), count(DISTINCT id) FROM n.t"
    broker = start_nats_server()
    server = start_kalam(flags=[f"--nats-url={broker.url}"])
    server.sql("CREATE NAMESPACE n")
    async with connected(broker.url) as client:
        js = client.jetstream()
        await js.add_stream(StreamConfig(name="S", subjects=["s"]))
        for number in range(1, MANY):
            await client.publish("s", json.dumps({"id": number}).encode())
        await js.publish("s", json.dumps({"id": MANY}).encode())
        server.sql("CREATE STREAM TABLE n.t (id BIGINT) OVER STREAM 'S'")
        asked = asyncio.create_task(asyncio.to_thread(server.sql, counts))
        while not asked.done() and not await is_half_read(js):
            pass
    broker.stop()
    with suppress(SqlFailed):
        assert await asked == [[MANY, MANY]]  # the read was faster
    broker.start()
    wait_for(lambda: is_connected(server))
    assert server.sql(counts) == [[MANY, MANY]]


async def is_half_read(js: JetStreamContext) -> bool:
    """Whether a read has had its first messages."""
    return any(consumer.num_pending < MANY * 3 // 4 for consumer in await js.consumers_info("S"))


async def test_a_read_that_lasts_is_ended_by_whoever_asked(
    start_nats_server: Callable[..., NatsServer], start_kalam: Callable[..., ServerProcess], wait_for: WaitFor
) -> None:
    broker = start_nats_server()
    server = start_kalam(flags=[f"--nats-url={broker.url}"], KALAM_BROKER_TIMEOUT_S="60")
    server.sql("CREATE NAMESPACE n")
    async with connected(broker.url) as client:
        await client.jetstream().add_stream(StreamConfig(name="S", subjects=["s"]))
        await publish(client.jetstream(), "s", range(1, 4))
    server.sql("CREATE STREAM TABLE n.t (id BIGINT) OVER STREAM 'S'")
    os.kill(broker.pid, signal.SIGSTOP)  # so that no read comes to its end
    try:
        asked = asyncio.create_task(asyncio.to_thread(server.sql, "SELECT id + 1 FROM n.t"))
        running = "SELECT query_id FROM system.queries WHERE sql = 'SELECT id + 1 FROM n.t'"
        [[query_id]] = await asyncio.to_thread(wait_for, lambda: server.sql(running))
        server.sql(f"KILL QUERY '{query_id}'")
        with pytest.raises(SqlFailed) as failure:
            await asked
        assert failure.value.code == "cancelled"
    finally:
        os.kill(broker.pid, signal.SIGCONT)
    assert ids(server, "n.t") == [1, 2, 3]


async def test_what_may_not_be_read_is_denied_with_what_to_grant(
    start_nats_server: Callable[..., NatsServer], start_kalam: Callable[..., ServerProcess], wait_for: WaitFor
) -> None:
    def users(deny: list[str]) -> dict[str, Any]:
        kalam = {"user": "kalam", "password": "k", "permissions": {"publish": {"deny": deny}, "subscribe": ">"}}
        return {"users": [{"user": "root", "password": "r"}, kalam]}

    broker = start_nats_server(authorization=users(["$JS.API.STREAM.INFO.HIDDEN", "$JS.API.CONSUMER.*.S.>"]))
    url = broker.url.replace("nats://", "nats://kalam:k@")
    server = start_kalam(flags=[f"--nats-url={url}"])
    server.sql("CREATE NAMESPACE n")
    async with connected(broker.url.replace("nats://", "nats://root:r@")) as client:
        js = client.jetstream()
        await js.add_stream(StreamConfig(name="HIDDEN", subjects=["h"]))
        await js.add_stream(StreamConfig(name="S", subjects=["s"]))
        await publish(js, "s", range(1, 4))
    with pytest.raises(SqlFailed) as failure:
        server.sql("CREATE STREAM TABLE n.h (id BIGINT) OVER STREAM 'HIDDEN'")
    assert failure.value.code == "permission_denied"
    assert "$JS.API.STREAM.INFO.HIDDEN" in failure.value.problem["hint"]
    server.sql("CREATE STREAM TABLE n.t (id BIGINT) OVER STREAM 'S'")
    with pytest.raises(SqlFailed) as failure:
        server.sql("SELECT * FROM n.t")
    assert failure.value.code == "permission_denied"
    for api in ("STREAM.INFO.S", "CONSUMER.CREATE.S.>", "CONSUMER.MSG.NEXT.S.>", "CONSUMER.DELETE.S.>"):
        assert f"$JS.API.{api}" in failure.value.problem["hint"]
    broker.stop()
    broker.start(authorization=users([]))
    wait_for(lambda: is_connected(server))
    assert ids(server, "n.t") == [1, 2, 3]


async def test_a_live_query_tells_what_others_publish(program: Program, namespace: str, name: str) -> None:
    js, server, table = program.broker.jetstream(), program.server, f"{namespace}.t"
    await js.add_stream(StreamConfig(name=name, subjects=[f"s.{name}.*"]))
    await publish(js, f"s.{name}.a", range(1, 4))
    server.sql(f"CREATE STREAM TABLE {table} (id BIGINT NOT NULL, what TEXT FROM TOKEN 3) OVER STREAM '{name}'")
    async with connected(server.nats_url) as client:
        everything = await subscribe(client, f"SELECT * FROM {table}")
        some = await subscribe(client, f"SELECT id, _subject, _seq FROM {table} WHERE what = 'b' AND _seq > 2")
        again = await subscribe(client, f"SELECT id FROM {table}", from_seq=1)
        assert everything.rows == [{"id": number, "what": "a"} for number in (1, 2, 3)]
        assert some.rows == []
        assert [change["row"]["id"] for change in await again.wait_changes(2)] == [2, 3]
        await js.publish(f"s.{name}.a", b"broken")
        await publish(js, f"s.{name}.b", range(4, 7))
        await publish(js, f"s.{name}.a", range(7, 8))
        changes = await everything.wait_changes(4)
        assert [(change["op"], change["seq"], change["row"]) for change in changes] == [
            *(("insert", number + 1, {"id": number, "what": "b"}) for number in (4, 5, 6)),
            ("insert", 8, {"id": 7, "what": "a"}),
        ]
        assert [change["row"] for change in await some.wait_changes(3)] == [
            {"id": number, "_subject": f"s.{name}.b", "_seq": number + 1} for number in (4, 5, 6)
        ]
        await js.delete_stream(name)
        await js.add_stream(StreamConfig(name=name, subjects=[f"s.{name}.*"]))
        await publish(js, f"s.{name}.b", range(90, 92))
        await everything.wait(lambda: [change["row"]["id"] for change in everything.changes][-2:] == [90, 91])
        assert everything.of("resync")
        with pytest.raises(SqlFailed) as failure:
            server.sql(f"DROP TABLE {table}")
        assert failure.value.code == "table_in_use"
    server.sql(f"DROP TABLE {table} CASCADE")


async def test_a_window_that_is_too_large_tells_the_bound_that_would_do(
    start_kalam: Callable[..., ServerProcess], connect: Callable[..., Awaitable[Program]]
) -> None:
    server = start_kalam(KALAM_STREAM_WINDOW_BYTES_MAX=str(1 << 20))
    program = await connect(server)
    js = program.broker.jetstream()
    server.sql("CREATE NAMESPACE n")
    await js.add_stream(StreamConfig(name="S", subjects=["s"]))
    for number in range(400):
        await js.publish("s", json.dumps({"id": number, "text": "x" * 8_000}).encode())
    server.sql("CREATE STREAM TABLE n.t (id BIGINT, text TEXT) OVER STREAM 'S'")
    with pytest.raises(SqlFailed) as failure:
        server.sql("SELECT * FROM n.t")
    assert failure.value.code == "too_large"
    bound = failure.value.problem["hint"].partition(" reads")[0]
    assert bound.startswith("WHERE _seq > ")
    newest = ids(server, "n.t", bound)
    assert newest[-1] == 399
    assert newest == list(range(newest[0], 400))


async def test_it_joins_other_tables(program: Program, namespace: str, name: str) -> None:
    js, server = program.broker.jetstream(), program.server
    await js.add_stream(StreamConfig(name=name, subjects=[f"s.{name}"]))
    await publish(js, f"s.{name}", range(1, 4))
    server.sql(f"CREATE STREAM TABLE {namespace}.t (id BIGINT) OVER STREAM '{name}'")
    server.sql(f"CREATE TABLE {namespace}.names (id BIGINT PRIMARY KEY, called TEXT)")
    server.sql(f"INSERT INTO {namespace}.names VALUES (2, 'two'), (3, 'three')")
    joined = f"SELECT n.called, t._seq FROM {namespace}.t AS t JOIN {namespace}.names AS n ON n.id = t.id"
    assert server.sql(f"{joined} WHERE t._seq > 2") == [["three", 3]]
    assert server.sql(f"{joined} ORDER BY 2") == [["two", 2], ["three", 3]]
    server.sql(f"INSERT INTO {namespace}.names SELECT id + 10, 'copied' FROM {namespace}.t")
    assert server.sql(f"SELECT count(*) FROM {namespace}.names") == [[5]]


async def test_it_outlives_a_restart_and_is_resumed_from_a_time(
    start_kalam: Callable[..., ServerProcess], connect: Callable[..., Awaitable[Program]], wait_for: WaitFor
) -> None:
    server = start_kalam()
    server.sql("CREATE NAMESPACE n")
    program = await connect(server)
    js = program.broker.jetstream()
    await js.add_stream(StreamConfig(name="S", subjects=["s.*"], max_msgs_per_subject=2))
    await publish(js, "s.a", range(1, 4))
    server.sql("CREATE STREAM TABLE n.t (id BIGINT, what TEXT FROM TOKEN 2) OVER STREAM 'S'")
    assert ids(server, "n.t") == [2, 3]
    await publish(js, "s.a", range(4, 5))  # takes one from the midst of those that were read
    await publish(js, "s.b", range(5, 6))
    assert ids(server, "n.t") == [3, 4, 5]
    [[at]] = server.sql("SELECT _time FROM n.t WHERE id = 4")
    assert ids(server, "n.t", f"WHERE _time >= '{at}' ORDER BY id") == [4, 5]
    await program.broker.close()
    server.stop()
    server.restart()
    assert ids(server, "n.t") == [3, 4, 5]
    assert [row[0] for row in server.sql("SHOW TABLES IN n")] == ["n"]
    async with connected(server.nats_url) as client:
        live = await subscribe(client, "SELECT id FROM n.t", from_time=at)
        assert [change["row"]["id"] for change in await live.wait_changes(2)] == [4, 5]
        newest = await subscribe(client, "SELECT id FROM n.t", last_rows=1)
        assert newest.rows == [{"id": 5}]
