"""Commit, then tell: every change reaches the feed once and in order, whatever becomes of the broker meanwhile."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from change_feed import SHARED_STREAM, USER_STREAM, FeedMessage, connected, last_seq, read_feed, replay
from conftest import NatsServer
from held_process import held
from live_subscriber import subscribe
from nats.aio.client import Client
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed

WAITING_BYTES = "SELECT value FROM system.stats WHERE name = 'outbox_bytes'"


def create(server: ServerProcess, namespace: str, kind: str = "SHARED", rest: str = "") -> str:
    server.sql(f"CREATE NAMESPACE {namespace}")
    server.sql(f"CREATE {kind} TABLE {namespace}.t (id BIGINT PRIMARY KEY, place TEXT, n INT) {rest}")
    return f"{namespace}.t"


async def feed_upto(url: str, wait_until: Any, subject: str, seq: int) -> list[FeedMessage]:
    """The feed once it has come as far as ``seq``; fails if it goes further."""

    async def is_there() -> bool:
        return last_seq(await read_feed(url, subject)) >= seq

    await wait_until(is_there)
    feed = await read_feed(url, subject)
    assert last_seq(feed) == seq
    return feed


def shape(feed: list[FeedMessage]) -> list[tuple[str, int, int]]:
    return [(message.op, message.seq, len(message.rows)) for message in feed]


def content(server: ServerProcess, table: str, user: str = "admin") -> dict[int, dict[str, Any]]:
    result = server.results(f"SELECT * FROM {table}", user=user)[-1]
    names = [column["name"] for column in result["columns"]]
    return {row[0]: dict(zip(names, row, strict=True)) for row in result["rows"]}


async def test_a_thousand_rows_of_one_statement_are_one_message(shared_server: ServerProcess, wait_until: Any) -> None:
    table = create(shared_server, "one")
    shared_server.sql(f"INSERT INTO {table} SELECT value, 'x', 1 FROM generate_series(1, 2500)")
    feed = await feed_upto(shared_server.nats_url, wait_until, "kalam.shared.one.t.>", 2_500)
    assert shape(feed) == [("insert", 1, 1_000), ("insert", 1_001, 1_000), ("insert", 2_001, 500)]
    assert {message.subject for message in feed} == {"kalam.shared.one.t.insert"}


async def test_changes_that_waited_together_share_a_message(
    start_kalam: Callable[..., ServerProcess], nats_server: NatsServer, wait_until: Any
) -> None:
    server = start_kalam(flags=[f"--nats-url={nats_server.url}"])
    table = create(server, "together")
    server.sql(f"INSERT INTO {table} VALUES (0, 'x', 0)")
    await feed_upto(nats_server.url, wait_until, "kalam.shared.together.t.>", 1)
    nats_server.stop()
    for row_id in range(1, 101):
        server.sql(f"INSERT INTO {table} VALUES ({row_id}, 'x', 0)")
    server.sql(f"UPDATE {table} SET n = 1 WHERE id <= 3")
    server.sql(f"UPDATE {table} SET n = 2 WHERE id <= 2")
    server.sql(f"DELETE FROM {table} WHERE id = 2")
    server.sql(f"INSERT INTO {table} VALUES (2, 'again', 3)")
    nats_server.start()
    feed = await feed_upto(nats_server.url, wait_until, "kalam.shared.together.t.>", 110)
    assert shape(feed) == [
        ("insert", 1, 1),
        ("insert", 2, 100),
        ("update", 102, 7),
        ("delete", 109, 1),
        ("insert", 110, 1),
    ]
    assert feed[2].old == [{"n": 0}] * 4 + [{"n": 1}] * 3
    assert replay(feed, "id") == content(server, table)


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_changes_made_while_the_broker_restarts_follow_without_hole_or_repeat(
    start_kalam: Callable[..., ServerProcess], nats_server: NatsServer, wait_until: Any, how: str
) -> None:
    server = start_kalam(flags=[f"--nats-url={nats_server.url}"])
    table = create(server, "restarts")
    server.sql("CREATE USER TABLE restarts.mine (id BIGINT PRIMARY KEY, place TEXT, n INT)")
    count = 0
    for _ in range(3):
        for _ in range(10):
            count += 1
            row = f"({count}, 'x', {count})"
            server.sql(f"INSERT INTO {table} VALUES {row}; INSERT INTO restarts.mine VALUES {row}", user="ann")
        getattr(nats_server, how)()  # with the changes just before on their way, and their fate unknown
        count += 1
        server.sql(f"INSERT INTO {table} VALUES ({count}, 'away', 0)")
        server.sql(f"INSERT INTO restarts.mine VALUES ({count}, 'away', 0)", user="ann")
        server.sql("FLUSH ALL TABLES")  # what is flushed before it is told is told all the same
        nats_server.start()
    feed = await feed_upto(nats_server.url, wait_until, "kalam.shared.restarts.t.>", count)
    assert replay(feed, "id") == content(server, table)
    feed = await feed_upto(nats_server.url, wait_until, "kalam.user.ann.restarts.mine.>", count)
    assert replay(feed, "id") == content(server, "restarts.mine", user="ann")


async def test_what_was_flushed_and_not_told_is_told_by_the_next_server(
    start_kalam: Callable[..., ServerProcess], nats_server: NatsServer, wait_until: Any
) -> None:
    server = start_kalam(flags=[f"--nats-url={nats_server.url}"])
    table = create(server, "flushed")
    server.sql(f"INSERT INTO {table} VALUES (1, 'told', 1)")
    await feed_upto(nats_server.url, wait_until, "kalam.shared.flushed.t.>", 1)
    nats_server.stop()
    server.sql(f"INSERT INTO {table} VALUES (2, 'untold', 2)")
    server.sql(f"UPDATE {table} SET n = 20 WHERE id = 2")
    server.sql(f"FLUSH TABLE {table}")
    server.kill()
    nats_server.start()
    server.restart()
    feed = await feed_upto(nats_server.url, wait_until, "kalam.shared.flushed.t.>", 3)
    assert shape(feed) == [("insert", 1, 1), ("insert", 2, 1), ("update", 3, 1)]
    assert replay(feed, "id") == content(server, table)
    server.sql(f"INSERT INTO {table} VALUES (3, 'new', 3)")
    await feed_upto(nats_server.url, wait_until, "kalam.shared.flushed.t.>", 4)


async def test_a_broker_that_lost_its_store_gets_what_follows_with_the_right_numbers(
    start_kalam: Callable[..., ServerProcess], start_nats_server: Callable[..., NatsServer], wait_until: Any
) -> None:
    broker = start_nats_server()
    server = start_kalam(flags=[f"--nats-url={broker.url}"])
    table = create(server, "lost")
    server.sql(f"INSERT INTO {table} VALUES (1, 'x', 1), (2, 'x', 2)")
    await feed_upto(broker.url, wait_until, "kalam.shared.lost.t.>", 2)
    server.stop()
    other = start_nats_server()
    server.flags = [f"--nats-url={other.url}"]
    server.restart()
    server.sql(f"INSERT INTO {table} VALUES (3, 'x', 3)")
    feed = await feed_upto(other.url, wait_until, "kalam.shared.lost.t.>", 3)
    assert shape(feed)[-1] == ("insert", 3, 1)


async def test_with_a_subject_key_every_change_goes_to_the_subject_of_its_key(
    shared_server: ServerProcess, wait_until: Any
) -> None:
    table = create(shared_server, "keyed", rest="WITH (subject_key = 'place')")
    shared_server.sql(
        f"INSERT INTO {table} SELECT value, CASE value % 3 WHEN 0 THEN 'oslo' WHEN 1 THEN 'rome' ELSE 'Köln' END, 0 "
        "FROM generate_series(1, 3000)"
    )
    shared_server.sql(f"UPDATE {table} SET n = 1 WHERE place = 'rome'")
    shared_server.sql(f"DELETE FROM {table} WHERE id = 3")
    shared_server.sql(f"INSERT INTO {table} VALUES (0, NULL, 0)")
    feed = await feed_upto(shared_server.nats_url, wait_until, "kalam.shared.keyed.t.>", 4_002)
    assert replay(feed, "id") == content(shared_server, table)
    tokens = {"oslo": "oslo", "rome": "rome", "Köln": "=S8O2bG4", None: "-"}
    for message in feed:
        [place] = {row["place"] for row in message.rows}
        assert message.subject == f"kalam.shared.keyed.t.{message.op}.{tokens[place]}"
    rome = await read_feed(shared_server.nats_url, "kalam.shared.keyed.t.*.rome")
    assert sum(len(message.rows) for message in rome) == 2_000


async def test_an_event_that_would_be_too_large_with_its_former_values_goes_without_them(
    start_kalam: Callable[..., ServerProcess], start_nats_server: Callable[..., NatsServer], wait_until: Any
) -> None:
    broker = start_nats_server(max_payload=1 << 20)
    server = start_kalam(flags=[f"--nats-url={broker.url}"], KALAM_ROW_BYTES_MAX="900000")
    server.sql("CREATE NAMESPACE large; CREATE TABLE large.t (id BIGINT PRIMARY KEY, body TEXT)")
    server.sql("INSERT INTO large.t VALUES (1, $1)", "a" * 700_000)
    server.sql("UPDATE large.t SET body = $1", "b" * 700_000)
    feed = await feed_upto(broker.url, wait_until, "kalam.shared.large.t.>", 2)
    assert [(message.op, message.rows[0]["body"][0], message.old) for message in feed] == [
        ("insert", "a", None),
        ("update", "b", None),
    ]
    async with connected(broker.url) as client:
        raw = await client.jetstream().get_last_msg("KALAM-CHANGES", "kalam.shared.large.t.update")
    assert json.loads(raw.data or b"")["old_omitted"] is True


async def test_a_backlog_over_its_bound_refuses_writes_until_it_is_told(
    start_kalam: Callable[..., ServerProcess], nats_server: NatsServer, wait_until: Any
) -> None:
    server = start_kalam(flags=[f"--nats-url={nats_server.url}"], KALAM_OUTBOX_BYTES_MAX=str(1 << 20))
    server.sql("CREATE NAMESPACE backlog; CREATE TABLE backlog.t (id BIGINT PRIMARY KEY, body TEXT)")
    nats_server.stop()
    stored: list[int] = []

    def pile_up() -> None:
        for row_id in range(1, 100):
            server.sql("INSERT INTO backlog.t VALUES ($1, $2)", row_id, "x" * 100_000)
            stored.append(row_id)

    with pytest.raises(SqlFailed) as failed:
        pile_up()
    assert failed.value.code == "too_busy"
    with pytest.raises(SqlFailed) as failed:
        server.sql("UPDATE backlog.t SET body = 'y'")
    assert failed.value.code == "too_busy"
    nats_server.start()
    await feed_upto(nats_server.url, wait_until, "kalam.shared.backlog.t.>", len(stored))
    await wait_until(lambda: server.sql(WAITING_BYTES) == [[0.0]])
    server.sql("INSERT INTO backlog.t VALUES (1000, 'z')")
    await feed_upto(nats_server.url, wait_until, "kalam.shared.backlog.t.>", len(stored) + 1)


async def test_a_broker_with_little_room_gets_feeds_of_half_of_it_at_most(
    start_kalam: Callable[..., ServerProcess], start_nats_server: Callable[..., NatsServer], tmp_path: Path
) -> None:
    room = 64 << 20
    broker = start_nats_server(jetstream={"store_dir": str(tmp_path / "store"), "max_file_store": room})
    server = start_kalam(flags=[f"--nats-url={broker.url}"])
    for _ in range(2):
        async with connected(broker.url) as client:
            feeds = [await client.jetstream().stream_info(name) for name in (SHARED_STREAM, USER_STREAM)]
        assert 0 < sum(feed.config.max_bytes or 0 for feed in feeds) <= room // 2
        server.stop()
        server.restart()


async def test_the_feed_goes_on_behind_what_was_written_in_another_format(
    start_kalam: Callable[..., ServerProcess], nats_server: NatsServer, wait_until: Any
) -> None:
    server = start_kalam(flags=[f"--nats-url={nats_server.url}"])
    table = create(server, "formats")
    server.sql(f"INSERT INTO {table} VALUES (1, 'x', 1), (2, 'y', 2)")
    await feed_upto(nats_server.url, wait_until, "kalam.shared.formats.t.>", 2)
    server.sql(f"ALTER TABLE {table} SET (format = 'msgpack'); FLUSH TABLE {table}")
    server.stop()
    server.restart()
    server.sql(f"INSERT INTO {table} VALUES (3, 'z', 3); UPDATE {table} SET n = 4 WHERE id = 1; FLUSH TABLE {table}")

    async def is_told() -> bool:
        async with connected(nats_server.url) as client:
            last = await client.jetstream().get_last_msg(SHARED_STREAM, "kalam.shared.formats.t.update")
            return bool(msgpack.unpackb(last.data, timestamp=3)["seq"] == 4)

    await wait_until(is_told)
    async with connected(nats_server.url) as client:
        live = await subscribe(client, f"SELECT id, n FROM {table}", from_seq=0)
        changes = await live.wait_changes(4)
    assert [(change["op"], change["seq"], change["row"]) for change in changes] == [
        ("insert", 1, {"id": 1, "n": 1}),
        ("insert", 2, {"id": 2, "n": 2}),
        ("insert", 3, {"id": 3, "n": 3}),
        ("update", 4, {"id": 1, "n": 4}),
    ]


async def test_what_others_publish_on_a_tables_subjects_stops_nothing(
    start_kalam: Callable[..., ServerProcess], nats_server: NatsServer, wait_until: Any
) -> None:
    server = start_kalam(flags=[f"--nats-url={nats_server.url}"])
    table = create(server, "foreign")
    subject = "kalam.shared.foreign.t.insert"
    server.sql(f"INSERT INTO {table} VALUES (1, 'x', 1)")
    [first] = await feed_upto(nats_server.url, wait_until, subject, 1)
    for number, moment in enumerate(("running", "stopped"), 2):
        if moment == "stopped":
            server.stop()
        async with connected(nats_server.url) as client:
            for headers in (None, {"Kalam-Table": "what"}, {"Kalam-Table": first.table_id}):
                await client.jetstream().publish(subject, b"no change at all", headers=headers)
            await client.jetstream().publish(subject, b'{"op":"insert","seq":1,"rows":[]}')
        if moment == "stopped":
            server.restart()
        server.sql(f"INSERT INTO {table} VALUES ({number}, 'x', 1)")
        await wait_until(lambda: server.sql(WAITING_BYTES) == [[0.0]])
        feed = await feed_upto(nats_server.url, wait_until, "kalam.shared.foreign.t.>", number)
        assert replay(feed, "id") == content(server, table)


def fill_widely(server: ServerProcess, table: str, batches: int, first: int = 0) -> int:
    """Insert statements of 100 wide rows each, which make messages of 50 kB; the number of rows."""
    for start in range(first, first + batches * 100, 100):
        server.sql(f"INSERT INTO {table} SELECT value, repeat('x', 400), 0 FROM range({start}, {start + 100})")
    return batches * 100


def peak_bytes(server: ServerProcess) -> int:
    """The most memory that the server's process ever had."""
    [line] = [
        line for line in Path(f"/proc/{server.announcement['pid']}/status").read_text().splitlines() if "VmHWM" in line
    ]
    return int(line.split()[1]) << 10


