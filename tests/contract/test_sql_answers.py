"""What SQL answers: types as the statement gives them, a RETURNING that fails before anything changes, order, names."""

from __future__ import annotations

import http.client
import json
import signal
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed

COLUMNS = (
    "id BIGINT PRIMARY KEY, a TEXT, n INT NULL, f FLOAT, ts TIMESTAMP, j JSON, u UUID, v VARCHAR(5), d DECIMAL(10,2)"
)
UUID = "550e8400-e29b-41d4-a716-446655440000"


@pytest.fixture
def table(shared_server: ServerProcess, namespace: str) -> str:
    shared_server.sql(f"CREATE TABLE {namespace}.t ({COLUMNS})")
    shared_server.sql(
        f"INSERT INTO {namespace}.t VALUES (1, 'x', 2, 1.5, '2026-01-02T03:04:05Z', $1, '{UUID}', 'abc', 1.25)",
        {"k": 1},
    )
    return f"{namespace}.t"


def types(server: ServerProcess, query: str) -> list[str]:
    return [column["type"] for column in server.results(query)[-1]["columns"]]


@pytest.mark.parametrize("returning", ["nope", "1/0", "j::int", "id, (SELECT nope FROM {table})"])
@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO {table} (id, j) VALUES (2, '1')",
        "INSERT INTO {table} (id, a) VALUES (1, 'y') ON CONFLICT (id) DO UPDATE SET a = 'y'",
        "INSERT INTO {table} (id, a) SELECT 2, 'y'",
        "UPDATE {table} SET a = 'y' WHERE id = 1",
        "UPDATE {table} SET a = 'y'",
        "DELETE FROM {table} WHERE id = 1",
        "DELETE FROM {table}",
    ],
)
def test_a_returning_that_fails_changes_nothing(
    shared_server: ServerProcess, table: str, change: str, returning: str
) -> None:
    before = shared_server.sql(f"SELECT * FROM {table}")
    statement = f"{change} RETURNING {returning}".format(table=table)
    if returning == "j::int" and change.startswith(
        ("INSERT INTO {table} (id, j)", "INSERT INTO {table} (id, a) SELECT")
    ):
        return  # which is one
    with pytest.raises(SqlFailed) as failed:
        shared_server.sql(statement)
    assert failed.value.code in ("column_not_found", "invalid_value")
    assert shared_server.sql(f"SELECT * FROM {table}") == before


def test_a_returning_that_fails_leaves_the_events_of_a_stream(shared_server: ServerProcess, namespace: str) -> None:
    sql = shared_server.sql
    sql(f"CREATE STREAM TABLE {namespace}.s (id BIGINT NOT NULL); INSERT INTO {namespace}.s VALUES (1)")
    for change in (f"INSERT INTO {namespace}.s VALUES (2)", f"DELETE FROM {namespace}.s WHERE id = 1"):
        with pytest.raises(SqlFailed, match="nope"):
            sql(f"{change} RETURNING nope")
    assert sql(f"SELECT id FROM {namespace}.s") == [[1]]
    assert sql(f"DELETE FROM {namespace}.s WHERE id = 1 RETURNING *") == [[1]]


def test_returning_has_the_types_of_the_columns(shared_server: ServerProcess, table: str) -> None:
    returning = "RETURNING id, j, u, v, d"
    for change in (
        f"INSERT INTO {table} (id, j, u, v, d) VALUES (2, '{{\"k\": 2}}', '{UUID}', 'abc', 1.25)",
        f"UPDATE {table} SET n = 3 WHERE id = 2",
        f"DELETE FROM {table} WHERE id = 2",
    ):
        [result] = shared_server.results(f"{change} {returning}")
        assert [column["type"] for column in result["columns"]] == [
            "BIGINT",
            "JSON",
            "UUID",
            "VARCHAR(5)",
            "DECIMAL(10,2)",
        ]
        assert result["rows"] == [[2, {"k": 2}, UUID, "abc", "1.25"]]


@pytest.mark.parametrize(
    ("expression", "expected", "value"),
    [
        ("CAST(n AS TEXT)", "TEXT", "2"),
        ("n::bigint", "BIGINT", 2),
        ("n * 1.0", "DECIMAL(13,1)", "2.0"),
        ("CAST(ts AS DATE)", "DATE", "2026-01-02"),
        ("ts::bigint", "BIGINT", 1_767_323_045_000_000),
        ("d::double", "DOUBLE", 1.25),
        ("(j::text)", "TEXT", '{"k":1}'),
        ("u::text AS w", "TEXT", UUID),
        ("j", "JSON", {"k": 1}),
        ("v", "VARCHAR(5)", "abc"),
    ],
)
def test_a_column_has_the_type_that_its_expression_gives(
    shared_server: ServerProcess, table: str, expression: str, expected: str, value: Any
) -> None:
    query = f"SELECT {expression} FROM {table}"
    assert types(shared_server, query) == [expected]
    assert shared_server.sql(query) == [[value]]


