"""Row-wise views: they equal their SELECT over the source, whatever is done to it, and say what they leave out."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import nats
import pytest
from server_process import ServerProcess, SqlFailed
from view_watching import standing

WaitFor = Callable[[Callable[[], Any]], Any]
ROWS = "id, v * 2 AS w, upper(s) AS u"


def refused(server: ServerProcess, text: str) -> str:
    with pytest.raises(SqlFailed) as failure:
        server.sql(text)
    return str(failure.value.code)


def same(server: ServerProcess, view: str, select: str) -> bool:
    return sorted(server.sql(f"SELECT id, w, u FROM {view}"), key=repr) == sorted(server.sql(select), key=repr)


@pytest.mark.parametrize("refresh", ["0", "50ms"])
def test_a_view_equals_its_select_after_random_changes_flushes_and_compactions(
    shared_server: ServerProcess, namespace: str, wait_for: WaitFor, refresh: str
) -> None:
    server, table, chosen = shared_server, f"{namespace}.t", random.Random(refresh)
    select = f"SELECT {ROWS} FROM {table} WHERE v > 10"
    server.sql(f"CREATE TABLE {table} (id INT PRIMARY KEY, v INT, s TEXT)")
    server.sql(f"INSERT INTO {table} SELECT value, value % 40, 'a' || value FROM range(0, 500)")
    server.sql(f"CREATE MATERIALIZED VIEW {namespace}.w WITH (refresh = '{refresh}') AS {select}")
    server.sql(f"CREATE MATERIALIZED VIEW {namespace}.hidden AS SELECT s, v FROM {table}")
    for number in range(30):
        first = chosen.randrange(500)
        server.sql(
            chosen.choice(
                [
                    f"INSERT INTO {table} SELECT {1000 + 50 * number} + value, {number}, 'n' FROM range(0, 30)",
                    f"UPDATE {table} SET v = v + {chosen.randrange(-20, 20)}, s = 'u' WHERE id >= {first}",
                    f"DELETE FROM {table} WHERE id % 17 = {first % 17}",
                    f"INSERT INTO {table} VALUES ({first}, 30, 'x') ON CONFLICT (id) DO UPDATE SET v = excluded.v",
                    f"FLUSH TABLE {table}",
                    f"FLUSH TABLE {namespace}.w",
                    f"COMPACT TABLE {namespace}.w",
                ]
            )
        )
    wait_for(lambda: same(server, f"{namespace}.w", select))
    expected = sorted(server.sql(f"SELECT s, v FROM {table}"), key=repr)
    wait_for(lambda: sorted(server.sql(f"SELECT s, v FROM {namespace}.hidden"), key=repr) == expected)
    assert standing(server, f"{namespace}.w")["failed"] == 0


def test_a_hidden_key_is_shown_where_it_is_named_alone(
    shared_server: ServerProcess, namespace: str, wait_for: WaitFor
) -> None:
    server, table, view = shared_server, f"{namespace}.t", f"{namespace}.w"
    server.sql(f"CREATE TABLE {table} (id INT PRIMARY KEY, s TEXT); INSERT INTO {table} VALUES (7, 'x')")
    server.sql(f"CREATE MATERIALIZED VIEW {view} AS SELECT s FROM {table}")
    wait_for(lambda: server.sql(f"SELECT s FROM {view}"))
    [result] = server.results(f"SELECT * FROM {view}")
    assert [column["name"] for column in result["columns"]] == ["s", "_updated", "_deleted"]
    assert server.sql(f"SELECT _key, s FROM {view}") == [["[7]", "x"]]
    server.sql(f"FLUSH TABLE {view}")
    assert server.sql(f"SELECT _key, s FROM {view}") == [["[7]", "x"]]
    names = [
        row[0]
        for row in server.sql(
            f"SELECT column_name FROM system.columns WHERE table_name = 'w' AND namespace = '{namespace}'"
        )
    ]
    assert names == ["s"]


async def test_every_change_is_an_event_and_a_refresh_tells_only_what_differs(
    shared_server: ServerProcess, namespace: str
) -> None:
    server, table, view = shared_server, f"{namespace}.t", f"{namespace}.w"
    client = await nats.connect(server.nats_url)
    heard = await client.subscribe(f"kalam.shared.{view}.>")
    await client.flush()
    server.sql(f"CREATE TABLE {table} (id INT PRIMARY KEY, v INT); INSERT INTO {table} VALUES (1, 1), (2, 2)")
    server.sql(f"CREATE MATERIALIZED VIEW {view} WITH (refresh = '0') AS SELECT v, id * 10 AS ten FROM {table}")
    first = json.loads((await heard.next_msg(60)).data)
    assert (first["op"], [(row["v"], row["ten"]) for row in first["rows"]]) == ("insert", [(1, 10), (2, 20)])
    assert "_key" not in first["rows"][0]
    server.sql(
        f"REFRESH MATERIALIZED VIEW {view}; UPDATE {table} SET v = 3 WHERE id = 2; DELETE FROM {table} WHERE id = 1"
    )
    told: dict[str, Any] = {}
    while "delete" not in told:
        message = json.loads((await heard.next_msg(60)).data)
        told[message["op"]] = message
    assert set(told) == {"update", "delete"}
    assert told["update"]["old"] == [{"v": 2}]
    await client.close()


async def test_a_row_that_fails_is_left_out_counted_and_told(
    shared_server: ServerProcess, namespace: str, wait_for: WaitFor
) -> None:
    server, table, view = shared_server, f"{namespace}.t", f"{namespace}.w"
    server.sql(f"CREATE TABLE {table} (id INT PRIMARY KEY, v INT)")
    server.sql(f"CREATE MATERIALIZED VIEW {view} AS SELECT id, 100 / v AS q FROM {table}")
    client = await nats.connect(server.nats_url)
    heard = await client.subscribe(f"kalam.event.view.failed.{view}")
    await client.flush()
    server.sql(f"INSERT INTO {table} SELECT value, value % 10 FROM range(0, 50)")
    wait_for(lambda: server.sql(f"SELECT count(*) FROM {view}") == [[45]])
    told = [json.loads((await heard.next_msg(60)).data) for _ in range(5)]
    assert sorted(each["row"] for each in told) == sorted(f"id = {number}" for number in range(0, 50, 10))
    assert {each["reason"] for each in told} == {"invalid_value: Divide by zero"}
    assert standing(server, view)["failed"] == 5
    server.sql(f"UPDATE {table} SET v = 1 WHERE v = 0; UPDATE {table} SET v = 0 WHERE id = 1")
    wait_for(lambda: server.sql(f"SELECT count(*) FROM {view}") == [[49]])
    await client.close()


async def test_why_a_row_fails_is_told_without_what_is_in_it(shared_server: ServerProcess, namespace: str) -> None:
    server, table, view = shared_server, f"{namespace}.t", f"{namespace}.w"
    server.sql(f"CREATE TABLE {table} (id INT PRIMARY KEY, v TEXT, n BIGINT)")
    server.sql(f"CREATE MATERIALIZED VIEW {view} AS SELECT id, CAST(v AS INT) AS q, n * 1000 AS many FROM {table}")
    client = await nats.connect(server.nats_url)
    heard = await client.subscribe(f"kalam.event.view.failed.{view}")
    await client.flush()
    server.sql(f"INSERT INTO {table} VALUES (1, 'to type Secret', 1)")
    assert json.loads((await heard.next_msg(60)).data)["reason"] == "invalid_value: no cast to Int32"
    server.sql(f"INSERT INTO {table} VALUES (2, '7', 9200000000000000000)")
    told = json.loads((await heard.next_msg(60)).data)
    assert (told["row"], told["reason"]) == ("id = 2", "invalid_value: out of range of BIGINT")
    server.sql(f"ALTER TABLE {view} ENABLE ROW LEVEL SECURITY; INSERT INTO {table} VALUES (3, 'secret', 1)")
    assert json.loads((await heard.next_msg(60)).data) == {"view": view, "reason": "invalid_value: no cast to Int32"}
    await client.close()


def test_events_that_come_through_kalam_are_all_in_the_view_whatever_the_stream_keeps(
    shared_server: ServerProcess, namespace: str, wait_for: WaitFor
) -> None:
    server, table, view = shared_server, f"{namespace}.ev", f"{namespace}.w"
    server.sql(f"CREATE STREAM TABLE {table} (n INT) WITH (max_buffer = 100); INSERT INTO {table} VALUES (-1), (-2)")
    server.sql(f"CREATE MATERIALIZED VIEW {view} AS SELECT n, n * n AS square FROM {table}")
    for start in range(0, 5_000, 500):
        server.sql(f"INSERT INTO {table} SELECT value FROM range({start}, {start + 500})")
    wait_for(
        lambda: (
            server.sql(f"SELECT count(*), count(DISTINCT n), min(n), max(n) FROM {view}") == [[5002, 5002, -2, 4999]]
        )
    )
    assert standing(server, view)["missed"] == 0
    server.sql(f"DELETE FROM {table}")
    assert server.sql(f"SELECT count(*) FROM {view}") == [[5002]]


def test_of_events_with_the_same_key_the_last_one_stays(
    shared_server: ServerProcess, namespace: str, wait_for: WaitFor
) -> None:
    server, table, view = shared_server, f"{namespace}.ev", f"{namespace}.w"
    server.sql(f"CREATE STREAM TABLE {table} (device TEXT NOT NULL, v INT)")
    server.sql(f"CREATE MATERIALIZED VIEW {view} WITH (key = 'device') AS SELECT device, v FROM {table}")
    server.sql(f"INSERT INTO {table} SELECT 'd' || (value % 5), value FROM range(0, 100)")
    wait_for(lambda: server.sql(f"SELECT v FROM {view} ORDER BY v") == [[95], [96], [97], [98], [99]])
    assert server.sql(f"SELECT v FROM {view} WHERE device = 'd3'") == [[98]]


def test_a_key_whose_values_come_twice_stops_the_view_which_says_them(
    shared_server: ServerProcess, namespace: str, wait_for: WaitFor
) -> None:
    server, table, view = shared_server, f"{namespace}.t", f"{namespace}.w"
    server.sql(
        f"CREATE TABLE {table} (id INT PRIMARY KEY, s TEXT NOT NULL); INSERT INTO {table} VALUES (1, 'a'), (2, 'b')"
    )
    server.sql(f"CREATE MATERIALIZED VIEW {view} WITH (key = 's') AS SELECT s, id FROM {table}")
    wait_for(lambda: standing(server, view)["state"] == "running")
    server.sql(f"UPDATE {table} SET s = 'c' WHERE id = 1; INSERT INTO {table} VALUES (3, 'a')")
    wait_for(lambda: sorted(server.sql(f"SELECT s, id FROM {view}")) == [["a", 3], ["b", 2], ["c", 1]])
    server.sql(f"INSERT INTO {table} VALUES (4, 'b')")
    wait_for(lambda: standing(server, view)["state"] == "stopped")
    assert "'b'" in standing(server, view)["reason"]
    assert sorted(server.sql(f"SELECT s, id FROM {view}")) == [["a", 3], ["b", 2], ["c", 1]]
    server.sql(f"DELETE FROM {table} WHERE id = 4; REFRESH MATERIALIZED VIEW {view}")
    assert standing(server, view)["state"] == "running"


def test_a_view_over_a_view_follows_it(shared_server: ServerProcess, namespace: str, wait_for: WaitFor) -> None:
    server, name = shared_server, namespace
    server.sql(f"CREATE TABLE {name}.t (id INT PRIMARY KEY, v INT)")
    for above, below in (("one", "t"), ("two", "one"), ("three", "two"), ("four", "three")):
        server.sql(
            f"CREATE MATERIALIZED VIEW {name}.{above} WITH (refresh = '0') AS SELECT id, v + 1 AS v FROM {name}.{below}"
        )
    assert refused(server, f"CREATE MATERIALIZED VIEW {name}.five AS SELECT id FROM {name}.four") == "unsupported"
    server.sql(f"INSERT INTO {name}.t VALUES (1, 1), (2, 2); UPDATE {name}.t SET v = 10 WHERE id = 1")
    server.sql(f"DELETE FROM {name}.t WHERE id = 2")
    wait_for(lambda: server.sql(f"SELECT id, v FROM {name}.four") == [[1, 14]])
    assert refused(server, f"DROP MATERIALIZED VIEW {name}.two") == "table_in_use"
    server.sql(f"DROP NAMESPACE {name} CASCADE")
    assert server.sql(f"SELECT view_name FROM system.views WHERE namespace = '{name}'") == []


def test_a_source_that_is_truncated_empties_the_view(
    shared_server: ServerProcess, namespace: str, wait_for: WaitFor
) -> None:
    server, table, view = shared_server, f"{namespace}.t", f"{namespace}.w"
    server.sql(f"CREATE TABLE {table} (id INT PRIMARY KEY); INSERT INTO {table} VALUES (1), (2)")
    server.sql(f"CREATE MATERIALIZED VIEW {view} AS SELECT id FROM {table}")
    wait_for(lambda: server.sql(f"SELECT count(*) FROM {view}") == [[2]])
    server.sql(f"TRUNCATE {table}; INSERT INTO {table} VALUES (3)")
    wait_for(lambda: server.sql(f"SELECT id FROM {view}") == [[3]])


def test_what_a_view_needs_stays_and_nobody_else_writes_it(shared_server: ServerProcess, namespace: str) -> None:
    server, table, view = shared_server, f"{namespace}.t", f"{namespace}.w"
    server.sql(f"CREATE NAMESPACE {namespace}b; CREATE TABLE {table} (id INT PRIMARY KEY, v INT, w INT, x INT)")
    server.sql(f"CREATE MATERIALIZED VIEW {namespace}b.w AS SELECT id, v FROM {table} WHERE w > 0")
    for text in (
        f"DROP TABLE {table}",
        f"ALTER TABLE {table} DROP COLUMN w",
        f"ALTER TABLE {table} RENAME COLUMN v TO z",
        f"ALTER TABLE {table} RENAME TO other",
        f"ALTER TABLE {table} ALTER COLUMN v TYPE BIGINT",
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"DROP NAMESPACE {namespace} CASCADE",
    ):
        assert refused(server, text) == "table_in_use", text
    server.sql(f"ALTER TABLE {table} ADD COLUMN y INT; ALTER TABLE {table} DROP COLUMN x")
    server.sql(f"INSERT INTO {table} VALUES (1, 2, 3, 4)")
    server.sql(f"CREATE MATERIALIZED VIEW {view} AS SELECT id FROM {table}; DROP MATERIALIZED VIEW {namespace}b.w")
    for text in (
        f"INSERT INTO {view} VALUES (1)",
        f"UPDATE {view} SET id = 1",
        f"DELETE FROM {view}",
        f"TRUNCATE {view}",
        f"DROP TABLE {view}",
        f"ALTER TABLE {view} ADD COLUMN a INT",
        f"ALTER TABLE {view} RENAME TO a",
    ):
        assert refused(server, text) == "unsupported", text
    server.sql(f"FLUSH TABLE {view}; COMPACT TABLE {view}; CHECK TABLE {view}; DROP NAMESPACE {namespace}b")


@pytest.mark.parametrize(
    ("select", "code", "named"),
    [
        ("SELECT id FROM {t} LIMIT 3", "unsupported", "LIMIT"),
        ("SELECT id, NOW() AS at FROM {t}", "unsupported", "now"),
        ("SELECT id, random() AS r FROM {t}", "unsupported", "random"),
        ("SELECT id, CURRENT_USER() AS u FROM {t}", "unsupported", "current_user"),
        ("SELECT id, _updated AS u FROM {t}", "unsupported", "_updated"),
        ("SELECT id FROM {t} WHERE v = $1", "unsupported", "parameters"),
        ("SELECT table_name FROM system.tables", "unsupported", "system"),
        ("SELECT v FROM {mine}", "unsupported", "USER"),
        ("SELECT v + 1 FROM {t}", "unsupported", "name"),
        ("SELECT id, id FROM {t}", "invalid_name", "id"),
        ("SELECT nothing FROM {t}", "column_not_found", "nothing"),
        ("SELECT id FROM {t}_not_there", "table_not_found", "not_there"),
        ("SELECT id, make_array(v) AS a FROM {t}", "unsupported", "a"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_named(
    shared_server: ServerProcess, select: str, code: str, named: str
) -> None:
    server = shared_server
    server.sql("CREATE NAMESPACE IF NOT EXISTS bad; CREATE TABLE IF NOT EXISTS bad.t (id INT PRIMARY KEY, v INT)")
    server.sql("CREATE USER TABLE IF NOT EXISTS bad.mine (id INT PRIMARY KEY, v INT)")
    with pytest.raises(SqlFailed) as failure:
        server.sql("CREATE MATERIALIZED VIEW bad.w AS " + select.format(t="bad.t", mine="bad.mine"))
    assert failure.value.code == code
    assert named in str(failure.value)
    assert server.sql("SELECT view_name FROM system.views WHERE namespace = 'bad'") == []


@pytest.mark.parametrize(
    "options",
    [
        "refresh = '2h'",
        "refresh = 'soon'",
        "refresh = -1",
        "maintain = 'somehow'",
        "key = 'nothing'",
        "key = ''",
        "on_recreate = 'perhaps'",
        "retention = '1h'",
        "retention_on = 'v'",
        "retention = '1h', retention_on = 'v'",
        "max_buffer = 10",
    ],
)
def test_an_option_that_does_not_fit_is_refused(shared_server: ServerProcess, options: str) -> None:
    server = shared_server
    server.sql("CREATE NAMESPACE IF NOT EXISTS bad; CREATE TABLE IF NOT EXISTS bad.t (id INT PRIMARY KEY, v INT)")
    assert (
        refused(server, f"CREATE MATERIALIZED VIEW bad.w WITH ({options}) AS SELECT id, v FROM bad.t")
        == "invalid_option"
    )


def test_rows_past_their_time_leave_and_late_ones_are_counted(
    shared_server: ServerProcess, namespace: str, wait_for: WaitFor
) -> None:
    server, table, view = shared_server, f"{namespace}.t", f"{namespace}.w"
    options = "refresh = '0', retention = '2s', retention_on = 'at'"
    server.sql(f"CREATE TABLE {table} (id INT PRIMARY KEY, at TIMESTAMP)")
    server.sql(
        f"INSERT INTO {table} VALUES (1, NOW()), (2, '2020-01-01T00:00:00Z'), (3, NULL), (4, '2120-01-01T00:00:00Z')"
    )
    server.sql(f"CREATE MATERIALIZED VIEW {view} WITH ({options}) AS SELECT id, at FROM {table}")
    wait_for(lambda: server.sql(f"SELECT id FROM {view} ORDER BY id") == [[3], [4]])
    assert standing(server, view)["late"] == 0
    server.sql(f"INSERT INTO {table} VALUES (5, '2021-01-01T00:00:00Z')")
    server.sql(f"UPDATE {table} SET at = '2021-01-01T00:00:00Z' WHERE id = 4")
    wait_for(lambda: standing(server, view)["late"] == 2)
    assert server.sql(f"SELECT id FROM {view}") == [[3]]


def test_a_view_gets_other_options_and_one_more_column(
    shared_server: ServerProcess, namespace: str, wait_for: WaitFor
) -> None:
    server, table, view = shared_server, f"{namespace}.t", f"{namespace}.w"
    server.sql(f"CREATE TABLE {table} (id INT PRIMARY KEY, v INT); INSERT INTO {table} VALUES (1, 1)")
    server.sql(f"CREATE MATERIALIZED VIEW {view} AS SELECT id FROM {table}")
    wait_for(lambda: server.sql(f"SELECT id FROM {view}"))
    server.sql(f"ALTER MATERIALIZED VIEW {view} ADD COLUMN twice AS v * 2; INSERT INTO {table} VALUES (2, 2)")
    wait_for(lambda: server.sql(f"SELECT id, twice FROM {view} ORDER BY id") == [[1, None], [2, 4]])
    server.sql(f"ALTER MATERIALIZED VIEW {view} SET (refresh = '0', flush_policy = 'rows:10')")
    server.sql(f"REFRESH MATERIALIZED VIEW {view}")
    assert server.sql(f"SELECT id, twice FROM {view} ORDER BY id") == [[1, 2], [2, 4]]
    made = server.sql(f"SHOW CREATE TABLE {view}")[0][0]
    server.sql(f"DROP MATERIALIZED VIEW {view}; {made}")
    assert server.sql(f"SHOW CREATE TABLE {view}")[0][0] == made
    for text in ("ADD COLUMN twice AS v", "ADD COLUMN n AS now()", "SET (key = 'id')", "ADD COLUMN n AS nothing"):
        assert refused(server, f"ALTER MATERIALIZED VIEW {view} {text}") in (
            "already_exists",
            "unsupported",
            "column_not_found",
        )
    assert refused(server, f"DROP MATERIALIZED VIEW {table}") == "table_not_found"
    assert "skipped" in server.sql(f"DROP MATERIALIZED VIEW IF EXISTS {namespace}.nothing")
    assert "skipped" in server.sql(f"CREATE MATERIALIZED VIEW IF NOT EXISTS {view} AS SELECT id FROM {table}")