async def test_more_than_memory_may_hold_waits_in_the_log_when_the_server_is_killed(
    start_kalam: Callable[..., ServerProcess], nats_server: NatsServer, wait_until: Any
) -> None:
    server = start_kalam(flags=[f"--nats-url={nats_server.url}"])
    table = create(server, "much")
    server.sql("CREATE USER TABLE much.mine (id BIGINT PRIMARY KEY, place TEXT, n INT)")
    server.stop()
    server.restart()
    before = peak_bytes(server)
    nats_server.stop()
    for start in range(0, 3_000, 100):  # 120 MB
        server.sql(f"INSERT INTO {table} SELECT value, repeat('x', 40000), 0 FROM range({start}, {start + 100})")
    server.sql(f"UPDATE {table} SET n = 1 WHERE id % 1000 = 0")
    for user in ("ann", "bob"):
        server.sql("INSERT INTO much.mine SELECT value, 'x', 0 FROM range(0, 1000)", user=user)
    server.kill()
    nats_server.start()
    server.restart()
    await wait_until(lambda: server.sql(WAITING_BYTES) == [[0.0]])
    feed = await read_feed(nats_server.url, "kalam.shared.much.t.>")
    assert (last_seq(feed), sum(len(message.rows) for message in feed)) == (3_003, 3_003)
    assert replay(feed, "id").keys() == set(range(3_000))
    assert peak_bytes(server) - before < 100_000_000
    for user in ("ann", "bob"):
        mine = await feed_upto(nats_server.url, wait_until, f"kalam.user.{user}.much.mine.>", 1_000)
        assert replay(mine, "id").keys() == set(range(1_000))


