"""Rows that come as columns, many at once: stored, told, changed, flushed and refused as rows that come one by one."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from change_feed import connected, read_feed, replay, work_until_cut_off
from live_subscriber import subscribe
from nats.aio.client import Client
from nats.aio.msg import Msg
from patience import PATIENCE_S
from server_process import ServerProcess

from kalam.rows.column_rows import COLUMNS_MIN
from kalam.server import open_server
from kalam.settings import Settings
from kalam.tables import outbox

ARROW = {"Content-Type": "application/vnd.apache.arrow.stream"}
STATUS = 137
ROWS = 2 * COLUMNS_MIN + 500
"""More than are told in one message of the feed."""
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
COLUMNS = "id BIGINT PRIMARY KEY, name VARCHAR(12) NOT NULL, at TIMESTAMP, price DECIMAL(8,2), grade INT DEFAULT 7"


def sent(first: int = 0, rows: int = ROWS, **columns: Any) -> bytes:
    """A message of rows in types that are not the table's own."""
    numbers = range(first, first + rows)
    made: dict[str, Any] = {
        "id": pa.array(numbers, pa.int32()),
        "name": pa.array([f'"n" {number}' for number in numbers], pa.large_string()),
        "at": pa.array([None if number % 3 else AT for number in numbers], pa.timestamp("ms")),
        "price": [number / 4 for number in numbers],
        **columns,
    }
    table, sink = pa.table({name: values for name, values in made.items() if values is not None}), io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def expected(number: int, name: str | None = None, grade: int = 7) -> list[Any]:
    at = None if number % 3 else "2026-01-02T03:04:05.000000Z"
    return [number, name or f'"n" {number}', at, f"{number / 4:.2f}", grade]


async def insert(server: ServerProcess, table: str, payload: bytes, user: str = "ann", **headers: str) -> Msg:
    async with connected(server.nats_url) as client:
        subject, said = f"kalam.api.{user}.insert.{table}", ARROW | {n.replace("_", "-"): v for n, v in headers.items()}
        return await client.request(subject, payload, timeout=PATIENCE_S, headers=said)


def create(server: ServerProcess, namespace: str, kind: str = "SHARED", rest: str = "") -> str:
    server.sql(f"CREATE NAMESPACE {namespace}; CREATE {kind} TABLE {namespace}.t ({COLUMNS}) {rest}")
    return f"{namespace}.t"


def rows_of(server: ServerProcess, table: str, user: str = "ann") -> list[list[Any]]:
    return server.sql(f"SELECT id, name, at, price, grade FROM {table} ORDER BY id", user=user)


@pytest.mark.parametrize("kind", ["SHARED", "USER"])
async def test_they_are_rows_wherever_they_lie(shared_server: ServerProcess, wait_until: Any, kind: str) -> None:
    table = create(shared_server, f"lie_{kind.lower()}", kind, "WITH (flush_policy = 'rows:1000000')")
    reply = await insert(shared_server, table, sent())
    assert (reply.headers, json.loads(reply.data)) == (None, {"rows": ROWS, "seq": ROWS})
    whole = [expected(number) for number in range(ROWS)]
    assert rows_of(shared_server, table) == whole
    assert rows_of(shared_server, table, user="bob") == ([] if kind == "USER" else whole)
    point = f"SELECT id, name FROM {table} WHERE id = 1234"
    assert shared_server.sql(point, user="ann") == [[1_234, '"n" 1234']]
    shared_server.sql(f"UPDATE {table} SET name = 'new' WHERE id = 1234; DELETE FROM {table} WHERE id < 3", user="ann")
    changed = [expected(1_234, "new") if number == 1_234 else expected(number) for number in range(3, ROWS)]
    assert rows_of(shared_server, table) == changed
    shared_server.sql(
        f"ALTER TABLE {table} ADD COLUMN note TEXT DEFAULT 'old'; ALTER TABLE {table} RENAME COLUMN name TO n"
    )
    assert shared_server.sql(f"SELECT n, note FROM {table} WHERE id = 5", user="ann") == [['"n" 5', "old"]]
    shared_server.sql(f"ALTER TABLE {table} RENAME COLUMN n TO name; FLUSH TABLE {table}")
    assert rows_of(shared_server, table) == changed
    assert shared_server.sql(f"SELECT note, count(*) FROM {table} GROUP BY note", user="ann") == [["old", ROWS - 3]]
    own = f"user.ann.{table}" if kind == "USER" else f"shared.{table}"
    number_of = {row[0]: row[3] for row in changed}

    async def is_told() -> bool:
        found = replay(await read_feed(shared_server.nats_url, f"kalam.{own}.>"), "id")
        return {key: row["price"] for key, row in found.items()} == number_of

    await wait_until(is_told)


