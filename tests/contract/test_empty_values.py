"""An empty text where a field is optional says what its absence says: at every door, in every setting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_subscriber import connected
from server_process import ServerProcess

import kalam.client
from kalam.errors import InvalidValue
from kalam.settings import PREFIX, Settings, load_settings


@pytest.fixture
def ns(shared_server: ServerProcess, request: pytest.FixtureRequest) -> str:
    name = f"e{abs(hash(request.node.name)) % 10**9}"
    shared_server.sql(f"CREATE NAMESPACE {name}")
    return name


@pytest.mark.parametrize("kind", ["SHARED", "USER", "STREAM"])
async def test_messages_with_an_empty_id_are_no_repeats(shared_server: ServerProcess, ns: str, kind: str) -> None:
    shared_server.sql(f"CREATE {kind} TABLE {ns}.t (x INT)")
    async with connected(shared_server.nats_url) as client:
        for headers in ({"Nats-Msg-Id": ""}, {"Nats-Msg-Id": ""}, {"Nats-Msg-Id": "", "Content-Type": ""}):
            answer = await client.request(f"kalam.api.ada.insert.{ns}.t", b'{"x": 1}', headers=headers)
            assert json.loads(answer.data)["rows"] == 1
    assert shared_server.sql(f"SELECT x FROM {ns}.t", user="ada") == [[1]] * 3


def test_rows_in_bulk_with_an_empty_key_are_no_repeats(shared_server: ServerProcess, ns: str) -> None:
    shared_server.sql(f"CREATE TABLE {ns}.t (x INT)")
    url = f"{shared_server.http_url}/v1/tables/{ns}/t/rows"
    for _ in range(2):
        answer = httpx.post(url, json=[{"x": 1}], headers={"Idempotency-Key": "", "X-Kalam-User": ""})
        assert answer.json()["rows"] == 1, answer.text
    assert shared_server.sql(f"SELECT x FROM {ns}.t") == [[1], [1]]


def test_an_empty_user_query_id_and_accept_are_none(shared_server: ServerProcess) -> None:
    headers = {"X-Kalam-User": "", "X-Kalam-Query-Id": "", "Accept": ""}
    answers = [
        httpx.post(f"{shared_server.http_url}/v1/sql", json={"sql": "SELECT 1 AS one"}, headers=headers)
        for _ in range(2)
    ]
    assert [answer.json()["results"][0]["rows"] for answer in answers] == [[[1]], [[1]]]
    ids = {answer.headers["X-Kalam-Query-Id"] for answer in answers}
    assert len(ids) == 2
    assert "" not in ids


async def test_an_empty_namespace_is_none(shared_server: ServerProcess, ns: str) -> None:
    shared_server.sql(f"CREATE TABLE {ns}.t (x INT)")
    body: dict[str, Any] = {"sql": "SELECT * FROM t", "namespace": ""}
    async with connected(shared_server.nats_url) as client, httpx.AsyncClient() as http:
        over_nats = json.loads((await client.request("kalam.api.ada.sql", json.dumps(body).encode())).data)
        over_http = (await http.post(f"{shared_server.http_url}/v1/sql", json=body)).json()
        live = (await http.get(f"{shared_server.http_url}/v1/live", params=body)).json()
        for problem in (over_nats, over_http, live):
            assert problem["code"] == "namespace_not_found"
            assert "needs a namespace" in problem["detail"]
        listed = (await http.post(f"{shared_server.http_url}/v1/sql", json=body | {"sql": "SHOW TABLES"})).json()
        assert [ns, "t"] in [row[:2] for row in listed["results"][0]["rows"]]
    async with kalam.client.connect(shared_server.nats_url, namespace="") as k:
        with pytest.raises(InvalidValue, match="give it as"):
            await k.insert("t", {"x": 1})


def test_an_empty_cursor_begins_with_a_snapshot(shared_server: ServerProcess, ns: str) -> None:
    shared_server.sql(f"CREATE TABLE {ns}.t (x INT); INSERT INTO {ns}.t VALUES (7)")
    params = {"sql": f"SELECT x FROM {ns}.t", "from_seq": "", "table_id": "", "last_rows": "", "namespace": ""}
    headers = {"Last-Event-ID": "", "X-Kalam-User": "", "Accept": ""}
    with httpx.stream("GET", f"{shared_server.http_url}/v1/live", params=params, headers=headers) as answer:
        first = next(line for line in answer.iter_lines() if line.startswith("data: "))
    assert json.loads(first.removeprefix("data: ")) == {"type": "snapshot", "rows": [{"x": 7}]}


@pytest.mark.parametrize("name", Settings.model_fields)
def test_an_empty_setting_is_not_given(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    default = getattr(load_settings(), name)
    file = tmp_path / "kalam.toml"
    file.write_text(f'{name} = ""\n')
    assert getattr(load_settings(file), name) == default
    assert getattr(load_settings(**{name: ""}), name) == default
    monkeypatch.setenv(f"{PREFIX}{name}".upper(), "")
    assert getattr(load_settings(), name) == default


def test_an_empty_variable_leaves_what_the_file_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "kalam.toml"
    file.write_text('http_port = 4711\nhttp_host = "::1"\n')
    monkeypatch.setenv("KALAM_HTTP_PORT", "")
    monkeypatch.setenv("KALAM_HTTP_HOST", "")
    settings = load_settings(file, http_port=None, http_host="")
    assert (settings.http_port, settings.http_host) == (4711, "::1")


@pytest.mark.parametrize("option", ["RETENTION", "MAX_BUFFER", "SUBJECT_KEY", "FORMAT", "STORAGE", "EPHEMERAL"])
def test_an_option_that_is_given_empty_is_refused(shared_server: ServerProcess, ns: str, option: str) -> None:
    answer = httpx.post(
        f"{shared_server.http_url}/v1/sql", json={"sql": f"CREATE STREAM TABLE {ns}.t (x INT) WITH ({option} = '')"}
    )
    assert answer.json()["code"] == "invalid_option"


@pytest.mark.parametrize("statement", ["KILL LIVE QUERY ''", "KILL JOB ''"])
def test_an_empty_id_names_nothing(shared_server: ServerProcess, statement: str) -> None:
    answer = httpx.post(f"{shared_server.http_url}/v1/sql", json={"sql": statement})
    assert answer.json()["code"] == "not_found"
