"""Key-value buckets of others as tables: a row for each key that is there, and what becomes of keys."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from foreign_program import Program
from live_subscriber import Refused, Subscriber, subscribe
from nats.js import JetStreamContext
from nats.js.api import KeyValueConfig, StreamConfig, StreamSource
from nats.js.kv import KeyValue
from server_process import ServerProcess, SqlFailed

_numbers = itertools.count(1)
WaitFor = Callable[[Callable[[], Any]], Any]
COLUMNS = "(site TEXT FROM TOKEN 1, fw TEXT, n BIGINT)"


@pytest.fixture
def name() -> str:
    """A name for a bucket of the test's own."""
    return f"b{next(_numbers)}"


@pytest.fixture
def js(program: Program) -> JetStreamContext:
    return program.broker.jetstream()


async def make(js: JetStreamContext, name: str, **config: Any) -> KeyValue:
    return await js.create_key_value(KeyValueConfig(bucket=name, **config))


async def put(bucket: KeyValue, key: str, fw: str, number: int = 0) -> int:
    return await bucket.put(key, json.dumps({"fw": fw, "n": number}).encode())


def over(server: ServerProcess, namespace: str, name: str, behind: str = "") -> str:
    server.sql(f"CREATE STREAM TABLE {namespace}.t {COLUMNS} OVER BUCKET '{name}' {behind}")
    return f"{namespace}.t"


def rows(server: ServerProcess, table: str) -> dict[str, Any]:
    """What is there, by key."""
    return dict(server.sql(f"SELECT _key, fw FROM {table}"))


async def watch(program: Program, table: str, select: str = "_key, fw", where: str = "") -> Subscriber:
    return await subscribe(program.broker, f"SELECT {select} FROM {table} {where}")


def told(changes: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(change["op"], change["row"]["_key"], change["row"]["fw"], change.get("old")) for change in changes]


async def test_a_key_is_a_row_with_its_tokens_members_and_virtual_columns(
    program: Program, js: JetStreamContext, namespace: str, name: str
) -> None:
    bucket = await make(js, name)
    await put(bucket, "berlin.7.lamp", "1.0", 1)
    await put(bucket, "bonn.8", "1.1", 2)
    await put(bucket, "lonely", "1.2", 3)
    table = over(program.server, namespace, name)
    assert program.server.sql(f"SELECT * FROM {table}") == [
        ["berlin", "1.0", 1],
        ["bonn", "1.1", 2],
        ["lonely", "1.2", 3],
    ]
    [row] = program.server.sql(
        f"SELECT _key, _revision, _operation, _seq, _subject, _headers, _raw, _error FROM {table} WHERE site = 'bonn'"
    )
    assert row == ["bonn.8", 2, "put", 2, f"$KV.{name}.bonn.8", None, "eyJmdyI6ICIxLjEiLCAibiI6IDJ9", None]
    [described] = program.server.results(f"SELECT *, _key FROM {table} WHERE _revision = 3")
    assert [column["name"] for column in described["columns"]] == ["site", "fw", "n", "_key"]
    assert described["rows"] == [["lonely", "1.2", 3, "lonely"]]


@pytest.mark.parametrize("history", [1, 10])
async def test_keys_that_are_put_deleted_and_purged_are_what_they_are_now(
    program: Program, js: JetStreamContext, namespace: str, name: str, history: int
) -> None:
    server, bucket = program.server, await make(js, name, history=history)
    for key in "abcdef":
        await put(bucket, key, "1")
    table = over(server, namespace, name)
    assert rows(server, table) == dict.fromkeys("abcdef", "1")
    await put(bucket, "a", "2")
    await put(bucket, "a", "3")
    await bucket.delete("b")
    await bucket.purge("c")
    await put(bucket, "g", "1")
    now = {"a": "3", "d": "1", "e": "1", "f": "1", "g": "1"}
    assert rows(server, table) == now
    await put(bucket, "b", "4")
    assert rows(server, table) == now | {"b": "4"}
    assert server.sql(f"SELECT count(*) FROM {table}") == [[6]]
    await js.purge_stream(f"KV_{name}", subject=f"$KV.{name}.d")  # which leaves no word
    assert rows(server, table) == {key: fw for key, fw in (now | {"b": "4"}).items() if key != "d"}
    await bucket.purge_deletes(olderthan=-1)
    assert sorted(rows(server, table)) == ["a", "b", "e", "f", "g"]
    await js.delete_key_value(name)
    with pytest.raises(SqlFailed) as failure:
        rows(server, table)
    assert failure.value.code == "not_found"
    bucket = await make(js, name)
    assert rows(server, table) == {}
    await put(bucket, "new", "1")
    assert rows(server, table) == {"new": "1"}


