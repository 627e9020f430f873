"""ALTER TABLE on SHARED and USER tables: old rows, hot and cold, read under the new schema."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from change_feed import connected, read_feed
from flush_pause import paused_flush
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed

STATES = ("hot", "cold", "both")


@pytest.fixture
def ns(shared_server: ServerProcess, request: pytest.FixtureRequest) -> str:
    name = f"a{abs(hash(request.node.name)) % 10**9}"
    shared_server.sql(f"CREATE NAMESPACE {name}")
    return name


def make(server: ServerProcess, ns: str, state: str) -> str:
    """A table with rows 1 and 2 in the state that is asked for."""
    server.sql(f"CREATE TABLE {ns}.t (id BIGINT PRIMARY KEY, a TEXT, b INT)")
    server.sql(f"INSERT INTO {ns}.t VALUES (1, 'one', 10)")
    if state == "both":
        server.sql(f"FLUSH TABLE {ns}.t")
    server.sql(f"INSERT INTO {ns}.t VALUES (2, 'two', 20)")
    if state == "cold":
        server.sql(f"FLUSH TABLE {ns}.t")
    return f"{ns}.t"


def code_of(server: ServerProcess, text: str) -> str | None:
    with pytest.raises(SqlFailed) as failed:
        server.sql(text)
    return str(failed.value.code)


@pytest.mark.parametrize("state", STATES)
def test_an_added_column_reads_null_or_the_default_of_the_alter(
    shared_server: ServerProcess, ns: str, state: str
) -> None:
    t = make(shared_server, ns, state)
    shared_server.sql(f"ALTER TABLE {t} ADD COLUMN c INT")
    shared_server.sql(f"ALTER TABLE {t} ADD COLUMN d DECIMAL(10,2) NOT NULL DEFAULT 1.5")
    shared_server.sql(f"ALTER TABLE {t} ADD COLUMN at TIMESTAMP DEFAULT NOW()")
    shared_server.sql(f"ALTER TABLE {t} ADD COLUMN who TEXT DEFAULT CURRENT_USER()", user="ann")
    rows = shared_server.sql(f"SELECT id, c, d, who, at FROM {t} ORDER BY id")
    assert [row[:4] for row in rows] == [[1, None, "1.50", "ann"], [2, None, "1.50", "ann"]]
    assert rows[0][4] == rows[1][4] is not None
    shared_server.sql(f"INSERT INTO {t} (id, c) VALUES (3, 7)", user="bob")
    [third] = shared_server.sql(f"SELECT c, d, who, at FROM {t} WHERE id = 3")
    assert third[:3] == [7, "1.50", "bob"]
    assert third[3] > rows[0][4]
    shared_server.sql(f"FLUSH TABLE {t}")
    assert shared_server.sql(f"SELECT id, c, d, who, at FROM {t} ORDER BY id")[:2] == rows
    assert shared_server.sql(f"SELECT count(*) FROM {t} WHERE d = 1.5") == [[3]]


@pytest.mark.parametrize("state", STATES)
def test_a_dropped_column_added_again_is_empty(shared_server: ServerProcess, ns: str, state: str) -> None:
    t = make(shared_server, ns, state)
    shared_server.sql(f"ALTER TABLE {t} DROP COLUMN a")
    assert code_of(shared_server, f"SELECT a FROM {t}") == "column_not_found"
    shared_server.sql(f"INSERT INTO {t} (id, b) VALUES (3, 30)")
    shared_server.sql(f"ALTER TABLE {t} ADD COLUMN a DOUBLE")
    assert shared_server.sql(f"SELECT id, b, a FROM {t} ORDER BY id") == [[1, 10, None], [2, 20, None], [3, 30, None]]
    shared_server.sql(f"UPDATE {t} SET a = id / 2.0 WHERE id > 1; FLUSH TABLE {t}")
    assert shared_server.sql(f"SELECT id, b, a FROM {t} ORDER BY id") == [[1, 10, None], [2, 20, 1.0], [3, 30, 1.5]]


@pytest.mark.parametrize("state", STATES)
def test_renamed_columns_keep_their_values_even_when_names_are_swapped(
    shared_server: ServerProcess, ns: str, state: str
) -> None:
    t = make(shared_server, ns, state)
    for old, new in (("a", "x"), ("b", "a"), ("x", "b"), ("id", "number")):
        shared_server.sql(f"ALTER TABLE {t} RENAME COLUMN {old} TO {new}")
    expected = [[1, "one", 10], [2, "two", 20]]
    assert shared_server.sql(f"SELECT number, b, a FROM {t} ORDER BY number") == expected
    assert shared_server.sql(f"SELECT number, b, a FROM {t} WHERE number = 1") == expected[:1]
    assert code_of(shared_server, f"INSERT INTO {t} VALUES (1, 'again', 1)") == "duplicate_key"
    shared_server.sql(f"INSERT INTO {t} (number, b) VALUES (1, 'up') ON CONFLICT (number) DO UPDATE SET b = excluded.b")
    shared_server.sql(f"DELETE FROM {t} WHERE number = 2; FLUSH TABLE {t}")
    assert shared_server.sql(f"SELECT number, b, a FROM {t}") == [[1, "up", 10]]
    assert shared_server.sql(f"SELECT number, b FROM {t} WHERE _deleted") == [[2, "two"]]
    assert shared_server.sql(f"SELECT count(*) FROM {t}") == [[1]]


def test_columns_keep_their_order_before_the_row_id(shared_server: ServerProcess, ns: str) -> None:
    shared_server.sql(f"CREATE USER TABLE {ns}.u (a TEXT)")
    shared_server.sql(f"INSERT INTO {ns}.u VALUES ('x')", user="ann")
    shared_server.sql(f"ALTER TABLE {ns}.u ADD COLUMN b JSON DEFAULT '{{\"k\": 1}}'")
    result = shared_server.results(f"SELECT * FROM {ns}.u", user="ann")[0]
    assert [column["name"] for column in result["columns"]] == ["a", "b", "_row_id", "_updated", "_deleted"]
    assert result["columns"][1]["type"] == "JSON"
    assert result["rows"][0][:2] == ["x", {"k": 1}]
    shared_server.sql(f"FLUSH TABLE {ns}.u")
    assert shared_server.results(f"SELECT * FROM {ns}.u", user="ann")[0]["columns"][1]["type"] == "JSON"


@pytest.mark.parametrize("state", STATES)
def test_several_columns_come_and_go_as_one_version(shared_server: ServerProcess, ns: str, state: str) -> None:
    t = make(shared_server, ns, state)
    text = f"ALTER TABLE {t} ADD COLUMN c INT DEFAULT 5, DROP COLUMN a, ADD d TEXT NOT NULL DEFAULT 'x, y', DROP b"
    assert "schema version 2" in str(shared_server.sql(text))
    shared_server.sql(f"INSERT INTO {t} VALUES (3, 7, 'z')")
    assert shared_server.sql(f"SELECT id, c, d FROM {t} ORDER BY id") == [[1, 5, "x, y"], [2, 5, "x, y"], [3, 7, "z"]]
    history = [
        "id BIGINT NOT NULL, a TEXT, b INT",
        "id BIGINT NOT NULL, c INT DEFAULT 5, d TEXT NOT NULL DEFAULT 'x, y'",
    ]
    assert [row[1] for row in shared_server.sql(f"DESCRIBE TABLE {t} HISTORY")] == history
    shared_server.sql(f"ALTER TABLE {t} ADD a TEXT, ADD b INT; FLUSH TABLE {t}")
    assert shared_server.sql(f"SELECT id, a, b, c FROM {t} WHERE id < 3 ORDER BY id") == [
        [1, None, None, 5],
        [2, None, None, 5],
    ]


def test_of_several_columns_all_or_none_come_and_go(shared_server: ServerProcess, ns: str) -> None:
    t = make(shared_server, ns, "hot")
    shared_server.sql(f"CREATE MATERIALIZED VIEW {ns}.v AS SELECT id, b FROM {t}")
    cases = {
        "ADD c INT, DROP COLUMN nothing": "column_not_found",
        "ADD c INT, ADD b INT": "already_exists",
        "DROP a, DROP b": "table_in_use",
        "ADD c INT, ADD e INT NOT NULL": "invalid_value",
    }
    for action, code in cases.items():
        assert code_of(shared_server, f"ALTER TABLE {t} {action}") == code, action
    assert shared_server.sql(f"SELECT * FROM {t} WHERE id = 1")[0][:3] == [1, "one", 10]
    assert [row[0] for row in shared_server.sql(f"DESCRIBE TABLE {t} HISTORY")] == [1]
    shared_server.sql(f"CREATE TABLE {ns}.keyed (id INT PRIMARY KEY, a INT); CREATE TABLE {ns}.lone (a INT)")
    assert code_of(shared_server, f"ALTER TABLE {ns}.keyed DROP a, DROP id") == "unsupported"
    assert code_of(shared_server, f"ALTER TABLE {ns}.lone DROP COLUMN a, ADD b INT") == "unsupported"
    shared_server.sql(f"ALTER TABLE {ns}.lone ADD b INT, DROP COLUMN a")


def test_every_alter_is_a_version_of_the_history(shared_server: ServerProcess, ns: str) -> None:
    t = make(shared_server, ns, "hot")
    shared_server.sql(f"ALTER TABLE {t} RENAME COLUMN a TO title; ALTER TABLE {t} SET (flush_policy = 'rows:5')")
    history = shared_server.sql(f"DESCRIBE TABLE {t} HISTORY")
    assert [row[:2] for row in history] == [
        [1, "id BIGINT NOT NULL, a TEXT, b INT"],
        [2, "id BIGINT NOT NULL, title TEXT, b INT"],
        [3, "id BIGINT NOT NULL, title TEXT, b INT"],
    ]
    [count] = shared_server.sql(f"SELECT count(*) FROM system.table_schemas WHERE namespace = '{ns}'")
    assert count == [3]
    assert shared_server.sql(f"SELECT schema_version FROM system.tables WHERE namespace = '{ns}'") == [[3]]


def test_set_changes_options_and_leaves_the_others(shared_server: ServerProcess, ns: str) -> None:
    t = make(shared_server, ns, "hot")
    shared_server.sql(
        f"ALTER TABLE {t} SET (flush_policy = 'interval:60', deleted_retention = 'off', compression = 'snappy', "
        "format = 'msgpack')"
    )
    shown = shared_server.sql(f"SHOW CREATE TABLE {t}")[0][0]
    for text in ("interval:60", "off", "snappy", "msgpack"):
        assert text in shown
    shared_server.sql(f"ALTER TABLE {t} SET (compression = 'none')")
    assert "interval:60" in shared_server.sql(f"SHOW CREATE TABLE {t}")[0][0]
    shared_server.sql(f"FLUSH TABLE {t}")
    assert shared_server.sql(f"SELECT count(*) FROM {t}") == [[2]]


def test_what_an_alter_may_not_do(shared_server: ServerProcess, ns: str) -> None:
    shared_server.sql(f"CREATE TABLE {ns}.t (id BIGINT PRIMARY KEY, a TEXT, b INT) WITH (subject_key = 'a')")
    cases = {
        "DROP COLUMN id": "unsupported",
        "DROP COLUMN a": "unsupported",
        "DROP COLUMN nothing": "column_not_found",
        "ADD COLUMN b TEXT": "already_exists",
        "ADD COLUMN c INT NOT NULL": "invalid_value",
        "ADD COLUMN c BIGINT DEFAULT SNOWFLAKE_ID()": "invalid_value",
        "RENAME COLUMN a TO b": "already_exists",
        "RENAME COLUMN nothing TO c": "column_not_found",
        "SET (retention = '10s')": "invalid_option",
        "SET (flush_policy = 'rows:0')": "invalid_option",
        "SET (subject_key = 'b')": "unsupported",
        "SET (location = '/somewhere/else')": "unsupported",
    }
    for action, code in cases.items():
        assert code_of(shared_server, f"ALTER TABLE {ns}.t {action}") == code, action
    assert [row[0] for row in shared_server.sql(f"DESCRIBE TABLE {ns}.t HISTORY")] == [1]


def test_a_renamed_subject_key_still_makes_the_subjects(shared_server: ServerProcess, ns: str) -> None:
    shared_server.sql(f"CREATE TABLE {ns}.t (id BIGINT PRIMARY KEY, a TEXT) WITH (subject_key = 'a')")
    shared_server.sql(f"INSERT INTO {ns}.t VALUES (1, 'x'); ALTER TABLE {ns}.t RENAME COLUMN a TO z")
    shared_server.sql(f"INSERT INTO {ns}.t VALUES (2, 'y')")
    wanted = [{"id": 1, "a": "x"}, {"id": 2, "z": "y"}]
    messages = asyncio.run(feed(shared_server, f"kalam.shared.{ns}.t.>", 2))
    assert [{key: row[key] for key in keep} for keep, row in zip(wanted, messages, strict=True)] == wanted


async def feed(server: ServerProcess, subject: str, count: int) -> list[dict[str, object]]:
    """The rows of a change feed, once it has so many."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            messages = await read_feed(server.nats_url, subject)
            rows = [row for message in messages for row in message.rows]
            if len(rows) >= count:
                return rows