WRONG: dict[str, dict[str, Any]] = {
    "row 1500: column name": {"name": ["n"] * 1_499 + [None] + ["n"] * (ROWS - 1_500)},
    "row 1501: column name": {"name": ["n"] * 1_500 + ["x" * 13] + ["n"] * (ROWS - 1_501)},
    "row 1502: column grade": {"grade": [1] * 1_501 + [1 << 40] + [1] * (ROWS - 1_502)},
    "row 1503: column price": {"price": [1.0] * 1_502 + [1e9] + [1.0] * (ROWS - 1_503)},
    "nope": {"nope": ["n"] * ROWS},
    "key id = 8 comes twice": {"id": [*range(ROWS - 1), 8]},
}


async def test_what_is_wrong_with_one_refuses_all(shared_server: ServerProcess) -> None:
    table = create(shared_server, "wrong")
    for told, columns in WRONG.items():
        problem = json.loads((await insert(shared_server, table, sent(**columns))).data)
        assert told in problem["detail"]
    assert rows_of(shared_server, table) == []


async def test_a_key_that_is_there_refuses_them_hot_and_flushed(shared_server: ServerProcess) -> None:
    table = create(shared_server, "twice")
    await insert(shared_server, table, sent())
    for looked_at in (f"DESCRIBE TABLE {table}", f"FLUSH TABLE {table}"):
        shared_server.sql(looked_at)
        reply = await insert(shared_server, table, sent(first=ROWS - 1))
        assert json.loads(reply.data)["code"] == "duplicate_key"
        assert len(rows_of(shared_server, table)) == ROWS
    shared_server.sql(f"DELETE FROM {table} WHERE id = {ROWS - 1}")
    assert json.loads((await insert(shared_server, table, sent(first=ROWS - 1))).data)["rows"] == ROWS
    shared_server.sql(f"FLUSH TABLE {table}")
    assert rows_of(shared_server, table) == [expected(number) for number in range(2 * ROWS - 1)]


@pytest.mark.parametrize("flushed", [False, True])
async def test_the_greatest_keys_of_all_are_found_among_them(shared_server: ServerProcess, flushed: bool) -> None:
    table, greatest = create(shared_server, f"greatest_{flushed}".lower()), 2**63 - 1
    keys = pa.array(range(greatest - ROWS + 1, greatest + 1), pa.int64())
    shared_server.sql(f"INSERT INTO {table} (id, name) VALUES ({greatest - 5}, 'x'), (0, 'x')")
    if flushed:
        shared_server.sql(f"FLUSH TABLE {table}")
    reply = await insert(shared_server, table, sent(id=keys))
    assert json.loads(reply.data)["code"] == "duplicate_key"
    assert shared_server.sql(f"SELECT count(*) FROM {table}") == [[2]]
    shared_server.sql(f"DELETE FROM {table}")
    assert json.loads((await insert(shared_server, table, sent(id=keys))).data)["rows"] == ROWS
    last = shared_server.sql(f"SELECT id FROM {table} WHERE id > {greatest - 2} ORDER BY id")
    assert last == [[greatest - 1], [greatest]]


async def test_keys_of_several_columns_are_there_after_a_restart(start_kalam: Callable[..., ServerProcess]) -> None:
    server = start_kalam()
    server.sql("CREATE NAMESPACE own; CREATE TABLE own.t (name TEXT, id BIGINT, PRIMARY KEY (name, id))")
    payload = sent(at=None, price=None)
    assert json.loads((await insert(server, "own.t", payload)).data)["rows"] == ROWS
    server.kill()
    server.restart()
    assert json.loads((await insert(server, "own.t", payload)).data)["code"] == "duplicate_key"
    assert server.sql("""SELECT id FROM own.t WHERE name = '"n" 7' AND id = 7""") == [[7]]
    assert server.sql("SELECT count(*) FROM own.t") == [[ROWS]]


