"""Views over streams of others that are emptied, made anew, restored, rolled back: each message once, or it is said."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats
import pytest
from conftest import NatsServer
from foreign_streams import publish, restore, snapshot
from nats.js.api import RetentionPolicy, StreamConfig
from server_process import ServerProcess, SqlFailed
from view_watching import standing

WaitFor = Callable[[Callable[[], Any]], Any]
_numbers = itertools.count(1)


@pytest.fixture
def name() -> str:
    return f"V{next(_numbers)}"


def ids(server: ServerProcess, view: str) -> list[int]:
    return sorted(row[0] for row in server.sql(f"SELECT id FROM {view}"))


async def made(server: ServerProcess, namespace: str, name: str, options: str = "") -> Any:
    """A client's JetStream, with a stream and a view ``w`` over it that has had three messages."""
    client = await nats.connect(server.nats_url)
    js = client.jetstream()
    await js.add_stream(StreamConfig(name=name, subjects=[f"v.{name}.*"]))
    await publish(js, f"v.{name}.a", range(1, 4))
    server.sql(f"CREATE STREAM TABLE {namespace}.t (id BIGINT) OVER STREAM '{name}'")
    server.sql(f"CREATE MATERIALIZED VIEW {namespace}.w WITH (refresh = '0'{options}) AS SELECT id FROM {namespace}.t")
    return js


