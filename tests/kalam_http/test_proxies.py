"""Reverse proxies that are believed, and everybody else who sends their headers."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from patience import PATIENCE_S
from prometheus_client import CollectorRegistry

from kalam.errors import TooBusy
from kalam.settings import load_settings
from kalam_http import create_app, serve_http
from kalam_http.proxies import Proxies


def seen(peer: str, trusted: str, *headers: tuple[str, str]) -> tuple[str, str, list[str]]:
    """Address, scheme and Host of a request as they count."""
    scope: dict[str, Any] = {
        "client": (peer, 4711),
        "scheme": "http",
        "headers": [(b"host", b"kalam:8080"), *((name.lower().encode(), value.encode()) for name, value in headers)],
    }
    Proxies.of(load_settings(trusted_proxies=trusted)).enter(scope)
    hosts = [value.decode() for name, value in scope["headers"] if name == b"host"]
    return scope["client"][0], scope["scheme"], hosts


FOR, PROTO, HOST = "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"


@pytest.mark.parametrize(
    ("peer", "trusted", "forwarded", "address"),
    [
        ("10.0.0.1", "", "203.0.113.9", "10.0.0.1"),
        ("10.0.0.2", "10.0.0.1", "203.0.113.9", "10.0.0.2"),
        ("10.0.0.1", "10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "10.0.0.0/8", "8.8.8.8, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "10.0.0.0/8", "8.8.8.8, 203.0.113.9, 10.0.0.7", "203.0.113.9"),
        ("10.0.0.1", "10.0.0.0/8", "10.0.0.9,10.0.0.7", "10.0.0.9"),
        ("10.0.0.1", "10.0.0.1", "203.0.113.9:5000", "203.0.113.9"),
        ("10.0.0.1", "10.0.0.1", "[2001:db8::1]:5000", "2001:db8::1"),
        ("::ffff:10.0.0.1", "10.0.0.1", "::ffff:203.0.113.9", "203.0.113.9"),
        ("::1", "::1", "2001:db8::1", "2001:db8::1"),
        ("10.0.0.1", "10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.1", "203.0.113.9, ", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.1", "", "10.0.0.1"),
    ],
)
def test_the_last_address_that_is_no_proxys_counts(peer, trusted, forwarded, address):
    assert seen(peer, trusted, (FOR, forwarded))[0] == address


def test_several_headers_are_one_list():
    assert seen("10.0.0.1", "10.0.0.1", (FOR, "8.8.8.8"), (FOR, "203.0.113.9"))[0] == "203.0.113.9"


def test_scheme_and_host_are_what_the_nearest_proxy_saw():
    headers = (PROTO, "http, HTTPS"), (HOST, "evil.example, db.example")
    assert seen("10.0.0.1", "10.0.0.1", *headers)[1:] == ("https", ["db.example"])
    assert seen("10.0.0.2", "10.0.0.1", *headers)[1:] == ("http", ["kalam:8080"])
    assert seen("10.0.0.1", "10.0.0.1", (PROTO, "javascript"))[1] == "http"


def test_the_requests_of_one_address_behind_a_proxy_are_bounded():
    proxies = Proxies.of(load_settings(trusted_proxies="10.0.0.1", http_connections_per_address_max=2))

    def enter(client: str) -> str | None:
        return proxies.enter(
            {"client": ("10.0.0.1", 1), "scheme": "http", "headers": [(b"x-forwarded-for", client.encode())]}
        )

    assert [enter("203.0.113.9"), enter("203.0.113.9")] == ["203.0.113.9"] * 2
    with pytest.raises(TooBusy, match=r"203\.0\.113\.9 has 2 requests open"):
        enter("203.0.113.9")
    assert enter("203.0.113.8") == "203.0.113.8"
    proxies.leave("203.0.113.9")
    assert enter("203.0.113.9") == "203.0.113.9"


@pytest.mark.parametrize("wrong", ["proxy.example", "10.0.0.0/33", "*"])
def test_what_is_no_address_is_refused_at_the_start(wrong):
    with pytest.raises(Exception, match="trusted_proxies"):
        load_settings(trusted_proxies=wrong)


@pytest.mark.parametrize(("trusted", "status"), [("127.0.0.1", 200), ("10.0.0.1", 403)])
async def test_a_page_behind_a_trusted_proxy_is_the_servers_own(engine, settings, trusted, status):
    settings = settings.model_copy(update={"trusted_proxies": (trusted,), "allowed_hosts": ("db.example",)})
    app = create_app(engine, settings=settings, registry=CollectorRegistry(), overview=lambda _: {}, identity={})
    headers = {
        HOST: "db.example",
        PROTO: "https",
        FOR: "203.0.113.9",
        "Host": "elsewhere",
        "Origin": "https://db.example",
    }
    async with (
        serve_http(app, settings) as listening,
        httpx.AsyncClient(base_url=listening.url, timeout=PATIENCE_S, trust_env=False) as client,
    ):
        answers = [await client.post("/v1/sql", json={"sql": "SELECT 1"}, headers=headers) for _ in range(3)]
        foreign = await client.post("/v1/sql", json={"sql": "SELECT 1"}, headers=headers | {HOST: "evil.example"})
    assert [answer.status_code for answer in answers] == [status] * 3
    assert foreign.status_code == 403