def test_an_alter_waits_for_a_flush_and_both_are_right(kalam_server: ServerProcess) -> None:
    kalam_server.sql("CREATE NAMESPACE n; CREATE TABLE n.t (id BIGINT PRIMARY KEY, a TEXT)")
    kalam_server.sql("INSERT INTO n.t SELECT value, 'v' || CAST(value AS TEXT) FROM range(0, 90000)")
    folder = Path(kalam_server.data_dir) / "shared" / "n" / "t"
    alter = "ALTER TABLE n.t RENAME COLUMN a TO b; ALTER TABLE n.t ADD COLUMN c INT DEFAULT 9"
    with ThreadPoolExecutor(1) as pool:
        with paused_flush(kalam_server, "n.t", folder):
            altering = pool.submit(kalam_server.sql, alter)
            kalam_server.sql("INSERT INTO n.t VALUES (-1, 'during')")
        altering.result()
    assert kalam_server.sql("SELECT count(*), count(DISTINCT b), sum(c) FROM n.t") == [[90001, 90001, 810009]]
    kalam_server.kill()
    kalam_server.restart()
    assert kalam_server.sql("SELECT count(*), count(DISTINCT b), sum(c) FROM n.t") == [[90001, 90001, 810009]]
    kalam_server.sql("FLUSH TABLE n.t")
    assert kalam_server.sql("SELECT b, c FROM n.t WHERE id = -1") == [["during", 9]]


def test_a_column_that_an_open_live_query_uses_cannot_be_dropped(shared_server: ServerProcess, ns: str) -> None:
    t = make(shared_server, ns, "hot")
    asyncio.run(open_live(shared_server, f"SELECT id FROM {t} WHERE a = 'one'"))
    assert code_of(shared_server, f"ALTER TABLE {t} DROP COLUMN a") == "table_in_use"
    shared_server.sql(f"ALTER TABLE {t} DROP COLUMN b")


async def open_live(server: ServerProcess, sql: str) -> None:
    """Open a live query and go away; it ends some seconds later."""
    async with connected(server.nats_url) as client:
        answer = await client.request("kalam.api.admin.live", json.dumps({"sql": sql}).encode(), timeout=PATIENCE_S)
        assert "subject" in json.loads(answer.data), answer.data
