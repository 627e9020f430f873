"""COUNT(*) of a table is put together from the sizes of its parts; it is what counting the rows would give."""

from __future__ import annotations

import itertools

import httpx
import pytest

NAMES = (f"counts_{number}" for number in itertools.count())


@pytest.mark.parametrize("kind", ["SHARED", "USER"])
def test_the_count_is_right_after_every_kind_of_change(shared_server, kind):
    space = next(NAMES)
    sql = shared_server.sql
    sql(f"CREATE NAMESPACE {space}; CREATE {kind} TABLE {space}.t (id BIGINT PRIMARY KEY, v INT)")

    def counts() -> tuple[int, int, int]:
        [[fast]] = sql(f"SELECT COUNT(*) FROM {space}.t")
        [[named]] = sql(f"select count(*) as n from {space}.t")
        [[slow]] = sql(f"SELECT COUNT(*) FROM {space}.t WHERE id >= 0 OR id < 0")
        return fast, named, slow

    assert counts() == (0, 0, 0)
    values = ", ".join(f"({number}, {number})" for number in range(100))
    sql(f"INSERT INTO {space}.t VALUES {values}")
    assert counts() == (100, 100, 100)
    sql(f"FLUSH TABLE {space}.t")
    assert counts() == (100, 100, 100)
    sql(f"UPDATE {space}.t SET v = v + 1 WHERE id < 10")
    sql(f"DELETE FROM {space}.t WHERE id >= 95")
    assert counts() == (95, 95, 95)
    sql(f"INSERT INTO {space}.t VALUES (95, 1), (200, 1)")
    assert counts() == (97, 97, 97)
    sql(f"FLUSH TABLE {space}.t")
    assert counts() == (97, 97, 97)
    sql(f"UPDATE {space}.t SET v = 0; DELETE FROM {space}.t WHERE id = 200")
    assert counts() == (96, 96, 96)
    sql(f"FLUSH TABLE {space}.t")
    assert counts() == (96, 96, 96)
    deleted = sql(f"SELECT COUNT(*) FROM {space}.t WHERE _deleted")
    assert deleted == [[5]]


def test_the_count_of_a_stream_is_that_of_the_events_that_a_reader_sees(shared_server):
    space = next(NAMES)
    sql = shared_server.sql
    sql(f"CREATE NAMESPACE {space}; CREATE STREAM TABLE {space}.t (id BIGINT) WITH (MAX_BUFFER = 100)")

    def counts() -> tuple[int, int, int]:
        [[fast]] = sql(f"SELECT COUNT(*) FROM {space}.t")
        [[named]] = sql(f"select count(*) as n from {space}.t")
        [[slow]] = sql(f"SELECT COUNT(*) FROM {space}.t WHERE id >= 0 OR id < 0")
        return fast, named, slow

    assert counts() == (0, 0, 0)
    sql(f"INSERT INTO {space}.t VALUES {', '.join(f'({number})' for number in range(150))}")
    assert counts() == (100, 100, 100)
    sql(f"DELETE FROM {space}.t WHERE id >= 140")
    assert counts() == (90, 90, 90)
    answer = shared_server.results(f"SELECT COUNT(*) FROM {space}.t")[0]
    planned = shared_server.results(f"SELECT COUNT(*) FROM {space}.t WHERE id >= 0")[0]
    assert (answer["columns"], answer["rows"]) == (planned["columns"], planned["rows"])


def test_the_column_is_called_as_the_planned_query_would_call_it(shared_server):
    space = next(NAMES)
    shared_server.sql(f"CREATE NAMESPACE {space}; CREATE TABLE {space}.t (id BIGINT PRIMARY KEY)")
    names = [
        shared_server.results(f"SELECT {what} FROM {space}.t{where}")[0]["columns"][0]["name"]
        for what in ("COUNT(*)", "count ( * ) AS Rows_All")
        for where in ("", " WHERE id > 0")
    ]
    assert names == ["count(*)", "count(*)", "rows_all", "rows_all"]


def test_only_segments_that_may_hold_a_hidden_row_are_joined_with_what_hides(shared_server):
    space = next(NAMES)
    sql = shared_server.sql
    sql(f"CREATE NAMESPACE {space}; CREATE TABLE {space}.t (id BIGINT PRIMARY KEY, v INT)")
    everything = f"SELECT count(*), sum(v) FROM {space}.t WHERE v >= 0"

    def joins() -> int:
        [logical] = [plan for kind, plan in sql(f"EXPLAIN {everything}") if kind == "logical_plan"]
        return logical.count("Anti Join")

    sql(f"INSERT INTO {space}.t SELECT value, 1 FROM range(0, 100); FLUSH TABLE {space}.t")
    assert (sql(everything), joins()) == ([[100, 100]], 0)
    sql(f"UPDATE {space}.t SET v = 2 WHERE id < 10; DELETE FROM {space}.t WHERE id = 99")
    assert (sql(everything), joins()) == ([[99, 109]], 1)
    sql(f"FLUSH TABLE {space}.t; UPDATE {space}.t SET v = 3 WHERE id = 50; FLUSH TABLE {space}.t")
    assert (sql(everything), joins()) == ([[99, 111]], 2)  # all segments but the newest
    sql(f"UPDATE {space}.t SET v = 4 WHERE id = 50")
    assert (sql(everything), joins()) == ([[99, 112]], 2)  # all of them, those that are not the oldest together
    sql(f"FLUSH TABLE {space}.t; COMPACT TABLE {space}.t")
    assert (sql(everything), joins()) == ([[99, 112]], 0)


def test_a_client_may_ask_for_the_names_of_postgresql(shared_server):
    space = next(NAMES)
    shared_server.sql(f"CREATE NAMESPACE {space}; CREATE TABLE {space}.t (id BIGINT PRIMARY KEY)")
    text = f"SELECT max(id), max(id + 1), 7 FROM {space}.t; SELECT count(*), 7 AS n FROM {space}.t"
    request = {"sql": text, "names": "postgresql"}
    answer = httpx.post(f"{shared_server.http_url}/v1/sql", json=request)
    columns = [[column["name"] for column in result["columns"]] for result in answer.json()["results"]]
    assert columns == [["max", "max", "?column?"], ["count", "n"]]
    request = {"sql": f"SELECT 7 FROM {space}.t", "names": "postgresql"}
    streamed = httpx.post(f"{shared_server.http_url}/v1/sql", json=request, headers={"Accept": "text/csv"})
    assert streamed.text.splitlines() == ['"?column?"']
    refused = httpx.post(f"{shared_server.http_url}/v1/sql", json=request | {"names": "mysql"})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_value")