async def test_live_queries_tell_inserts_updates_with_old_and_deletes(
    program: Program, js: JetStreamContext, namespace: str, name: str, wait_for: WaitFor
) -> None:
    server, bucket = program.server, await make(js, name)
    await put(bucket, "a", "1", 1)
    await put(bucket, "b", "1", 2)
    table = over(server, namespace, name)
    live, large = await watch(program, table), await watch(program, table, "_key, fw, _revision", "WHERE n > 1")
    assert live.rows == [{"_key": "a", "fw": "1"}, {"_key": "b", "fw": "1"}]
    assert [row["_key"] for row in large.rows] == ["b"]
    await put(bucket, "c", "1", 3)
    await put(bucket, "a", "2", 5)
    await bucket.delete("b")
    expected = [("insert", "c", "1", None), ("update", "a", "2", {"fw": "1"}), ("delete", "b", "1", None)]
    assert told(await live.wait_changes(3)) == expected
    assert told(await large.wait_changes(3)) == [
        ("insert", "c", "1", None),
        ("insert", "a", "2", None),  # it matches now
        ("delete", "b", "1", None),
    ]
    await bucket.purge("c")
    await js.purge_stream(f"KV_{name}", subject=f"$KV.{name}.a")
    changes = await live.wait_changes(5)
    assert told(changes[3:]) == [("delete", "c", "1", None), ("delete", "a", "2", None)]
    numbers = [change["seq"] for change in changes]
    assert numbers == sorted(set(numbers))
    late = await watch(program, table)
    assert late.rows == []
    await js.delete_key_value(name)
    bucket = await make(js, name)  # made anew: what was there is gone, and what comes is told
    await put(bucket, "a", "9")
    assert told((await live.wait_changes(6))[5:]) == [("insert", "a", "9", None)]
    assert told(await late.wait_changes(1)) == [("insert", "a", "9", None)]
    assert not live.of("resync")
    with pytest.raises(Refused) as refusal:
        await subscribe(program.broker, f"SELECT fw FROM {table}", from_seq=1)
    assert refusal.value.code == "cursor_expired"


async def test_keys_expire_by_age_and_by_their_own_ttl(
    program: Program, js: JetStreamContext, namespace: str, name: str
) -> None:
    """Silently, and with markers; of a key with history the value before is there again."""
    server, table = program.server, f"{namespace}.t"
    marked = await make(js, f"{name}-marked", limit_marker_ttl=1.0)
    silent, aged = await make(js, f"{name}-silent"), await make(js, f"{name}-aged", ttl=2)
    deep, freed = await make(js, f"{name}-deep", history=5), await make(js, f"{name}-freed", ttl=1)
    for bucket in ("silent", "deep"):
        stream = (await js.stream_info(f"KV_{name}-{bucket}")).config
        stream.allow_msg_ttl = True
        await js.update_stream(stream)
    for bucket in ("marked", "silent", "aged", "deep", "freed"):
        server.sql(f"CREATE STREAM TABLE {table}_{bucket} {COLUMNS} OVER BUCKET '{name}-{bucket}'")
    watched = {bucket: await watch(program, f"{table}_{bucket}") for bucket in ("marked", "silent", "aged", "deep")}
    await put(aged, "old", "1")
    await put(freed, "kept", "1")
    assert rows(server, f"{table}_freed") == {"kept": "1"}
    stream = (await js.stream_info(f"KV_{name}-freed")).config
    stream.max_age = 0
    await js.update_stream(stream)
    await put(deep, "goes", "0")
    for bucket, kept in ((marked, "marked"), (silent, "silent"), (deep, "deep")):
        await put(bucket, "stays", "1")
        await js.publish(f"$KV.{name}-{kept}.goes", b'{"fw": "1"}', headers={"Nats-TTL": "1s"})
        await js.publish(f"$KV.{name}-{kept}.never", b'{"fw": "1"}', headers={"Nats-TTL": "never"})
    told_of = [("insert", key, "1", None) for key in ("stays", "goes", "never")] + [("delete", "goes", "1", None)]
    for bucket in ("marked", "silent"):
        assert told(await watched[bucket].wait_changes(4)) == told_of
        assert rows(server, f"{table}_{bucket}") == {"stays": "1", "never": "1"}
    deeper = watched["deep"]
    await deeper.wait(lambda: told(deeper.changes)[-1:] == [("update", "goes", "0", {"fw": "1"})])
    assert rows(server, f"{table}_deep") == {"stays": "1", "never": "1", "goes": "0"}
    assert told(await watched["aged"].wait_changes(2)) == [("insert", "old", "1", None), ("delete", "old", "1", None)]
    assert rows(server, f"{table}_aged") == {}
    await put(aged, "old", "2")
    assert rows(server, f"{table}_aged") == {"old": "2"}
    assert rows(server, f"{table}_freed") == {"kept": "1"}  # whose bucket lets keys live for ever since


