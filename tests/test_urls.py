"""URLs as they may be shown."""

from __future__ import annotations

import pytest

from kalam.urls import http_connection, redacted, redacted_text, without_login


@pytest.mark.parametrize(
    ("url", "shown", "bare"),
    [
        ("nats://h:1", "nats://h:1", "nats://h:1"),
        ("nats://u:p@h:1", "nats://u:***@h:1", "nats://h:1"),
        ("nats://token@h:1", "nats://***@h:1", "nats://h:1"),
        ("u:p@h", "u:***@h", "nats://h"),
        ("nats://u:p@ss@h", "nats://u:***@h", "nats://h"),
        ("https://u:@h/path?q=a@b", "https://u:***@h/path?q=a@b", "https://h/path?q=a@b"),
        ("http://h/a@b", "http://h/a@b", "http://h/a@b"),
    ],
)
def test_a_login_is_hidden_or_left_out(url: str, shown: str, bare: str) -> None:
    assert redacted(url) == shown
    assert without_login(url) == bare


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no answer from http://u:p@h:1: refused", "no answer from http://u:***@h:1: refused"),
        ("one of nats://a:b@h,nats://c@h", "one of nats://a:***@h,nats://***@h"),
        ("'http://u:p@[::1' is no URL", "'http://u:***@[::1' is no URL"),
        ("mail someone@example.org, see https://example.org", "mail someone@example.org, see https://example.org"),
    ],
)
def test_a_text_is_shown_without_passwords(text: str, shown: str) -> None:
    assert redacted_text(text) == shown


@pytest.mark.parametrize("url", ["", "http://", "nats://h", "http://u:secret@[::1", "http://u:secret@h:99999"])
def test_what_is_no_url_of_http_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="no URL") as refused:
        http_connection(url, 1.0)
    assert "secret" not in str(refused.value)


def test_the_path_of_a_url_stands_before_the_servers_own() -> None:
    connection, path = http_connection("http://h:1/behind/a/proxy/", 1.0)
    assert (connection.host, connection.port, path) == ("h", 1, "/behind/a/proxy")
