"""``POST /v1/sql`` answered as a stream, broken off where it fails, and cancelled."""

from __future__ import annotations

import csv
import http.client
import io
import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from patience import PATIENCE_S
from server_process import ServerProcess

NDJSON, CSV, ARROW = "application/x-ndjson", "text/csv", "application/vnd.apache.arrow.stream"
FORMATS = [NDJSON, CSV, ARROW]
ROWS = 300_000
DAY = "2024-02-29"
VALUES = f"""SELECT 1 AS i, 'a "b",' AS t, '' AS e, NULL AS n, true AS f, CAST(0.1 AS DOUBLE) AS d,
CAST('NaN' AS DOUBLE) AS x,
TIMESTAMP '1969-12-31T23:59:59.5Z' AS at, DATE '{DAY}' AS day, CAST(1.50 AS DECIMAL(10,2)) AS p, [1, 2] AS l"""


@pytest.fixture(scope="module")
def server(shared_server: ServerProcess) -> ServerProcess:
    shared_server.sql("CREATE NAMESPACE s; CREATE TABLE s.t (id BIGINT PRIMARY KEY, t TEXT)")
    numbers = ", ".join(f"({n}, 'text {n}')" for n in range(1_000))
    shared_server.sql(f"INSERT INTO s.t VALUES {numbers}")
    return shared_server


def many(server: ServerProcess) -> str:
    """A query of 1,000 times 300 rows."""
    return "SELECT a.id * 1000 + b.id AS id, a.t FROM s.t a CROSS JOIN (SELECT id FROM s.t WHERE id < 300) b"