@pytest.mark.parametrize("history", [1, 3])
async def test_whoever_applies_the_changes_has_what_a_query_shows(
    program: Program, js: JetStreamContext, namespace: str, name: str, history: int
) -> None:
    chance = random.Random(history)
    bucket = await make(js, name, history=history)
    for number in range(300):
        await put(bucket, f"k.{number}", "0")
    table = over(program.server, namespace, name)
    live = await watch(program, table)
    state = {row["_key"]: row["fw"] for row in live.rows}
    kept = dict(state)
    for step in range(400):
        key = f"k.{chance.randrange(300 if step % 2 else 20)}"
        match chance.randrange(8):
            case 0:
                await bucket.delete(key)
                kept.pop(key, None)
            case 1:
                await bucket.purge(key)
                kept.pop(key, None)
            case _:
                await put(bucket, key, str(step))
                kept[key] = str(step)
        if step % 100 == 99:
            assert rows(program.server, table) == kept
    await put(bucket, "last", "1")
    await live.wait(lambda: any(change["row"]["_key"] == "last" for change in live.changes))
    for change in live.changes:
        key, row = change["row"]["_key"], change["row"]
        assert (key in state) is (change["op"] != "insert")
        if change["op"] == "update":
            assert change["old"] == {"fw": state[key]}
        if change["op"] == "delete":
            assert row["fw"] == state.pop(key)
        else:
            state[key] = row["fw"]
    assert state == kept | {"last": "1"}
    assert not live.of("resync")


async def test_a_bound_on_keys_reads_no_others(
    program: Program, js: JetStreamContext, namespace: str, name: str
) -> None:
    bucket = await make(js, name, history=2)
    for number in range(12):
        await put(bucket, f"s{number % 3}.x{number}", "0", number)
    await put(bucket, "s1", "0", 90)
    await put(bucket, "s1.x1", "1", 91)
    await bucket.delete("s1.x4")
    columns = "(site TEXT FROM TOKEN 1, what TEXT FROM TOKEN 2, fw TEXT, n BIGINT)"
    program.server.sql(f"CREATE STREAM TABLE {namespace}.t {columns} OVER BUCKET '{name}'")
    asked: list[dict[str, Any]] = []

    async def note(message: Any) -> None:
        asked.append(json.loads(message.data)["config"])

    await program.broker.subscribe(f"$JS.API.CONSUMER.CREATE.KV_{name}.>", cb=note)
    await program.broker.flush()
    expected: dict[str, tuple[list[int], str]] = {
        "_key = 's1.x1'": ([91], "$KV.*.s1.x1"),
        "_key = 's1.x4'": ([], "$KV.*.s1.x4"),
        "_key = 'no key'": ([], ""),
        "_key = 's1.x1' AND _key = 's1'": ([], ""),
        "site = 's1' AND what = 'x7'": ([7], "$KV.*.s1.x7"),
        "what = 'x8'": ([8], "$KV.*.*.x8.>"),
        "site = 's1'": ([7, 10, 90, 91], "$KV.*.s1"),
        "_revision > 10 AND n < 90": ([10, 11], ""),
        "_seq > 10 AND n < 90": ([10, 11], ""),
        "_time > now() - INTERVAL '1 hour' AND n > 90": ([91], ""),
        "_seq < 5": ([0, 2, 3], ">"),
        "_seq < 1": ([], ""),
    }
    for where, (numbers, _) in expected.items():
        found = program.server.sql(f"SELECT n FROM {namespace}.t WHERE {where} ORDER BY n")
        assert found == [[number] for number in numbers], where
    await program.broker.flush()
    filters = {config.get("filter_subject", "") for config in asked}
    assert {subject for _, subject in expected.values()} == filters & {subject for _, subject in expected.values()}
    assert {config["deliver_policy"] for config in asked} == {"last_per_subject", "by_start_sequence", "by_start_time"}
    assert program.server.sql(f"SELECT count(*) FROM {namespace}.t") == [[12]]
    for where, (numbers, _) in expected.items():  # of what is kept now
        found = program.server.sql(f"SELECT n FROM {namespace}.t WHERE {where} ORDER BY n")
        assert found == [[number] for number in numbers], where


