"""Asking a server over HTTP, with the standard library alone: importing an HTTP client would outlast the query.

Only the connection has a time limit; a statement may rightly take long, and the server bounds it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse
from ssl import SSLError
from typing import Any, Final
from urllib.parse import urlencode

from kalam.cli.failure import HOW_TO_START, CommandFailed, WrongUsage
from kalam.cli.problem_text import problem_text
from kalam.cli.refused import who_to_be
from kalam.credentials import NOBODY, Credentials
from kalam.errors import Unauthenticated
from kalam.urls import CA, http_connection

CONNECT_S: Final = 5.0


class Refusal(Exception):
    """The server answered with the problem object ``problem``."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(problem.get("detail"))
        self.problem = problem


def ask_sql(
    url: str,
    text: str,
    *,
    login: Credentials = NOBODY,
    params: Sequence[Any] = (),
    namespace: str | None = None,
    query_id: str | None = None,
    for_people: bool = False,
) -> bytes:
    """Run SQL on the server at ``url``; return the body of its answer, or raise Refusal with its problem object.

    ``query_id`` is the id by which ``cancel_query`` finds it while it runs. ``for_people`` asks for PostgreSQL's names
    where a column has none of its own.
    """
    request: dict[str, Any] = {"sql": text, "params": list(params), "namespace": namespace}
    if for_people:
        request["names"] = "postgresql"
    headers = {"Content-Type": "application/json", "Accept": "application/json", **login.headers()}
    if query_id is not None:
        headers["X-Kalam-Query-Id"] = query_id
    status, body = _exchange(url, "POST", "/v1/sql", json.dumps(request, allow_nan=False).encode(), headers)
    if status == 200:
        return body
    raise Refusal(_problem(url, login, status, body))


@contextlib.contextmanager
def stream_sql(url: str, text: str, *, login: Credentials, accept: str) -> Iterator[HTTPResponse]:
    """Run one statement and give its answer as a file of the format ``accept``; raises Refusal."""
    headers = {"Content-Type": "application/json", "Accept": accept, **login.headers()}
    connection, prefix = _connection(url)
    with contextlib.closing(connection):
        _connect(connection, url)
        try:
            answer = _send(connection, "POST", f"{prefix}/v1/sql", json.dumps({"sql": text}).encode(), headers)
        except (OSError, HTTPException) as exc:
            raise CommandFailed(f"error: the connection to {url} broke: {exc or type(exc).__name__}") from exc
        if answer.status != 200:
            raise Refusal(_problem(url, login, answer.status, answer.read()))
        yield answer


def cancel_query(url: str, query_id: str, *, login: Credentials = NOBODY) -> None:
    """Cancel a query that runs; one that has ended meanwhile is no failure."""
    _exchange(url, "DELETE", f"/v1/queries/{query_id}", None, login.headers())


def get_json(url: str, path: str, *, login: Credentials = NOBODY) -> dict[str, Any]:
    """The JSON document at a path of the server; raises Refusal."""
    status, body = _exchange(url, "GET", path, None, login.headers())
    if status != 200:
        raise Refusal(_problem(url, login, status, body))
    document: dict[str, Any] = json.loads(body)
    return document


def post_rows(url: str, table: str, body: bytes, content_type: str, *, login: Credentials) -> dict[str, Any]:
    """Insert rows in bulk; what the server answers. Raises Refusal."""
    path = f"/v1/tables/{table.replace('.', '/', 1)}/rows"
    status, answer = _exchange(url, "POST", path, body, {"Content-Type": content_type, **login.headers()})
    if status != 200:
        raise Refusal(_problem(url, login, status, answer))
    stored: dict[str, Any] = json.loads(answer)
    return stored


@contextlib.contextmanager
def live_events(url: str, sql: str, *, login: Credentials) -> Iterator[Iterator[dict[str, Any]]]:
    """The messages of a live query, as Server-Sent Events bring them, until one side ends it. Raises Refusal."""
    connection, prefix = _connection(url)
    with contextlib.closing(connection):
        _connect(connection, url)
        headers = {"Accept": "text/event-stream", **login.headers()}
        answer = _send(connection, "GET", f"{prefix}/v1/live?{urlencode({'sql': sql})}", None, headers)
        if answer.status != 200:
            raise Refusal(_problem(url, login, answer.status, answer.read()))
        yield (json.loads(line[6:]) for line in answer if line.startswith(b"data: "))


def get_readiness(url: str, login: Credentials = NOBODY) -> dict[str, Any]:
    """What ``/readyz`` says, whether the server is ready or not; raises CommandFailed, also for a wrong login."""
    status, body = _exchange(url, "GET", "/readyz", None, login.headers())
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    if isinstance(told, dict) and "code" in told:
        raise CommandFailed(problem_text(_problem(url, login, status, body)))
    if not isinstance(told, dict) or "ready" not in told:
        raise CommandFailed(f"error: {url} answered with HTTP status {status} and does not look like a Kalam server")
    return told


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
    except SSLError as exc:
        raise CommandFailed(
            f"error: {url} cannot be trusted: {getattr(exc, 'verify_message', '') or exc.reason or exc}\n"
            f"Name the authority that has signed its certificate in {CA}, or use the name that stands in it."
        ) from exc
    except OSError as exc:
        raise CommandFailed(f"error: no answer from {url}: {exc.strerror or exc}\n" + HOW_TO_START) from exc
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
        return http_connection(url, CONNECT_S)
    except ValueError as exc:
        raise WrongUsage(str(exc)) from exc


def _problem(url: str, login: Credentials, status: int, body: bytes) -> dict[str, Any]:
    try:
        problem = json.loads(body)
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "code" not in problem:
        raise CommandFailed(f"error: {url} answered with HTTP status {status} and does not look like a Kalam server")
    return problem | who_to_be(url, login) if problem["code"] == Unauthenticated.code else problem
