"""protocol.md, "Events": what a subscriber with plain NATS sees of a table's changes."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from foreign_program import Answer, Program
from server_process import ServerProcess


def base64url(text: str) -> str:
    return "=" + base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


async def several(next_event: Callable[[], Awaitable[Answer]], count: int) -> list[Any]:
    """The next events, as JSON."""
    return [(await next_event()).json for _ in range(count)]


async def test_an_event_of_a_stream_is_the_row_itself_in_the_order_of_inserts(program: Program, namespace: str) -> None:
    program.server.sql(f"CREATE STREAM TABLE {namespace}.s (k INT, v TEXT DEFAULT 'd')")
    events = await program.listen(f"kalam.stream.{namespace}.s")
    await program.insert(f"{namespace}.s", [{"k": k} for k in range(1_000)])
    program.server.sql(f"INSERT INTO {namespace}.s VALUES (1000, NULL)")
    assert await several(events, 1_001) == [{"k": k, "v": "d"} for k in range(1_000)] + [{"k": 1000, "v": None}]


async def test_the_stream_of_a_table_replays_its_events(program: Program, namespace: str) -> None:
    program.server.sql(f"CREATE STREAM TABLE {namespace}.s (k INT) RETENTION 1h MAX_BUFFER 3")
    await program.insert(f"{namespace}.s", [{"k": k} for k in range(5)])
    jetstream = program.broker.jetstream()
    subscription = await jetstream.subscribe(f"kalam.stream.{namespace}.s", ordered_consumer=True)
    messages = [await subscription.next_msg(20) for _ in range(3)]
    assert [json.loads(msg.data) for msg in messages] == [{"k": 2}, {"k": 3}, {"k": 4}]
    info = await jetstream.stream_info(f"KALAM-{namespace}-s")
    assert (info.config.max_age, info.config.max_msgs) == (3_600, 3)
    program.server.sql(f"DROP TABLE {namespace}.s")
    names = [stream.config.name for stream in await jetstream.streams_info()]
    assert f"KALAM-{namespace}-s" not in names


@pytest.mark.parametrize("kind", ["SHARED", "USER"])
async def test_changes_are_numbered_and_show_old_and_new(program: Program, namespace: str, kind: str) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE {kind} TABLE {table} (k INT PRIMARY KEY, v TEXT, n INT DEFAULT 0)")
    events = await program.listen(f"kalam.{'shared' if kind == 'SHARED' else 'user.ann'}.{table}.*")
    sql = program.server.sql
    await program.insert(table, [{"k": k, "v": "a"} for k in (1, 2, 3)])
    inserted = await events()
    rows = sql(f"SELECT * FROM {table} ORDER BY k", user="ann")
    names = ["k", "v", "n", "_updated", "_deleted"]
    assert inserted.subject.endswith(f".{table}.insert")
    assert inserted.json == {"op": "insert", "seq": 1, "rows": [dict(zip(names, row, strict=True)) for row in rows]}
    sql(f"UPDATE {table} SET v = 'b', n = 0 WHERE k > 1", user="ann")
    updated = await events()
    rows = sql(f"SELECT * FROM {table} WHERE k > 1 ORDER BY k", user="ann")
    shown = sorted(updated.json["rows"], key=lambda row: row["k"])
    assert updated.subject.endswith(f".{table}.update")
    assert shown == [dict(zip(names, row, strict=True)) for row in rows]
    assert (updated.json["op"], updated.json["seq"], updated.json["old"]) == ("update", 4, [{"v": "a"}, {"v": "a"}])
    sql(f"FLUSH TABLE {table}; DELETE FROM {table} WHERE k = 1", user="ann")
    deleted = await events()
    assert deleted.subject.endswith(f".{table}.delete")
    assert (deleted.json["op"], deleted.json["seq"]) == ("delete", 6)
    assert [(row["k"], row["v"], row["_deleted"]) for row in deleted.json["rows"]] == [(1, "a", True)]
    assert (await program.insert(table, {"k": 1})).json["seq"] == 7
    assert (await events()).json["seq"] == 7


async def test_the_feed_has_no_hole_and_no_repeat(program: Program, namespace: str) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE TABLE {table} (k INT PRIMARY KEY)")
    events = await program.listen(f"kalam.shared.{table}.insert")
    await asyncio.gather(*(program.insert(table, [{"k": 50 * n + k} for k in range(50)]) for n in range(100)))
    seqs: list[int] = []
    while len(seqs) < 5_000:
        run = (await events()).json
        assert len(run["rows"]) <= 1_000
        seqs += range(run["seq"], run["seq"] + len(run["rows"]))
    assert seqs == list(range(1, 5_001))


async def test_each_user_has_a_feed_of_his_own(program: Program, namespace: str) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE USER TABLE {table} (k INT PRIMARY KEY)")
    feeds = {user: await program.listen(f"kalam.user.{user}.{table}.>") for user in ("ann", "bob")}
    everybody = await program.broker.subscribe(f"kalam.shared.{table}.>")
    for user in feeds:
        for k in (1, 2):
            await program.insert(table, {"k": k}, user=user)
    for events in feeds.values():
        seqs: list[int] = []
        while len(seqs) < 2:
            run = (await events()).json
            seqs += range(run["seq"], run["seq"] + len(run["rows"]))
        assert seqs == [1, 2]
    assert everybody.pending_msgs == 0


async def test_a_message_names_the_id_of_its_table_which_is_new_for_every_create(
    program: Program, namespace: str
) -> None:
    table = f"{namespace}.t"
    events = await program.listen(f"kalam.shared.{table}.insert")
    ids = []
    for _ in range(2):
        program.server.sql(f"CREATE TABLE {table} (k INT)")
        await program.insert(table, {"k": 1})
        event = await events()
        [[table_id]] = program.server.sql(f"SELECT table_id FROM system.tables WHERE namespace = '{namespace}'")
        assert event.headers["Kalam-Table"] == str(table_id)
        assert event.json["seq"] == 1
        ids.append(table_id)
        program.server.sql(f"DROP TABLE {table}")
        info = await program.broker.jetstream().stream_info("KALAM-CHANGES", subjects_filter=f"kalam.shared.{table}.>")
        assert not info.state.subjects
    assert ids[0] < ids[1]


KEYS: list[tuple[str, Any, str]] = [
    ("TEXT", "plain_Key-7", "plain_Key-7"),
    ("TEXT", "", "-"),
    ("TEXT", None, "-"),
    ("TEXT", "-", base64url("-")),
    ("TEXT", "a b", base64url("a b")),
    ("TEXT", "a.b", base64url("a.b")),
    ("TEXT", "*", base64url("*")),
    ("TEXT", ">", base64url(">")),
    ("TEXT", "=x", base64url("=x")),
    ("TEXT", 'a"\n\0', base64url('a"\n\0')),
    ("TEXT", "ü漢", base64url("ü漢")),
    ("TEXT", "x" * 128, "x" * 128),
    ("BIGINT", -7, "-7"),
    ("BIGINT", (1 << 63) - 1, str((1 << 63) - 1)),
    ("BOOLEAN", True, "true"),
    ("DATE", "2026-01-02", "2026-01-02"),
    ("DECIMAL(5,2)", "1.50", base64url("1.50")),
    ("TIMESTAMP", "2026-01-02T00:00:00Z", base64url("2026-01-02T00:00:00.000000Z")),
    ("UUID", "01890A5D-AC96-774B-BCCE-B302099A8057", "01890a5d-ac96-774b-bcce-b302099a8057"),
]


async def test_the_last_token_is_the_subject_key(program: Program, namespace: str) -> None:
    for number, (kind, value, token) in enumerate(KEYS):
        for table_kind, subject in (("STREAM", "kalam.stream.{}"), ("SHARED", "kalam.shared.{}.insert")):
            table = f"{namespace}.{table_kind.lower()}{number}"
            program.server.sql(f"CREATE {table_kind} TABLE {table} (g {kind}) WITH (subject_key = g)")
            events = await program.listen(subject.format(table) + ".*")
            assert (await program.insert(table, {"g": value})).code is None
            assert (await events()).subject == f"{subject.format(table)}.{token}"


async def test_a_subject_key_that_is_too_long_refuses_the_batch(program: Program, namespace: str) -> None:
    for kind in ("STREAM", "SHARED", "USER"):
        table = f"{namespace}.{kind.lower()}"
        program.server.sql(f"CREATE {kind} TABLE {table} (g TEXT) WITH (subject_key = g)")
        for long in ("x" * 129, "ü" * 65):
            assert (await program.insert(table, [{"g": "a"}, {"g": long}])).code == "invalid_value"
            assert (await program.ask_sql(f"INSERT INTO {table} VALUES ('a'), ('{long}')")).code == "invalid_value"
        assert program.server.sql(f"SELECT count(*) FROM {table}", user="ann") == [[0]]


async def test_a_run_with_keys_is_split_by_subject_and_keeps_its_order(program: Program, namespace: str) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE TABLE {table} (k INT PRIMARY KEY, g TEXT) WITH (subject_key = g)")
    events = await program.listen(f"kalam.shared.{table}.>")
    await program.insert(table, [{"k": k, "g": "ab"[k // 3 % 2]} for k in range(12)])
    told: list[tuple[str, int, int]] = []
    while len(told) < 12:
        event = await events()
        token = event.subject.rsplit(".", 1)[1]
        told += [(token, event.json["seq"] + place, row["k"]) for place, row in enumerate(event.json["rows"])]
    assert told == [("ab"[k // 3 % 2], k + 1, k) for k in range(12)]


async def test_the_feed_speaks_msgpack_where_the_table_says_so(program: Program, namespace: str) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE TABLE {table} (k INT PRIMARY KEY, b BLOB, at TIMESTAMP) WITH (format = 'msgpack')")
    events = await program.listen(f"kalam.shared.{table}.*")
    await program.insert(table, {"k": 1, "b": "AAE=", "at": "2026-01-02T00:00:00Z"})
    program.server.sql(f"UPDATE {table} SET b = NULL")
    inserted, updated = [msgpack.unpackb((await events()).body, timestamp=3) for _ in range(2)]
    assert (inserted["op"], inserted["seq"], inserted["rows"][0]["b"]) == ("insert", 1, b"\0\1")
    assert inserted["rows"][0]["at"].isoformat() == "2026-01-02T00:00:00+00:00"
    assert (updated["op"], updated["old"], updated["rows"][0]["b"]) == ("update", [{"b": b"\0\1"}], None)


async def test_old_that_does_not_fit_a_message_is_left_out(
    start_kalam: Callable[..., ServerProcess], connect: Callable[[ServerProcess], Awaitable[Program]]
) -> None:
    server = start_kalam(KALAM_ROW_BYTES_MAX=str(8 << 20))
    program = await connect(server)
    server.sql("CREATE NAMESPACE a; CREATE TABLE a.t (k INT PRIMARY KEY, v TEXT)")
    events = await program.listen("kalam.shared.a.t.*")
    await program.insert("a.t", {"k": 1, "v": "a" * (5 << 20)})
    assert (await events()).json["seq"] == 1
    server.sql("UPDATE a.t SET v = replace(v, 'a', 'b')")
    updated = (await events()).json
    assert (updated["seq"], updated["old_omitted"], "old" in updated) == (2, True, False)
    assert updated["rows"][0]["v"] == "b" * (5 << 20)


async def test_a_large_answer_comes_in_numbered_pieces(program: Program, namespace: str) -> None:
    answer = await program.ask_sql("SELECT value, repeat('x', 200) AS v FROM generate_series(1, 60000)")
    assert answer.headers["Kalam-Part"] == "1"
    assert len(answer.body) > program.broker.max_payload
    [result] = answer.json["results"]
    assert (result["row_count"], result["rows"][-1]) == (60_000, [60_000, "x" * 200])
    failed = await program.ask_sql("SELECT repeat('x', 200) AS v FROM generate_series(1, 60000); SELECT nope")
    assert (failed.code, failed.headers["Kalam-Part"], failed.json["statement"]) == ("column_not_found", "1", 2)
    assert failed.json["results"][0]["row_count"] == 60_000
    small = await program.ask_sql("SELECT 1 AS one")
    assert (small.headers, set(small.json), small.json["results"]) == (
        {},
        {"results", "took_ms"},
        [{"columns": [{"name": "one", "type": "BIGINT"}], "rows": [[1]], "row_count": 1, "message": None}],
    )
