from __future__ import annotations

import socket

import pytest

from kalam.errors import PermissionDenied
from kalam.settings import load_settings
from kalam_http.own_host import OwnHost


def check(
    http_host: str,
    host: str,
    *,
    address: str = "127.0.0.1",
    port: int = 8080,
    origin: str | None = None,
    allowed: str = "",
    origins: str = "",
) -> None:
    settings = load_settings(http_host=http_host, allowed_hosts=allowed, cors_origins=origins)
    OwnHost.of(settings).check([host], origin, address, port)


@pytest.mark.parametrize("host", ["db.lan:8080", "DB.LAN:8080", "localhost:8080"])
def test_the_configured_host_is_own_beside_loopback(host):
    check("db.lan", host)


def test_the_address_that_the_connection_came_in_at_is_own():
    check("0.0.0.0", "10.1.2.3:8080", address="10.1.2.3")
    check("::", "[fe80::1]:8080", address="fe80::1")


def test_a_server_on_every_address_answers_to_the_machines_name():
    check("0.0.0.0", f"{socket.gethostname()}:8080")
    with pytest.raises(PermissionDenied):
        check("127.0.0.1", "some-machine:8080")


def test_port_80_need_not_be_named():
    check("127.0.0.1", "localhost", port=80)
    check("127.0.0.1", "localhost", port=80, origin="http://localhost")


@pytest.mark.parametrize(
    "origin", ["http://", "://", "localhost:8080", "http://a@localhost:8080", "file://", "http://localhost"]
)
def test_an_origin_that_is_not_this_server_is_foreign(origin):
    with pytest.raises(PermissionDenied, match="web page"):
        check("127.0.0.1", "localhost:8080", origin=origin)


@pytest.mark.parametrize(
    ("allowed", "host"),
    [
        ("kalam.example", "kalam.example"),
        ("kalam.example", "KALAM.example:8443"),
        ("other, kalam.example:8443", "kalam.example:8443"),
        ("*.example.com", "a.example.com"),
        ("*.example.com", "b.a.example.com:444"),
        ("*", "anything:1"),
    ],
)
def test_a_host_that_is_allowed_is_taken_and_its_pages_too(allowed, host):
    check("0.0.0.0", host, allowed=allowed)
    check("127.0.0.1", host, allowed=allowed, origin=f"https://{host}")


@pytest.mark.parametrize(
    ("allowed", "host"),
    [
        ("kalam.example", "evil.example"),
        ("kalam.example", "kalam.example.evil.example"),
        ("kalam.example:8443", "kalam.example"),
        ("kalam.example:8443", "kalam.example:80"),
        ("*.example.com", "example.com"),
        ("*.example.com", "badexample.com"),
        ("*.com", "evil.org"),
    ],
)
def test_a_host_that_is_not_allowed_stays_foreign(allowed, host):
    with pytest.raises(PermissionDenied, match="is not this server"):
        check("0.0.0.0", host, allowed=allowed)


def test_a_page_of_an_origin_that_is_allowed_may_ask_and_no_other():
    check("127.0.0.1", "localhost:8080", origins="https://app.example", origin="https://app.example")
    check("127.0.0.1", "localhost:8080", origins="*", origin="https://app.example")
    for origin in ("http://app.example", "https://app.example:444", "https://app.example.evil.example"):
        with pytest.raises(PermissionDenied, match="may not use this server"):
            check("127.0.0.1", "localhost:8080", origins="https://app.example", origin=origin)
