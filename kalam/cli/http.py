"""Asking a server over HTTP, with the standard library alone: importing an HTTP client would outlast the query.

Only the connection has a time limit; a statement may rightly take long, and the server bounds it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, Final
from urllib.parse import urlsplit

from kalam.cli.address import HOW_TO_START
from kalam.cli.failure import CommandFailed, WrongUsage

CONNECT_S: Final = 5.0


class Refusal(Exception):
    """The server answered with the problem object ``problem``."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(problem.get("detail"))
        self.problem = problem


def ask_sql(
    url: str, text: str, *, user: str = "admin", params: Sequence[Any] = (), namespace: str | None = None
) -> bytes:
    """Run SQL on the server at ``url``; return the body of its answer, or raise Refusal with its problem object."""
    request = {"sql": text, "params": list(params), "namespace": namespace}
    headers = {"Content-Type": "application/json", "Accept": "application/json", "X-Kalam-User": user}
    status, body = _exchange(url, "POST", "/v1/sql", json.dumps(request, allow_nan=False).encode(), headers)
    if status == 200:
        return body
    raise Refusal(_problem(url, status, body))


@contextlib.contextmanager
def stream_sql(url: str, text: str, *, user: str, accept: str) -> Iterator[HTTPResponse]:
    """Run one statement and give its answer as a file of the format ``accept``; raises Refusal."""
    headers = {"Content-Type": "application/json", "Accept": accept, "X-Kalam-User": user}
    connection, prefix = _connection(url)
    with contextlib.closing(connection):
        _connect(connection, url)
        try:
            answer = _send(connection, "POST", f"{prefix}/v1/sql", json.dumps({"sql": text}).encode(), headers)
        except (OSError, HTTPException) as exc:
            raise CommandFailed(f"error: the connection to {url} broke: {exc or type(exc).__name__}") from exc
        if answer.status != 200:
            raise Refusal(_problem(url, answer.status, answer.read()))
        yield answer


def is_ready(url: str) -> bool:
    """Whether the server at ``url`` answers that it is ready."""
    try:
        status, _ = _exchange(url, "GET", "/readyz", None, {})
    except CommandFailed:
        return False
    return status == 200


def _exchange(url: str, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
    connection, prefix = _connection(url)
    with contextlib.closing(connection):
        _connect(connection, url)
        try:
            response = _send(connection, method, prefix + path, body, headers)
            return response.status, response.read()
        except (OSError, HTTPException) as exc:
            raise CommandFailed(
                f"error: the connection to {url} broke before the answer was whole: {exc or type(exc).__name__}\n"
                "Whether the statements took effect is not known."
            ) from exc


def _connect(connection: HTTPConnection, url: str) -> None:
    try:
        connection.connect()
    except OSError as exc:
        raise CommandFailed(
            f"error: no answer from {url}: {exc.strerror or exc}\n" + HOW_TO_START.format(flag="--url")
        ) from exc
    connection.sock.settimeout(None)


def _send(
    connection: HTTPConnection, method: str, path: str, body: bytes | None, headers: dict[str, str]
) -> HTTPResponse:
    # A server that refuses a request early closes its side; its answer is there to be read all the same.
    with contextlib.suppress(BrokenPipeError):
        connection.request(method, path, body, headers)
    return connection.getresponse()


def _connection(url: str) -> tuple[HTTPConnection, str]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise WrongUsage(f"{url!r} is no URL: {exc}") from exc
    if host is None or parts.scheme not in ("http", "https"):
        raise WrongUsage(f"{url!r} is no URL like http://127.0.0.1:8080")
    if parts.scheme == "https":
        from http.client import HTTPSConnection

        return HTTPSConnection(host, port, timeout=CONNECT_S), parts.path.rstrip("/")
    return HTTPConnection(host, port, timeout=CONNECT_S), parts.path.rstrip("/")


def _problem(url: str, status: int, body: bytes) -> dict[str, Any]:
    try:
        problem = json.loads(body)
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "code" not in problem:
        raise CommandFailed(f"error: {url} answered with HTTP status {status} and does not look like a Kalam server")
    return problem
