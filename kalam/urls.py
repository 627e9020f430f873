"""URLs as they may be shown, and the connection that one of HTTP names."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from http.client import HTTPConnection
    from ssl import SSLContext

CA: Final = "KALAM_CA"
"""The variable that names a file with an authority of one's own."""
CLIENT_CERT: Final = "KALAM_CLIENT_CERT"
"""The variable that names a file with a client's certificate and its key."""
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

    Raises ValueError for what is no URL of HTTP, and for certificates that do not fit.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise ValueError(f"{redacted(url)!r} is no URL: {exc}") from exc
    if host is None or parts.scheme not in ("http", "https"):
        raise ValueError(f"{redacted(url)!r} is no URL like http://127.0.0.1:8080")
    from http.client import HTTPConnection, HTTPSConnection  # which a server does not need

    path = parts.path.rstrip("/")
    if parts.scheme == "http":
        return HTTPConnection(host, port, timeout=timeout_s), path
    return HTTPSConnection(host, port, timeout=timeout_s, context=tls_context()), path


def tls_options() -> dict[str, SSLContext]:
    """What nats-py's ``connect`` takes where KALAM_CA or KALAM_CLIENT_CERT is set; raises ValueError as below."""
    return {"tls": tls_context()} if os.environ.get(CA) or os.environ.get(CLIENT_CERT) else {}


def tls_context() -> SSLContext:
    """How servers are checked, over HTTPS and NATS: by the system's authorities and the one that KALAM_CA names.

    KALAM_CLIENT_CERT is a file with the client's own certificate and its key, where a server wants one. Raises
    ValueError where a file does not fit.
    """
    import ssl

    context = ssl.create_default_context()
    for variable, load in ((CA, context.load_verify_locations), (CLIENT_CERT, context.load_cert_chain)):
        if file := os.environ.get(variable):
            try:
                load(file)
            except OSError as exc:
                raise ValueError(f"{variable}: {file} cannot be used: {exc.strerror or exc}") from exc
    return context
