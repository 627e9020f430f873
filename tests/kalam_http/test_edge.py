"""What every request passes: Host and Origin, unknown routes, metrics."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from patience import PATIENCE_S
from prometheus_client import CollectorRegistry

from kalam_http import create_app, serve_http

SQL = {"sql": "SELECT 1"}


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "127.0.0.1", "[::1]"])
async def test_the_loopback_names_with_the_servers_port_are_own(http, name):
    answer = await http.post("/v1/sql", json=SQL, headers={"Host": f"{name}:{http.base_url.port}"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "localhost", "localhost:1", "localhost:{port}.evil.example", "", "[::1"],
)
@pytest.mark.parametrize("route", ["/v1/sql", "/metrics", "/unknown"])
async def test_a_foreign_host_is_refused_on_every_route(http, engine, host, route):
    headers = {"Host": host.format(port=http.base_url.port)}
    answer = await http.post(route, json=SQL, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
    assert engine.asked == []


async def test_two_hosts_are_refused(http, engine):
    reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
    host = f"Host: localhost:{http.base_url.port}\r\n"
    writer.write(f"GET /livez HTTP/1.1\r\n{host}Host: evil.example\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 403"))


@pytest.mark.parametrize(
    "origin", ["null", "http://evil.example", "https://localhost:{port}.evil.example", "http://localhost:3000", ""]
)
async def test_a_page_of_another_origin_is_refused(http, engine, origin):
    headers = {"Origin": origin.format(port=http.base_url.port)}
    answer = await http.post("/v1/sql", json=SQL, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
    assert engine.asked == []


async def test_the_servers_own_page_may_ask(http):
    answer = await http.post("/v1/sql", json=SQL, headers={"Origin": f"http://localhost:{http.base_url.port}"})
    assert answer.status_code == 200


async def test_no_answer_invites_other_origins(http):
    answer = await http.options("/v1/sql", headers={"Origin": "http://evil.example"})
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_a_page_of_an_allowed_origin_reads_the_answers_and_their_errors(engine, settings):
    settings = settings.model_copy(update={"cors_origins": ("https://app.example",), "allowed_hosts": ("db.example",)})
    app = create_app(engine, settings=settings, registry=CollectorRegistry(), overview=lambda _: {}, identity={})
    page = {"Origin": "https://app.example", "Host": "db.example"}
    wanted = "content-type, x-kalam-user, kalam-on-invalid, kalam-on-conflict"
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": wanted}
    async with (
        serve_http(app, settings) as listening,
        httpx.AsyncClient(base_url=listening.url, timeout=PATIENCE_S, trust_env=False) as client,
    ):
        preflight = await client.options("/v1/sql", headers=page | asks)
        answers = [await client.post("/v1/sql", json={"sql": sql}, headers=page) for sql in ("SELECT 1", "missing")]
        foreign = await client.post("/v1/sql", json=SQL, headers=page | {"Origin": "https://evil.example"})
    assert preflight.status_code == 200
    assert "x-kalam-user" in preflight.headers["access-control-allow-headers"].lower()
    assert [answer.status_code for answer in answers] == [200, 404]
    assert {answer.headers["access-control-allow-origin"] for answer in (preflight, *answers)} == {
        "https://app.example"
    }
    assert foreign.status_code == 403
    assert "access-control-allow-origin" not in foreign.headers


@pytest.mark.parametrize("path", ["/v1", "/v1/sql/", "/nope/../x", "/%00", "/v1/sql%2f"])
async def test_an_unknown_route_is_a_problem(http, path):
    answer = await http.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_method_that_a_route_does_not_take_is_unsupported(http):
    answer = await http.get("/v1/sql")
    assert (answer.status_code, answer.json()["status"], answer.json()["code"]) == (405, 405, "unsupported")
    assert answer.headers["allow"] == "POST"


async def test_requests_are_counted_by_route_and_status(http, registry):
    await http.post("/v1/sql", json=SQL)
    await http.post("/v1/sql", json={"sql": "missing"})
    await http.post("/v1/sql", json={"sql": "boom"})
    await http.get("/one/of/many")
    await http.get("/another")

    def count(route: str, status: str) -> float | None:
        return registry.get_sample_value("kalam_http_requests_total", {"route": route, "status": status})

    assert [count("/v1/sql", status) for status in ("200", "404", "500")] == [1, 1, 1]
    assert count("unmatched", "404") == 2
    assert registry.get_sample_value("kalam_http_request_seconds_count", {"route": "/v1/sql"}) == 3


async def test_a_client_that_leaves_early_is_no_failure_of_the_server(http, registry):
    _, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
    head = f"POST /v1/sql HTTP/1.1\r\nHost: localhost:{http.base_url.port}\r\nContent-Type: application/json\r\n"
    writer.write(head.encode() + b"Content-Length: 100\r\n\r\n{")
    await writer.drain()
    writer.close()
    labels = {"route": "/v1/sql", "status": "499"}
    async with asyncio.timeout(PATIENCE_S):
        while registry.get_sample_value("kalam_http_requests_total", labels) != 1:  # noqa: ASYNC110 - a plain counter
            await asyncio.sleep(0.005)
    assert (await http.get("/livez")).status_code == 200


async def test_metrics_show_the_registry(http: httpx.AsyncClient):
    await http.get("/livez")
    answer = await http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'kalam_http_requests_total{route="/livez",status="200"} 1.0' in answer.text
    assert 'kalam_http_request_seconds_bucket{le="0.001",route="/livez"}' in answer.text
