"""Buckets of others: rolled back, emptied without a word, over restarts, and where a broker does not let Kalam read."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import NatsServer
from live_subscriber import connected, subscribe
from nats.aio.client import Client
from nats.js.api import KeyValueConfig
from nats.js.kv import KeyValue
from server_process import ServerProcess, SqlFailed

WaitFor = Callable[[Callable[[], Any]], Any]
CREATE = "CREATE STREAM TABLE n.t (site TEXT FROM TOKEN 1, v BIGINT) OVER BUCKET 'b'"


async def make(client: Client, **config: Any) -> KeyValue:
    return await client.jetstream().create_key_value(KeyValueConfig(bucket="b", **config))


async def bucket_of(client: Client) -> KeyValue:
    return await client.jetstream().key_value("b")


async def put(bucket: KeyValue, numbers: dict[str, int]) -> None:
    for key, number in numbers.items():
        await bucket.put(key, json.dumps({"v": number}).encode())


def rows(server: ServerProcess) -> dict[str, int] | None:
    """What is there by key; None while the broker is away."""
    try:
        return dict(server.sql("SELECT _key, v FROM n.t"))
    except SqlFailed as failure:
        if failure.code not in ("broker_unavailable", "not_found"):
            raise
        return None


@pytest.mark.parametrize("history", [1, 4])
async def test_a_bucket_whose_sequences_are_given_twice_is_read_as_it_is_now(
    start_nats_server: Callable[..., NatsServer],
    start_kalam: Callable[..., ServerProcess],
    tmp_path: Path,
    wait_for: WaitFor,
    history: int,
) -> None:
    """Sequences are given anew, past those that were known; then Kalam is restarted over the same bucket."""
    broker, many = start_nats_server(), {f"x.{number}": number for number in range(100)}
    server = start_kalam(flags=[f"--nats-url={broker.url}"])
    server.sql("CREATE NAMESPACE n")
    async with connected(broker.url) as client:
        await put(await make(client, history=history), {"a": 1, "b": 1, "gone": 1} | many)
    broker.stop()
    shutil.copytree(broker.folder / "jetstream", tmp_path / "older")
    broker.start()
    async with connected(broker.url) as client:
        bucket = await bucket_of(client)
        await put(bucket, {"a": 2, "c": 2})
        await bucket.delete("gone")
        wait_for(lambda: is_back(server))
        server.sql(CREATE)
        before = many | {"a": 2, "b": 1, "c": 2}
        assert rows(server) == before
    broker.kill()
    shutil.rmtree(broker.folder / "jetstream")
    shutil.copytree(tmp_path / "older", broker.folder / "jetstream")
    broker.start()
    async with connected(broker.url) as client:
        await put(await bucket_of(client), {"d": 3, "b": 3, "e": 3, "x.1": 3, "f": 3, "g": 3})
        after = many | {"a": 1, "b": 3, "gone": 1, "d": 3, "e": 3, "x.1": 3, "f": 3, "g": 3}
        await asyncio.to_thread(wait_for, lambda: rows(server) is not None)
        assert rows(server) == after
        server.stop()
        server.restart()
        assert rows(server) == after
        await (await bucket_of(client)).delete("g")
        del after["g"]
        assert rows(server) == after


def is_back(server: ServerProcess) -> bool:
    try:
        server.sql("SHOW STREAMS")
    except SqlFailed:
        return False
    return True


async def test_what_is_purged_without_a_word_is_told(start_kalam: Callable[..., ServerProcess]) -> None:
    server = start_kalam()
    server.sql("CREATE NAMESPACE n")
    async with connected(server.nats_url) as client:
        await put(await make(client), {"a": 1, "b": 1})
        server.sql(CREATE)
        live = await subscribe(client, "SELECT _key, v FROM n.t WHERE v > 0")
        await client.jetstream().purge_stream("KV_b")
        await put(await bucket_of(client), {"c": 1})
        changes = await live.wait_changes(3)
        told = sorted((change["op"], change["row"]["_key"]) for change in changes)
        assert told == [("delete", "a"), ("delete", "b"), ("insert", "c")]
        assert not live.of("resync")


async def test_a_bucket_that_may_not_be_read_is_denied_with_what_to_grant_and_heals(
    start_nats_server: Callable[..., NatsServer], start_kalam: Callable[..., ServerProcess], wait_for: WaitFor
) -> None:
    def users(deny: list[str]) -> dict[str, Any]:
        kalam = {"user": "kalam", "password": "k", "permissions": {"publish": {"deny": deny}, "subscribe": ">"}}
        return {"users": [{"user": "root", "password": "r"}, kalam]}

    broker = start_nats_server(authorization=users(["$JS.API.CONSUMER.CREATE.KV_b.>"]))
    server = start_kalam(flags=[f"--nats-url={broker.url.replace('nats://', 'nats://kalam:k@')}"])
    server.sql("CREATE NAMESPACE n")
    async with connected(broker.url.replace("nats://", "nats://root:r@")) as client:
        await put(await make(client), {"a": 1})
    server.sql(CREATE)
    with pytest.raises(SqlFailed) as failure:
        rows(server)
    assert failure.value.code == "permission_denied"
    for api in ("STREAM.INFO.KV_b", "CONSUMER.CREATE.KV_b.>", "CONSUMER.MSG.NEXT.KV_b.>", "CONSUMER.DELETE.KV_b.>"):
        assert f"$JS.API.{api}" in failure.value.problem["hint"]
    broker.stop()
    broker.start(authorization=users([]))
    wait_for(lambda: rows(server) == {"a": 1})


async def test_bounded_queries_that_run_at_once_are_bounded_together(start_kalam: Callable[..., ServerProcess]) -> None:
    """What they read is let go of with their answers, and none is larger than all may be."""
    room, note = 1 << 20, "n" * 3_000
    server = start_kalam(KALAM_STREAM_WINDOWS_BYTES_MAX=str(room), KALAM_STREAM_WINDOW_BYTES_MAX=str(room))
    server.sql("CREATE NAMESPACE n")
    async with connected(server.nats_url) as client:
        bucket = await make(client)
        for number in range(200):
            await bucket.put(f"x.{number}", json.dumps({"v": number, "note": note}).encode())
        server.sql(CREATE)
        asked = [asyncio.to_thread(server.sql, "SELECT count(v) FROM n.t WHERE _seq > 1") for _ in range(8)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        refused = {answer.code for answer in answers if isinstance(answer, SqlFailed)}
        assert refused <= {"too_busy"}
        assert next(answer for answer in answers if not isinstance(answer, SqlFailed)) == [[199]]
        for _ in range(3):
            assert server.sql("SELECT count(v) FROM n.t WHERE _seq > 1") == [[199]]
        live = await subscribe(client, "SELECT v FROM n.t")
        await put(bucket, {f"y.{number}": number for number in range(3)})
        for number in range(300):
            await bucket.put(f"z.{number}", json.dumps({"v": number, "note": note}).encode())
        for asked_for in ("SELECT count(*) FROM n.t", "SELECT count(*) FROM n.t WHERE _seq > 1"):
            with pytest.raises(SqlFailed) as failure:
                server.sql(asked_for)
            assert failure.value.code == "too_large"
        await live.wait(lambda: live.of("closed"))
        assert live.of("closed")[0]["reason"].startswith("too_large")
        assert server.sql("SELECT v FROM n.t WHERE _key = 'y.2'") == [[2]]
