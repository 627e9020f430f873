"""URLs as they may be shown, and the connection that one of HTTP names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from http.client import HTTPConnection

_LOGIN: Final = re.compile(r"(?<=://)([^\s/]*)@")


def redacted(url: str) -> str:
    """A URL, or an address without a scheme, as it may be shown: a password or token in it becomes ``***``."""
    return redacted_text(url) if "://" in url else redacted_text(f"nats://{url}").removeprefix("nats://")


def redacted_text(text: str) -> str:
    """A text as it may be shown, with what passwords and tokens its URLs have as ``***``."""
    return _LOGIN.sub(_hidden, text)


def _hidden(login: re.Match[str]) -> str:
    user, colon, _ = login[1].partition(":")
    return f"{user}:***@" if colon else "***@"


def without_login(url: str) -> str:
    """A URL without the user, password or token in it."""
    parts = urlsplit(url if "://" in url else f"nats://{url}")
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def http_connection(url: str, timeout_s: float) -> tuple[HTTPConnection, str]:
    """A connection, not made yet, to the server of a URL, and the path that its own paths stand behind.

    Raises ValueError for what is no URL of HTTP.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise ValueError(f"{redacted(url)!r} is no URL: {exc}") from exc
    if host is None or parts.scheme not in ("http", "https"):
        raise ValueError(f"{redacted(url)!r} is no URL like http://127.0.0.1:8080")
    from http.client import HTTPConnection, HTTPSConnection  # which a server does not need

    make = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    return make(host, port, timeout=timeout_s), parts.path.rstrip("/")
