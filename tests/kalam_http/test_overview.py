"""``/v1/overview`` and ``/v1/catalogue``, which the console draws and completes with."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from datafusion import SessionConfig, SessionContext
from patience import PATIENCE_S
from server_process import ServerProcess

from kalam.latency import BOUNDS_S, Latency, quantile
from kalam.sql_words import FUNCTIONS


def get(server: ServerProcess, path: str, **headers: str) -> tuple[int, Any, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{server.http_url}{path}", headers=named)) as answer:
            return answer.status, answer.headers, json.loads(answer.read())
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.headers, None


def test_the_overview_has_a_value_for_each_time(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE IF NOT EXISTS seen; CREATE TABLE IF NOT EXISTS seen.t (id BIGINT PRIMARY KEY)")
    shared_server.sql("INSERT INTO seen.t VALUES (1), (2)")
    status, _, document = get(shared_server, "/v1/overview")
    assert status == 200
    assert document["every_s"] == 5
    assert {len(values) for values in document["series"].values()} == {len(document["at"])}
    assert {"rows_accepted_per_s", "insert_p99_ms", "sql_p50_ms", "hot_rows", "disk_free_bytes"} <= set(
        document["series"]
    )
    assert document["series"]["broker_connected"][-1] == 1


def test_the_catalogue_is_sent_again_only_when_it_has_changed(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE IF NOT EXISTS named; CREATE TABLE named.t (id BIGINT PRIMARY KEY, v TEXT)")
    status, headers, document = get(shared_server, "/v1/catalogue")
    (space,) = [space for space in document["namespaces"] if space["name"] == "named"]
    columns = [{"name": "id", "type": "BIGINT", "key": True}, {"name": "v", "type": "TEXT", "key": False}]
    assert (status, space["tables"]) == (200, [{"name": "t", "kind": "SHARED", "columns": columns}])
    assert get(shared_server, "/v1/catalogue", If_None_Match=headers["ETag"])[0] == 304
    shared_server.sql("ALTER TABLE named.t ADD COLUMN w INT")
    again = get(shared_server, "/v1/catalogue", If_None_Match=headers["ETag"])
    assert again[0] == 200
    assert again[1]["ETag"] != headers["ETag"]


def test_completion_offers_only_functions_that_there_are() -> None:
    ctx = SessionContext(SessionConfig().with_information_schema(enabled=True))
    there = ctx.sql("SELECT DISTINCT routine_name FROM information_schema.routines").to_pydict()["routine_name"]
    assert set(FUNCTIONS) - set(there) == set()


@pytest.mark.parametrize(
    ("seconds", "q", "found"),
    [([], 0.5, None), ([0.003] * 4, 0.5, 0.00375), ([0.003] * 99 + [2.0], 0.99, 0.005), ([500.0], 0.5, BOUNDS_S[-1])],
)
def test_a_quantile_is_read_from_the_buckets(seconds: list[float], q: float, found: float | None) -> None:
    latency = Latency()
    for each in seconds:
        latency.record(each)
    assert quantile(latency.counts, q) == (None if found is None else pytest.approx(found))


def test_an_empty_dry_run_is_none(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE IF NOT EXISTS dry; CREATE TABLE dry.t (id BIGINT PRIMARY KEY)")
    for query, stored in (("dry_run=true", 0), ("dry_run=", 1)):
        url = f"{shared_server.http_url}/v1/tables/dry/t/rows?{query}"
        request = urllib.request.Request(url, b'{"id": 1}', {"Content-Type": "application/x-ndjson"})
        with urllib.request.urlopen(request) as answer:
            assert json.load(answer)["rows"] == 1
        assert shared_server.sql("SELECT count(*) FROM dry.t") == [[stored]]


def test_every_row_is_counted_whichever_way_it_came_and_a_new_table_from_its_first(
    start_kalam: Callable[..., ServerProcess],
) -> None:
    server = start_kalam()
    server.sql("CREATE NAMESPACE n; CREATE TABLE n.by_sql (id BIGINT PRIMARY KEY); CREATE TABLE n.by_http (id BIGINT)")
    server.sql("CREATE STREAM TABLE n.events (id BIGINT)")
    server.sql("INSERT INTO n.by_sql SELECT value FROM range(0, 500)")
    server.sql("INSERT INTO n.events VALUES (1), (2)")
    body = "\n".join(f'{{"id": {number}}}' for number in range(30)).encode()
    url = f"{server.http_url}/v1/tables/n/by_http/rows"
    urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/x-ndjson"})).close()
    assert server.sql("SELECT value FROM system.stats WHERE name = 'rows_accepted'") == [[532]]

    deadline = time.monotonic() + PATIENCE_S
    while True:  # the last second is not drawn yet
        series = get(server, "/v1/overview")[2]["series"]
        busy = {name: max(series.get(f"table_rows_per_s:n.{name}", [0])) for name in ("by_sql", "by_http", "events")}
        if all(busy.values()):
            break
        assert time.monotonic() < deadline, busy
        time.sleep(0.2)
    assert max(series["rows_accepted_per_s"]) > 0