async def until(wait_for: WaitFor, condition: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(wait_for, condition)


async def test_what_is_purged_and_deleted_stays_and_what_was_not_read_is_counted(
    shared_server: ServerProcess, namespace: str, name: str, wait_for: WaitFor
) -> None:
    server, view = shared_server, f"{namespace}.w"
    js = await made(server, namespace, name)
    await until(wait_for, lambda: ids(server, view) == [1, 2, 3])
    await js.delete_msg(name, 3)  # the last one that was read
    await publish(js, f"v.{name}.a", range(4, 6))
    await until(wait_for, lambda: ids(server, view) == [1, 2, 3, 4, 5])
    await js.purge_stream(name)
    await publish(js, f"v.{name}.a", range(6, 8))
    await until(wait_for, lambda: ids(server, view) == [1, 2, 3, 4, 5, 6, 7])
    assert standing(server, view)["missed"] == 0
    assert standing(server, view)["position"] == {f"{namespace}.t": 7}


async def test_a_stream_that_is_made_anew_stops_the_view_until_somebody_says_go_on(
    shared_server: ServerProcess, namespace: str, name: str, wait_for: WaitFor
) -> None:
    server, view = shared_server, f"{namespace}.w"
    js = await made(server, namespace, name)
    await until(wait_for, lambda: ids(server, view) == [1, 2, 3])
    client = await nats.connect(server.nats_url)
    heard = await client.subscribe(f"kalam.event.view.*.{view}")
    await client.flush()
    await js.delete_stream(name)
    await until(wait_for, lambda: standing(server, view)["state"] == "waiting")
    await js.add_stream(StreamConfig(name=name, subjects=[f"v.{name}.*"]))
    await publish(js, f"v.{name}.a", range(11, 16))
    await until(wait_for, lambda: standing(server, view)["state"] == "stopped")
    assert "recreated" in standing(server, view)["reason"]
    assert (await heard.next_msg(60)).subject == f"kalam.event.view.stopped.{view}"
    assert ids(server, view) == [1, 2, 3]
    server.sql(f"ALTER MATERIALIZED VIEW {view} SET (on_recreate = 'continue')")
    await until(wait_for, lambda: ids(server, view) == [1, 2, 3, 11, 12, 13, 14, 15])
    message = await heard.next_msg(60)
    assert (message.subject, json.loads(message.data)["generation"]) == (f"kalam.event.view.recreated.{view}", 2)
    await js.delete_stream(name)
    await js.add_stream(StreamConfig(name=name, subjects=[f"v.{name}.*"]))
    await publish(js, f"v.{name}.a", range(21, 23))
    await until(wait_for, lambda: ids(server, view)[-2:] == [21, 22])
    assert len(ids(server, view)) == 10
    await client.close()


async def test_a_restore_of_the_same_messages_is_the_same_stream(
    shared_server: ServerProcess, namespace: str, name: str, wait_for: WaitFor
) -> None:
    server, view = shared_server, f"{namespace}.w"
    js = await made(server, namespace, name)
    await until(wait_for, lambda: ids(server, view) == [1, 2, 3])
    client = await nats.connect(server.nats_url)
    backup = await snapshot(client, name)
    await js.delete_stream(name)
    await restore(client, name, backup)
    await publish(js, f"v.{name}.a", range(4, 6))
    await until(wait_for, lambda: ids(server, view) == [1, 2, 3, 4, 5])
    assert standing(server, view)["state"] == "running"
    await client.close()


@pytest.mark.parametrize("on_recreate", ["stop", "continue"])
async def test_a_broker_that_lost_its_end_and_gave_the_sequences_anew_is_noticed(
    start_kalam: Callable[..., ServerProcess],
    nats_server: NatsServer,
    tmp_path: Path,
    wait_for: WaitFor,
    on_recreate: str,
) -> None:
    server = await asyncio.to_thread(start_kalam, flags=[f"--nats-url={nats_server.url}"])
    client = await nats.connect(nats_server.url)
    js = client.jetstream()
    await js.add_stream(StreamConfig(name="LOST", subjects=["lost.*"]))
    await publish(js, "lost.a", range(1, 6))
    await client.close()
    nats_server.stop()
    shutil.copytree(nats_server.folder / "jetstream", tmp_path / "older")
    nats_server.start()
    client = await nats.connect(nats_server.url)
    server.sql("CREATE NAMESPACE k")
    await until(wait_for, lambda: asked(server, "CREATE STREAM TABLE k.t (id BIGINT) OVER STREAM 'LOST'"))
    server.sql(
        f"CREATE MATERIALIZED VIEW k.w WITH (refresh = '0', on_recreate = '{on_recreate}') AS SELECT id FROM k.t"
    )
    await publish(client.jetstream(), "lost.a", range(6, 9))
    await until(wait_for, lambda: ids(server, "k.w") == [1, 2, 3, 4, 5, 6, 7, 8])
    await client.close()
    nats_server.stop()
    shutil.rmtree(nats_server.folder / "jetstream")
    shutil.copytree(tmp_path / "older", nats_server.folder / "jetstream")
    nats_server.start()
    client = await nats.connect(nats_server.url)
    await publish(client.jetstream(), "lost.a", range(16, 26))  # sequences 6, 7 and 8 are other messages now
    if on_recreate == "stop":
        await until(wait_for, lambda: standing(server, "k.w")["state"] == "stopped")
        assert ids(server, "k.w") == [1, 2, 3, 4, 5, 6, 7, 8]
    else:
        await until(wait_for, lambda: ids(server, "k.w") == [1, 2, 3, 4, 5, 6, 7, 8, *range(16, 26)])
    await client.close()


def asked(server: ServerProcess, text: str) -> bool:
    try:
        server.sql(text)
    except SqlFailed:
        return False
    return True


@pytest.mark.parametrize("retention", [RetentionPolicy.WORK_QUEUE, RetentionPolicy.INTEREST])
async def test_a_stream_whose_messages_go_when_others_have_taken_them_is_refused(
    shared_server: ServerProcess, namespace: str, name: str, retention: RetentionPolicy
) -> None:
    server = shared_server
    client = await nats.connect(server.nats_url)
    config = StreamConfig(name=name, subjects=[f"v.{name}.*"], retention=retention, allow_direct=True)
    await client.jetstream().add_stream(config)
    server.sql(f"CREATE STREAM TABLE {namespace}.t (id BIGINT) OVER STREAM '{name}'")
    with pytest.raises(SqlFailed) as failure:
        server.sql(f"CREATE MATERIALIZED VIEW {namespace}.w AS SELECT id FROM {namespace}.t")
    assert failure.value.code == "unsupported"
    await client.close()


async def test_virtual_columns_are_columns_of_a_view_and_a_new_member_costs_no_history(
    shared_server: ServerProcess, namespace: str, name: str, wait_for: WaitFor
) -> None:
    server, view = shared_server, f"{namespace}.history"
    js = await made(server, namespace, name)
    server.sql(f"CREATE MATERIALIZED VIEW {view} AS SELECT *, _seq AS seq, _subject AS subject FROM {namespace}.t")
    await until(wait_for, lambda: len(server.sql(f"SELECT id FROM {view}")) == 3)
    server.sql(f"ALTER TABLE {namespace}.t ADD COLUMN site TEXT")
    server.sql(f"ALTER MATERIALIZED VIEW {view} ADD COLUMN site AS upper(site)")
    await js.publish(f"v.{name}.b", b'{"id": 4, "site": "north"}')
    expected = [*([number, number, f"v.{name}.a", None] for number in (1, 2, 3)), [4, 4, f"v.{name}.b", "NORTH"]]
    await until(wait_for, lambda: server.sql(f"SELECT id, seq, subject, site FROM {view} ORDER BY id") == expected)


async def test_aggregates_over_a_bucket_are_those_of_the_keys_that_are_there(
    shared_server: ServerProcess, namespace: str, wait_for: WaitFor
) -> None:
    server = shared_server
    client = await nats.connect(server.nats_url)
    bucket = await client.jetstream().create_key_value(bucket=f"lamps-{namespace}")
    for number in range(6):
        await bucket.put(f"k{number}", json.dumps({"site": "ab"[number % 2], "v": number}).encode())
    server.sql(f"CREATE STREAM TABLE {namespace}.t (site TEXT, v BIGINT) OVER BUCKET 'lamps-{namespace}'")
    sites = (
        "SELECT site, count(*) AS n, sum(v) AS total, avg(v) AS mean, count(DISTINCT v) AS kinds, bool_or(v > 3) AS big"
    )
    server.sql(
        f"CREATE MATERIALIZED VIEW {namespace}.w WITH (refresh = '0') AS {sites} FROM {namespace}.t GROUP BY site"
    )
    server.sql(f"CREATE MATERIALIZED VIEW {namespace}.one AS SELECT count(*) AS n, sum(v) AS total FROM {namespace}.t")
    read = f"SELECT site, n, total, mean, kinds, big FROM {namespace}.w ORDER BY site"
    one = f"SELECT n, total FROM {namespace}.one"
    assert [row[1:] for row in server.sql(read)] == [[3, 6, 2.0, 3, True], [3, 9, 3.0, 3, True]]
    await bucket.put("k4", b'{"site": "b", "v": 1}')  # from one group to the other
    await bucket.put("k5", b'{"site": "b", "v": 1}')
    await bucket.delete("k0")
    expected = [["a", 1, 2, 2.0, 1, False], ["b", 4, 6, 1.5, 2, False]]
    await until(wait_for, lambda: server.sql(read) == expected)
    await bucket.purge("k2")
    await until(wait_for, lambda: server.sql(read) == expected[1:])
    await until(wait_for, lambda: server.sql(one) == [[4, 6]])
    for number in (1, 3, 4, 5):
        await bucket.delete(f"k{number}")
    await until(wait_for, lambda: server.sql(read) == [])
    await until(wait_for, lambda: server.sql(one) == [[0, None]])
    server.sql(f"REFRESH MATERIALIZED VIEW {namespace}.w")
    await bucket.put("k9", b'{"site": "c", "v": 9}')
    await until(wait_for, lambda: server.sql(read) == [["c", 1, 9, 9.0, 1, True]])
    top = f"{namespace}.top WITH (maintain = 'incremental') AS SELECT max(v) AS top FROM {namespace}.t"
    with pytest.raises(SqlFailed, match="over a bucket, whose former keys cannot be asked again"):
        server.sql(f"CREATE MATERIALIZED VIEW {top}")
    await client.close()


async def test_a_view_over_a_bucket_follows_its_keys_also_over_a_restart(
    start_kalam: Callable[..., ServerProcess], nats_server: NatsServer, wait_for: WaitFor
) -> None:
    server = await asyncio.to_thread(start_kalam, flags=[f"--nats-url={nats_server.url}"])
    client = await nats.connect(nats_server.url)
    bucket = await client.jetstream().create_key_value(bucket="dev")
    for number in range(5):
        await bucket.put(f"k{number}", json.dumps({"v": number}).encode())
    server.sql("CREATE NAMESPACE k; CREATE STREAM TABLE k.t (v INT) OVER BUCKET 'dev'")
    server.sql(
        "CREATE MATERIALIZED VIEW k.w WITH (refresh = '0') AS SELECT _key AS name, v * 2 AS w FROM k.t WHERE v <> 3"
    )
    server.sql("CREATE MATERIALIZED VIEW k.hidden AS SELECT v FROM k.t")
    read = "SELECT name, w FROM k.w ORDER BY name"
    await until(wait_for, lambda: server.sql(read) == [["k0", 0], ["k1", 2], ["k2", 4], ["k4", 8]])
    await bucket.put("k0", b'{"v": 50}')
    await bucket.delete("k1")
    await bucket.put("k2", b'{"v": 3}')
    await bucket.put("k3", b'{"v": 1}')
    await until(wait_for, lambda: server.sql(read) == [["k0", 100], ["k3", 2], ["k4", 8]])
    server.kill()
    await bucket.delete("k4")
    await bucket.put("k9", b'{"v": 9}')
    await asyncio.to_thread(server.restart)
    await until(wait_for, lambda: server.sql(read) == [["k0", 100], ["k3", 2], ["k9", 18]])
    await until(wait_for, lambda: sorted(server.sql("SELECT v FROM k.hidden")) == [[1], [3], [9], [50]])
    assert server.sql("SELECT _key FROM k.hidden WHERE v = 9") == [["k9"]]
    await client.close()
