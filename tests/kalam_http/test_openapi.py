"""/openapi.json says what the server does: the same routes, the same types, every error."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from kalam_http.bodies import Problem, Readiness, SqlAnswer
from kalam_http.openapi import error_codes


@pytest.fixture
async def document(http) -> dict[str, Any]:
    answer = await http.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


async def test_every_route_is_described(document):
    assert {(method, path) for path, methods in document["paths"].items() for method in methods} == {
        ("post", "/v1/sql"),
        ("get", "/v1/live"),
        ("delete", "/v1/queries/{query_id}"),
        ("post", "/v1/tables/{namespace}/{table}/rows"),
        ("get", "/livez"),
        ("get", "/readyz"),
        ("get", "/metrics"),
        ("get", "/openapi.json"),
        ("get", "/docs"),
        ("get", "/"),
        ("get", "/console/{name}"),
        ("get", "/llms.txt"),
        ("get", "/v1/overview"),
        ("get", "/v1/catalogue"),
        ("post", "/v1/login"),
        ("post", "/v1/logout"),
        ("get", "/v1/me"),
        ("get", "/iceberg/v1/config"),
        ("get", "/iceberg/v1/namespaces"),
        ("get", "/iceberg/v1/namespaces/{namespace}"),
        ("head", "/iceberg/v1/namespaces/{namespace}"),
        ("get", "/iceberg/v1/namespaces/{namespace}/tables"),
        ("get", "/iceberg/v1/namespaces/{namespace}/tables/{table}"),
        ("head", "/iceberg/v1/namespaces/{namespace}/tables/{table}"),
    }


async def test_it_is_said_how_one_logs_in_and_what_strangers_may_ask(document):
    schemes = document["components"]["securitySchemes"]
    assert {(scheme["type"], scheme.get("scheme")) for scheme in schemes.values()} == {
        ("http", "basic"),
        ("http", "bearer"),
        ("apiKey", None),
    }
    operations = {
        path: operation for path, methods in document["paths"].items() for method, operation in methods.items()
    }
    strangers = {path for path, operation in operations.items() if not operation["security"]}
    assert strangers == {
        *("/", "/console/{name}", "/docs", "/openapi.json", "/llms.txt"),
        *("/livez", "/readyz", "/metrics", "/v1/login"),
    }
    for path in operations.keys() - strangers:
        assert operations[path]["security"] == [{name: []} for name in schemes]
        assert "`unauthenticated`" in operations[path]["responses"]["401"]["description"]


async def test_every_error_and_its_status_is_described(document, every_error):
    assert document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"] == sorted(
        {error.code for error in every_error}
    )
    answers = document["paths"]["/v1/sql"]["post"]["responses"]
    for error in every_error:
        assert f"`{error.code}`" in answers[str(error.status)]["description"]
        assert "application/problem+json" in answers[str(error.status)]["content"]
    assert set(error_codes()) == {error.status for error in every_error}


async def test_every_reference_leads_to_a_schema(document):
    names = set(re.findall(r"#/components/schemas/([^']+)'", str(document)))
    assert names == set(document["components"]["schemas"])


async def test_the_user_header_is_described_as_it_is_checked(document):
    parameter = document["paths"]["/v1/sql"]["post"]["parameters"][0]
    assert (parameter["name"], parameter["in"]) == ("X-Kalam-User", "header")
    assert parameter["schema"]["default"] == "admin"


async def test_unknown_members_are_forbidden_as_the_decoder_forbids_them(document):
    request = document["components"]["schemas"]["SqlRequest"]
    assert request["additionalProperties"] is False
    assert request["required"] == ["sql"]


async def test_what_the_server_sends_is_what_the_types_say(http):
    async def sent(sql: str) -> bytes:
        return (await http.post("/v1/sql", json={"sql": sql})).content

    for sql in ("SELECT 1", "big", "done"):
        msgspec.json.decode(await sent(sql), type=SqlAnswer)
    problem = msgspec.json.decode(await sent("missing"), type=Problem)
    assert problem.results is not None
    msgspec.json.decode((await http.get("/readyz")).content, type=Readiness)


async def test_the_page_for_people_needs_neither_scripts_nor_other_servers(http):
    answer = await http.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not re.search(r"<script|<link|src=|@import|https?://(?!localhost)", answer.text)
    assert "POST /v1/sql" in answer.text
    assert all(f"id='{name}'" in answer.text for name in ("SqlRequest", "SqlAnswer", "Problem"))