def test_what_is_not_json_any_more_is_a_text(shared_server: ServerProcess, table: str) -> None:
    query = f"SELECT j FROM {table} UNION ALL SELECT 'not json'"
    assert types(shared_server, query) == ["TEXT"]
    assert sorted(shared_server.sql(query)) == [["not json"], ['{"k":1}']]
    assert types(shared_server, f"SELECT j FROM {table} UNION ALL SELECT j FROM {table}") == ["JSON"]
    assert types(shared_server, f"SELECT n FROM {table} UNION ALL SELECT 1.5") == ["DECIMAL(11,1)"]


def test_an_assignment_takes_what_values_take(shared_server: ServerProcess, table: str) -> None:
    sql = shared_server.sql
    for text, shown in (
        ("'2024-01-02 03:04:05'", "2024-01-02T03:04:05.000000Z"),
        ("'2024-01-02'", "2024-01-02T00:00:00.000000Z"),
        ("'2024-01-02T03:04:05.123456789Z'", "2024-01-02T03:04:05.123457Z"),
        ("'2024-01-02T03:04:05Z'::text", "2024-01-02T03:04:05.000000Z"),
    ):
        for where in ("id = 1", "id > 0"):
            assert sql(f"UPDATE {table} SET ts = {text} WHERE {where} RETURNING ts") == [[shown]]
        sql(f"INSERT INTO {table} (id, ts) SELECT 9, {text} ON CONFLICT (id) DO UPDATE SET ts = excluded.ts")
        assert sql(f"DELETE FROM {table} WHERE id = 9 RETURNING ts") == [[shown]]
    assert sql(f"UPDATE {table} SET a = upper('q'::text || n::text) WHERE id = 1 RETURNING a") == [["Q2"]]
    assert sql(
        f"INSERT INTO {table} (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET a = excluded.id::text RETURNING a"
    ) == [["1"]]
    for number in ("1e300", "-1e39"):
        with pytest.raises(SqlFailed, match="32 bits"):
            sql(f"UPDATE {table} SET f = {number}")
    assert sql(f"UPDATE {table} SET f = 'Infinity'::double RETURNING f") == [["Infinity"]]


def test_parameters_may_stand_close(shared_server: ServerProcess, table: str) -> None:
    sql = shared_server.sql
    assert sql(f"SELECT id FROM {table} WHERE id IN ($1,$2)", 1, 2) == [[1]]
    assert sql("SELECT $1,$2+1 AS b", 1, 2) == [[1, 3]]
    assert sql(f"SELECT coalesce(NULL,$1,$2), $$x$$ FROM {table}".replace(", $$x$$", ""), "p", "q") == [["p"]]
    assert sql(f"UPDATE {table} SET n=$1,a=$2 WHERE id IN ($3,$4) RETURNING n,a", 5, "z", 1, 7) == [[5, "z"]]
    assert sql(f"DELETE FROM {table} WHERE id IN ($1,$2) RETURNING id", 1, 3) == [[1]]


def test_columns_of_a_result_may_have_one_name(shared_server: ServerProcess, table: str) -> None:
    sql = shared_server.sql
    assert sql("SELECT 1, 1") == [[1, 1]]
    [result] = shared_server.results(
        f"SELECT n, n::text, t.n, (n) FROM {table} AS t WHERE t.n IS DISTINCT FROM 7 LIMIT 1"
    )
    assert ([column["name"] for column in result["columns"]], result["rows"]) == (["n"] * 4, [[2, "2", 2, 2]])
    sql(f"INSERT INTO {table} (id, n) SELECT 5, 5; INSERT INTO {table} (id, a, v) SELECT 6, NULL, NULL")
    sql(f"INSERT INTO {table} (id, n) SELECT value, value FROM range(20, 23) ORDER BY value")
    assert sql(f"SELECT id, n FROM {table} WHERE id > 1 ORDER BY id") == [
        [5, 5],
        [6, None],
        [20, 20],
        [21, 21],
        [22, 22],
    ]
    with pytest.raises(SqlFailed, match="called 'n'"):
        ndjson(shared_server, f"SELECT a.n, b.n FROM {table} a JOIN {table} b ON a.id = b.id")


def ndjson(server: ServerProcess, query: str) -> bytes:
    where = urlsplit(server.http_url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port)
    headers = {"Content-Type": "application/json", "Accept": "application/x-ndjson"}
    connection.request("POST", "/v1/sql", json.dumps({"sql": query}), headers)
    with connection.getresponse() as response:
        body = response.read()
        if response.status != 200:
            raise SqlFailed(response.status, json.loads(body))
    return body


