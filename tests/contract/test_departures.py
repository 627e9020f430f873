"""Whoever leaves before the answer ends the query; who may not, does not; and what runs is shown."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from server_process import ServerProcess, SqlFailed

from kalam.client import connect

ENDLESS = "SELECT count(*) FROM range(1, 1000000) a JOIN range(1, 1000000) b ON a.value + b.value > 5"
PATIENCE_S = 60.0


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def running(server: ServerProcess, door: str, user: str) -> list[Any]:
    rows = server.sql("SHOW QUERIES")
    return [row for row in rows if (row[1], row[2]) == (user, door)]


def asking(server: ServerProcess, user: str, accept: str = "application/json") -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(server.http_url.split("//")[1])
    headers = {"Content-Type": "application/json", "X-Kalam-User": user, "Accept": accept}
    connection.request("POST", "/v1/sql", json.dumps({"sql": ENDLESS}), headers)
    return connection


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson", "text/csv"])
def test_an_http_client_that_leaves_ends_its_query(shared_server: ServerProcess, accept: str) -> None:
    connection = asking(shared_server, "leaver", accept)
    [query] = wait_for(lambda: running(shared_server, "http", "leaver"))
    assert query[3] == ENDLESS
    connection.close()
    wait_for(lambda: not running(shared_server, "http", "leaver"))


def test_a_reader_of_an_event_stream_that_leaves_ends_what_it_begins_with(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE d; CREATE TABLE d.t (k INT PRIMARY KEY); INSERT INTO d.t VALUES (1)")
    shared_server.sql("INSERT INTO d.t SELECT value FROM range(2, 200000)")
    where = "length(repeat(CAST(k AS TEXT), 20000)) > 5"
    connection = http.client.HTTPConnection(shared_server.http_url.split("//")[1])
    sql = quote(f"SELECT k FROM d.t WHERE {where}")
    connection.request("GET", f"/v1/live?sql={sql}", headers={"X-Kalam-User": "watcher"})
    connection.close()
    wait_for(lambda: not running(shared_server, "live", "watcher"))


async def test_a_requester_on_nats_that_leaves_ends_its_query(shared_server: ServerProcess) -> None:
    async with connect(shared_server.nats_url, user="asker") as kalam:
        asked = asyncio.create_task(kalam.sql(ENDLESS))
        await asyncio.to_thread(wait_for, lambda: running(shared_server, "nats", "asker"))
        asked.cancel()
        await asyncio.to_thread(wait_for, lambda: not running(shared_server, "nats", "asker"))


def test_a_query_is_killed_by_its_id(shared_server: ServerProcess) -> None:
    connection = asking(shared_server, "victim")
    [query] = wait_for(lambda: [row for row in running(shared_server, "http", "victim") if row[7] == "running"])
    listed = shared_server.sql("SELECT user_id, door, sql, state FROM system.queries WHERE query_id = $1", query[0])
    assert listed == [["victim", "http", ENDLESS, "running"]]
    assert shared_server.sql(f"KILL QUERY '{query[0]}'") == f"query {query[0]} cancelled"
    with connection.getresponse() as response:
        assert (response.status, json.loads(response.read())["code"]) == (409, "cancelled")
    with pytest.raises(SqlFailed) as refused:
        shared_server.sql(f"KILL QUERY '{query[0]}'")
    assert refused.value.code == "not_found"


def test_one_user_does_not_keep_the_others_waiting(start_kalam: Callable[..., ServerProcess]) -> None:
    server = start_kalam(KALAM_QUERY_CONCURRENCY_MAX="2")
    connections = [asking(server, "greedy") for _ in range(3)]
    wait_for(lambda: {row[7] for row in running(server, "http", "greedy")} >= {"running", "waiting"})
    assert server.sql("SELECT 1 + 1", user="other") == [[2]]
    for connection in connections:
        connection.close()
    wait_for(lambda: not running(server, "http", "greedy"))
    assert server.sql("SELECT 1 + 1", user="greedy") == [[2]]


def test_bytes_are_bounded_as_rows_are(start_kalam: Callable[..., ServerProcess]) -> None:
    server = start_kalam(KALAM_STATEMENT_CHANGE_BYTES_MAX=str(1 << 20), KALAM_RESULT_BYTES_MAX=str(1 << 20))
    server.sql("CREATE NAMESPACE a; CREATE TABLE a.t (k INT PRIMARY KEY, v TEXT)")
    for text in (
        "INSERT INTO a.t SELECT value, repeat('x', 1000) FROM range(0, 2000)",
        "SELECT value, repeat('x', 1000) FROM range(0, 2000)",
    ):
        with pytest.raises(SqlFailed) as refused:
            server.sql(text)
        assert refused.value.code == "too_large"
    server.sql("INSERT INTO a.t SELECT value, repeat('x', 100) FROM range(0, 6000)")
    text = "UPDATE a.t SET v = repeat('y', 1000) WHERE length(v) > 0"
    with pytest.raises(SqlFailed) as refused:
        server.sql(f"{text} RETURNING k")
    assert refused.value.code == "too_large"
    assert server.sql("SELECT count(*) FROM a.t WHERE v LIKE 'y%'") == [[0]]
    assert server.sql(text) == "6000 rows updated"  # which is not held in memory
    with urllib.request.urlopen(f"{server.http_url}/readyz") as response:
        assert response.status == 200