async def test_of_a_statement_that_was_told_in_part_the_next_server_tells_the_rest(
    start_kalam: Callable[..., ServerProcess], nats_server: NatsServer, wait_until: Any
) -> None:
    server = start_kalam(flags=[f"--nats-url={nats_server.url}"])
    table = create(server, "part")
    server.sql(f"INSERT INTO {table} SELECT value, 'x', 1 FROM range(0, 3500)")
    feed = await feed_upto(nats_server.url, wait_until, "kalam.shared.part.t.>", 3_500)
    await wait_until(lambda: server.sql(WAITING_BYTES) == [[0.0]])
    server.kill()
    with closing(sqlite3.connect(server.data_dir / "kalam.db")) as conn, conn:  # a watermark may lag
        conn.execute("UPDATE copies SET published_seq = 0")
    async with connected(nats_server.url) as client:
        for message in feed[2:]:
            await client.jetstream().delete_msg(SHARED_STREAM, message.stream_seq)
    server.restart()
    again = await feed_upto(nats_server.url, wait_until, "kalam.shared.part.t.>", 3_500)
    assert shape(again) == [
        ("insert", 1, 1_000),
        ("insert", 1_001, 1_000),
        ("insert", 2_001, 1_000),
        ("insert", 3_001, 500),
    ]
    assert replay(again, "id") == content(server, table)


