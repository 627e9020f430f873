"""An INSERT knows every key that lies in a segment, whatever its type, its order and its place in the row."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from change_feed import connected
from flush_pause import paused_flush
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed

from kalam.storage.log.copies import Segment
from kalam.storage.segments.cold_keys import may_meet

DICE = random.Random(20261120)


def segment(min_key: Any, max_key: Any) -> Segment:
    return Segment(
        segment_id=1,
        path="batch.parquet",
        deleted=False,
        row_count=2,
        byte_count=1,
        min_seq=1,
        max_seq=2,
        min_key=min_key,
        max_key=max_key,
        schema_version=1,
        checksum=None,
    )


def create(server: ServerProcess, namespace: str, key_type: str) -> str:
    server.sql(f"CREATE NAMESPACE {namespace}")
    server.sql(f"CREATE TABLE {namespace}.t (note TEXT, key {key_type} NOT NULL, n INT, PRIMARY KEY (key))")
    return f"{namespace}.t"


def insert(server: ServerProcess, table: str, keys: Sequence[Any], note: str = "first") -> None:
    values = ", ".join(f"($1, ${place}, {place})" for place in range(2, len(keys) + 2))
    server.sql(f"INSERT INTO {table} VALUES {values}", note, *keys)


def is_taken(server: ServerProcess, table: str, key: Any) -> bool:
    """Whether an INSERT of the key is refused; one that is not refused stays."""
    try:
        insert(server, table, [key], "another")
    except SqlFailed as failed:
        if failed.code != "duplicate_key":
            raise
        return True
    return False


def random_texts(count: int) -> list[str]:
    return [f"{DICE.getrandbits(80):020x}" for _ in range(count)]


GROWING = [f"{number:08d}" for number in range(400)]


@pytest.mark.parametrize(
    ("namespace", "key_type", "keys"),
    [
        ("growing_int", "BIGINT", list(range(-200, 200))),
        ("growing_text", "TEXT", GROWING),
        ("random_text", "TEXT", random_texts(400)),
        ("random_uuid", "UUID", [str(UUID(int=DICE.getrandbits(128))) for _ in range(400)]),
        ("small", "SMALLINT", list(range(400))),
        (
            "day",
            "DATE",
            [f"20{year:02d}-0{month}-1{day}" for year in range(40) for month in (1, 2) for day in range(5)],
        ),
        ("moment", "TIMESTAMP", [f"2026-01-02T03:04:05.{micros:06d}Z" for micros in range(400)]),
        ("price", "DECIMAL(12,2)", [f"{cents // 100 - 2}.{cents % 100:02d}" for cents in range(400)]),
    ],
)
def test_a_key_in_a_segment_is_taken_until_its_row_is_deleted(
    shared_server: ServerProcess, namespace: str, key_type: str, keys: list[Any]
) -> None:
    table = create(shared_server, namespace, key_type)
    for half in (keys[::2], keys[1::2]):
        insert(shared_server, table, half)
        shared_server.sql(f"FLUSH TABLE {table}")
    chosen = [keys[0], keys[1], keys[-1], keys[len(keys) // 2]]
    for key in chosen:
        assert is_taken(shared_server, table, key)
        shared_server.sql(f"DELETE FROM {table} WHERE key = CAST($1 AS {cast(key_type)})", key)
    assert not is_taken(shared_server, table, chosen[0])  # deleted by a hot version
    shared_server.sql(f"FLUSH TABLE {table}")
    assert not is_taken(shared_server, table, chosen[1])  # deleted by a version in a segment
    assert is_taken(shared_server, table, chosen[0])
    assert is_taken(shared_server, table, chosen[1])
    shared_server.sql(f"FLUSH TABLE {table}")
    assert is_taken(shared_server, table, chosen[0])
    assert is_taken(shared_server, table, chosen[1])
    assert shared_server.sql(f"SELECT count(*), count(DISTINCT key) FROM {table}") == [[len(keys) - 2, len(keys) - 2]]


def cast(key_type: str) -> str:
    return {"UUID": "TEXT"}.get(key_type, key_type)


def test_keys_that_differ_in_case_or_in_trailing_blanks_are_different(shared_server: ServerProcess) -> None:
    table = create(shared_server, "spelling", "TEXT")
    keys = ["a", "A", "a ", " a", "a  ", "ä", "a\u0308", "", " ", "a\x00", "a'b", "a\\b", "💧", "z" * 500]
    for number, key in enumerate(keys):
        insert(shared_server, table, [key], f"note {number}")
        if number % 3 == 0:
            shared_server.sql(f"FLUSH TABLE {table}")
    for flushed in (False, True):
        if flushed:
            shared_server.sql(f"FLUSH TABLE {table}")
        assert sorted(row[0] for row in shared_server.sql(f"SELECT key FROM {table}")) == sorted(keys)
        for number, key in enumerate(keys):
            assert is_taken(shared_server, table, key)
            assert shared_server.sql(f"SELECT note FROM {table} WHERE key = $1", key) == [[f"note {number}"]]
    shared_server.sql(f"DELETE FROM {table} WHERE key = 'A'")
    shared_server.sql(f"UPDATE {table} SET note = 'blank' WHERE key = 'a '")
    for _ in range(2):
        found = shared_server.sql(f"SELECT key, note FROM {table} WHERE key IN ('a', 'A', 'a ', 'a  ') ORDER BY key")
        assert found == [["a", "note 0"], ["a ", "blank"], ["a  ", "note 4"]]
        shared_server.sql(f"FLUSH TABLE {table}")


def test_one_taken_key_refuses_the_whole_statement(shared_server: ServerProcess) -> None:
    table = create(shared_server, "whole", "TEXT")
    insert(shared_server, table, ["cold"])
    shared_server.sql(f"FLUSH TABLE {table}")
    insert(shared_server, table, ["hot"])
    for keys in (["new", "cold"], ["new", "hot"], ["new", "new"]):
        with pytest.raises(SqlFailed) as failed:
            insert(shared_server, table, keys)
        assert failed.value.code == "duplicate_key"
        assert keys[1] in failed.value.problem["detail"]
    assert sorted(shared_server.sql(f"SELECT key FROM {table}")) == [["cold"], ["hot"]]


def test_an_update_may_not_take_a_key_that_lies_in_a_segment(shared_server: ServerProcess) -> None:
    table = create(shared_server, "moved", "BIGINT")
    insert(shared_server, table, [1, 2])
    shared_server.sql(f"FLUSH TABLE {table}")
    insert(shared_server, table, [10])
    with pytest.raises(SqlFailed) as failed:
        shared_server.sql(f"UPDATE {table} SET key = 2 WHERE key = 10")
    assert failed.value.code == "duplicate_key"
    shared_server.sql(f"UPDATE {table} SET key = 3 - key WHERE key < 3")  # an exchange frees what it takes
    assert shared_server.sql(f"SELECT key, n FROM {table} ORDER BY key") == [[1, 3], [2, 2], [10, 2]]


async def test_of_inserts_of_one_key_that_race_a_flush_exactly_one_is_accepted(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE race")
    shared_server.sql("CREATE TABLE race.t (key BIGINT PRIMARY KEY, writer INT)")
    accepted: dict[int, list[int]] = {key: [] for key in range(400)}
    async with connected(shared_server.nats_url) as client:

        async def write(writer: int) -> None:
            for key in accepted:
                reply = await client.request(
                    "kalam.api.w.insert.race.t", b'{"key": %d, "writer": %d}' % (key, writer), timeout=PATIENCE_S
                )
                if reply.headers is None:
                    accepted[key].append(writer)
                else:
                    assert reply.headers["Nats-Service-Error-Code"] == "409", reply.headers

        writers = [asyncio.create_task(write(writer)) for writer in range(4)]
        while not all(writer.done() for writer in writers):
            await asyncio.to_thread(shared_server.sql, "FLUSH TABLE race.t")
        await asyncio.gather(*writers)
    assert [key for key, who in accepted.items() if len(who) != 1] == []
    stored = shared_server.sql("SELECT key, writer FROM race.t ORDER BY key")
    assert stored == [[key, who[0]] for key, who in accepted.items()]


def test_a_key_that_moves_into_a_segment_while_its_insert_waits_is_still_taken(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE moving")
    shared_server.sql("CREATE TABLE moving.t (key BIGINT PRIMARY KEY)")
    shared_server.sql("INSERT INTO moving.t SELECT value FROM generate_series(1, 60000)")
    folder: Path = shared_server.data_dir / "shared" / "moving" / "t"
    with paused_flush(shared_server, "moving.t", folder):
        with pytest.raises(SqlFailed):
            shared_server.sql("INSERT INTO moving.t VALUES (7)")
        shared_server.sql("DELETE FROM moving.t WHERE key = 8")
        shared_server.sql("INSERT INTO moving.t VALUES (8)")
    for key in (7, 8):
        with pytest.raises(SqlFailed):
            shared_server.sql(f"INSERT INTO moving.t VALUES ({key})")
    assert shared_server.sql("SELECT count(*), count(DISTINCT key) FROM moving.t") == [[60_000, 60_000]]


@pytest.mark.parametrize(
    ("keys", "meets"),
    [([5], False), ([10], True), ([15], True), ([20], True), ([21], False), ([5, 25], True), ([], False)],
)
def test_a_segment_is_asked_only_where_the_ranges_of_keys_meet(keys: list[int], meets: bool) -> None:
    assert bool(may_meet([segment(10, 20)], keys)) is meets
    assert may_meet([], keys) == []