async def test_a_copy_of_a_bucket_has_the_keys_that_were_put_in_its_origin(
    program: Program, js: JetStreamContext, namespace: str, name: str, wait_for: WaitFor
) -> None:
    bucket = await make(js, name)
    await put(bucket, "a.b", "1", 1)
    mirror = StreamConfig(
        name=f"KV_{name}-copy",
        mirror=StreamSource(name=f"KV_{name}"),
        max_msgs_per_subject=1,
        allow_direct=True,
    )
    await js.add_stream(mirror)
    program.server.sql(f"CREATE STREAM TABLE {namespace}.t {COLUMNS} OVER BUCKET '{name}-copy'")
    asked = f"SELECT site, _key, _subject, fw FROM {namespace}.t"
    wait_for(lambda: program.server.sql(asked) == [["a", "a.b", f"$KV.{name}.a.b", "1"]])
    await put(bucket, "a.b", "2")
    await put(bucket, "c", "3")
    await bucket.delete("a.b")
    wait_for(lambda: program.server.sql(asked) == [["c", "c", f"$KV.{name}.c", "3"]])
    assert program.server.sql(f"{asked} WHERE _key = 'c'") == [["c", "c", f"$KV.{name}.c", "3"]]


async def test_values_that_do_not_decode_are_no_rows_and_are_counted(
    program: Program,
    js: JetStreamContext,
    namespace: str,
    name: str,
    stats: Callable[..., dict[str, str]],
    wait_for: WaitFor,
) -> None:
    server, bucket = program.server, await make(js, name)
    await put(bucket, "a", "1")
    await bucket.put("b", b"{broken")
    await bucket.put("c", b'{"fw": 1, "n": "x"}')
    table = over(server, namespace, name)
    server.sql(f"CREATE STREAM TABLE {namespace}.nulls {COLUMNS} OVER BUCKET '{name}' WITH (invalid = 'null')")
    assert rows(server, table) == {"a": "1"}
    assert rows(server, f"{namespace}.nulls") == {"a": "1", "b": None, "c": None}
    wrong = server.sql(f"SELECT _key, _error FROM {table} WHERE _error IS NOT NULL")
    assert [key for key, _ in wrong] == ["b", "c"]
    counted = stats(server, table)
    assert (counted["bucket"], counted["keys"]) == (name, "3")
    assert (counted["undecodable"], counted["undecodable_malformed"]) == ("2", "1")
    server.sql(f"CREATE MATERIALIZED VIEW {namespace}.view AS SELECT _key AS k, fw FROM {table}")
    assert server.sql(f"SELECT k, fw FROM {namespace}.view") == [["a", "1"]]
    live = await watch(program, table)
    await put(bucket, "b", "2")
    await bucket.put("a", b"[]")
    assert told(await live.wait_changes(2)) == [("insert", "b", "2", None), ("delete", "a", "1", None)]
    assert stats(server, table)["undecodable"] == "2"
    wait_for(lambda: server.sql(f"SELECT k, fw FROM {namespace}.view") == [["b", "2"]])


async def test_deletions_are_no_rows_of_a_table_over_the_stream_of_a_bucket(
    program: Program, js: JetStreamContext, namespace: str, name: str, stats: Callable[..., dict[str, str]]
) -> None:
    bucket = await make(js, name, history=5)
    await put(bucket, "a", "1")
    await bucket.delete("a")
    await put(bucket, "b", "2")
    await bucket.purge("b")
    program.server.sql(f"CREATE STREAM TABLE {namespace}.t (fw TEXT) OVER STREAM 'KV_{name}'")
    assert program.server.sql(f"SELECT _seq, fw FROM {namespace}.t") == [[1, "1"]]
    assert program.server.sql(f"SELECT count(*) FROM {namespace}.t WHERE _error IS NOT NULL") == [[0]]
    assert stats(program.server, f"{namespace}.t")["undecodable"] == "0"