def begin(server: ServerProcess, sql: str, accept: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(urlsplit(server.http_url).netloc, timeout=PATIENCE_S)
    sent = {"Content-Type": "application/json", "Accept": accept}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", "/v1/sql", json.dumps({"sql": sql}), sent)
    return connection.getresponse()


def ask(server: ServerProcess, sql: str, accept: str, **headers: str) -> tuple[int, bytes]:
    with closing(begin(server, sql, accept, **headers)) as response:
        return response.status, response.read()


def problem(server: ServerProcess, sql: str, accept: str, **headers: str) -> dict[str, Any]:
    status, body = ask(server, sql, accept, **headers)
    found: dict[str, Any] = json.loads(body)
    assert found["status"] == status
    return found


def read_arrow(body: bytes) -> pa.Table:
    with pa.ipc.open_stream(body) as reader:
        return reader.read_all()


def parsed(accept: str, body: bytes) -> list[dict[str, Any]]:
    match accept:
        case "application/x-ndjson":
            return [json.loads(line) for line in body.splitlines()]
        case "text/csv":
            return list(csv.DictReader(io.StringIO(body.decode(), newline="")))
        case _:
            rows: list[dict[str, Any]] = read_arrow(body).to_pylist()
            return rows


@pytest.mark.parametrize("accept", FORMATS)
def test_a_result_without_a_bound_in_rows_is_streamed(server, accept) -> None:
    with closing(begin(server, many(server), accept)) as response:
        assert (response.status, response.getheader("content-type").partition(";")[0]) == (200, accept)
        assert response.getheader("transfer-encoding") == "chunked"
        assert response.getheader("x-kalam-query-id")
        rows = parsed(accept, response.read())
    assert len(rows) == ROWS
    assert {int(row["id"]) for row in rows[:3]} <= set(range(1_000_000))
    assert sum(int(row["id"]) for row in rows) == sum(a * 1000 + b for a in range(1000) for b in range(300))


def test_ndjson_shows_values_as_json_does(server) -> None:
    assert parsed(NDJSON, ask(server, VALUES, NDJSON)[1]) == [
        {
            "i": 1,
            "t": 'a "b",',
            "e": "",
            "n": None,
            "f": True,
            "d": 0.1,
            "x": "NaN",
            "at": "1969-12-31T23:59:59.500000Z",
            "day": DAY,
            "p": "1.50",
            "l": [1, 2],
        }
    ]


def test_csv_tells_null_from_the_empty_text(server) -> None:
    head, row = ask(server, VALUES, CSV)[1].decode().splitlines()
    assert head == '"i","t","e","n","f","d","x","at","day","p","l"'
    assert row == f'1,"a ""b"",","",,true,0.1,"NaN","1969-12-31T23:59:59.500000Z",{DAY},1.50,"[1,2]"'


def test_arrow_has_the_types_of_the_columns_in_layouts_that_everybody_reads(server) -> None:
    schema = read_arrow(ask(server, "SELECT id, t, _updated FROM s.t LIMIT 1", ARROW)[1]).schema
    assert schema.types == [pa.int64(), pa.string(), pa.timestamp("us", "UTC")]


def test_csv_that_was_selected_is_inserted_again_as_the_same_rows(server) -> None:
    server.sql("CREATE TABLE s.copy (id BIGINT PRIMARY KEY, t TEXT)")
    body = ask(server, "SELECT id, CASE WHEN id % 3 = 0 THEN NULL ELSE t END AS t FROM s.t", CSV)[1]
    connection = http.client.HTTPConnection(urlsplit(server.http_url).netloc, timeout=PATIENCE_S)
    connection.request("POST", "/v1/tables/s/copy/rows", body, {"Content-Type": "text/csv"})
    with closing(connection.getresponse()) as response:
        assert json.load(response)["rows"] == 1_000
    assert server.sql("SELECT count(*), count(t) FROM s.copy") == [[1_000, 666]]


@pytest.mark.parametrize("accept", FORMATS)
def test_no_rows_are_an_answer(server, accept) -> None:
    status, body = ask(server, "SELECT id, t FROM s.t WHERE id < 0", accept)
    assert status == 200
    assert parsed(accept, body) == []
    if accept == CSV:
        assert body == b'"id","t"\n'
    if accept == ARROW:
        assert read_arrow(body).column_names == ["id", "t"]


@pytest.mark.parametrize("accept", FORMATS)
def test_the_format_does_not_change_who_asks(server, accept) -> None:
    sql = "SELECT CURRENT_USER() AS me, count(*) AS n FROM s.t WHERE CURRENT_USER() = 'ada'"
    (row,) = parsed(accept, ask(server, sql, accept, X_Kalam_User="ada")[1])
    assert (row["me"], int(row["n"])) == ("ada", 1_000)


@pytest.mark.parametrize("accept", FORMATS)
def test_other_statements_stream_what_they_answer(server, accept) -> None:
    names = [row["namespace"] for row in parsed(accept, ask(server, "SHOW NAMESPACES", accept)[1])]
    assert "s" in names
    status, body = ask(server, "CREATE NAMESPACE IF NOT EXISTS s", accept)
    assert (status, parsed(accept, body)) == (200, [])


@pytest.mark.parametrize("accept", FORMATS)
@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELEC", "syntax_error"),
        ("SELECT * FROM s.nowhere", "table_not_found"),
        ("SELECT nope FROM s.t", "column_not_found"),
        ("SELECT 1; SELECT 2", "unsupported"),
        ("", "syntax_error"),
        ("SELECT 1 / (id - id) FROM s.t", "invalid_value"),
    ],
)
def test_what_fails_before_the_first_row_is_a_problem(server, accept, sql, code) -> None:
    assert problem(server, sql, accept)["code"] == code


def failing_late() -> str:
    """Rows that are computed as they are sent; the last one divides by zero."""
    return "SELECT 100 / (a.id * 300 + b.id - 299999) AS q FROM s.t a CROSS JOIN (SELECT id FROM s.t WHERE id < 300) b"


def test_a_failure_half_way_is_the_last_line_of_ndjson(server) -> None:
    status, body = ask(server, failing_late(), NDJSON)
    *rows, last = body.splitlines()
    assert status == 200
    assert 0 < len(rows) < ROWS
    assert json.loads(last)["error"]["code"] == "invalid_value"
    assert "q" in json.loads(rows[-1])