def test_every_column_of_a_table_can_be_named_by_its_table(shared_server: ServerProcess, table: str) -> None:
    whole = shared_server.sql(f"SELECT * FROM {table}")
    assert shared_server.sql(f"SELECT t.* FROM {table}") == shared_server.sql(f"SELECT x.* FROM {table} x") == whole
    assert shared_server.sql(f"SELECT t.id, {table}.a FROM {table}") == [[1, "x"]]
    [[live_id, *_]] = shared_server.sql(f"SUBSCRIBE TO SELECT t.id, a FROM {table} WHERE t.id > 0")
    shared_server.sql(f"KILL LIVE QUERY '{live_id}'")
    with pytest.raises(SqlFailed, match="that table's"):
        shared_server.sql(f"SUBSCRIBE TO SELECT other.id FROM {table}")


def test_events_keep_their_order_through_a_query_that_does_not_reorder(
    shared_server: ServerProcess, namespace: str
) -> None:
    stream, rows = f"{namespace}.s", 60_000
    shared_server.sql(f"CREATE STREAM TABLE {stream} (id BIGINT NOT NULL, n INT) WITH (max_buffer = {rows})")
    shared_server.sql(f"INSERT INTO {stream} SELECT value, 3 FROM range(0, {rows})")
    for query in (
        f"SELECT id FROM {stream} WHERE n = (SELECT 3)",
        f"SELECT id FROM (SELECT * FROM {stream} WHERE n > 1) q",
        f"WITH q AS (SELECT * FROM {stream}) SELECT id FROM q WHERE n > 1",
        f"SELECT id, row_number() OVER () AS number FROM {stream}",
    ):
        assert [row[0] for row in shared_server.sql(query)] == list(range(rows))


def test_a_result_over_the_bound_names_the_way_out(start_kalam: Callable[..., ServerProcess]) -> None:
    server = start_kalam(KALAM_RESULT_ROWS_MAX="10", KALAM_STATEMENT_ROWS_MAX="10")
    server.sql("CREATE NAMESPACE b; CREATE TABLE b.t (id BIGINT PRIMARY KEY)")
    with pytest.raises(SqlFailed) as failed:
        server.sql("SELECT * FROM range(0, 11)")
    assert (failed.value.code, "NDJSON, CSV or Arrow" in failed.value.problem["hint"]) == ("too_large", True)
    with pytest.raises(SqlFailed, match="statement_rows_max") as failed:
        server.sql("INSERT INTO b.t SELECT value FROM range(0, 11)")
    assert failed.value.code == "too_large"


def test_a_drop_is_a_job(shared_server: ServerProcess, table: str, namespace: str) -> None:
    shared_server.sql(f"FLUSH TABLE {table}; DROP TABLE {table}")
    jobs = shared_server.sql(
        f"SELECT job_type, table_name, status, result FROM system.jobs WHERE namespace = '{namespace}'"
    )
    assert ["table_deletion", "t", "completed", '{"segments":1}'] in jobs


def test_a_query_that_the_end_of_the_server_cuts_off_gets_a_problem(start_kalam: Callable[..., ServerProcess]) -> None:
    server = start_kalam()
    endless = "SELECT count(*) FROM generate_series(1,100000) a JOIN generate_series(1,100000) b ON a.value*b.value%7=3"
    assert server.sql("SELECT count(*) FROM range(0, 1)") == [[1]]  # what the first query imports is imported
    before = server.cpu_s()
    where = urlsplit(server.http_url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=PATIENCE_S)
    connection.request("POST", "/v1/sql", json.dumps({"sql": endless}), {"Content-Type": "application/json"})
    server.wait_cpu(before + 0.3)
    assert server.process is not None
    server.process.send_signal(signal.SIGTERM)
    with connection.getresponse() as response:
        problem = json.loads(response.read())
    server.wait_end()
    assert (response.status, problem["code"], problem["status"]) == (503, "internal", 503)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert "Traceback" not in server.log_text()


def test_an_error_has_the_id_of_its_query_too(shared_server: ServerProcess) -> None:
    where = urlsplit(shared_server.http_url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port)
    for media_type in ("application/json", "application/x-ndjson"):
        headers = {"Content-Type": "application/json", "Accept": media_type, "X-Kalam-Query-Id": "mine"}
        connection.request("POST", "/v1/sql", json.dumps({"sql": "SELECT nope"}), headers)
        with connection.getresponse() as response:
            response.read()
            assert (response.status, response.headers["X-Kalam-Query-Id"]) == (400, "mine")