async def test_what_is_no_bucket_is_not_read_as_one(
    program: Program, js: JetStreamContext, namespace: str, name: str
) -> None:
    await make(js, name)
    await js.create_object_store(f"{name}-objects")
    await js.add_stream(StreamConfig(name=f"KV_{name}-log", subjects=[f"kv.{name}.>"]))

    def refused(bucket: str, behind: str = "") -> SqlFailed:
        with pytest.raises(SqlFailed) as failure:
            program.server.sql(f"CREATE STREAM TABLE {namespace}.t (id BIGINT) OVER BUCKET '{bucket}' {behind}")
        return failure.value

    missing = refused(f"{name}x")
    assert missing.code == "not_found"
    assert name in missing.problem["hint"].split("; ")[0]
    assert "KV_" not in missing.problem["hint"]
    with pytest.raises(SqlFailed, match=f"there is no stream '{name}x'") as undescribed:
        program.server.sql(f"DESCRIBE STREAM '{name}x'")
    assert f"the bucket {name}" in undescribed.value.problem["hint"]
    assert "KV_" not in undescribed.value.problem["hint"].replace(f"KV_{name}-log", "")
    assert refused(f"{name}-objects").code == "unsupported"
    assert refused(f"{name}-log").code == "unsupported"
    assert refused("a.b").code == "invalid_value"
    assert refused(name, "SUBJECT 'a.>'").code == "unsupported"
    assert refused(name, "DOMAIN 'nowhere'").code == "not_found"
    table = over(program.server, namespace, name)
    for statement in (f"INSERT INTO {table} (n) VALUES (1)", f"DELETE FROM {table}", f"FLUSH TABLE {table}"):
        with pytest.raises(SqlFailed) as failure:
            program.server.sql(statement)
        assert failure.value.code == "unsupported"


async def test_describe_proposes_a_table_that_reads_the_bucket(
    program: Program, js: JetStreamContext, namespace: str, name: str
) -> None:
    server, bucket = program.server, await make(js, name)
    for number in range(4):
        await put(bucket, f"site{number % 2}.lamp.{number}", "1.0", number)
    await put(bucket, "site9.gate", "2.0")
    await bucket.delete("site1.lamp.3")
    [shown] = [row for row in server.sql("SHOW STREAMS") if row[0] == name]
    assert shown[1:4] == ["bucket", f"$KV.{name}.>", 5]
    for called in (name, f"KV_{name}"):
        described = server.sql(f"DESCRIBE STREAM '{called}'", namespace=namespace)
        [statement] = [row[2] for row in described if row[0] == "statement"]
        server.sql(statement)
        columns = [row[1] for row in described if row[0] == "column"]
        assert columns == ["token_1", "token_2", "token_3", "fw", "n"]
        found = server.sql(f"SELECT token_1, token_2, token_3, fw FROM {namespace}.{name} ORDER BY _key")
        assert found == [
            ["site0", "lamp", "0", "1.0"],
            ["site0", "lamp", "2", "1.0"],
            ["site1", "lamp", "1", "1.0"],
            ["site9", "gate", None, "2.0"],
        ]
        [[text]] = server.sql(f"SHOW CREATE TABLE {namespace}.{name}")
        assert f"OVER BUCKET '{name}' WITH" in text
        server.sql(f"DROP TABLE {namespace}.{name}")
        server.sql(text)
        server.sql(f"DROP TABLE {namespace}.{name}")


async def test_at_the_limit_of_consumers_a_bucket_is_read_all_the_same(
    program: Program, js: JetStreamContext, namespace: str, name: str
) -> None:
    config = StreamConfig(
        name=f"KV_{name}",
        subjects=[f"$KV.{name}.>"],
        max_msgs_per_subject=3,
        max_consumers=1,
        allow_direct=True,
        allow_rollup_hdrs=True,
    )
    await js.add_stream(config)
    await js.pull_subscribe("", "one", stream=f"KV_{name}")
    bucket = await js.key_value(name)
    for number in range(20):
        await put(bucket, f"x.{number % 10}", str(number))
    table = over(program.server, namespace, name)
    assert rows(program.server, f"{table} WHERE _key = 'x.3'") == {"x.3": "13"}
    assert rows(program.server, f"{table} WHERE site = 'x' AND fw > '18'") == {"x.9": "19"}
    live = await watch(program, table)
    assert len(live.rows) == 10
    await bucket.delete("x.1")
    await put(bucket, "x.2", "new")
    expected = [("delete", "x.1", "11", None), ("update", "x.2", "new", {"fw": "12"})]
    assert told(await live.wait_changes(2)) == expected
    assert rows(program.server, table) == {f"x.{n}": str(n + 10) for n in (0, 3, 4, 5, 6, 7, 8, 9)} | {"x.2": "new"}