async def headers_of(url: str, count: int) -> list[dict[str, str]]:
    async with connected(url) as client:
        jetstream = client.jetstream()
        return [(await jetstream.get_msg(SHARED_STREAM, seq)).headers or {} for seq in range(1, count + 1)]


@pytest.mark.parametrize("cut", ["nothing", "broker", "server"])
async def test_large_messages_that_waited_follow_each_other_whatever_is_cut_off(
    start_kalam: Callable[..., ServerProcess], nats_server: NatsServer, wait_until: Any, cut: str
) -> None:
    server = start_kalam(flags=[f"--nats-url={nats_server.url}"])
    table = create(server, "wide")
    nats_server.stop()
    rows = fill_widely(server, table, 120)
    nats_server.start()
    for pause_s in (0.06, 0.1) if cut != "nothing" else ():
        await asyncio.sleep(pause_s)
        if cut == "broker":
            nats_server.kill()
            nats_server.start()
        else:
            server.kill()
            server.restart()
    feed = await feed_upto(nats_server.url, wait_until, "kalam.shared.wide.t.>", rows)
    assert replay(feed, "id") == content(server, table)
    if cut == "nothing":
        assert any("Nats-Expected-Last-Msg-Id" in headers for headers in await headers_of(nats_server.url, len(feed)))


async def test_messages_of_others_between_large_ones_make_no_hole(
    start_kalam: Callable[..., ServerProcess], nats_server: NatsServer, wait_until: Any
) -> None:
    server = start_kalam(flags=[f"--nats-url={nats_server.url}"])
    table = create(server, "crossed")
    rows, done = 0, asyncio.Event()

    async def cross(client: Client) -> None:
        while not done.is_set():
            await client.publish("kalam.shared.another.t.insert", b"x")
            await client.flush(PATIENCE_S)

    async with connected(nats_server.url) as client:
        crossing = asyncio.create_task(cross(client))
        for _ in range(4):
            with held(nats_server.pid):
                rows += await asyncio.to_thread(fill_widely, server, table, 30, rows)
            feed = await feed_upto(nats_server.url, wait_until, "kalam.shared.crossed.t.>", rows)
        done.set()
        await crossing
    assert replay(feed, "id") == content(server, table)