async def test_senders_may_ask_for_them_to_be_taken_otherwise(shared_server: ServerProcess) -> None:
    table = create(shared_server, "asked")
    first = await insert(shared_server, table, sent(), Nats_Msg_Id="load-1")
    again = await insert(shared_server, table, sent(), Nats_Msg_Id="load-1")
    assert first.data == again.data
    skipped = json.loads((await insert(shared_server, table, sent(first=ROWS - 5), Kalam_On_Invalid="skip")).data)
    assert (skipped["rows"], skipped["refused"]) == (ROWS - 5, 5)
    names = {"name": ["other"] * ROWS}
    merged = json.loads((await insert(shared_server, table, sent(**names), Kalam_On_Conflict="update")).data)
    assert merged["updated"] == ROWS
    assert shared_server.sql(f"SELECT name, count(*) FROM {table} WHERE id < {ROWS} GROUP BY name") == [["other", ROWS]]


async def test_live_queries_and_views_see_them(shared_server: ServerProcess, wait_until: Any) -> None:
    table = create(shared_server, "seen")
    shared_server.sql(f"CREATE MATERIALIZED VIEW seen.sums AS SELECT grade, count(*) AS n FROM {table} GROUP BY grade")
    async with connected(shared_server.nats_url) as client:
        live = await subscribe(client, f"SELECT id FROM {table} WHERE id % 500 = 0", user="ann")
        await insert(shared_server, table, sent())
        changes = await live.wait_changes(ROWS // 500)
        assert [change["row"]["id"] for change in changes] == list(range(0, ROWS, 500))
    await wait_until(lambda: shared_server.sql("SELECT n FROM seen.sums WHERE grade = 7") == [[ROWS]])


@pytest.mark.parametrize(
    "point", ["commit.before:12", "commit.after:12", "outbox.after_publish:3", "flush.after_rename:1"]
)
async def test_cut_off_each_message_is_there_whole_or_not_at_all(
    start_kalam: Callable[..., ServerProcess], wait_until: Any, point: str
) -> None:
    server = start_kalam()
    table = create(server, "cut", rest=f"WITH (flush_policy = 'rows:{3 * ROWS}')")
    server.stop()
    server.start(KALAM_CRASHPOINT=point)
    acknowledged: list[int] = []

    async def work(client: Client) -> None:
        for first in range(0, 100 * ROWS, ROWS):
            await client.request(f"kalam.api.ann.insert.{table}", sent(first), timeout=PATIENCE_S, headers=ARROW)
            acknowledged.append(first)

    await work_until_cut_off(server.nats_url, work)
    assert server.wait_end() == STATUS
    server.restart()
    found = rows_of(server, table)
    assert found == [expected(number) for number in range(len(found))]
    assert len(found) - len(acknowledged) * ROWS in (0, ROWS)
    number_of = {row[0]: row[3] for row in found}

    async def is_told() -> bool:
        told = replay(await read_feed(server.nats_url, f"kalam.shared.{table}.>"), "id")
        return {key: row["price"] for key, row in told.items()} == number_of

    await wait_until(is_told)


async def test_what_only_the_log_holds_is_told_once_and_in_order(
    tmp_path: Path, wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "PENDING_BYTES_MAX", 10_000)  # a message of these rows has more
    async with (
        open_server(Settings(data_dir=tmp_path / "data", http_port=0, nats_port=0)) as running,
        connected(running.nats_url) as client,
    ):

        async def ask(sql: str) -> list[list[Any]]:
            body = json.dumps({"sql": sql}).encode()
            reply = await client.request("kalam.api.ann.sql", body, timeout=PATIENCE_S)
            return list(json.loads(reply.data)["results"][-1]["rows"])

        await ask(f"CREATE NAMESPACE log; CREATE TABLE log.t ({COLUMNS}) WITH (flush_policy = 'rows:3000')")
        subject, firsts = "kalam.api.ann.insert.log.t", range(0, 20 * ROWS, ROWS)
        asked = [client.request(subject, sent(first), timeout=PATIENCE_S, headers=ARROW) for first in firsts]
        small = [
            client.request(subject, json.dumps({"id": -number, "name": "small"}).encode(), timeout=PATIENCE_S)
            for number in range(1, 200)
        ]
        for reply in await asyncio.gather(*asked, *small):
            assert reply.headers is None, reply.data

        async def is_told() -> bool:
            return len(replay(await read_feed(running.nats_url, "kalam.shared.log.t.>"), "id")) == 20 * ROWS + 199

        await wait_until(is_told)
        assert await ask("SELECT value FROM system.stats WHERE name = 'outbox_bytes'") == [[0.0]]
