"""``GET /v1/live`` as a browser's EventSource reads it."""

from __future__ import annotations

import http.client
import itertools
import json
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from patience import PATIENCE_S
from server_process import ServerProcess

_numbers = itertools.count(1)


@contextmanager
def events(server: ServerProcess, sql: str, **asked: str) -> Iterator[Iterator[tuple[str | None, dict[str, Any]]]]:
    """The events of a live query, each with its id; ``last_event_id`` is sent as a browser does."""
    headers = {"Last-Event-ID": asked.pop("last_event_id")} if "last_event_id" in asked else {}
    connection = http.client.HTTPConnection(server.http_url.removeprefix("http://"), timeout=PATIENCE_S)
    connection.request("GET", "/v1/live?" + urllib.parse.urlencode({"sql": sql, **asked}), headers=headers)
    response = connection.getresponse()
    try:
        if response.status != 200:
            raise AssertionError(response.read().decode())
        assert response.headers["Content-Type"].startswith("text/event-stream")
        yield _events(response)
    finally:
        response.close()
        connection.close()


def _events(response: http.client.HTTPResponse) -> Iterator[tuple[str | None, dict[str, Any]]]:
    event_id = None
    for line in response:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name == "id":
            event_id = value
        elif name == "data":
            yield event_id, json.loads(value)


@pytest.fixture
def table(shared_server: ServerProcess) -> str:
    table = f"sse{next(_numbers)}.t"
    shared_server.sql(f"CREATE NAMESPACE {table[:-2]}; CREATE SHARED TABLE {table} (id BIGINT PRIMARY KEY)")
    shared_server.sql(f"INSERT INTO {table} VALUES (1), (2)")
    return table


def test_a_live_query_comes_as_events_and_resumes_by_its_last_id(shared_server: ServerProcess, table: str) -> None:
    with events(shared_server, f"SELECT id FROM {table}", last_rows="1") as stream:
        assert next(stream) == (None, {"type": "snapshot", "rows": [{"id": 2}]})
        ready_id, ready = next(stream)
        assert ready_id == f"{ready['table_id']}-2"
        shared_server.sql(f"INSERT INTO {table} VALUES (3)")
        change_id, change = next(stream)
        assert change["changes"] == [{"op": "insert", "seq": 3, "row": {"id": 3}}]
    shared_server.sql(f"DELETE FROM {table} WHERE id = 3")
    with events(shared_server, f"SELECT id FROM {table}", last_event_id=str(change_id)) as stream:
        assert next(stream)[1]["type"] == "ready"
        assert next(stream)[1]["changes"] == [{"op": "delete", "seq": 4, "row": {"id": 3}}]


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"last_rows": "x"}, "invalid_value"),
        ({"last_event_id": "what"}, "invalid_value"),
        ({"last_event_id": "99999-1"}, "cursor_expired"),
        ({"last_rows": "1", "from_seq": "9"}, "cursor_expired"),
    ],
)
def test_wrong_questions_are_refused(
    shared_server: ServerProcess, table: str, asked: dict[str, str], code: str
) -> None:
    with pytest.raises(AssertionError, match=code), events(shared_server, f"SELECT id FROM {table}", **asked):
        pass


def test_a_client_that_goes_away_leaves_nothing_behind(shared_server: ServerProcess, table: str) -> None:
    with events(shared_server, f"SELECT id FROM {table}") as stream:
        next(stream)
        assert table in [row[2] for row in shared_server.sql("SHOW LIVE QUERIES")]
    shared_server.sql(f"INSERT INTO {table} VALUES (7)")
    while table in [row[2] for row in shared_server.sql("SHOW LIVE QUERIES")]:  # the test's time limit bounds it
        pass


def test_integers_may_be_shown_as_text(shared_server: ServerProcess, table: str) -> None:
    with events(shared_server, f"SELECT id FROM {table}", integers="text") as stream:
        assert [row["id"] for row in next(stream)[1]["rows"]] == ["1", "2"]
        assert next(stream)[1]["seq"] == 2
        shared_server.sql(f"INSERT INTO {table} VALUES (9007199254740993)")
        assert next(stream)[1]["changes"] == [{"op": "insert", "seq": 3, "row": {"id": "9007199254740993"}}]
