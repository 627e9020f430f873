from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from kalam.query.results import Result

ONE = {"columns": [{"name": "one", "type": "BIGINT"}], "rows": [[1]], "row_count": 1, "message": None}


async def ask(http: httpx.AsyncClient, sql: str, **headers: str) -> httpx.Response:
    return await http.post("/v1/sql", json={"sql": sql}, headers=headers)


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem: dict[str, Any] = answer.json()
    assert problem["code"] == code
    assert problem["status"] == status
    assert problem["type"] == f"urn:kalam:error:{code}"
    assert problem["title"]
    assert problem["detail"]
    return problem


async def test_an_answer_holds_the_results_and_the_time(http):
    answer = await ask(http, "SELECT 1 AS one")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body["results"] == [ONE]
    assert body["took_ms"] >= 0


async def test_a_statement_without_rows_has_a_message_and_no_columns(http):
    (result,) = (await ask(http, "done")).json()["results"]
    assert result == {"columns": [], "rows": [], "row_count": 3, "message": "3 rows inserted"}


async def test_integers_beyond_2_53_stay_exact(http):
    answer = await ask(http, "big")
    assert json.loads(answer.content)["results"][0]["rows"] == [[2**53 + 1], [None], [-(2**63)]]


async def test_parameters_namespace_and_user_reach_the_engine(http, engine):
    body = {"sql": "x", "params": [1, "zwei", None, 3.5, [True], {"a": 2**70}], "namespace": "ns"}
    await http.post("/v1/sql", json=body, headers={"X-Kalam-User": "ada"})
    assert engine.asked == [("x", body["params"], "ada", "ns")]


async def test_the_user_is_admin_unless_named(http, engine):
    await ask(http, "x")
    assert engine.asked[0][2:] == ("admin", None)


@pytest.mark.parametrize("user", ["a b", "a.b", ">", "x" * 65, "ü"])
async def test_a_user_that_is_no_subject_token_is_refused(http, engine, user):
    answer = await http.post("/v1/sql", json={"sql": "x"}, headers={"X-Kalam-User": user.encode()})
    assert_problem(answer, 400, "invalid_name")
    assert engine.asked == []


async def test_an_error_is_a_problem_with_the_results_before_it(http):
    problem = assert_problem(await ask(http, "missing"), 404, "table_not_found")
    assert problem["results"] == [ONE]
    assert (problem["statement"], problem["line"], problem["column"], problem["hint"]) == (2, 3, 7, "SHOW TABLES")


async def test_every_error_answers_with_its_own_status_and_code(http, engine, every_error):
    for error in every_error:
        engine.answers["error"] = error("said so")
        assert_problem(await ask(http, "error"), error.status, error.code)


async def test_an_unexpected_exception_tells_nothing_of_itself(http):
    answer = await ask(http, "boom")
    problem = assert_problem(answer, 500, "internal")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert "log" in problem["detail"]
    assert (await ask(http, "SELECT 1")).status_code == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "syntax_error"),
        (b"{", "syntax_error"),
        (b'{"sql": "x"} y', "syntax_error"),
        (b'{"sql": "\xff"}', "syntax_error"),
        (b'{"sql": "\\ud800"}', "syntax_error"),
        (b'{"sql": "x", "params": [NaN]}', "syntax_error"),
        (b"null", "invalid_value"),
        (b"[]", "invalid_value"),
        (b"{}", "invalid_value"),
        (b'{"sql": 1}', "invalid_value"),
        (b'{"sql": "x", "params": {"a": 1}}', "invalid_value"),
        (b'{"sql": "x", "params": null}', "invalid_value"),
        (b'{"sql": "x", "namespace": 7}', "invalid_value"),
        (b'{"sql": "x", "param": [1]}', "invalid_value"),
        (b'{"sql": "x", "params": [1e999]}', "invalid_value"),
        (b'{"sql": "x", "params": ' + b"[" * 2000 + b"]" * 2000 + b"}", "invalid_value"),
    ],
)
async def test_a_wrong_body_is_a_problem_and_never_a_traceback(http, engine, body, code):
    answer = await http.post("/v1/sql", content=body, headers={"Content-Type": "application/json"})
    problem = assert_problem(answer, 400, code)
    assert problem["detail"].startswith("the body ")
    assert engine.asked == []


@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"]
)
async def test_a_body_of_another_content_type_is_unsupported(http, engine, content_type):
    headers = {} if content_type is None else {"Content-Type": content_type}
    assert_problem(await http.post("/v1/sql", content=b'{"sql": "x"}', headers=headers), 400, "unsupported")
    assert engine.asked == []


async def test_a_content_type_may_have_parameters_and_capitals(http):
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert (await http.post("/v1/sql", content=b'{"sql": "x"}', headers=headers)).status_code == 200


@pytest.mark.parametrize("accept", ["text/html", "*/*;q=0", "image/*, application/xml"])
async def test_an_accept_without_json_is_unsupported_with_a_hint(http, engine, accept):
    problem = assert_problem(await ask(http, "x", accept=accept), 400, "unsupported")
    assert "application/json" in problem["hint"]
    assert engine.asked == []


async def test_a_body_may_be_as_long_as_the_bound_and_no_byte_longer(http, settings):
    text = "x" * (settings.statement_bytes_max - len('{"sql":""}'))
    exact = f'{{"sql":"{text}"}}'.encode()
    headers = {"Content-Type": "application/json"}
    assert (await http.post("/v1/sql", content=exact, headers=headers)).status_code == 200
    assert_problem(await http.post("/v1/sql", content=exact + b" ", headers=headers), 413, "too_large")


async def test_a_body_of_unknown_length_is_refused_before_it_ends(http, engine, settings):
    reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
    head = f"POST /v1/sql HTTP/1.1\r\nHost: localhost:{http.base_url.port}\r\nContent-Type: application/json\r\n"
    writer.write(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(settings.statement_bytes_max // 1024 + 1):
        writer.write(b"400\r\n" + b" " * 1024 + b"\r\n")
    answer = await asyncio.wait_for(reader.readuntil(b'"code":"too_large"'), 10)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert engine.asked == []


async def test_a_large_answer_is_whole(http, engine):
    first = engine.answers["big"][0]
    table = first.data.take(list(range(3)) * 10_000)
    engine.answers["large"] = [Result(columns=first.columns, data=table, row_count=30_000, message=None)]
    (result,) = (await ask(http, "large")).json()["results"]
    assert len(result["rows"]) == result["row_count"] == 30_000


async def test_a_slow_statement_keeps_nobody_waiting(http, engine):
    slow = asyncio.create_task(ask(http, "wait"))
    assert (await ask(http, "SELECT 1")).status_code == 200
    assert not slow.done()
    engine.released.set()
    assert (await slow).status_code == 200