@pytest.mark.parametrize("accept", [CSV, ARROW])
def test_a_failure_half_way_breaks_the_transfer_off(server, accept) -> None:
    with closing(begin(server, failing_late(), accept)) as response:
        assert response.status == 200
        with pytest.raises(http.client.IncompleteRead):
            response.read()
    assert server.sql("SELECT 1") == [[1]]


def cancel(server: ServerProcess, query_id: str) -> int:
    connection = http.client.HTTPConnection(urlsplit(server.http_url).netloc, timeout=PATIENCE_S)
    connection.request("DELETE", f"/v1/queries/{query_id}")
    with closing(connection.getresponse()) as response:
        response.read()
        return response.status


def wait_cancelled(server: ServerProcess, query_id: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while cancel(server, query_id) != 204:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def narrow(start_kalam) -> ServerProcess:
    """A server that runs one query at a time, each for at most 20 s."""
    server = start_kalam(KALAM_QUERY_CONCURRENCY_MAX="1", KALAM_QUERY_TIME_S="20")
    server.sql("CREATE NAMESPACE s; CREATE TABLE s.t (id BIGINT PRIMARY KEY, t TEXT)")
    server.sql("INSERT INTO s.t VALUES " + ", ".join(f"({n}, 'x')" for n in range(1_000)))
    return server


SLOW = "SELECT max(sqrt(a.id * b.id + c.id)) FROM s.t a, s.t b, s.t c"


def test_a_query_is_cancelled_and_gives_its_place_free(narrow) -> None:
    with ThreadPoolExecutor(2) as pool:
        for accept in ("application/json", *FORMATS):
            running = pool.submit(problem, narrow, SLOW, accept, X_Kalam_Query_Id="mine")
            wait_cancelled(narrow, "mine")
            found = running.result(30)
            assert (found["status"], found["code"]) == (409, "cancelled"), found
        assert narrow.sql("SELECT count(*) FROM s.t WHERE t = 'x'") == [[1_000]], "the only place is free again"
        first = pool.submit(problem, narrow, SLOW, "application/json", X_Kalam_Query_Id="first")
        second = pool.submit(problem, narrow, SLOW, "application/json", X_Kalam_Query_Id="second")
        wait_cancelled(narrow, "second")
        wait_cancelled(narrow, "first")
        assert first.result(30)["code"] == second.result(30)["code"] == "cancelled"


def test_a_stream_is_cancelled_in_the_middle(server) -> None:
    with closing(begin(server, many(server).replace("300", "1000"), NDJSON)) as response:
        response.read(1_000)
        wait_cancelled(server, response.getheader("x-kalam-query-id"))
        last = response.read().splitlines()[-1]
    assert json.loads(last)["error"]["code"] == "cancelled"


def test_a_client_that_leaves_gives_its_place_free(narrow) -> None:
    response = begin(narrow, "SELECT a.id, b.id AS bid, c.t FROM s.t a, s.t b, s.t c", NDJSON)
    response.read(1_000)
    response.close()
    assert narrow.sql("SELECT count(*) FROM s.t WHERE t = 'x'") == [[1_000]]


def test_an_id_that_nobody_has_or_that_is_none_is_refused(server) -> None:
    assert cancel(server, "nobody") == 404
    assert problem(server, "SELECT 1", NDJSON, X_Kalam_Query_Id="a b")["code"] == "invalid_value"
    assert begin(server, "SELECT 1", "*/*", X_Kalam_Query_Id="my-id").getheader("x-kalam-query-id") == "my-id"


def test_a_query_over_its_time_is_ended(start_kalam) -> None:
    server = start_kalam(KALAM_QUERY_TIME_S="0.5")
    server.sql("CREATE NAMESPACE s; CREATE TABLE s.t (id BIGINT PRIMARY KEY)")
    server.sql("INSERT INTO s.t VALUES " + ", ".join(f"({n})" for n in range(1_000)))
    for accept in ("application/json", *FORMATS):
        found = problem(server, SLOW, accept)
        assert (found["status"], found["code"]) == (408, "timeout")
        assert "query_time_s" in found["detail"]
